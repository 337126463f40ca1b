"""Apps whose budget is used up: nothing of them begins, what runs ends as it would, and they go on where they were."""

from __future__ import annotations

import pytest

from alight.scheduler import events, why
from alight.scheduler.decisions import Again, Give, Start, Stop
from alight.scheduler.state import Need
from tests.unit.scheduler.world import Pretend

SENTENCE = "held: the budget of app ap ($5.00) is used up; raise it with `alight app budget ap`"
HELD = events.AppsHeld({"ap": SENTENCE})


@pytest.fixture
def world():
    pretend = Pretend()
    pretend.node()
    pretend.happen(events.FunctionPublished("fu", "ap", "f", Need(scaledown_window=60)))
    return pretend


def arrive(world, call="fc", count=1):
    return world.happen(events.InputsArrived(call, "fu", ((0, count),)))


def kinds(decisions, kind):
    return [one for one in decisions if isinstance(one, kind)]


def test_nothing_starts_for_a_held_app_and_its_calls_say_why(world):
    world.happen(HELD)
    assert arrive(world) == []
    assert why.why_waiting(world.state, "fc", world.now) == SENTENCE
    assert "raised" in why.waiting_of(world.state, "fc", world.now).starts_when
    made = world.happen(events.AppsHeld({}))
    assert len(kinds(made, Start)) == 1
    world.all_ready()
    assert world.given == [("fc", 0)]


def test_other_apps_go_on(world):
    world.happen(events.FunctionPublished("fu2", "other", "g", Need()), HELD)
    made = world.happen(events.InputsArrived("fc2", "fu2", ((0, 1),)))
    assert [one.function_id for one in kinds(made, Start)] == ["fu2"]


def test_what_runs_finishes_and_its_container_ends_with_it(world):
    arrive(world)
    world.all_ready()
    assert kinds(world.happen(HELD), Stop) == []
    arrive(world, "fc2")
    made = world.answer("fc", 0)
    assert ("fc", 0) in world.ended
    assert kinds(made, Give) == []
    assert [one.why for one in kinds(made, Stop)] == ["a budget of its app is used up"]


def test_idle_and_starting_containers_end_at_once_whatever_is_to_be_kept(world):
    world.happen(events.FunctionScaled("fu", Need(min_containers=2)))
    arrive(world)
    assert len(world.starting) == 2
    world.get_ready(next(iter(world.starting)))
    world.answer("fc", 0)
    made = world.happen(HELD)
    assert len(kinds(made, Stop)) == 2
    for name in list(world.stopping):
        assert kinds(world.die(name), Start) == []
    assert len(kinds(world.happen(events.AppsHeld({})), Start)) == 2


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("says", [True, False], ids=["it says that it was interrupted", "it is killed"])
def test_what_runs_ends_too_where_that_is_asked_for_and_begins_again_at_no_charge(world, says, slots):
    """However often that happens, nothing fails for want of money: neither an attempt nor a retry is counted."""
    world.happen(events.FunctionPublished("fu4", "ap", "i", Need(max_concurrent=slots)))
    world.happen(events.InputsArrived("fc", "fu4", ((0, 1),)))
    for _ in range(12):
        world.all_ready()
        made = world.happen(events.AppsHeld({"ap": SENTENCE}, frozenset({"ap"})))
        assert len(kinds(made, Stop)) == 1
        made = world.answer("fc", 0, status="terminated") if says else []
        (name,) = world.stopping
        (again,) = kinds([*made, *world.die(name)], Again)
        assert (again.retries, again.failures, again.why) == (0, 0, "a budget of its app is used up")
        assert why.why_waiting(world.state, "fc", world.now) == SENTENCE
        world.happen(events.AppsHeld({}))
    assert world.ended == {}
    world.all_ready()
    world.answer("fc", 0)
    assert ("fc", 0) in world.ended


def test_moves_say_what_containers_hold():
    world = Pretend()
    world.state.moves = []
    world.node()
    world.happen(events.FunctionPublished("fu", "ap", "f", Need(max_concurrent=4, max_containers=1)))
    world.happen(events.InputsArrived("fc", "fu", ((0, 3),)))
    world.all_ready()
    world.answer("fc", 1)
    world.cancel("fc")
    (container,) = world.state.containers.values()
    assert sum(count for _, _, count, _ in world.state.moves) == container.open == 2
    assert world.state.moves[-1][2:] == (-1, True)


def test_a_container_that_runs_something_and_has_room_gets_nothing_more(world):
    world.happen(events.FunctionPublished("fu3", "ap", "h", Need(max_concurrent=4)))
    world.happen(events.InputsArrived("fc", "fu3", ((0, 1),)))
    world.all_ready()
    world.happen(HELD)
    assert kinds(world.happen(events.InputsArrived("fc2", "fu3", ((0, 1),))), Give) == []
    assert kinds(world.happen(events.AppsHeld({})), Give) != []


@pytest.mark.parametrize("ready", [True, False])
def test_a_container_that_a_new_server_finds_idle_ends_and_gets_nothing(world, ready):
    """The server before had asked it to end, and this one knows only that the budget is used up."""
    world.happen(HELD)
    held = events.Held("c9", "fu", ready, memory=100)
    made = world.node(held=[held])
    assert [(one.container_id, one.why) for one in kinds(made, Stop)] == [("c9", "a budget of its app is used up")]
    assert kinds(arrive(world), Give) == []


def test_an_idle_container_of_a_held_app_gets_nothing_before_it_has_ended(world):
    """The short way of a call that finds a container with nothing to do looks at budgets, too."""
    arrive(world)
    world.all_ready()
    world.answer("fc", 0)
    world.state.budgets = dict(HELD.why)
    assert kinds(arrive(world, "fc2"), Give) == []
