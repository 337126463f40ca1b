"""How many containers there are: started for what waits, kept, ended, and room made for others."""

from __future__ import annotations

import pytest

from alight.scheduler import events
from alight.scheduler.decisions import Fail, Give, Recall, Start, Stop
from alight.scheduler.state import Gpu, Need
from alight.scheduler.why import stats, waiting_of, why_waiting
from tests.unit.scheduler.facts import arrive, kinds, publish, warm
from tests.unit.scheduler.world import Pretend

L4 = Gpu("g0", "L4", 23034, "NVIDIA L4")
A100 = Gpu("g1", "A100-40GB", 40536, "NVIDIA A100-SXM4-40GB")


def test_idle_containers_end_after_their_window_and_not_before(world):
    publish(world, scaledown_window=30)
    arrive(world, "a")
    world.get_ready("c0")
    world.answer("a", 0)
    assert not kinds(world.happen(later=29), Stop)
    arrive(world, "b")
    world.answer("b", 0)
    assert not kinds(world.happen(later=29), Stop)
    assert kinds(world.happen(later=2), Stop) == [Stop("c0", "n", "nothing to do", 30.0)]
    world.die("c0")
    assert not world.state.containers


def test_as_many_containers_as_drain_the_queue_in_a_second(world):
    publish(world, memory=10)
    warm(world, pace=0.1)
    made = arrive(world, "map", 40)
    assert 2 <= len(kinds(made, Start)) <= 4  # 4 s of work: four containers, of which one is there
    publish(world, "unknown", memory=10)
    assert len(kinds(arrive(world, "x", 3, "unknown"), Start)) == 3


def test_min_and_buffer_containers_are_kept_while_there_is_a_reason(world):
    publish(world, memory=100, min_containers=1, buffer_containers=2, scaledown_window=10)
    assert not world.starting  # nothing asked for it yet
    arrive(world, "a")
    assert len(world.starting) == 3  # one for the input and two in reserve
    world.all_ready()
    world.happen(later=60)
    assert len(world.ready) == 3
    world.answer("a", 0)
    for _ in range(3):
        world.happen(later=11)
    assert len(world.ready) == 1


def test_scaling_by_hand_changes_what_runs_in_place(world):
    publish(world, memory=100, max_containers=1)
    arrive(world, "a", 3)
    world.get_ready("c0")
    assert len(world.ready) + len(world.starting) == 1
    made = world.happen(events.FunctionScaled("f", Need(memory=100, max_containers=3, scaledown_window=5)))
    assert len(kinds(made, Start)) == 2
    assert not kinds(made, Stop)
    world.all_ready()
    for position in range(3):
        world.answer("a", position)
    world.happen(later=4)
    made = world.happen(events.FunctionScaled("f", Need(memory=100, scaledown_window=2)))
    assert len(kinds(made, Stop)) == 3


def test_max_containers_holds_and_the_wait_says_so(world):
    publish(world, max_containers=2)
    made = arrive(world, "a") + arrive(world, "b") + arrive(world, "c")
    assert len(kinds(made, Start)) == 2
    assert why_waiting(world.state, "c", world.now) == "waiting for a container: 2 starting, 2 other inputs ahead"
    world.get_ready("c0")
    world.get_ready("c1")
    facts = waiting_of(world.state, "c", 90.0)
    assert facts.why == "waiting for a container: all 2 of max_containers are busy"
    assert facts.holders == ("2 containers of f() of app app, for 2 min",)
    assert facts.needs == "0.125 cores, 128 MiB for each container"
    assert not facts.never
    assert why_waiting(world.state, "a", world.now) == ""
    assert stats(world.state, "f").backlog == 1
    assert stats(world.state, "f").running == 2


def test_only_so_many_containers_start_together(world):
    publish(world, memory=1)
    made = arrive(world, "map", 50)
    assert len(kinds(made, Start)) == 8  # twice the cores
    assert len(kinds(world.get_ready("c0"), Start)) == 1


