"""Inputs and answers between server and runtime: what is said to each, and what is kept until it was heard."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from alight.node import exchange as exchange_module
from alight.node.container import Container
from alight.node.ends import Ends
from alight.node.exchange import Exchange
from alight.node.ledger import Ledger
from alight.wire import chunk, ids
from alight.wire.codec import Kind
from alight.wire.commands import Output, Report, Run
from alight.wire.spec import FunctionSpec

CALL, OTHER = ids.new_id(ids.CALL), ids.new_id(ids.CALL)
ME = ids.new_id(ids.CONTAINER)


class Server:
    """What the session would be: keeps what is said, and can be away or too slow."""

    def __init__(self) -> None:
        self.connected = True
        self.takes = True
        self.values: list[tuple[chunk.Outputs, bytes]] = []
        self.reports: list[Report] = []

    def send_soon(self, head: bytes, body: Any = b"") -> bool:
        if self.connected and self.takes:
            self._note(head, body)
            return True
        return False

    async def send(self, head: bytes, body: Any = b"") -> bool:
        await asyncio.sleep(0)
        if self.connected:
            self._note(head, body)
        return self.connected

    async def report(self, report: Report, body: Any = b"") -> bool:
        return await self.send(msgspec.json.encode(report), body)

    def report_soon(self, report: Report) -> None:
        if self.connected:
            self.reports.append(report)

    def _note(self, head: bytes, body: Any) -> None:
        if chunk.is_chunk(head):
            self.values.append((chunk.Outputs.decode(head), bytes(body)))
        else:
            self.reports.append(msgspec.json.decode(head, type=Report))

    @property
    def returned(self) -> list[Run]:
        return [run for report in self.reports if report.kind == "returned" for run in report.runs]

    @property
    def outputs(self) -> list[Output]:
        return [report.output for report in self.reports if report.output is not None]


class Runtime:
    """What the link would be."""

    def __init__(self) -> None:
        self.got: list[tuple[int, Any, bytes]] = []
        self.acked: list[int] = []

    def send_raw(self, kind: int, head: bytes, body: bytes = b"") -> None:
        self.got.append((kind, head, body))

    def send(self, kind: int, message: Any = None, body: bytes = b"") -> None:
        self.got.append((kind, message, body))

    def acknowledge(self, serial: int) -> None:
        self.acked.append(serial)


class Blobs:
    def __init__(self) -> None:
        self.content = {"xarg": b"large argument"}
        self.hold: asyncio.Event | None = None

    async def share(self, _blob: str, _folder: int, _name: str) -> bool:
        if self.hold is not None:
            await self.hold.wait()
        return False

    async def fetch(self, blob: str, into: int, *, check: bool = True) -> int:
        assert not check
        return os.write(into, self.content[blob])

    async def leave(self, path: Path, _size: int) -> str:
        self.content["xresult"] = path.read_bytes()
        return "xresult"


class Place:
    """One exchange with a server and a runtime."""

    def __init__(self, folder: Path, function: FunctionSpec | None = None) -> None:
        self.folder = folder
        self.server, self.runtime, self.blobs = Server(), Runtime(), Blobs()
        self.gave_up: list[str] = []
        self.watched = False
        self.printed = 0
        (folder / "spool").mkdir(exist_ok=True)
        self.exchange = self.new(function or FunctionSpec("f", timeout=0.0))
        self.exchange.link = self.runtime

    def new(self, function: FunctionSpec) -> Exchange:
        async def drain(_id: str) -> int:
            self.printed += 10
            return self.printed

        async def ship(until: int) -> None:
            self.server.reports.append(Report("log", ME, offset=until))

        ends = Ends(
            container_id=ME,
            folder=self.folder,
            function=function,
            engine=SimpleNamespace(drain=drain),
            session=self.server,
            blobs=self.blobs,
            tail=SimpleNamespace(ship=ship, size=lambda: self.printed),
            watched=lambda: self.watched,
            give_up=self.gave_up.append,
        )
        return Exchange(ends, Ledger(self.folder / "ledger"))

    def give(self, start: int, stop: int, call: str = CALL, attempt: int = 1) -> None:
        inputs = chunk.Inputs(call, start, (1,) * (stop - start), attempt, container=ME)
        self.exchange.give(inputs, inputs.encode(), b"i" * (stop - start))

    def returns(self, serial: int, positions: range | tuple[int, ...], call: str = CALL, **more) -> None:
        attempt = more.pop("attempt", 1)
        body = more.pop("body", b"o" * len(positions))
        sizes = (len(body),) if len(positions) == 1 else (1,) * len(positions)
        values = chunk.Outputs(call, positions, sizes, serial=serial, attempt=attempt, **more)
        self.exchange.on_values(values, values.encode(), body)


def play(folder: Path, story: Callable[[Place], Any], function: FunctionSpec | None = None) -> None:
    async def main() -> None:
        place = Place(folder, function)
        await story(place)
        place.exchange.let_go()

    asyncio.run(asyncio.wait_for(main(), 20))


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110  of whatever a test waits for
        await asyncio.sleep(0.002)


def test_a_chunk_goes_in_as_it_came_and_out_named_and_is_forgotten_when_acknowledged(tmp_path):
    async def story(place: Place) -> None:
        exchange, server = place.exchange, place.server
        place.give(0, 4)
        ((kind, head, body),) = place.runtime.got
        assert (kind, body) == (Kind.LINK_INPUT, b"iiii")
        assert chunk.Inputs.decode(head).stop == 4
        place.returns(1, range(2))
        place.returns(2, (2, 3), container="ta-forged", log_offset=99)
        assert [(one.serial, list(one.positions), one.container, one.log_offset) for one, _ in server.values] == [
            (1, [0, 1], ME, 0),
            (2, [2, 3], ME, 0),
        ]
        assert exchange.unanswered == ()
        assert Ledger(tmp_path / "ledger").runs != ()
        exchange.on_acked((1, 2), ())
        assert place.runtime.acked == [1, 2]
        assert not exchange.unacknowledged
        assert Ledger(tmp_path / "ledger").runs == ()
        assert not (tmp_path / "outputs").exists()

    play(tmp_path, story)


def test_the_same_inputs_are_not_taken_twice(tmp_path):
    async def story(place: Place) -> None:
        place.give(0, 4)
        place.give(0, 4)
        assert len(place.runtime.got) == 1
        place.returns(1, range(4))
        place.give(0, 4)
        assert len(place.runtime.got) == 1
        place.give(0, 4, attempt=2)
        assert len(place.runtime.got) == 2
        place.give(2, 6)
        _, head, body = place.runtime.got[-1]
        assert (chunk.Inputs.decode(head).start, chunk.Inputs.decode(head).stop, body) == (4, 6, b"ii")

    play(tmp_path, story)


def test_nobody_answers_for_what_the_container_does_not_hold(tmp_path):
    async def story(place: Place) -> None:
        place.give(0, 4)
        place.returns(1, range(4), call=OTHER)
        place.returns(2, range(4), attempt=2)
        place.returns(3, range(1), call=OTHER, flags=chunk.ITEMS, position=0)
        place.exchange.on_output(Output(OTHER, 0, 1, "exception", serial=4), b"")
        assert place.server.values == place.server.outputs == []
        assert place.runtime.acked == [1, 2, 3, 4], "it need not keep them"
        place.returns(0, range(4))
        assert place.server.values == [], "serial 0 is the node's own"

    play(tmp_path, story)


def test_answers_of_a_server_that_is_away_go_to_the_disk_and_are_said_again_in_order(tmp_path):
    async def story(place: Place) -> None:
        exchange, server = place.exchange, place.server
        place.give(0, 5)
        place.returns(1, range(1))
        server.connected = False
        exchange.write_down()
        place.returns(2, range(1, 2))
        place.exchange.on_output(Output(CALL, 2, 1, "exception", serial=3), b"pickled")
        await until(lambda: place.runtime.acked == [1, 2, 3])
        place.returns(2, range(1, 2))
        assert place.runtime.acked == [1, 2, 3, 2], "said again, and on the disk already"
        assert exchange.answered == (Run(CALL, 0, 3),), "the server has to hear of them before it gives them away"
        server.values.clear()
        server.connected = True
        exchange.replay()
        place.returns(4, range(3, 4))
        await exchange.settle()
        assert [(one.serial, body) for one, body in server.values] == [(1, b"o"), (2, b"o"), (4, b"o")]
        assert [one.serial for one in server.outputs] == [3]
        assert server.values[0][0].log_offset == 10, "whether somebody watches may be said later than this"
        exchange.on_acked((1, 2, 3, 4), ())
        assert list((tmp_path / "outputs").iterdir()) == []
        assert exchange.unanswered == (Run(CALL, 4, 5),)
        assert exchange.answered == ()

    play(tmp_path, story)


def test_a_server_that_comes_back_in_the_middle_hears_all_in_order_from_the_first(tmp_path):
    async def story(place: Place) -> None:
        place.give(0, 3)
        place.server.takes = False
        place.returns(1, range(1))
        place.returns(2, range(1, 2))
        await asyncio.sleep(0)  # the first of them is on its way
        place.exchange.replay()
        await place.exchange.settle()
        assert [one.serial for one, _ in place.server.values] == [1, 1, 2]

    play(tmp_path, story)


def test_a_server_that_does_not_read_gets_them_later_in_order(tmp_path):
    async def story(place: Place) -> None:
        place.give(0, 3)
        place.server.takes = False
        place.returns(1, range(1))
        place.server.takes = True
        place.returns(2, range(1, 2))
        assert place.server.values == []
        await place.exchange.settle()
        assert [one.serial for one, _ in place.server.values] == [1, 2]

    play(tmp_path, story)


def test_while_somebody_watches_the_log_comes_first_once_for_many(tmp_path):
    async def story(place: Place) -> None:
        place.watched = True
        place.give(0, 3)
        for serial in (1, 2, 3):
            place.returns(serial, range(serial - 1, serial))
        await until(lambda: len(place.server.values) == 3)
        assert {one.log_offset for one, _ in place.server.values} == {10}
        assert [report.offset for report in place.server.reports if report.kind == "log"] == [10]

    play(tmp_path, story)


def test_too_much_in_memory_goes_to_the_disk_while_the_server_is_there(tmp_path, monkeypatch):
    async def story(place: Place) -> None:
        place.give(0, 3)
        place.returns(1, range(1), body=b"x" * 80)
        assert place.runtime.acked == []
        place.returns(2, range(1, 2), body=b"y" * 80)
        assert place.runtime.acked == [1, 2]
        place.server.values.clear()
        place.exchange.replay()
        await place.exchange.settle()
        assert [body[:1] for _, body in place.server.values] == [b"x", b"y"]

    monkeypatch.setattr("alight.node.outbox.MOST_IN_MEMORY", 100)
    play(tmp_path, story)


def test_what_was_never_begun_comes_back(tmp_path):
    async def story(place: Place) -> None:
        exchange, server = place.exchange, place.server
        place.give(0, 6)
        exchange.recall()
        assert place.runtime.got[-1][0] == Kind.LINK_RECALL
        exchange.on_returned([Run(CALL, 2, 6), Run(OTHER, 0, 9)])
        assert server.returned == [Run(CALL, 2, 6)]
        place.give(2, 6)
        exchange.link = None
        place.give(6, 8)
        exchange.recall()
        assert server.returned[1:] == [Run(CALL, 6, 8)]
        place.give(8, 9)
        exchange.close()
        assert server.returned[2:] == [Run(CALL, 8, 9)], "the runtime never got it"
        place.give(9, 10)
        assert server.returned[3:] == [Run(CALL, 9, 10)]
        assert exchange.unanswered == (Run(CALL, 0, 2), Run(CALL, 2, 6))

    play(tmp_path, story)


def test_while_it_stops_nothing_new_is_begun(tmp_path):
    async def story(place: Place) -> None:
        place.exchange.stopping = True
        place.give(0, 3)
        assert place.server.returned == [Run(CALL, 0, 3)]
        assert place.runtime.got == []

    play(tmp_path, story)


def test_after_a_kill_what_the_runtime_has_goes_on_and_what_it_never_got_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(exchange_module, "_RESEND", 0.05)

    async def before(place: Place) -> None:
        place.give(0, 10)
        place.give(0, 2, OTHER)
        place.returns(1, range(2))
        place.exchange.on_acked((1,), ())
        place.server.connected = False
        place.returns(2, range(2, 4))
        place.exchange.write_down()

    async def after(place: Place) -> None:
        exchange, server = place.exchange, place.server
        exchange.link = None
        exchange.take_up()
        assert exchange.unanswered == (Run(CALL, 0, 2), Run(CALL, 4, 10), Run(OTHER, 0, 2))
        exchange.cancel(CALL, 9)
        exchange.link = place.runtime
        exchange.on_back([Run(CALL, 6, 10)])
        assert [(kind, word.position) for kind, word, _ in place.runtime.got] == [(Kind.LINK_CANCEL, 9)]
        place.returns(3, range(4, 6))
        exchange.replay()
        await until(lambda: server.returned)
        assert server.returned == [Run(CALL, 0, 2), Run(OTHER, 0, 2)]
        assert exchange.unanswered == (Run(CALL, 6, 10),)
        await exchange.settle()
        assert {one.serial for one, _ in server.values} == {2, 3}

    play(tmp_path, before)
    play(tmp_path, after)


def test_after_a_kill_the_runtime_may_have_more_than_the_ledger_had_room_for(tmp_path):
    async def story(place: Place) -> None:
        place.exchange.take_up()
        place.exchange.on_back([Run(CALL, 3, 6, 2)])
        assert place.exchange.unanswered == (Run(CALL, 3, 6, 2),)
        place.give(3, 6, attempt=2)
        assert place.runtime.got == []
        place.returns(9, range(3, 6), attempt=2)
        assert [one.serial for one, _ in place.server.values] == [9]

    play(tmp_path, story)


def test_inputs_given_while_the_runtime_is_away_reach_it_when_it_is_back(tmp_path):
    async def story(place: Place) -> None:
        place.exchange.link = None
        place.give(0, 3)
        place.exchange.cancel(CALL, 1)
        (cancelled,) = place.server.outputs
        assert (cancelled.position, cancelled.status, cancelled.serial) == (1, "cancelled", 0)
        place.exchange.link = place.runtime
        place.exchange.on_back([])
        assert [kind for kind, _, _ in place.runtime.got] == [Kind.LINK_INPUT, Kind.LINK_CANCEL]
        assert place.exchange.unanswered == (Run(CALL, 0, 1), Run(CALL, 2, 3))
        place.exchange.on_acked((), (Run(CALL, 1, 2),))
        assert not place.exchange.unacknowledged

    play(tmp_path, story)


def test_a_timeout_answers_one_input_and_gives_the_container_up(tmp_path):
    async def story(place: Place) -> None:
        exchange, server = place.exchange, place.server
        place.give(0, 5)
        await asyncio.sleep(0.1)
        place.returns(1, range(2))
        await asyncio.sleep(0.15)
        assert server.outputs == [], "its own code has run for less than the limit"
        await until(lambda: server.outputs)
        (output,) = server.outputs
        assert (output.position, output.status, output.serial) == (2, "timeout", 0)
        assert "0.2 s" in output.error["message"]
        assert 0.2 <= output.ended_at - output.started_at < 2
        assert place.gave_up == ["an input ran longer than 0.2 s"]
        assert exchange.unanswered == (Run(CALL, 3, 5),)
        place.returns(2, range(2, 3))
        assert len(server.values) == 1, "too late"
        exchange.on_acked((1,), (Run(CALL, 2, 3),))
        assert not exchange.unacknowledged

    play(tmp_path, story, FunctionSpec("f", timeout=0.2))


def test_items_do_not_answer_their_input_and_are_kept_like_values(tmp_path):
    async def story(place: Place) -> None:
        exchange, server = place.exchange, place.server
        place.give(7, 8)
        place.returns(1, range(3), flags=chunk.ITEMS, position=7)
        place.returns(2, range(3, 5), flags=chunk.ITEMS, position=7)
        assert [list(one.positions) for one, _ in server.values] == [[0, 1, 2], [3, 4]]
        assert exchange.unanswered == (Run(CALL, 7, 8),)
        assert exchange.answered == ()
        exchange.on_acked((1, 2), ())
        assert place.runtime.acked == [1, 2]
        exchange.on_output(Output(CALL, 7, 1, "success", serial=3, items=5), b"")
        assert exchange.unanswered == ()

    play(tmp_path, story)


def test_a_generator_waits_for_the_server_even_where_its_items_are_on_the_disk(tmp_path):
    async def story(place: Place) -> None:
        place.give(0, 2)
        place.server.connected = False
        place.returns(1, range(3), flags=chunk.ITEMS, position=0)
        place.returns(2, range(1, 2))
        await until(lambda: place.runtime.acked)
        assert place.runtime.acked == [2]
        place.returns(1, range(3), flags=chunk.ITEMS, position=0)
        assert place.runtime.acked == [2]
        place.exchange.on_acked((1, 2), ())
        assert place.runtime.acked == [2, 1, 2]

    play(tmp_path, story)


def test_a_large_argument_and_a_large_result_are_files(tmp_path):
    async def story(place: Place) -> None:
        body = chunk.reference("xarg", 14)
        inputs = chunk.Inputs(CALL, 3, (len(body),), container=ME, flags=chunk.REFERENCE)
        place.exchange.give(inputs, inputs.encode(), body)
        await until(lambda: place.runtime.got)
        _, head, body = place.runtime.got[0]
        name, size = chunk.read_reference(body)
        assert chunk.Inputs.decode(head).sizes == (len(body),)
        assert ((tmp_path / "spool" / name).read_bytes(), size) == (b"large argument", 14)
        (tmp_path / "spool/out-1").write_bytes(b"large result")
        place.returns(1, range(3, 4), body=chunk.reference("out-1", 12), flags=chunk.REFERENCE)
        await until(lambda: place.server.values)
        (values, body) = place.server.values[0]
        assert chunk.read_reference(body) == ("xresult", 12)
        assert values.sizes == (len(body),)
        assert place.blobs.content["xresult"] == b"large result"
        place.exchange.on_acked((1,), ())
        await until(lambda: not [*(tmp_path / "spool").iterdir(), *(tmp_path / "outputs").iterdir()])

    play(tmp_path, story)


def test_a_large_argument_that_is_recalled_on_its_way_never_arrives(tmp_path):
    async def story(place: Place) -> None:
        place.blobs.hold = asyncio.Event()
        body = chunk.reference("xarg", 14)
        inputs = chunk.Inputs(CALL, 0, (len(body),), container=ME, flags=chunk.REFERENCE)
        place.exchange.give(inputs, inputs.encode(), body)
        place.give(1, 2)
        await asyncio.sleep(0.02)
        place.exchange.recall()
        assert place.server.returned == [Run(CALL, 0, 1)]
        place.blobs.hold.set()
        await until(lambda: not list((tmp_path / "spool").iterdir()) and not place.exchange._tasks)
        assert [kind for kind, _, _ in place.runtime.got] == [Kind.LINK_INPUT, Kind.LINK_RECALL]

    play(tmp_path, story)


@pytest.mark.parametrize("name", ["../ledger", "link/secret", "link", "missing", "fifo", "", "dir", "dir/file"])
def test_a_container_hands_over_nothing_but_its_own_files(tmp_path, name):
    async def story(place: Place) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret").write_text("of the machine")
        spool = tmp_path / "spool"
        (spool / "link").symlink_to(outside)
        (spool / "secret").write_text("bait")
        (spool / "dir").mkdir()
        (spool / "dir/file").write_text("a way on which links could be laid later")
        os.mkfifo(spool / "fifo")
        place.give(0, 1)
        body = f"{name}:5".encode()
        place.returns(1, range(1), body=body, flags=chunk.REFERENCE)
        await until(lambda: place.server.outputs)
        assert place.server.outputs[0].status == "terminated"
        assert (outside / "secret").read_text() == "of the machine"
        assert (tmp_path / "ledger").exists()
        assert list((tmp_path / "outputs").iterdir()) == []

    play(tmp_path, story)


def test_the_server_hears_what_is_answered_beside_what_is_not():
    exchange = SimpleNamespace(unanswered=(Run(CALL, 4, 5),), answered=(Run(CALL, 0, 3),))
    start = SimpleNamespace(function_id="fu-1", app_id="ap-1", gpus=(), memory=128)
    one = SimpleNamespace(id="ta-1", ready=True, exchange=exchange, _start=start)
    held = Container.held(one)
    assert (held.runs, held.answered) == (exchange.unanswered, exchange.answered)
    one.exchange = None
    assert (Container.held(one).runs, Container.held(one).answered) == ((), ())
