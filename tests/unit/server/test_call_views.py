"""Protects what people are told of calls: which there are, what runs, why the rest waits; and how quickly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time

import pytest

from alight.scheduler import why
from alight.scheduler.events import FunctionPublished, InputsArrived, NodeJoined
from alight.scheduler.state import Call, Container, Function, Need, Run, State
from alight.scheduler.step import step
from alight.server.auth import OWNER, USER, Principal
from alight.server.events import Inbox
from alight.server.services import call_graph
from alight.server.services.apps import Apps
from alight.server.services.call_views import CallViews
from alight.server.services.functions import Functions
from alight.server.services.hub import Hub
from alight.server.services.variants import Wish
from alight.store import open_store
from alight.wire import chunk, errors, ids
from alight.wire.calling import CallList, CallUpdate
from alight.wire.codec import dumps_head
from alight.wire.failure import Failure
from alight.wire.messages import AppCreate
from alight.wire.spec import FunctionSpec, MethodSpec

TRAIN = FunctionSpec(name="train", module="job")
ME = Principal(OWNER, "owner")


class Place:
    """Apps, calls in the store, and a scheduler's state made by hand."""

    def __init__(self, path, store):
        self.path, self.store = path, store
        inbox = Inbox()
        self.state = State(make_id=lambda: ids.new_id(ids.CONTAINER))
        self.functions = Functions(store, inbox, lambda name, need: "")
        self.apps = Apps(store, self.functions, Hub(), inbox, 30)
        self.lines = {}
        self.counted = {}
        self.views = CallViews(store, self.state, self.functions, self.apps, self)
        self.seq = 0

    def counts(self, call_id):
        return self.counted.get(call_id)

    def line(self, function_id):
        return self.lines.get(function_id, (0, 0))

    async def app(self, *specs, who=ME, environment="main", **fields):
        fields.setdefault("name", "trainer")
        app_id = (await self.apps.create(AppCreate(kind="deployed", **fields), environment, who)).app_id
        published = await self.functions.publish(app_id, environment, who.owner, specs or (TRAIN,))
        for one in published:
            self.known(one.function_id)
        return app_id, published

    def known(self, function_id, **need):
        """The scheduler's side of a function."""
        found = self.functions.get(function_id)
        wanted = Need(**need)
        entry = Function(function_id, found.app_id, found.spec.name, wanted, wanted.slots)
        self.state.functions[function_id] = entry
        return entry

    async def call(self, function_id, accepted=1, *, parent=("", 0), method="", total="accepted", verb="map"):
        self.seq += 1
        call_id = ids.new_id(ids.CALL)
        row = {
            "seq": self.seq,
            "call_id": call_id,
            "function_id": function_id,
            "app_id": self.functions.get(function_id).app_id,
            "verb": verb,
            "method": method,
            "parent_call": parent[0],
            "parent_position": parent[1],
            "now": 1000.0 + self.seq,
            "accepted": accepted,
            "total": accepted if total == "accepted" else total,
        }
        await self.store.write([("call_add", row)])
        self.state.calls[call_id] = Call(call_id, function_id, self.seq)
        return call_id

    async def done(self, call_id, succeeded=1, failed=0, status="success", error=None):
        row = {"succeeded": succeeded, "failed": failed, "status": status, "error": error, "now": 2000.0}
        await self.store.write([("call_done", {"call_id": call_id, "accepted": succeeded + failed, **row})])
        del self.state.calls[call_id]

    def run(self, call_id, start, stop, attempt=1, container=None):
        """A container that holds inputs of a call."""
        call = self.state.calls[call_id]
        container_id = container or ids.new_id(ids.CONTAINER)
        one = self.state.containers.get(container_id)
        if one is None:
            one = Container(container_id, call.function_id, "no", 128, 0.125, (), 1, moved=1500.0)
            self.state.containers[container_id] = one
            self.state.functions[call.function_id].containers[container_id] = None
        one.open += stop - start
        one.runs.setdefault(call_id, []).append(Run(call_id, start, stop, attempt, self.state.next_order()))
        call.held_by(container_id)
        return container_id

    async def output(self, call_id, kind, head, start=0, count=1):
        self.seq += 1
        row = {"number": self.seq, "call_id": call_id, "start": start, "count": count, "kind": kind, "first": 0}
        await self.store.write([("output_add", {**row, "flags": 0, "head": head, "body": b"", "now": 1.0})])

    async def listed(self, owner="", **asked):
        return [one.call_id for one in (await self.views.listed(CallList(**asked), owner)).calls]


