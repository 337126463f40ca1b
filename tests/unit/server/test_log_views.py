"""``logs.query`` as clients meet it: whose lines, of which time, followed, resumed, with the rights of whoever asks."""

from __future__ import annotations

import asyncio
import struct

import pytest

from alight.server.auth import Principal
from alight.server.log_query import events
from alight.server.services import log_views, node_reports
from alight.server.services.log_scope import Scopes
from alight.wire import errors
from alight.wire.commands import Report
from alight.wire.deploying import EnvironmentNamed
from alight.wire.logs import LogPieces, LogQuery
from alight.wire.messages import AppStop
from alight.wire.spec import Autoscaling, FunctionSpec


async def opened(client, **asked):
    return await client.peer.open("logs.query", LogQuery(**asked), end=True)


async def read(stream, enough=None):
    """Pieces with their bytes until the stream ends, or ``enough`` says so; and the last message."""
    found, last = [], None

    async def all_of_it():
        nonlocal last
        while (message := await stream.recv()) is not None:
            last = stream.decode(LogPieces, message[0])
            found.extend(last.cut(message[1]))
            if last.ended or (enough is not None and enough(found)):
                return

    await asyncio.wait_for(all_of_it(), 10)
    return found, last


async def ask(client, **asked):
    found, _ = await read(await opened(client, **asked))
    return found


def text(found, *sources):
    return b"".join(data for piece, data in found if not sources or piece.source in sources).decode()


def printed(found):
    return text(found, "stdout", "stderr")


class Shop:
    """An app whose functions print what they are told, on a fake machine."""

    def __init__(self, world, client) -> None:
        self.world, self.client = world, client

    async def open(self, *specs, app="shop"):
        self.node = await self.world.node({"f": self.f, "g": self.f, "slow": self.slow})
        self.app_id, self.functions = await self.client.app(*specs, description=app)
        self.go_on = asyncio.Event()
        return self

    def boxes(self, name):
        return [key for key, one in self.node.containers.items() if one.start.function.name == name]

    async def f(self, words, name="f"):
        for box in self.boxes(name):
            self.node.write(box, f"{words}\n")

    async def slow(self, words):
        (box,) = self.boxes("slow")
        self.node.write(box, f"{words} begins\n")
        await self.go_on.wait()
        self.node.write(box, f"{words} ends\n", fd=2)

    async def call(self, name, *args):
        stream = await self.client.start(self.functions[name], *args)
        await self.client.result(stream)
        return stream.call_id


async def shop(world, *names, **spec):
    await world.serve(holder_grace=30.0)
    client = await world.client()
    return await Shop(world, client).open(*(FunctionSpec(name=name, **spec) for name in names or ("f",)))


def test_lines_say_which_container_call_and_input_wrote_them(world):
    async def work(world):
        one = await shop(world)
        calls = [await one.call("f", word) for word in ("one", "two", "three")]
        found = await ask(one.client, app="shop")
        assert printed(found) == "one\ntwo\nthree\n"
        lines = [piece for piece, _ in found if piece.source == "stdout"]
        assert [piece.call for piece in lines] == calls
        assert {piece.container for piece in lines} == set(one.node.containers)
        assert {piece.input for piece in lines} == {0}
        assert {piece.function for piece in lines} == {one.functions["f"].function_id}
        assert printed(await ask(one.client, call=calls[1])) == "two\n"
        assert printed(await ask(one.client, function=one.functions["f"].function_id)) == "one\ntwo\nthree\n"

    world(work)


def test_what_alight_does_with_containers_is_in_the_log(world):
    async def work(world):
        one = await shop(world)
        await one.call("f", "x")
        (box,) = one.node.containers
        one.node.kill_container(box, oom=True)
        await world.until(lambda: not world.server.parts.containers.alive)
        words = text(await ask(one.client, app=one.app_id, source="system")).splitlines()
        assert words[0].startswith(f"{box} starts for f() on ")
        assert ": image im-" in words[0]
        assert f"{box} is ready after" in words[1]
        assert words[-1] == f"{box} has ended: killed for memory: limit 128 MiB, peak 128 MiB"
        assert text(await ask(one.client, container=box, source="system")).splitlines() == words
        world.server.parts.hub.note(one.app_id, "of the app")
        assert "of the app" not in text(await ask(one.client, container=box))
        assert "of the app" in text(await ask(one.client, app="shop"))

    world(work)


