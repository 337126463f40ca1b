"""Functions whose inputs run on several containers at once: all start or none, and all answer or the input failed."""

from __future__ import annotations

import dataclasses

import pytest

from alight.scheduler import decisions as decided
from alight.scheduler import events, place, why
from alight.scheduler.state import Need
from alight.wire.errors import InvalidError
from alight.wire.spec import RetryPolicy
from tests.unit.scheduler.gang_world import GPUS, World, arrive


@pytest.fixture
def world():
    world = World()
    world.node("n", 4, 1000, GPUS)
    return world


def publish(world, name="f", **need):
    world.happen(events.FunctionPublished(name, "app", name, Need(**{"memory": 100, "cluster": 3, **need})))


def running(world, **need):
    """A gang of three that works on an input."""
    publish(world, **need)
    arrive(world)
    world.all_ready()
    return list(next(iter(world.ready.values())).members)


def made(decisions, kind):
    return [one for one in decisions if isinstance(one, kind)]


def test_all_get_the_input_and_rank_0_gives_the_value(world):
    publish(world)
    assert len(made(arrive(world), decided.Start)) == 3
    names = list(world.starting)
    assert not made(world.get_ready(names[1]), decided.Give)
    assert not made(world.get_ready(names[0]), decided.Give)
    (give,) = made(world.get_ready(names[2]), decided.Give)
    assert (give.container_id, set(give.others)) == (names[0], set(names[1:]))
    assert made(world.answer_of(names[0]), decided.Aside) == [decided.Aside("call", names[0], True)]
    assert not made(world.answer_of(names[2]), decided.Finish)
    (finish,) = made(world.answer_of(names[1]), decided.Finish)
    assert finish.container_id == names[0]
    # It stays for the next input.
    (give,) = made(arrive(world, "next"), decided.Give)
    assert give.container_id == names[0]
    assert not world.starting


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_rank_that_raises_fails_the_input_and_ends_all(world, rank):
    names = running(world)
    if rank:
        world.answer_of(names[0])
    decisions = world.answer_of(names[rank], "exception")
    (finish,) = made(decisions, decided.Finish)
    assert finish.container_id == names[rank]
    assert {one.container_id for one in made(decisions, decided.Stop)} == set(names)
    assert made(decisions, decided.Aside) == ([decided.Aside("call", names[0], False)] if rank else [])
    for name in names:
        world.die(name)
    assert not world.state.containers
    assert not world.state.gangs
    assert not world.state.calls


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_lost_rank_ends_all_and_the_input_is_tried_again(world, rank):
    names = running(world)
    decisions = world.die(names[rank], error={"code": "remote", "message": "it was killed"})
    (again,) = made(decisions, decided.Again)
    assert (again.attempt, again.failures) == (2, 1)
    assert f"rank {rank} of 3" in again.why
    assert {one.container_id for one in made(decisions, decided.Stop)} == set(names) - {names[rank]}
    # What they still say changes nothing, and others take the input.
    for name in names[:rank] + names[rank + 1 :]:
        world.answer_of(name)
        world.die(name)
    world.all_ready()
    assert world.running["call", 0] == (2, next(one.container_id for one in world.ready.values() if not one.rank))


def test_a_rank_that_does_not_start_ends_the_others(world):
    publish(world)
    arrive(world)
    names = list(world.starting)
    world.get_ready(names[0])
    error = {"code": "remote", "message": "no such module"}
    world.forget(names[2])
    decisions = world.happen(events.StartFailed(names[2], "init_failure", error, True))
    (fail,) = made(decisions, decided.Fail)
    assert fail.error["message"] == f"rank 2 of 3 ({names[2]}): no such module"
    assert {one.container_id for one in made(decisions, decided.Stop)} == set(names[:2])


def test_half_of_a_gang_is_never_started(world):
    """There is room for two of three, and for all of them once another function's containers have gone."""
    world.happen(events.FunctionPublished("big", "app", "big", Need(memory=800, scaledown_window=1)))
    arrive(world, "other", "big")
    world.all_ready()
    publish(world)
    assert not made(arrive(world), decided.Start)
    assert "300 MiB" in why.why_waiting(world.state, "call", world.now)
    big = next(iter(world.ready))
    assert made(world.answer_of(big), decided.Stop)
    assert len(made(world.die(big), decided.Start)) == 3