@pytest.fixture
def place(tmp_path):
    """``place(work)`` runs ``work(Place)`` on an event loop of its own."""

    def drive(work):
        async def main():
            store = await open_store(tmp_path / "alight.db")
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(store.close)
                return await work(Place(tmp_path, store))

        return asyncio.run(main())

    return drive


# lists


def test_calls_are_chosen_by_what_they_are_of(place):
    async def work(place):
        app, (train,) = await place.app()
        model = FunctionSpec(name="Model.*", class_name="Model", methods=(MethodSpec("predict"),))
        other, (predict,) = await place.app(model, name="other", environment="lab", who=Principal(USER, "bob"))
        variant = await place.functions.bind(train.function_id, Wish({"timeout": 9.0}))
        place.known(variant.function_id)
        first = await place.call(train.function_id)
        second = await place.call(variant.function_id)
        third = await place.call(predict.function_id, method="predict")
        assert await place.listed() == [third, second, first]
        assert await place.listed(limit=2) == [third, second]
        assert await place.listed(environment="lab") == await place.listed("bob") == [third]
        assert await place.listed(app="trainer") == await place.listed(app=app) == [second, first]
        assert await place.listed(app="nobody") == []
        for name in ("train", train.function_id):
            assert first in await place.listed(function=name), name
        assert await place.listed(function="train") == [second, first]
        assert await place.listed(function="Model") == await place.listed(function="Model.predict") == [third]
        assert await place.listed(function="train", app=other) == []
        assert await place.listed("bob", function="train") == []
        names = {one.call_id: one.function for one in (await place.views.listed(CallList(), "")).calls}
        assert names == {first: "train", second: "train", third: "Model.predict"}

    place(work)


def test_calls_are_chosen_by_how_they_are(place):
    async def work(place):
        _, (train,) = await place.app()
        ended = await place.call(train.function_id)
        await place.done(ended)
        running = await place.call(train.function_id, 100)
        waiting = await place.call(train.function_id, 5)
        ahead = await place.call(train.function_id)
        box = place.run(running, 3, 20)
        place.run(ahead, 0, 1, container=box)  # given, and behind the others in that container
        assert await place.listed(state="done") == [ended]
        assert await place.listed(state="running") == [running]
        assert await place.listed(state="waiting") == [ahead, waiting]
        assert await place.listed(state="waiting", app="trainer", function="train") == [ahead, waiting]
        assert await place.listed(state="running", environment="lab") == []
        states = {one.call_id: one.state for one in (await place.views.listed(CallList(), "")).calls}
        assert states == {ended: "done", running: "running", waiting: "waiting", ahead: "waiting"}

    place(work)


def test_totals_count_what_is_not_shown(place):
    async def work(place):
        _, (train,) = await place.app()
        calls = [await place.call(train.function_id, 10) for _ in range(3)]
        place.run(calls[0], 0, 4)
        place.lines[train.function_id] = (1_000_026, 4)  # most are in the store alone
        listed = await place.views.listed(CallList(limit=1), "")
        assert (len(listed.calls), listed.more) == (1, True)
        # one of four runs; three were given ahead of their turn
        assert (listed.waiting, listed.running) == (1_000_029, 1)
        elsewhere = await place.views.listed(CallList(environment="lab"), "")
        assert (elsewhere.waiting, elsewhere.running, elsewhere.more) == (0, 0, False)

    place(work)


@pytest.mark.slow
def test_a_list_is_quick_however_many_calls_are_open(place):
    async def work(place):
        app, (train, other) = await place.app(TRAIN, FunctionSpec(name="other"))
        with contextlib.closing(sqlite3.connect(place.path / "alight.db")) as direct, direct:
            direct.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) "
                "INSERT INTO calls (call_id, function_id, app_id, created_at, accepted, total) "
                "SELECT printf('fc-%022d', i), ?, ?, i, 1, 1 FROM n",
                (train.function_id, app),
            )
        place.seq = 300_000
        last = await place.call(other.function_id)
        place.state.calls["fc-" + "0" * 22] = Call("fc-" + "0" * 22, train.function_id, 1)
        for asked in ({}, {"state": "waiting"}, {"state": "running"}, {"app": "trainer"}, {"function": "other"}):
            began = time.perf_counter()
            listed = await place.listed(**asked)
            took = time.perf_counter() - began
            assert took < 0.1, f"{asked} took {took * 1000:.0f} ms"
            assert asked.get("state") == "running" or last in listed

    place(work)


