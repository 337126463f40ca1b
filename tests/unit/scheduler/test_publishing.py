"""Protects how new versions take over: old containers serve until a new one does; nothing is lost when none does."""

from __future__ import annotations

import pytest

from alight.scheduler import events
from alight.scheduler.decisions import Fail, Give, Recall, Start, Stop, TrialEnded
from alight.scheduler.publishing import TRIAL_LOOKS
from alight.scheduler.state import Need
from alight.wire import errors
from tests.unit.scheduler.world import Pretend

BROKEN = {"code": "remote", "message": "no module named x"}


@pytest.fixture
def world():
    """One machine of 1000 MiB with nothing on it."""
    world = Pretend()
    world.node()
    return world


def publish(world, *, trial=True, recreate=False, kept=True, **need):
    event = events.FunctionPublished("f", "app", "f", Need(**need), trial=trial, recreate=recreate, kept=kept)
    return world.happen(event)


def revert(world, **need):
    return world.happen(events.FunctionReverted("f", "app", "f", Need(**need), kept=True))


def arrive(world, call, count=1):
    return world.happen(events.InputsArrived(call, "f", ((0, count),)))


def kinds(decisions, kind):
    return [one for one in decisions if isinstance(one, kind)]


def names(decisions, kind):
    return [one.container_id for one in kinds(decisions, kind)]


def serving(world):
    """One container that has answered an input."""
    publish(world, trial=False)
    arrive(world, "first")
    world.all_ready()
    world.answer("first", 0)


def test_old_containers_serve_until_a_new_one_is_ready(world):
    serving(world)
    said = publish(world)
    assert not kinds(said, Stop)
    assert names(said, Start) == ["c1"], "one of the new version is tried, though nothing waits"
    assert names(arrive(world, "a"), Give) == ["c0"]
    said = world.get_ready("c1")
    assert kinds(said, TrialEnded) == [TrialEnded("f")]
    assert not kinds(said, Stop), "it finishes what it has begun"
    assert names(arrive(world, "b"), Give) == ["c1"]
    assert names(world.answer("a", 0), Stop) == ["c0"]


def test_what_old_containers_have_not_begun_goes_to_the_new_one(world):
    publish(world, trial=False)
    arrive(world, "warm", 20)
    world.all_ready()
    for _ in range(20):
        world.answer_head(next(name for name, queue in world.queues.items() if queue), busy=0.001)
    for name in list(world.ready)[1:]:
        world.die(name)
    arrive(world, "many", 40)
    world.all_ready()
    old = set(world.queues)
    publish(world)
    new = next(iter(world.starting))
    said = world.get_ready(new)
    assert set(names(said, Recall)) <= old
    for name in names(said, Recall):
        world.give_back(name)
    assert world.queues[new]
    while world.queues and any(world.queues.values()):
        world.answer_head(next(name for name, queue in world.queues.items() if queue))
    assert len([one for one in world.ended if one[0] == "many"]) == 40


def test_a_version_that_does_not_come_up_stops_nothing_and_is_taken_back(world):
    serving(world)
    publish(world)
    said = world.happen(events.StartFailed("c1", "init_failure", BROKEN, final=True))
    assert kinds(said, TrialEnded) == [TrialEnded("f", BROKEN, "init_failure")]
    assert not kinds(said, Stop) + kinds(said, Fail)
    assert not kinds(arrive(world, "more", 30), Start), "nothing starts with what does not come up"
    said = revert(world)
    assert not kinds(said, Stop), "the old containers go on"
    assert kinds(said, Start), "and there may be more of them"
    world.forget("c1")
    while len([one for one in world.ended if one[0] == "more"]) < 30:
        world.all_ready()
        world.answer_head(next(name for name, queue in world.queues.items() if queue))


def test_inputs_that_wait_for_a_version_that_does_not_come_up_get_the_one_before(world):
    publish(world, trial=False)
    arrive(world, "a")
    world.die("c0")  # it was not ready
    publish(world)
    (name,) = world.starting
    said = world.happen(events.StartFailed(name, "init_failure", BROKEN, final=True))
    world.forget(name)
    assert kinds(said, TrialEnded)[0].error == BROKEN
    assert not kinds(said, Fail), "it waits for what becomes of the version"
    assert kinds(revert(world), Start)
    world.all_ready()
    assert [one[0] for one in world.running] == ["a"]


def test_three_starts_that_fail_by_chance_end_a_trial(world):
    serving(world)
    publish(world)
    for last in (False, False, True):
        (name,) = world.starting
        said = world.happen(events.StartFailed(name, "terminated", None, final=False), later=0.1)
        world.forget(name)
        assert bool(kinds(said, TrialEnded)) is last
        world.happen(later=5.0)
    assert not world.starting


def test_a_function_that_nobody_uses_is_not_tried(world):
    assert publish(world, kept=True) == [TrialEnded("f")]
    assert publish(world) == [TrialEnded("f")]


def test_it_is_tried_when_it_is_to_be_tried_anyway(world):
    event = events.FunctionPublished("f", "app", "f", Need(), trial=True, kept=True, anyway=True)
    assert names(world.happen(event), Start) == ["c0"]
    assert kinds(world.get_ready("c0"), TrialEnded) == [TrialEnded("f")]
    world.happen(event)
    said = world.happen(events.StartFailed("c1", "init_failure", BROKEN, final=True))
    assert kinds(said, TrialEnded) == [TrialEnded("f", BROKEN, "init_failure")]
    assert not kinds(revert(world), Start), "nobody needs a container of the version before"


