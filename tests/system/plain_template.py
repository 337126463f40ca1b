"""A template in 100 lines, which speaks ``wire.forks`` and runs nothing of Alight: what forks must come to, without us.

A fork executes the Python code in ``CODE`` of the environment that it is woken with. Runs in a container's Python with
its standard library only.
"""

# ruff: noqa: T201, BLE001 it is a program, and whatever it meets ends one process of it

import ctypes
import json
import os
import resource
import socket
import struct
import sys

REQUEST = struct.Struct("!QQ")
PACKET = 128 * 1024
CLONE_ALL = 0x7E020000  # user, pid, mount, network, ipc, uts, cgroup
SYSCALLS = {"x86_64": (126, 317, 436), "aarch64": (91, 277, 436)}  # capset, seccomp, close_range

libc = ctypes.CDLL(None, use_errno=True)
CAPSET, SECCOMP, CLOSE_RANGE = SYSCALLS[os.uname().machine]


def main():
    print("template up", flush=True)
    service = socket.socket(fileno=3)
    while True:
        spare = os.fork()
        if spare == 0:
            try:
                serve(service)
            except BaseException as error:
                print("spare:", repr(error), file=sys.stderr, flush=True)
            os._exit(0)
        os.waitpid(spare, 0)


def serve(service):
    """One request: enter the shell, fork the fork, end."""
    data, descriptors, _, _ = socket.recv_fds(service, PACKET, 32)
    if not data:
        os.kill(os.getppid(), 9)
    shell, control, out, err, *groups = descriptors
    for one in groups:
        os.write(one, b"0")
    if libc.setns(shell, CLONE_ALL) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    if os.fork() == 0:
        fork(data, control, out, err)


def fork(data, control, out, err):
    """What a fork does before anybody's code runs in it."""
    channel = socket.socket(fileno=os.dup2(control, 100))
    try:
        capabilities, files = REQUEST.unpack_from(data)
        os.chdir("/")
        os.setsid()
        null = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((null, 0), (out, 1), (err, 2)):
            os.dup2(source, target)
        libc.syscall(CLOSE_RANGE, 3, 99, 0)
        libc.syscall(CLOSE_RANGE, 101, 0xFFFFFFFF, 0)
        if files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        drop(capabilities, data[REQUEST.size :])
    except BaseException as error:
        channel.send(b"F" + repr(error).encode())
        os._exit(1)
    channel.send(b"P")
    told = channel.recv(PACKET)
    if told[:1] != b"W":
        os._exit(0)
    channel.close()
    message = json.loads(told[1:])
    os.environ.clear()
    os.environ.update(message["env"])
    os.chdir(message["cwd"])
    status = 1
    try:
        exec(message["env"]["CODE"], {"__name__": "__main__"})
        status = 0
    except SystemExit as ending:
        status = ending.code
    except BaseException as error:
        print(repr(error), file=sys.stderr)
    finally:
        sys.stdout.flush()
        os._exit(status)


def drop(capabilities, program):
    """Capabilities, then the filter."""
    for number in range(64):
        if not capabilities >> number & 1 and libc.prctl(23, number, 0, 0, 0) >= 0:
            check(libc.prctl(24, number, 0, 0, 0), "bounding set")
    check(libc.prctl(47, 4, 0, 0, 0), "ambient")
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    check(
        libc.syscall(CAPSET, struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", low, low, 0, high, high, 0)),
        "capset",
    )
    check(libc.prctl(38, 1, 0, 0, 0), "no new privileges")
    if program:
        kept = ctypes.create_string_buffer(program, len(program))
        head = struct.pack("@HP", len(program) // 8, ctypes.addressof(kept))
        check(libc.syscall(SECCOMP, 1, 0, head), "seccomp")


def check(result, what):
    if result < 0:
        raise OSError(ctypes.get_errno(), what)


if __name__ == "__main__":
    main()
