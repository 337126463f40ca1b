"""What rclone takes for ``fusermount``: a program of some hundred bytes that hands it a mount which is there already.

rclone runs fusermount to be given the descriptor of a mount over a socket. Ours is made by the spawner, and rclone has
it from the start, as descriptor ``GIVEN``; this program sends it there. So rclone needs no right to mount, and the
machine no program with such a right. Asked to unmount it does nothing: the spawner does that.
"""

from __future__ import annotations

import os
import struct

from alight.node import pause

#: The descriptor of /dev/fuse in rclone. Go hands its own to a child as 0 … 3 and leaves others where they are.
GIVEN = 4

# Both programs: sendmsg(3, &message, 0); exit(0)
_X86_64 = (
    "bf03000000"  #  mov  edi, 3
    "be{message}"  # mov  esi, message
    "31d2"  #        xor  edx, edx
    "b82e000000"  #  mov  eax, 46   sendmsg
    "0f05"  #        syscall
    "31ff"  #        xor  edi, edi
    "b83c000000"  #  mov  eax, 60   exit
    "0f05"  #        syscall
)
_AARCH64 = (
    "600080d2"  # mov  x0, 3
    "e1000010"  # adr  x1, . + 28   message
    "020080d2"  # mov  x2, 0
    "681a80d2"  # mov  x8, 211      sendmsg
    "010000d4"  # svc  0
    "000080d2"  # mov  x0, 0
    "a80b80d2"  # mov  x8, 93       exit
    "010000d4"  # svc  0
)
_MACHINES = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}
_SOL_SOCKET, _SCM_RIGHTS = 1, 1


def program(machine: str) -> bytes:
    """The executable for an architecture. Raises KeyError for one that it was not written for."""
    number, code = _MACHINES[machine]
    length = len(bytes.fromhex(code.format(message="00000000")))
    at = pause.TEXT + length
    text = bytes.fromhex(code.format(message=struct.pack("<I", at).hex()))
    return pause.executable(number, text + _message(at))


def is_known() -> bool:
    """Whether there is a program for this machine."""
    return os.uname().machine in _MACHINES


def _message(at: int) -> bytes:
    """struct msghdr at this address, and what it points to: one byte, and one descriptor beside it."""
    piece = at + 56
    control = piece + 16
    byte = control + 24
    header = struct.pack("<QIIQQQQI4x", 0, 0, 0, piece, 1, control, 20, 0)
    return header + struct.pack("<QQ", byte, 1) + struct.pack("<QiiI4x", 20, _SOL_SOCKET, _SCM_RIGHTS, GIVEN) + b"\0"
