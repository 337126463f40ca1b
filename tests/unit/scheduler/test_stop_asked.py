"""Somebody ends a container by hand: another one takes over what it ran."""

from __future__ import annotations

from alight.scheduler import events
from alight.scheduler.decisions import Give, Start, Stop
from alight.scheduler.state import Need
from tests.unit.scheduler.world import Pretend


def test_what_it_ran_goes_to_another():
    world = Pretend()
    world.node()
    world.happen(events.FunctionPublished("f", "app", "f", Need(memory=100)))
    world.happen(events.InputsArrived("c", "f", ((0, 1),)))
    world.all_ready()
    (name,) = world.state.containers
    said = world.happen(events.StopAsked(name, "somebody stopped it", 5.0))
    assert [one for one in said if isinstance(one, Stop)] == [Stop(name, "n", "somebody stopped it", 5.0)]
    # Asked again it is told again: now at once.
    said = world.happen(events.StopAsked(name, "somebody stopped it", 0.0))
    assert said == [Stop(name, "n", "somebody stopped it", 0.0)]
    said = world.die(name)
    (start,) = [one for one in said if isinstance(one, Start)]
    said = world.get_ready(start.container_id)
    assert [one.container_id for one in said if isinstance(one, Give)] == [start.container_id]


def test_inputs_that_come_after_it_do_not_go_there():
    world = Pretend()
    world.node()
    world.happen(events.FunctionPublished("f", "app", "f", Need(memory=100)))
    world.happen(events.InputsArrived("c", "f", ((0, 1),)))
    world.all_ready()
    (name,) = world.state.containers
    world.answer("c", 0)
    world.happen(events.StopAsked(name, "somebody stopped it"))
    said = world.happen(events.InputsArrived("d", "f", ((0, 1),)))
    assert [type(one) for one in said] == [Start]


def test_one_that_is_gone_already():
    world = Pretend()
    world.node()
    assert world.happen(events.StopAsked("none", "somebody stopped it")) == []


def serving(exit_grace):
    world = Pretend()
    world.node()
    world.happen(events.FunctionPublished("f", "app", "f", Need(memory=100, exit_grace=exit_grace)))
    world.happen(events.InputsArrived("c", "f", ((0, 1),)))
    world.all_ready()
    (name,) = world.state.containers
    return world, name


def graces(said):
    return [one.grace for one in said if isinstance(one, Stop)]


def test_a_function_that_asks_for_longer_to_leave_gets_it_unless_it_is_to_end_at_once():
    world, name = serving(70.0)
    assert graces(world.happen(events.StopAsked(name, "why", 5.0))) == [70.0]
    world, name = serving(70.0)
    assert graces(world.happen(events.AppEnded("app"))) == [70.0]
    world, name = serving(70.0)
    assert graces(world.happen(events.StopAsked(name, "why", 0.0))) == [0.0]
    world, name = serving(0.0)
    assert graces(world.happen(events.StopAsked(name, "why", 5.0))) == [5.0]