def test_cpu_never_keeps_a_container_from_starting(world):
    publish(world, cpu=64, memory=100)
    assert len(kinds(arrive(world, "a", 2), Start)) == 2


def test_memory_that_others_hold_is_waited_for_in_words(world):
    publish(world, "big", memory=900)
    publish(world, "other", memory=900, app="elsewhere")
    arrive(world, "a", function="big")
    world.get_ready("c0")
    assert not kinds(arrive(world, "b", function="other"), Start)
    words = why_waiting(world.state, "b", world.now)
    assert words == "waiting for memory (900 MiB): 1 container of big() of app app holds it"


def test_a_gpu_that_nobody_will_return_is_called_so():
    world = Pretend()
    world.node(gpus=(L4,))
    publish(world, "kept", gpus=("L4",), min_containers=1, scaledown_window=5)
    publish(world, "other", gpus=("L4",))
    arrive(world, "a", function="kept")
    world.get_ready("c0")
    arrive(world, "b", function="other")
    assert not waiting_of(world.state, "b", world.now).never  # a runs, and may end
    world.answer("a", 0)
    world.happen(later=60)
    facts = waiting_of(world.state, "b", world.now)
    assert facts.never
    assert "never by itself: kept() keeps it with min_containers" in facts.starts_when
    assert facts.holders == ("1 container of kept() of app app, for 60 s",)


def test_an_idle_container_makes_room_for_somebody_elses_input(world):
    publish(world, "big", memory=900)
    publish(world, "other", memory=900)
    arrive(world, "a", function="big")
    world.get_ready("c0")
    world.answer("a", 0)
    made = arrive(world, "b", function="other")
    assert kinds(made, Stop) == [Stop("c0", "n", "making room for other()", 30.0)]
    assert not kinds(world.happen(later=1), Stop)  # asked once
    assert len(kinds(world.die("c0"), Start)) == 1


def test_a_busy_container_of_who_has_most_makes_room_when_its_input_is_done(world):
    publish(world, "many", memory=250)
    publish(world, "one", memory=250)
    arrive(world, "map", 1000, "many")
    world.all_ready()
    assert len(world.ready) == 3  # the last part is kept for others
    publish(world, "two", memory=500)
    made = arrive(world, "x", function="two")
    assert not kinds(made, Stop)  # its inputs are not interrupted
    drained = {one for one in world.ready if world.state.containers[one].draining}
    assert len(drained) == 1
    name = drained.pop()
    made = world.answer_head(name)
    assert kinds(made, Stop) == [Stop(name, "n", "making room for two()", 30.0)]
    assert kinds(world.die(name), Start)[0].function_id == "two"


@pytest.mark.parametrize("pace", [0.001, 0.3, 5.0])
def test_a_single_call_beside_a_long_map_starts_within_its_bound(pace):
    """In simulated time: containers take 100 ms to start and 10 ms to end."""
    world = Pretend()
    world.node(cpus=2, memory=1000)
    publish(world, "many", memory=200)
    for number in range(4):
        publish(world, f"one{number}", memory=400, app=f"app{number}")
    arrive(world, "map", 1_000_000, "many")
    due = []  # (when, order, what, container)
    count, asked, began = 0, 0.0, {}

    def note(made):
        nonlocal count
        for one in made:
            count += 1
            if isinstance(one, Start):
                due.append((world.now + 0.1, count, "ready", one.container_id))
            elif isinstance(one, Stop):
                due.append((world.now + 0.01, count, "end", one.container_id))
            elif isinstance(one, Recall):
                due.append((world.now + 0.001, count, "return", one.container_id))
            elif isinstance(one, Give):
                began.setdefault(one.call_id, world.now)
                if not any(what == "answer" and name == one.container_id for _, _, what, name in due):
                    due.append((world.now + pace, count, "answer", one.container_id))

    note(world.happen())
    due.extend((0.1, 0, "ready", name) for name in world.starting)
    while world.now < 10 + 20 * pace and len(began) < 5 and count < 30_000:
        due.sort()
        when, _, what, name = due.pop(0)
        later = max(0.0, when - world.now)
        if world.now + later > 1.0 and not asked:
            asked = world.now
            for number in range(4):
                note(arrive(world, f"single{number}", function=f"one{number}"))
        world.now += later
        if what == "ready" and name in world.starting:
            note(world.get_ready(name))
        elif what == "end":
            note(world.die(name))
        elif what == "return":
            note(world.give_back(name))
        elif what == "answer" and world.queues.get(name):
            note(world.answer_head(name, busy=pace))
            if world.queues.get(name) and not any((w, n) == ("answer", name) for _, _, w, n in due):
                count += 1
                due.append((world.now + pace, count, "answer", name))
    # Two fit beside what many() keeps at first; each further one waits for those before it to be done.
    first = sorted(began[f"single{number}"] - asked for number in range(4) if f"single{number}" in began)
    assert first[0] <= 0.1 + max(0.1, 2 * pace) + 0.02
    assert len(first) == 4
    assert first[-1] <= 4 * (0.2 + max(0.1, 2 * pace))