def test_a_question_is_narrowed_by_source_text_time_and_number(world):
    async def work(world):
        one = await shop(world, "f", "g")
        for number in range(30):
            await one.call("f", f"line {number}")
        await one.call("g", "of g", "g")
        (box,) = one.boxes("f")
        one.node.write(box, "trouble\n", fd=2)
        await world.until(lambda: world.server.parts.logs.end(box) == one.node.containers[box].offset)
        client = one.client
        assert printed(await ask(client, app="shop", source="stderr")) == "trouble\n"
        assert printed(await ask(client, app="shop", search="LINE 2", tail=3)) == "line 27\nline 28\nline 29\n"
        assert printed(await ask(client, app="shop", source="stdout", tail=2)) == "line 29\nof g\n"
        assert printed(await ask(client, app="shop", function="g")) == "of g\n"
        assert text(await ask(client, app="shop", tail=0)) == ""
        whole = await ask(client, app="shop", source="stdout")
        moment = next(piece.at for piece, data in whole if data == b"line 10\n")
        assert printed(await ask(client, app="shop", until=moment)).endswith("line 10\n")
        assert printed(await ask(client, app="shop", source="stdout", since=moment)).startswith("line 10\n")
        assert printed(await ask(client, container=box, since=moment, until=moment)) == "line 10\n"

    world(work)


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({}, errors.InvalidError, "logs of what"),
        ({"app": "nothing"}, errors.NotFoundError, "no app 'nothing'"),
        ({"app": "shop", "function": "h"}, errors.NotFoundError, "has no function 'h'"),
        ({"app": "shop", "source": "stdin"}, errors.InvalidError, "no source 'stdin'"),
        ({"call": "fc-1"}, errors.InvalidError, "not the id of a call"),
        ({"call": "fc-0000000000000000000000"}, errors.NotFoundError, "no call"),
        ({"container": "../../x"}, errors.InvalidError, "not the id of a container"),
        ({"container": "ta-0000000000000000000000"}, errors.NotFoundError, "no container"),
        ({"app": "shop", "since": 2.0, "until": 1.0}, errors.InvalidError, "end before they begin"),
        ({"app": "shop", "after": "what"}, errors.InvalidError, "no place in a log"),
        ({"app": "shop", "tail": 10**6}, errors.InvalidError, "at most the last"),
    ],
)
def test_a_question_that_makes_no_sense_gets_a_sentence(world, asked, error, said):
    async def work(world):
        one = await shop(world)
        with pytest.raises(error, match=said):
            await ask(one.client, **asked)

    world(work)


def test_following_shows_what_comes_until_the_app_ends(world):
    async def work(world):
        one = await shop(world, "slow")
        call = await one.client.start(one.functions["slow"], "it")
        stream = await opened(one.client, app="shop", follow=True)
        found, _ = await read(stream, lambda found: "it begins\n" in printed(found))
        begun = next(piece for piece, data in found if data == b"it begins\n")
        assert begun.call == call.call_id  # it still runs
        one.go_on.set()
        found, _ = await read(stream, lambda found: "it ends\n" in printed(found))
        await one.client.ask("app.stop", AppStop(one.app_id, "enough"), dict)
        found, last = await read(stream)
        assert "has ended" in text(found, "system")
        assert last.ended == "the app has stopped: enough"

    world(work)


def test_a_line_that_comes_while_a_log_is_read_has_its_call(world, monkeypatch):
    """Its call began after it was noted which ones run, and the line was there before the log was read."""

    async def work(world):
        one = await shop(world, "slow")
        one.go_on.set()
        await one.call("slow", "before")
        calls, take = [], asyncio.to_thread

        async def late(function, *args, **more):
            if not calls:
                (box,) = one.boxes("slow")
                before = world.server.parts.logs.end(box)
                calls.append(await one.client.start(one.functions["slow"], "it"))
                await world.until(lambda: world.server.parts.logs.end(box) > before)
            return await take(function, *args, **more)

        one.go_on.clear()
        monkeypatch.setattr(log_views.asyncio, "to_thread", late)
        found, _ = await read(
            await opened(one.client, app="shop", follow=True), lambda found: "it begins\n" in printed(found)
        )
        (begun,) = [piece for piece, data in found if data == b"it begins\n"]
        assert begun.call == calls[0].call_id
        one.go_on.set()

    world(work)


def test_following_a_call_and_a_container_end_with_them(world):
    async def work(world):
        one = await shop(world, "slow", "f")
        await one.call("f", "of another")
        call = await one.client.start(one.functions["slow"], "it")
        await world.until(lambda: one.boxes("slow") and one.node.containers[one.boxes("slow")[0]].offset)
        (box,) = one.boxes("slow")
        streams = [
            await opened(one.client, follow=True, **what) for what in ({"call": call.call_id}, {"container": box})
        ]
        for stream in streams:
            await read(stream, lambda found: "it begins\n" in printed(found))
        one.go_on.set()
        found, last = await read(streams[0])
        assert printed(found) == "it ends\n"
        assert last.ended == "the call is over"
        one.node.kill_container(box)
        found, last = await read(streams[1])
        assert printed(found) == "it ends\n"
        assert last.ended == "the container has ended"

    world(work)