def test_two_gangs_never_hold_half_each(world):
    """Each needs 600 of 1000 MiB: one after the other, not both in part."""
    publish(world, "a", memory=200)
    publish(world, "b", memory=200)
    arrive(world, "one", "a")
    arrive(world, "two", "b")
    assert {one.function_id for one in world.starting.values()} == {"a"}
    world.all_ready()
    for name in list(world.ready):
        world.answer_of(name)
    while world.stopping:
        world.die(next(iter(world.stopping)))
    world.all_ready()
    assert world.running["two", 0]


def test_each_rank_gets_gpus_of_its_own(world):
    publish(world, cluster=2, gpus=("L4:2",))
    starts = made(arrive(world), decided.Start)
    assert sorted(uuid for one in starts for uuid in one.gpus) == ["g0", "g1", "g2", "g3"]
    assert all(len(one.gpus) == 2 for one in starts)


@pytest.mark.parametrize(
    ("need", "words"),
    [
        ({"cluster": 11}, "at most size=10"),
        ({"cluster": 2, "memory": 600}, "at most size=1"),
        ({"cluster": 5, "gpus": ("L4",)}, "size=5"),
    ],
)
def test_more_than_any_machine_has_is_said_at_once(world, need, words):
    asked = Need(**{"memory": 100, **need})
    with pytest.raises(InvalidError) as caught:
        place.check_possible(world.state, "train", asked)
    assert words in f"{caught.value} {caught.value.hint}"
    publish(world, **need)
    (fail,) = made(arrive(world), decided.Fail)
    assert fail.status == "impossible"


def test_a_timeout_of_one_rank_is_the_inputs(world):
    names = running(world, retries=RetryPolicy(1, 1.0, 0.0, 60.0))
    decisions = world.answer_of(names[1], "timeout")
    assert made(decisions, decided.Again)[0].attempt == 2
    assert {one.container_id: one.grace for one in made(decisions, decided.Stop)} == dict.fromkeys(names, 5.0)


def test_a_cancelled_input_leaves_the_gang_once_all_have_heard(world):
    names = running(world)
    world.answer_of(names[0])
    decisions = world.cancel("call")
    assert {one.container_id for one in made(decisions, decided.Cancel)} == set(names)
    assert made(decisions, decided.Aside) == [decided.Aside("call", names[0], False)]
    arrive(world, "next")
    world.answer_of(names[1], "cancelled")
    assert ("next", 0) not in world.running
    world.answer_of(names[2], "cancelled")
    assert world.running["next", 0] == (1, names[0])


def test_one_that_ends_after_its_answer_leaves_the_others_to_finish(world):
    names = running(world)
    world.answer_of(names[1])
    assert not made(world.die(names[1]), decided.Again)
    world.answer_of(names[2])
    decisions = world.answer_of(names[0])
    assert made(decisions, decided.Finish)
    assert {one.container_id for one in made(decisions, decided.Stop)} == {names[0], names[2]}


def test_an_old_gang_that_a_new_server_finds_goes_on_until_its_leader_has_answered(world):
    """Rank 1 has answered and holds nothing: that is no reason to end what rank 0 still runs."""
    names = running(world)
    world.answer_of(names[1])
    held = [dataclasses.replace(world.held(name), outdated=2) for name in names]
    world.state = type(world.state)(make_id=world.state.make_id)
    publish(world)
    made_now = world.node("n", 4, 1000, GPUS, held)
    assert not made(made_now, decided.Stop)
    world.answer_of(names[0])
    made_now = world.answer_of(names[2])
    assert len(made(made_now, decided.Finish)) == 1
    assert {one.container_id for one in made(made_now, decided.Stop)} == set(names)


def test_a_gang_that_waits_for_a_child_is_not_called_stuck(world):
    """The child finds no room while a part of another gang ends; the parent's followers are no reason to fail it."""
    names = running(world, memory=250)
    world.happen(events.FunctionPublished("child", "app", "child", Need(memory=300)))
    world.happen(events.InputsWaiting(names[0], 1))
    world.happen(events.InputsArrived("young", "child", ((0, 1),), ("call", 0)))
    # All that there is belongs to the parent: that will never do.
    assert made(world.happen(later=2.0), decided.Fail)[0].call_id == "young"
    world.happen(events.FunctionPublished("small", "app", "small", Need(memory=250)))
    world.happen(events.InputsArrived("small", "small", ((0, 1),), ("call", 0)))
    assert {one.function_id for one in world.starting.values()} == {"small"}
