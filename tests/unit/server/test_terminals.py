"""A client lends its terminal, containers of its app take turns at it: who gets what, and what happens at an end."""

from __future__ import annotations

import asyncio

import pytest

from alight.wire import errors
from alight.wire.messages import AppStop
from alight.wire.spec import Autoscaling, FunctionSpec
from alight.wire.terminal import TerminalAttach, TerminalOpen, TerminalWord

WAIT = FunctionSpec(name="wait", autoscaling=Autoscaling(max_containers=2))


async def word(stream):
    head, body = await asyncio.wait_for(stream.recv(), 5)
    assert body == b""
    return stream.decode(TerminalWord, head)


async def output(stream):
    head, body = await asyncio.wait_for(stream.recv(), 5)
    assert head == b""
    return body


class Scene:
    """An app with two containers that run, and a client that may lend it a terminal."""

    def __init__(self, world):
        self.world = world
        self.hold = asyncio.Event()

    async def begin(self, **create):
        await self.world.serve(holder_grace=30)

        async def wait():
            await self.hold.wait()

        self.node = await self.world.node({"wait": wait})
        self.client = await self.world.client()
        self.app_id, functions = await self.client.app(WAIT, **create)
        for _ in range(2):
            await self.client.start(functions["wait"])
        alive = self.world.server.parts.containers.alive
        await self.world.until(lambda: sum(one.state == "ready" for one in alive.values()) == 2)
        self.containers = sorted(alive)

    async def lend(self):
        return await self.client.peer.open("terminal.attach", TerminalAttach(self.app_id))

    async def ask(self, number):
        return await self.node.peer.open("terminal.open", TerminalOpen("in-1"), container=self.containers[number])

    async def granted(self, lent, number):
        """The stream of a container that has the terminal, and the turn."""
        stream = await self.ask(number)
        connect = await word(lent)
        assert (connect.kind, connect.container, connect.function) == ("connect", self.containers[number], "wait")
        await lent.send(TerminalWord("size", turn=connect.turn, rows=20, columns=70, term="xterm"))
        size = await word(stream)
        assert (size.kind, size.rows, size.columns, size.term) == ("size", 20, 70, "xterm")
        return stream, connect.turn


@pytest.fixture
def scene(world):
    def drive(work, **create):
        async def main(world):
            place = Scene(world)
            try:
                await place.begin(**create)
                await work(place)
            finally:
                place.hold.set()

        world(main)

    return drive


def test_bytes_go_both_ways_and_the_terminal_is_released_at_the_end(scene):
    async def work(scene):
        lent = await scene.lend()
        stream, turn = await scene.granted(lent, 0)
        await lent.send(None, b"keys\x03")
        assert await output(stream) == b"keys\x03"
        await stream.send(None, b"drawn")
        await stream.end()
        assert await output(lent) == b"drawn"
        assert await word(lent) == TerminalWord("released", turn=turn)
        assert await asyncio.wait_for(stream.recv(), 5) is None

    scene(work)


def test_the_second_waits_is_told_for_whom_and_never_gets_keys_of_the_first(scene):
    async def work(scene):
        lent = await scene.lend()
        first, turn = await scene.granted(lent, 0)
        second = await scene.ask(1)
        waiting = await word(second)
        assert waiting.kind == "waiting"
        assert scene.containers[0] in waiting.text
        await first.end()
        assert (await word(lent)).kind == "released"
        connect = await word(lent)
        assert (connect.kind, connect.container) == ("connect", scene.containers[1])
        await lent.send(TerminalWord("size", turn=turn, rows=1, columns=1))  # of the earlier program
        await lent.send(TerminalWord("size", turn=connect.turn, rows=2, columns=2))
        assert (await word(second)).rows == 2

    scene(work)


def test_without_a_lent_terminal_it_is_a_sentence(scene):
    async def work(scene):
        with pytest.raises(errors.InvalidError, match="was not run with one") as caught:
            await (await scene.ask(0)).recv()
        assert "alight run -i SCRIPT.py::wait" in str(caught.value.hint)

    scene(work)


def test_a_detached_app_has_none(scene):
    async def work(scene):
        with pytest.raises(errors.InvalidError, match="detached"):
            await (await scene.lend()).recv()
        await scene.client.ask("app.stop", AppStop(scene.app_id, ""), dict)

    scene(work, kind="detached")


def test_a_container_that_is_lost_releases_the_terminal(scene):
    async def work(scene):
        lent = await scene.lend()
        stream, _ = await scene.granted(lent, 0)
        await stream.fail(errors.ClientClosed("it was killed"))
        assert (await word(lent)).kind == "released"
        await scene.granted(lent, 1)

    scene(work)


def test_a_client_that_is_lost_and_comes_back(scene):
    async def work(scene):
        lent = await scene.lend()
        stream, _ = await scene.granted(lent, 0)
        await lent.fail(errors.ClientClosed("the terminal was closed"))
        with pytest.raises(errors.ConnectionError, match="gone"):
            await asyncio.wait_for(stream.recv(), 5)
        await scene.granted(await scene.lend(), 0)

    scene(work)


def test_a_client_that_comes_again_takes_the_place_of_its_lost_self(scene):
    async def work(scene):
        lent = await scene.lend()
        stream, _ = await scene.granted(lent, 0)
        again = await scene.lend()
        with pytest.raises(errors.ConnectionError):
            await asyncio.wait_for(stream.recv(), 5)
        await scene.granted(again, 0)

    scene(work)


def test_a_program_is_held_up_by_a_terminal_that_takes_nothing(scene):
    async def work(scene):
        lent = await scene.lend()
        stream, _ = await scene.granted(lent, 0)
        sent = 0

        async def spam():
            nonlocal sent
            for _ in range(1000):
                await stream.send(None, b"x" * 65536)
                sent += 1

        task = asyncio.ensure_future(spam())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 1)
        assert sent < 900, "all of it was taken into memory"
        for _ in range(1000):
            assert len(await output(lent)) == 65536
        await task

    scene(work)
