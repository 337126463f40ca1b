"""The link that a fork is given: what it finds in it, and when what it says begins to count."""

import asyncio
import contextlib
import functools
import json
import os

import pytest

from alight.node.doors import Doors
from alight.wire.codec import FrameReader, Kind, encode_frame
from alight.wire.commands import LinkStop
from alight.wire.version import WIRE_VERSION, __version__


class Owner:
    """A container that notes what it hears."""

    id = "co-1"

    def __init__(self) -> None:
        self.pid = 0
        self.heard: list[str] = []

    def may_link(self, pid: int) -> bool:
        return pid == self.pid

    def on_link(self, link, hello) -> None:
        self.heard.append(f"hello of {link.pid}")

    def on_link_ready(self, ready, body) -> None:
        self.heard.append("ready")

    def on_link_lost(self, link) -> None:
        self.heard.append("lost")


def _in_a_loop(test):
    @functools.wraps(test)
    def run(**fixtures):
        async def main() -> None:
            await test(**fixtures)
            await asyncio.sleep(0.01)  # transports close in the loop's next turn

        asyncio.run(main())

    return run


async def _until(condition) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def doors(tmp_path, owner) -> Doors:
    async def inside() -> set[int]:
        raise AssertionError("nobody dials here")

    return Doors(tmp_path, owner, inside)


def _hello() -> bytes:
    head = {"wire": WIRE_VERSION, "version": __version__, "pid": 7, "python": "3.11.0"}
    return b"".join(encode_frame(Kind.HELLO, 0, json.dumps(head).encode()))


@_in_a_loop
async def test_what_a_fork_has_to_know_is_there_before_it_says_anything(doors):
    link, theirs = await doors.give(asyncio.Event().wait)
    link.send(Kind.LINK_START, LinkStop(grace=5))
    with theirs:
        (frame,) = FrameReader().feed(await asyncio.to_thread(theirs.recv, 1 << 16))
    assert frame.kind == Kind.LINK_START
    assert json.loads(bytes(frame.head))["grace"] == 5
    doors.close()


@_in_a_loop
async def test_what_a_fork_says_counts_once_it_is_known_who_it_is(doors, owner):
    runs = asyncio.Event()

    async def pid() -> int:
        await runs.wait()
        return 7

    _, theirs = await doors.give(pid)
    with theirs:
        theirs.send(_hello() + b"".join(encode_frame(Kind.LINK_READY, 0, b"{}")))
        await asyncio.sleep(0.05)
        assert owner.heard == []
        owner.pid = 7
        runs.set()
        await _until(lambda: len(owner.heard) == 2)
        assert owner.heard == ["hello of 7", "ready"]
        doors.close()
        assert os.get_blocking(theirs.fileno())
    await _until(lambda: "lost" in owner.heard)


@_in_a_loop
async def test_a_link_that_nobody_took_is_taken_back(doors, owner):
    _, theirs = await doors.give(asyncio.Event().wait)
    assert doors.has_given
    with theirs:
        theirs.send(_hello())
        doors.take_back()
        assert not doors.has_given
        await asyncio.sleep(0)
        theirs.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.to_thread(theirs.recv, 1) == b""
    assert owner.heard == []
