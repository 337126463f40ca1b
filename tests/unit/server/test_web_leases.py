"""Leases of the gateway among the scheduler's inputs: asked for, given, lost, ended, and never seen by anybody else."""

from __future__ import annotations

import asyncio
from itertools import count
from types import SimpleNamespace

from alight.gateway.limits import Limits
from alight.scheduler import decisions as decided
from alight.scheduler import events
from alight.scheduler.state import State
from alight.scheduler.step import step
from alight.server.events import Inbox
from alight.server.services import urls
from alight.server.services.published import need_of
from alight.server.web import Around, Web, is_lease
from alight.wire.spec import Autoscaling, FunctionSpec
from alight.wire.states import ResultStatus

SPEC = FunctionSpec("hello", is_web=True, web={"kind": "asgi_app"}, autoscaling=Autoscaling(max_concurrent_inputs=2))


class Request:
    """A request, as far as it waits."""

    lease = refused = None

    def begin(self, lease):
        self.lease = lease

    def refuse(self, status, said):
        self.refused = status, said


class World:
    """A scheduler and a gateway with one machine; containers start when a test says so."""

    def __init__(self) -> None:
        self.now, self.told = 1000.0, []
        names = count(1)
        self.state, self.inbox = State(make_id=lambda: f"ta-{next(names)}"), Inbox()
        published = SimpleNamespace(scaled={}, spec=SPEC, function_id="fu-1", app_id="ap-1")
        endpoint = urls.Endpoint("fu-1", "", "ap-1", "shop", "main", "hello", "me", True, 1.0, SPEC.web)
        hub = SimpleNamespace(tell=lambda app_id, event: self.told.append(event.text))
        around = Around({"fu-1": published}, SimpleNamespace(endpoints=lambda: [endpoint]), None, hub, {})
        self.web = Web(self.inbox, around, None, Limits())
        self.do(events.NodeJoined("no-1", "host", 4.0, 4096))
        self.do(events.FunctionPublished("fu-1", "ap-1", "hello", need_of(SPEC)))
        self.target = self.web.table.find("shop-hello.localhost", b"/").target
        self.pool = self.web.gateway.pool_of(self.target)

    def do(self, *facts):
        """What happens, and all that follows from it."""
        for fact in facts:
            self.inbox.put(fact)
        made = []
        while facts := self.inbox.take():
            decisions = step(self.state, facts, self.now)
            for one in decisions:
                if is_lease(getattr(one, "call_id", "")):
                    self.web.on_decision(one)
            self.web.after_step(facts, self.state)
            made += decisions
        return made

    def ask(self):
        request = Request()
        self.pool.enter(request, self.now)
        return request, self.do()

    def started(self, made):
        (start,) = [one for one in made if isinstance(one, decided.Start)]
        self.do(events.ContainerReady(start.container_id))
        return start.container_id

    def tick(self, seconds):
        self.now += seconds
        self.pool.tick(self.now, 1.0)
        return self.do()


def live(test):
    """In an event loop, which the gateway wants to have."""

    def run():
        async def main():
            test(World())

        asyncio.run(main())

    return run


@live
def test_a_request_wakes_a_container_and_two_share_it(world):
    one, made = world.ask()
    assert one.lease is None
    name = world.started(made)
    assert one.lease.container_id == name
    other, made = world.ask()
    assert other.lease is one.lease
    assert made == []
    third, made = world.ask()
    assert third.lease is None
    assert world.started(made) != name
    assert third.lease is not one.lease


@live
def test_an_ended_lease_leaves_an_idle_container_that_the_next_request_gets(world):
    one, made = world.ask()
    name = world.started(made)
    world.pool.release(one.lease, world.now, 0.1)
    world.tick(2.0)
    assert not world.state.calls
    assert list(world.state.functions["fu-1"].idle) == [name]
    again, made = world.ask()
    assert again.lease.container_id == name
    assert [type(one) for one in made] == [decided.Give]


