"""The first process of a shell (decision 0012): a program of some hundred bytes that reaps and waits for ever.

It is not a file anywhere: the OCI runtime gets it as a descriptor and executes that, so a shell has the same mounts as
any other container. The machine code stands here with what it means; there is no compiler on most machines.
"""

from __future__ import annotations

import os
import struct
from functools import lru_cache

#: Where the OCI runtime, and so the program, finds itself: the first descriptor after the standard ones.
PATH = "/proc/self/fd/3"

_BASE = 0x400000
_ELF_HEADER, _SEGMENT = 64, 56
TEXT = _BASE + _ELF_HEADER + _SEGMENT
"""Where the first instruction of a program lies in memory."""
_MFD_EXEC = 0x10

# Both programs do this, in the numbers of their architecture:
#
#   close_range(3, ~0, 0)                                   the descriptor that it was started by
#   rt_sigaction(SIGCHLD, {SIG_IGN, SA_NOCLDWAIT}, NULL, 8)  the kernel then reaps what is left to it
#   for (;;) pause()                                        ended by SIGKILL from outside only: it is pid 1
_X86_64 = (
    "31d2"  #            xor  edx, edx
    "83ceff"  #          or   esi, -1
    "bf03000000"  #      mov  edi, 3
    "b8b4010000"  #      mov  eax, 436         close_range
    "0f05"  #            syscall
    "bf11000000"  #      mov  edi, 17          SIGCHLD
    "488d3518000000"  #  lea  rsi, [rip + 24]  action
    "31d2"  #            xor  edx, edx
    "41ba08000000"  #    mov  r10d, 8
    "b80d000000"  #      mov  eax, 13          rt_sigaction
    "0f05"  #            syscall
    "b822000000"  #      mov  eax, 34          pause
    "0f05"  #            syscall
    "ebf7"  #            jmp  -9
)
_AARCH64 = (
    "600080d2"  # mov  x0, 3
    "01008012"  # mov  w1, -1
    "020080d2"  # mov  x2, 0
    "883680d2"  # mov  x8, 436       close_range
    "010000d4"  # svc  0
    "200280d2"  # mov  x0, 17        SIGCHLD
    "81010010"  # adr  x1, . + 48    action
    "020080d2"  # mov  x2, 0
    "030180d2"  # mov  x3, 8
    "c81080d2"  # mov  x8, 134       rt_sigaction
    "010000d4"  # svc  0
    "000080d2"  # mov  x0, 0
    "010080d2"  # mov  x1, 0
    "020080d2"  # mov  x2, 0
    "030080d2"  # mov  x3, 0
    "280980d2"  # mov  x8, 73        ppoll(NULL, 0, NULL, NULL): there is no pause here
    "010000d4"  # svc  0
    "faffff17"  # b    . - 24
)
_MACHINES = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}
# action: handler SIG_IGN, flags SA_NOCLDWAIT, no restorer, an empty mask.
_ACTION = struct.pack("<QQQQ", 1, 2, 0, 0)


def program(machine: str) -> bytes:
    """The executable for an architecture. Raises KeyError for one that it was not written for."""
    number, code = _MACHINES[machine]
    return executable(number, bytes.fromhex(code) + _ACTION)


def executable(number: int, text: bytes) -> bytes:
    """A program of an architecture (as ELF numbers it) whose machine code and data are ``text``, loaded at ``TEXT``."""
    offset = _ELF_HEADER + _SEGMENT
    size = offset + len(text)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bits, little endian, version 1
    header = struct.pack(
        "<HHIQQQIHHHHHH", 2, number, 1, _BASE + offset, _ELF_HEADER, 0, 0, _ELF_HEADER, _SEGMENT, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)  # loaded, read and execute
    return ident + header + segment + text


def is_known() -> bool:
    """Whether there is a program for this machine."""
    return os.uname().machine in _MACHINES


@lru_cache(maxsize=1)
def descriptor() -> int:
    """The program for this machine, open for as long as this process lives. Raises OSError, KeyError."""
    data = program(os.uname().machine)
    try:
        held = os.memfd_create("alight-pause", os.MFD_CLOEXEC | _MFD_EXEC)
    except OSError:  # before Linux 6.3 all of them are executable, and the flag is unknown
        held = os.memfd_create("alight-pause", os.MFD_CLOEXEC)
    os.write(held, data)
    os.fchmod(held, 0o555)
    return held