# one call


def test_what_runs_of_a_call_is_what_a_container_has_begun(place):
    async def work(place):
        _, (train,) = await place.app()
        call = await place.call(train.function_id, 1000)
        one = place.run(call, 10, 200, attempt=2)
        two = place.run(call, 200, 300)
        details = await place.views.show(await place.views.row(call))
        assert [(one.position, one.container, one.attempt) for one in details.running] == [(10, one, 2), (200, two, 1)]
        assert details.running[0].input_id == ids.input_id(call, 10)
        assert details.running[0].since == 1500.0
        assert (details.call.running, details.call.waiting) == (2, 998)
        # with slots for three each, three of each run, and nobody knows since when
        place.known(train.function_id, max_concurrent=3)
        details = await place.views.show(await place.views.row(call))
        assert [one.position for one in details.running] == [10, 11, 12, 200, 201, 202]
        assert details.running[0].since == 0.0

    place(work)


def test_failures_are_told_in_words_the_last_first(place):
    async def work(place):
        _, (train,) = await place.app()
        call = await place.call(train.function_id, 3)
        failure = Failure("builtins.ValueError", "bad row")
        await place.output(call, 1, dumps_head(CallUpdate(call, "done", 1, "exception", failure=failure)), start=1)
        error = {"code": "function_timeout", "message": "train() ran longer than 5 s"}
        await place.output(call, 1, dumps_head(CallUpdate(call, "done", 2, "timeout", error=error)), start=2)
        details = await place.views.show(await place.views.row(call))
        assert details.failed == ((2, "train() ran longer than 5 s"), (1, "ValueError: bad row"))
        await place.done(call, 0, 3, "cancelled", json.dumps({"message": "the call was cancelled"}))
        details = await place.views.show(await place.views.row(call))
        assert details.failed[0] == (-1, "the call was cancelled")
        assert details.call.cancelled
        assert (details.call.state, details.call.waiting, details.waiting) == ("done", 0, None)

    place(work)


def test_who_called_and_whether_the_caller_still_sends(place):
    async def work(place):
        _, (train,) = await place.app()
        outer = await place.call(train.function_id, 5, total=None)
        inner = await place.call(train.function_id, parent=(outer, 3))
        shown = await place.views.show(await place.views.row(inner))
        assert shown.call.parent_input == ids.input_id(outer, 3)
        assert (await place.views.show(await place.views.row(outer))).call.total is None
        await place.store.write([("call_caller_gone", {"call_id": outer, "total": 5})])
        found = (await place.views.show(await place.views.row(outer))).call
        assert (found.caller_gone, found.total) == (True, 5)

    place(work)


def test_what_is_not_written_down_yet_is_counted(place):
    async def work(place):
        _, (train,) = await place.app()
        call = await place.call(train.function_id, 10, total=None)
        place.run(call, 8, 10)
        place.counted[call] = {"waiting": 20, "running": 2, "succeeded": 7, "failed": 1}
        (found,) = (await place.views.listed(CallList(), "")).calls
        assert (found.accepted, found.waiting, found.running) == (30, 21, 1)  # one was given ahead of its turn
        assert (found.succeeded, found.failed, found.total) == (7, 1, None)

    place(work)


def test_a_call_that_is_not_there(place):
    async def work(place):
        with pytest.raises(errors.NotFoundError, match="there is no call fc-"):
            await place.views.row(ids.new_id(ids.CALL))

    place(work)


def test_a_call_far_behind_waits_for_what_the_first_one_waits_for(place, monkeypatch):
    async def work(place):
        _, (train,) = await place.app()
        first = await place.call(train.function_id, 7)
        far = await place.call(train.function_id, 2)
        del place.state.calls[far]  # in the store alone until its turn comes near
        place.state.functions[train.function_id].line[first] = None
        facts = why.Facts(5.0, "waiting for a GPU", "1 x H100", 0, ("serve()",), "serve() ends", never=True)
        monkeypatch.setattr(why, "waiting_of", lambda state, call, now: facts if call == first else None)
        waiting = (await place.views.show(await place.views.row(far))).waiting
        assert (waiting.why, waiting.holders, waiting.never) == ("waiting for a GPU", ("serve()",), True)
        assert (waiting.ahead, waiting.since) == (7, 1002.0)

    place(work)