def test_a_reader_that_comes_back_misses_nothing_and_sees_nothing_twice(world):
    async def work(world):
        one = await shop(world, "f", "g")
        expected, seen, cursor = [], [], ""
        for number in range(12):
            await one.call("f", f"f {number}")
            await one.call("g", f"g {number}", "g")
            expected += [f"f {number}", f"g {number}"]
            stream = await opened(one.client, app="shop", after=cursor, follow=True, source="stdout")
            found, last = await read(stream, lambda found: f"g {number}\n" in printed(found))  # noqa: B023
            seen += printed(found).splitlines()
            cursor = last.cursor
        assert sorted(seen) == sorted(expected)
        left = await ask(one.client, app="shop", after=cursor, source="stdout")
        assert printed(left) == ""

    world(work)


def test_logs_of_somebody_else_are_not_found(world):
    async def work(world):
        one = await shop(world)
        call = await one.call("f", "mine")
        (box,) = one.node.containers
        scopes = Scopes(world.server.parts.store)
        for asked in (LogQuery(app="shop"), LogQuery(call=call), LogQuery(container=box), LogQuery(app=one.app_id)):
            assert (await scopes.of(asked, "", Principal("owner"))).app_id == one.app_id
            with pytest.raises(errors.NotFoundError):
                await scopes.of(asked, "", Principal("user", owner="uid:1234"))
            with pytest.raises(errors.NotFoundError):
                await scopes.of(asked, "", Principal("container", owner="root", environment="other"))

    world(work)


def test_of_a_name_in_two_environments_that_of_main_is_meant_unless_the_other_is_named(world):
    async def work(world):
        one = await shop(world)
        await one.client.ask("environment.create", EnvironmentNamed("dev"), dict)
        other_id, _ = await one.client.app(FunctionSpec(name="f"), description="shop", environment="dev")
        scopes, owner = Scopes(world.server.parts.store), Principal("owner")
        assert (await scopes.of(LogQuery(app="shop"), "", owner)).app_id == one.app_id
        assert (await scopes.of(LogQuery(app="shop"), "dev", owner)).app_id == other_id
        assert (await scopes.of(LogQuery(app=other_id), "", owner)).app_id == other_id

    world(work)


def test_lines_are_there_after_a_crash_with_whose_they_are(world):
    async def work(world):
        one = await shop(world)
        calls = [await one.call("f", f"line {number}") for number in range(3)]
        await world.until(lambda: all(one.offset for one in one.node.containers.values()))
        await world.crash()
        await one.node.disconnect()
        await world.serve(holder_grace=30.0)
        await one.node.connect(world.socket)
        again = await world.client()
        found = await ask(again, app="shop", source="stdout")
        assert [(data, piece.call) for piece, data in found] == [
            (f"line {number}\n".encode(), calls[number]) for number in range(3)
        ]

    world(work)


def test_events_are_plain_records(world):
    async def work(world):
        one = await shop(world)
        await one.call("f", "hello")
        stream = await opened(one.client, app="shop", source="stdout")
        head, body = await stream.recv()
        (event,) = events(stream.decode(LogPieces, head), body, {})
        assert event["text"] == "hello\n"
        assert event["function"] == "f"
        assert event["source"] == "stdout"

    world(work)


def test_a_line_is_shown_for_each_of_the_inputs_that_ran_together(world):
    async def work(world):
        one = await shop(world, "slow", autoscaling=Autoscaling(max_concurrent_inputs=4, max_containers=1))
        calls = [await one.client.start(one.functions["slow"], word) for word in ("first", "second")]
        await world.until(lambda: one.boxes("slow") and one.node.containers[one.boxes("slow")[0]].offset > 40)
        one.go_on.set()
        for call in calls:
            await one.client.result(call)
        for call in calls:
            found = await ask(one.client, call=call.call_id, source="stdout")
            assert {"first begins", "second begins"} <= set(printed(found).splitlines())
            assert {piece.call for piece, _ in found} == {""}, "what may be another's is not said to be this one's"
        lines = await ask(one.client, app="shop", source="stdout")
        assert {piece.call for piece, _ in lines} == {""}  # nobody can tell

    world(work)


def test_output_that_finds_no_room_is_asked_for_again_and_leaves_no_hole(world, monkeypatch):
    async def work(world):
        monkeypatch.setattr(node_reports, "_AGAIN", 0.01)
        one = await shop(world)
        await one.call("f", "before")
        (box,) = one.node.containers
        logs, full = world.server.parts.logs, True
        append = logs.append

        def no_room(*args):
            if full:
                raise errors.ResourceExhaustedError("the disk is full")
            return append(*args)

        monkeypatch.setattr(logs, "append", no_room)
        kept = logs.end(box)
        records = [struct.pack("!dBI", 9e9, 1, 5) + b"%d    " % number for number in range(3)]
        one.node.report(Report("log", container=box, offset=kept), records[0])
        await world.until(lambda: box in world.server.parts.nodes.reports._unkept)
        full = False
        one.node.report(Report("log", container=box, offset=kept + 18), records[1])
        one.node.report(Report("log", container=box, offset=kept), records[0] + records[1])
        one.node.report(Report("log", container=box, offset=kept + 36), records[2])
        await world.until(lambda: logs.end(box) == kept + 54)
        assert printed(await ask(one.client, container=box)) == "before\n0    1    2    "

    world(work)