@live
def test_a_lost_container_takes_its_lease_along_and_the_next_one_serves_who_waits(world):
    one, made = world.ask()
    name = world.started(made)
    world.pool.release(one.lease, world.now, 0.1)
    busy, _ = world.ask()
    assert busy.lease is not None
    made = world.do(events.ContainerEnded(name))
    assert not world.state.calls, "nobody waits"
    waits, more = world.ask()
    world.started([*made, *more])
    assert waits.lease.container_id != name


@live
def test_containers_that_end_before_they_serve_are_counted_and_given_up(world):
    request, made = world.ask()
    for _ in range(3):
        (start,) = [one for one in made if isinstance(one, decided.Start)]
        world.do(events.ContainerReady(start.container_id))
        lease, request.lease = request.lease, None
        lease.in_flight -= 1  # it comes back: its container never got it
        world.pool.waiting[request] = world.now
        made = world.do(events.ContainerEnded(start.container_id))
    assert request.refused[0] == 503
    assert world.told
    assert not world.state.calls


@live
def test_a_start_that_fails_for_good_is_said_to_who_waits(world):
    request, made = world.ask()
    (start,) = [one for one in made if isinstance(one, decided.Start)]
    error = {"code": "remote", "message": "no module named fastapi"}
    world.do(events.StartFailed(start.container_id, ResultStatus.TERMINATED, error, final=True))
    assert request.refused[0] == 503
    assert "fastapi" not in request.refused[1]
    assert "fastapi" in world.told[0]


@live
def test_a_newer_version_gets_new_requests_and_the_old_container_ends_after_its_last(world):
    one, made = world.ask()
    old = world.started(made)
    world.do(events.FunctionPublished("fu-1", "ap-1", "hello", need_of(SPEC)))
    other, made = world.ask()
    assert other.lease is None
    new = world.started(made)
    assert other.lease.container_id == new != old
    world.pool.release(one.lease, world.now, 0.1)
    assert any(isinstance(one, decided.Stop) and one.container_id == old for one in world.do())


@live
def test_a_request_that_goes_on_after_its_timeout_ends_its_container(world):
    one, made = world.ask()
    name = world.started(made)
    world.web.end(one.lease.lease_id, timed_out=True)
    assert any(isinstance(one, decided.Stop) and one.container_id == name for one in world.do())


@live
def test_a_lease_that_nobody_needs_any_more_frees_its_container_even_when_it_is_given_at_that_moment(world):
    request, made = world.ask()
    (start,) = [one for one in made if isinstance(one, decided.Start)]
    world.pool.leave(request)
    lease_id = next(iter(world.pool.pending))
    world.inbox.put(events.ContainerReady(start.container_id))
    decisions = step(world.state, world.inbox.take(), world.now)
    world.tick(0)  # the gateway cancels while the decision to give is on its way
    for one in decisions:
        if is_lease(getattr(one, "call_id", "")):
            assert one.call_id == lease_id
            world.web.on_decision(one)
    world.do()
    assert list(world.state.functions["fu-1"].idle) == [start.container_id]
    assert not world.state.calls


@live
def test_requests_for_an_app_whose_budget_is_used_up_are_refused_at_once_and_those_that_run_end(world):
    """Nobody waits for a month to turn with a connection open; and no room of a container that runs is used."""
    one, made = world.ask()
    world.started(made)
    waits = [world.ask()[0] for _ in range(2)][-1]
    assert one.lease is not None
    assert waits.lease is None
    world.do(events.AppsHeld({"ap-1": "held: the budget of shop for this month ($5.00) is used up"}))
    assert waits.refused[0] == 503
    assert "budget" in waits.refused[1]
    assert "$5" not in waits.refused[1]
    assert one.refused is None
    assert "is held" in world.web.table.find("shop-hello.localhost", b"/").target.held
    world.do(events.AppsHeld({}))
    assert world.web.table.find("shop-hello.localhost", b"/").target.held == ""