def test_a_waiting_caller_reads_one_line_with_names(place, monkeypatch):
    async def work(place):
        app, (train,) = await place.app()
        call = await place.call(train.function_id)
        held = f"1 container of serve() of app {app}"
        facts = why.Facts(
            5.0, f"waiting for a GPU (H100): {held} holds it", "1 x H100, 2 cores", 12, (f"{held}, for 5 s",)
        )
        monkeypatch.setattr(why, "waiting_of", lambda state, call, now: facts)
        assert place.views.sentence(call) == (
            f"waiting for a GPU (H100): 1 container of serve() of app trainer ({app}) holds it; 12 inputs come first; "
            "it needs 1 x H100, 2 cores"
        )
        waiting = (await place.views.show(await place.views.row(call))).waiting
        assert waiting.holders == (f"1 container of serve() of app trainer ({app}), for 5 s",)
        monkeypatch.setattr(why, "waiting_of", lambda state, call, now: None)
        assert place.views.sentence(call) == ""

    place(work)


def test_ten_thousand_waiting_callers_do_not_hold_up_the_server(place):
    async def work(place):
        app, (train,) = await place.app()
        state, calls = place.state, [ids.new_id(ids.CALL) for _ in range(10_000)]
        published = FunctionPublished(train.function_id, app, "train", Need(memory=512))
        step(state, [NodeJoined("no", "host", 2, 1024), published], 0.0)
        step(state, [InputsArrived(one, train.function_id, ((0, 1),)) for one in calls], 1.0)
        began = time.perf_counter()
        said = [place.views.sentence(one) for one in calls]
        took = time.perf_counter() - began
        assert took < 0.5, f"a sentence for each took {took:.2f} s"
        waits = "waiting for a container: 1 starting"
        assert said[0] == waits
        assert said[500] == f"{waits}; 500 calls come first"
        assert said[-1] == f"{waits}; more than 1,000 calls come first"  # the same for long: no news for nine thousand

    place(work)


def test_a_functions_backlog_has_what_is_in_the_store_alone(place):
    async def work(place):
        _, (train,) = await place.app()
        place.run(await place.call(train.function_id), 0, 1)
        place.lines[train.function_id] = (105, 1)
        found = place.views.stats(train.function_id)
        assert (found.backlog, found.containers, found.running) == (105, 1, 1)

    place(work)


# graphs


def test_a_graph_has_every_input_with_its_end_and_its_parent(place):
    async def work(place):
        _, (train, step) = await place.app(TRAIN, FunctionSpec(name="step", module="job.steps"))
        outer = await place.call(train.function_id, 3)
        inner = await place.call(step.function_id, 2, parent=(outer, 1))
        leaf = await place.call(step.function_id, parent=(inner, 0))
        values = chunk.Outputs(outer, (0, 2), (1, 1), container="ta-" + "1" * 22)
        await place.output(outer, 0, values.encode(), 0, 3)
        box = place.run(outer, 1, 2)
        update = CallUpdate(inner, "done", 1, "exception", container="ta-" + "2" * 22)
        await place.output(inner, 1, dumps_head(update), 1)
        await place.done(leaf, 0, 1, "cancelled")
        graph = await call_graph.draw(place.store, place.views, await place.views.row(outer))
        said = [
            (one["input_id"], one["function"], one["module"], one["status"], one["container"], one["parent"])
            for one in graph.inputs
        ]
        assert said == [
            (ids.input_id(outer, 0), "train", "job", "success", "ta-" + "1" * 22, ""),
            (ids.input_id(outer, 1), "train", "job", "", box, ""),
            (ids.input_id(outer, 2), "train", "job", "success", "ta-" + "1" * 22, ""),
            (ids.input_id(inner, 0), "step", "job.steps", "", "", ids.input_id(outer, 1)),
            (ids.input_id(inner, 1), "step", "job.steps", "exception", "ta-" + "2" * 22, ids.input_id(outer, 1)),
            (ids.input_id(leaf, 0), "step", "job.steps", "cancelled", "", ids.input_id(inner, 0)),
        ]

    place(work)


def test_a_graph_of_a_large_map_is_cut(place):
    async def work(place):
        _, (train,) = await place.app()
        outer = await place.call(train.function_id, 1_000_000)
        graph = await call_graph.draw(place.store, place.views, await place.views.row(outer))
        assert len(graph.inputs) == 1000

    place(work)
