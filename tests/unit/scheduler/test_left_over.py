"""Containers that serve no more are ended, and not above ``max_containers``, whatever came between."""

from __future__ import annotations

import pytest

from alight.scheduler import events
from alight.scheduler.decisions import Recall, Start, Stop
from alight.scheduler.state import Gpu, Need
from tests.unit.scheduler.world import Pretend


@pytest.fixture
def world():
    """One machine of 1000 MiB with nothing on it."""
    world = Pretend()
    world.node()
    return world


def publish(world, trial=False, **need):
    return world.happen(events.FunctionPublished("f", "app", "f", Need(memory=100, **need), trial))


def arrive(world, call, count=1):
    return world.happen(events.InputsArrived(call, "f", ((0, count),)))


def made(decisions, kind):
    return [one for one in decisions if isinstance(one, kind)]


def reconnect(world, arrived):
    """Away and back; whether the machine had what was sent last is open."""
    world.happen(events.NodeAway("n"))
    world.recalls.clear()
    held = [world.held(name, arrived) for name in {**world.starting, **world.ready, **world.stopping}]
    return world.node(held=held)


def test_an_old_version_ends_when_its_cancelled_input_never_came_to_it(world):
    """The input was sent, cancelled, and lost on the way: nobody will ever answer it."""
    publish(world)
    arrive(world, "call")
    world.get_ready("c0")
    publish(world)
    world.cancel("call")
    (stop,) = made(reconnect(world, arrived=False), Stop)
    assert (stop.container_id, stop.why) == ("c0", "the function was published anew")


def test_one_that_makes_room_ends_when_its_cancelled_input_never_came_to_it(world):
    """As before; what another function waits for is its memory."""
    publish(world)
    arrive(world, "call", 10)
    world.all_ready()
    world.happen(events.FunctionPublished("other", "app", "other", Need(memory=400)))
    world.happen(events.InputsArrived("next", "other", ((0, 1),)))
    drained = [name for name, one in world.state.containers.items() if one.draining]
    assert drained
    world.cancel("call")
    assert {one.container_id for one in made(reconnect(world, arrived=False), Stop)} >= set(drained)


def test_one_that_returned_all_it_had_while_it_was_slow_serves_again(world):
    """It had begun nothing when it was asked, and has nothing to be slow with."""
    publish(world, max_containers=1)
    arrive(world, "call", 10)
    world.get_ready("c0")
    world.answer("call", 0, busy=0.001)
    assert made(world.happen(later=1.0), Recall)
    world.give_back("c0", begun=0)
    assert world.queues["c0"]
    while world.queues["c0"]:
        world.answer_head("c0", 9, busy=0.001)
    assert made(world.happen(later=60.0), Stop)


def test_a_new_version_waits_for_those_that_end_before_it_is_above_max_containers(world):
    """Two old ones serve and may have one beside them; two that end already count like any."""
    publish(world)
    arrive(world, "call", 4)
    names = list(world.starting)
    assert len(names) == 4
    for name in names[:2]:
        world.get_ready(name)
    assert not made(publish(world, trial=True, max_containers=2), Start)
    world.die(names[2])
    assert made(world.die(names[3]), Start)


def test_who_gives_up_a_container_for_another_does_not_get_its_place_again():
    """One container of the other is about to end: it does not count, neither for what is taken nor for who is next."""
    world = Pretend()
    world.node(gpus=(Gpu("g0", "L4", 23034), Gpu("g1", "L4", 23034)))
    publish(world)
    arrive(world, "leaves")
    world.get_ready("c0")
    publish(world, gpus=("L4",))
    world.happen(events.StopAsked("c0", "somebody says so"))
    world.happen(events.FunctionPublished("rich", "app", "rich", Need(memory=100, gpus=("L4",))))
    world.happen(events.InputsArrived("older", "rich", ((0, 3),)))
    world.get_ready("c1")
    (stop,) = made(arrive(world, "younger"), Stop)
    (start,) = made(world.die(stop.container_id), Start)
    assert start.function_id == "f"