@pytest.mark.parametrize("comes_up", [True, False])
def test_a_trial_goes_on_in_the_next_process_and_containers_of_the_version_before_serve(comes_up):
    world = Pretend()
    world.happen(events.FunctionPublished("f", "app", "f", Need(), kept=True))
    event = events.FunctionPublished("f", "app", "f", Need(), trial=True, kept=True, anyway=True, resumed=True)
    assert not world.happen(event)
    assert not world.happen(later=10 * TRIAL_LOOKS), "while no machine is there nothing is said of it"
    held = [
        events.Held("tried", "f", False),
        events.Held("before", "f", True, outdated=1),
        events.Held("older", "f", True, outdated=2),
    ]
    world.ready.update({one.container_id: Start(one.container_id, "f", "n", (), 0) for one in held if one.ready})
    world.starting["tried"] = Start("tried", "f", "n", (), 0)
    said = world.node(held=held)
    assert names(said, Stop) == ["older"]
    assert not kinds(said, Start), "the one that is tried came along"
    assert names(arrive(world, "a"), Give) == ["before"]
    if comes_up:
        assert kinds(world.get_ready("tried"), TrialEnded) == [TrialEnded("f")]
        assert names(world.answer("a", 0), Stop) == ["before"]
        return
    said = world.happen(events.StartFailed("tried", "init_failure", BROKEN, final=True))
    assert kinds(said, TrialEnded) == [TrialEnded("f", BROKEN, "init_failure")]
    assert not kinds(revert(world), Stop)
    world.answer("a", 0)
    assert names(arrive(world, "b"), Give) == ["before"]


def test_min_containers_of_a_deployed_app_are_there_without_an_input(world):
    said = publish(world, min_containers=2)
    assert len(kinds(said, Start)) == 2
    assert not kinds(said, TrialEnded)
    assert kinds(world.get_ready("c0"), TrialEnded) == [TrialEnded("f")]


def test_without_room_beside_the_old_ones_they_make_room(world):
    publish(world, trial=False, memory=600)
    arrive(world, "first")
    world.all_ready()
    world.answer("first", 0)
    said = publish(world, memory=600)
    assert not kinds(said, Start) + kinds(said, Stop) + kinds(said, TrialEnded)
    assert names(arrive(world, "a"), Give) == ["c0"], "it serves while it can"
    said = world.happen(later=TRIAL_LOOKS)
    assert "no machine had room" in kinds(said, TrialEnded)[0].said
    world.answer("a", 0)
    arrive(world, "b")
    assert kinds(world.die("c0"), Start)


def test_a_trial_may_have_one_container_above_the_most_and_no_more(world):
    publish(world, trial=False, max_containers=1)
    arrive(world, "first")
    world.all_ready()
    world.answer("first", 0)
    said = publish(world, max_containers=1)
    assert len(kinds(said, Start)) == 1
    arrive(world, "many", 50)
    assert len(world.starting) == 1
    world.all_ready()
    assert not world.starting


def test_recreate_ends_old_containers_at_once_and_their_inputs_begin_anew_at_no_charge(world):
    serving(world)
    for again in range(5):  # more often than an input may lose containers
        arrive(world, "a") if again == 0 else None
        world.all_ready()
        (old,) = {name for _, name in world.running.values()}
        said = publish(world, recreate=True)
        assert names(said, Stop) == [old]
        if again % 2:  # it may still say that it was interrupted
            said = world.answer("a", 0, status="terminated")
            assert not kinds(said, Fail)
        world.die(old)
    world.all_ready()
    world.answer("a", 0)
    assert world.ended["a", 0].attempt == 6


def test_what_waits_for_a_function_that_goes_ends_and_what_runs_does_not(world):
    publish(world, trial=False, max_containers=1)
    arrive(world, "a", 3)
    world.all_ready()
    error = errors.to_wire(errors.NotFoundError("gone"))
    said = world.happen(events.FunctionRetired("f", error))
    assert [(one.positions, one.error) for one in kinds(said, Fail)] == [(range(1, 3), error)]
    assert not kinds(said, Stop)
    assert kinds(arrive(world, "late"), Fail)
    assert names(world.answer("a", 0), Stop) == ["c0"]
    publish(world, trial=False)
    arrive(world, "again")
    assert world.starting, "published again, it is there again"


def test_containers_of_an_earlier_version_that_a_restarted_server_meets_end_when_they_are_done():
    world = Pretend()
    world.happen(events.FunctionPublished("f", "app", "f", Need()))
    world.happen(events.InputsArrived("a", "f", ((0, 1),)))
    held = [
        events.Held("busy", "f", True, (events.Run("a", 0, 1, 1),), outdated=True),
        events.Held("idle", "f", True, outdated=True),
        events.Held("new", "f", True),
    ]
    world.ready.update({one.container_id: Start(one.container_id, "f", "n", (), 0) for one in held})
    world.running["a", 0] = 1, "busy"
    world.queues["busy"] = {("a", 0): 1}
    said = world.node(held=held)
    assert names(said, Stop) == ["idle"]
    assert names(arrive(world, "b"), Give) == ["new"]
    assert names(world.answer("a", 0), Stop) == ["busy"]