def test_a_long_queue_does_not_starve_a_short_one(world):
    publish(world, "many", memory=250)
    publish(world, "one", memory=250)
    arrive(world, "map", 100, "many")
    made = arrive(world, "x", function="one")
    assert kinds(made, Start)[0].function_id == "one"  # there is a reserve for who has none


def test_a_child_that_only_its_waiting_parent_could_make_room_for_fails(world):
    publish(world, "parent", memory=900)
    publish(world, "child", memory=900)
    publish(world, "else", memory=50)
    arrive(world, "p", function="parent")
    arrive(world, "e", function="else")  # runs on, and has no room to give
    world.all_ready()
    world.happen(events.InputsWaiting("c0", 1))
    assert not kinds(arrive(world, "c", function="child", parent=("p", 0)), Fail)
    made = world.happen(later=1.5)
    failed = kinds(made, Fail)[0]
    assert failed.status == "impossible"
    assert "child() can never start: parent(), which wait for it, hold what it needs" in failed.error["message"]


def test_a_child_waits_as_long_as_somebody_else_may_make_room(world):
    publish(world, "parent", memory=500)
    publish(world, "busy", memory=500)
    publish(world, "child", memory=500)
    arrive(world, "p", function="parent")
    arrive(world, "b", function="busy")
    world.get_ready("c0")
    world.get_ready("c1")
    world.happen(events.InputsWaiting("c0", 1))
    arrive(world, "c", function="child", parent=("p", 0))
    world.happen(later=30)
    assert ("c", 0) not in world.ended
    world.answer("b", 0)
    world.die("c1")
    world.get_ready("c2")
    assert ("c", 0) in world.running


def test_recursion_with_one_container_runs_as_deep_as_there_is_room_and_then_fails(world):
    publish(world, max_containers=1, memory=400)
    arrive(world, "f0")
    parent = None
    for depth in range(5):
        if parent is not None:
            arrive(world, f"f{depth}", parent=(parent, 0))
        world.happen(later=2)
        world.all_ready()
        if (f"f{depth}", 0) not in world.running:
            break
        parent = f"f{depth}"
        world.happen(events.InputsWaiting(world.running[parent, 0][1], 1))
    assert depth == 2  # 1000 MiB hold two
    assert "f(), f(), which wait for it" in world.ended["f2", 0].error["message"]


def test_what_was_given_behind_an_input_that_waits_is_taken_back(world):
    publish(world, max_containers=1)
    warm(world, pace=0.001)
    arrive(world, "map", 10)
    assert len(world.queues["c0"]) > 1
    made = world.happen(events.InputsWaiting("c0", 1))
    assert kinds(made, Recall) == [Recall("c0", "n")]
    made += world.give_back("c0")
    assert len(kinds(made, Start)) == 1  # who waits does not count for max_containers
