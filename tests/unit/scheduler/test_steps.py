"""What the scheduler decides in the situations that users meet."""

from __future__ import annotations

import pytest

from alight.scheduler import events, gpus, place
from alight.scheduler.decisions import Again, Cancel, Fail, Finish, Give, Recall, Start, Stop
from alight.scheduler.state import Gpu, Need
from alight.scheduler.step import next_wake
from alight.scheduler.why import stats, waiting_of, why_waiting
from alight.wire import errors
from alight.wire.spec import RetryPolicy
from tests.unit.scheduler.world import Pretend

L4 = Gpu("g0", "L4", 23034, "NVIDIA L4")
A100 = Gpu("g1", "A100-40GB", 40536, "NVIDIA A100-SXM4-40GB")


@pytest.fixture
def world():
    """One machine of 1000 MiB with nothing on it."""
    world = Pretend()
    world.node()
    return world


def publish(world, name="f", app="app", **need):
    return world.happen(events.FunctionPublished(name, app, name, Need(**need)))


def arrive(world, call, count=1, function="f", **fields):
    return world.happen(events.InputsArrived(call, function, ((0, count),), **fields))


def kinds(decisions, kind):
    return [one for one in decisions if isinstance(one, kind)]


def given(decisions):
    return [(one.call_id, one.start, one.stop) for one in kinds(decisions, Give)]


def warm(world, function="f", pace=0.001, containers=1):
    """Containers that have answered an input, so that the pace is known."""
    arrive(world, f"warm-{function}", containers, function)
    world.all_ready()
    made = []
    for position in range(containers):
        made += world.answer(f"warm-{function}", position, busy=pace)
    return made


def test_calls_of_a_function_take_turns_in_the_order_in_which_they_came(world):
    publish(world, max_containers=1)
    arrive(world, "big", 1_000_000)
    arrive(world, "one")
    arrive(world, "two")
    world.get_ready("c0")
    for _ in range(4):
        world.answer_head("c0")
    assert world.given[:5] == [("big", 0), ("one", 0), ("two", 0), ("big", 1), ("big", 2)]


def test_a_container_that_is_free_takes_the_input_at_once(world):
    publish(world)
    arrive(world, "a")
    world.get_ready("c0")
    assert world.answer("a", 0) == [Finish("a", range(1), 1, "c0")]
    assert arrive(world, "b") == [Give("b", 0, 1, 1, "c0")]
    world.answer("b", 0)
    assert not world.state.calls


def test_a_call_of_ten_million_inputs_is_one_span(world):
    publish(world, max_containers=1)
    arrive(world, "map", 10_000_000)
    call = world.state.calls["map"]
    assert list(call.waiting) == [(0, 10_000_000, 1)]
    assert not call.tried
    made = arrive(world, "map", 10_000_001)  # sent again, with one more
    assert not made
    assert list(call.waiting) == [(0, 10_000_001, 1)]


def test_tiny_inputs_travel_together_about_20_ms_at_a_time(world):
    publish(world, max_containers=1)
    warm(world, pace=0.0002)
    made = arrive(world, "map", 100_000)
    assert given(made) == [("map", 0, 100)]
    assert not given(world.answer("map", *range(49), busy=49 * 0.0002))  # more than half is left
    assert given(world.answer("map", 49, busy=0.0002)) == [("map", 100, 150)]


def test_one_input_at_a_time_until_the_pace_is_known_and_when_inputs_are_long(world):
    publish(world, max_containers=1)
    assert not given(arrive(world, "map", 100))
    assert given(world.get_ready("c0")) == [("map", 0, 1)]
    assert given(world.answer("map", 0, busy=10.0)) == [("map", 1, 2)]
    assert given(world.answer("map", 1, busy=10.0)) == [("map", 2, 3)]


def test_an_input_of_30_ms_has_one_behind_it(world):
    publish(world, max_containers=1)
    warm(world, pace=0.03)
    assert given(arrive(world, "map", 100)) == [("map", 0, 1), ("map", 1, 2)] or given(world.happen()) == []
    assert len(world.queues["c0"]) == 2


def test_no_container_gets_more_than_its_fair_part(world):
    publish(world, max_containers=2)
    warm(world, pace=0.0001, containers=2)
    arrive(world, "map", 40)
    sizes = sorted(len(queue) for queue in world.queues.values())
    assert sum(sizes) <= 40
    assert max(sizes) <= 20


def test_what_a_container_has_not_begun_goes_to_one_that_is_idle(world):
    publish(world, max_containers=2)
    warm(world, pace=0.004, containers=2)
    arrive(world, "map", 40)
    busy, free = "c0", "c1"
    while world.queues[free]:
        made = world.answer_head(free)
    assert kinds(made, Recall) == [Recall(busy, "n")]
    assert not kinds(world.happen(later=0.01), Recall)  # asked once
    before = len(world.queues[busy])
    assert before > 1
    made = world.give_back(busy)
    assert kinds(made, Give)[0].container_id == free
    assert kinds(made, Give)[0].attempt == 1  # it was never begun


def test_an_input_that_takes_much_longer_than_usual_does_not_keep_those_behind_it(world):
    publish(world, max_containers=2)
    warm(world, pace=0.0002)
    arrive(world, "map", 50)
    assert len(world.queues["c0"]) > 1
    made = []
    for _ in range(20):
        made += world.happen(later=0.05)
    assert kinds(made, Recall) == [Recall("c0", "n")]
    returned = world.give_back("c0")
    assert not given(returned)  # not to the one that is stuck
    made += returned
    assert len(kinds(made, Start)) == 1
    world.all_ready()
    assert len(world.running) > 1


def test_concurrent_containers_take_what_they_can_hold(world):
    publish(world, max_containers=2, max_concurrent=10, target_concurrent=5, memory=300)
    made = arrive(world, "map", 10)
    assert len(kinds(made, Start)) == 2  # five each
    world.all_ready()
    assert {name: len(queue) for name, queue in world.queues.items()} in ({"c0": 10}, {"c0": 5, "c1": 5})
    arrive(world, "more", 30)
    assert {name: len(queue) for name, queue in world.queues.items()} == {"c0": 10, "c1": 10}
    world.lent["c0"] = 3
    world.happen(events.InputsWaiting("c0", 3))  # three that wait for other calls leave their slots
    assert len(world.queues["c0"]) == 13


def test_batched_functions_get_full_batches_and_nothing_ahead(world):
    publish(world, max_containers=1, batch_size=4)
    arrive(world, "map", 10)
    assert given(world.get_ready("c0")) == [("map", 0, 4)]
    assert given(world.answer("map", *range(4), busy=0.0001)) == [("map", 4, 8)]


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


def test_a_poison_input_ends_as_an_error_after_three_containers(world):
    publish(world, retries=RetryPolicy(5))
    arrive(world, "poison")
    arrive(world, "good")
    died = 0
    while ("poison", 0) not in world.ended:
        world.all_ready()
        made = world.die(world.running["poison", 0][1], error={"code": "remote", "message": "its container ended"})
        died += 1
    assert died == 3
    assert kinds(made, Fail)[0].error["message"] == "its container ended (tried in 3 containers)"
    assert world.running["good", 0]


def test_a_poison_input_does_not_take_its_neighbours_along(world):
    publish(world, max_containers=1)
    warm(world, pace=0.0005)
    arrive(world, "map", 20)
    died = 0
    for _ in range(200):
        world.all_ready()
        if not any(world.queues.values()):
            if len(world.ended) == 21:
                break
            world.happen(later=1)
            continue
        name = next(name for name, queue in world.queues.items() if queue)
        if next(iter(world.queues[name])) == ("map", 7):
            world.tainted |= set(world.queues[name])
            world.die(name, error={"code": "remote", "message": "it died"})
            died += 1
        else:
            world.answer_head(name, busy=0.0005)
    assert died == 3
    failed = [one for one, how in world.ended.items() if isinstance(how, Fail)]
    assert failed == [("map", 7)]
    assert len(world.ended) == 21


def test_neighbours_that_ran_beside_a_poison_input_are_tried_apart_from_it(world):
    publish(world, max_containers=1, max_concurrent=5)
    arrive(world, "map", 5)
    world.get_ready("c0")
    made = world.die("c0")
    assert len(kinds(made, Again)) == 5
    for _ in range(100):
        world.all_ready()
        names = [name for name, queue in world.queues.items() if queue]
        if not names:
            break
        assert all(len(world.queues[name]) == 1 for name in names)
        if ("map", 3) in world.queues[names[0]]:
            world.die(names[0])
        else:
            world.answer_head(names[0])
    assert [one for one, how in world.ended.items() if isinstance(how, Fail)] == [("map", 3)]


def test_inputs_behind_one_that_began_cost_nobody_an_attempt_when_the_container_is_lost(world):
    publish(world, max_containers=1, retries=RetryPolicy(0))
    warm(world, pace=0.001)
    arrive(world, "map", 30)
    assert len(world.queues["c0"]) > 5
    made = world.die("c0")
    assert [(one.position, one.attempt, one.failures) for one in kinds(made, Again)] == [(0, 2, 1)]
    world.all_ready()
    while any(world.queues.values()):
        world.answer_head(next(name for name, queue in world.queues.items() if queue), busy=0.001)
    assert {one: max(attempts) for one, attempts in world.attempts.items() if one[0] == "map"} == {
        ("map", position): 2 if position == 0 else 1 for position in range(30)
    }


def test_the_users_policy_counts_the_users_failures_only(world):
    publish(world, retries=RetryPolicy(2, 2.0, 1.0, 60.0))
    arrive(world, "a")
    world.get_ready("c0")
    made = world.answer("a", 0, status="exception")
    assert kinds(made, Again) == [Again("a", 0, 2, 1, 0, 1.0)]
    assert why_waiting(world.state, "a", world.now) == "waiting for its next attempt (2)"
    world.happen(later=1.0)
    world.die("c0")  # ours: costs no retry
    world.get_ready("c1")
    made = world.answer("a", 0, status="exception")
    assert kinds(made, Again) == [Again("a", 0, 4, 2, 1, 3.0)]
    assert next_wake(world.state) is not None
    world.happen(later=2.0)
    assert Finish("a", (0,), 4, "c1") in world.answer("a", 0, status="exception")


def test_backoff_stays_below_its_cap_whatever_the_policy(world):
    publish(world, scaledown_window=1e6, retries=RetryPolicy(1000, 10.0, 60.0, 60.0))
    arrive(world, "a")
    world.get_ready("c0")
    for _ in range(200):
        made = world.answer("a", 0, status="exception")
        assert kinds(made, Again)[0].at - world.now == 60.0
        world.happen(later=60.0)


def test_killed_for_memory_is_the_users_failure(world):
    publish(world, retries=RetryPolicy(1))
    arrive(world, "a")
    world.get_ready("c0")
    error = {"code": "remote", "message": "killed for memory: limit 128 MiB"}
    assert kinds(world.die("c0", users_fault=True, error=error), Again)
    world.happen(later=1.0)
    world.get_ready("c1")
    made = world.die("c1", users_fault=True, error=error)
    assert kinds(made, Fail) == [Fail("a", range(1), "terminated", error)]


def test_a_generator_that_gave_items_is_not_tried_again(world):
    publish(world, retries=RetryPolicy(3))
    arrive(world, "a", 2)
    world.all_ready()
    world.happen(events.ItemsCame("a", 0))
    made = world.die(world.running["a", 0][1]) + world.die(world.running["a", 1][1])
    assert [one.positions for one in kinds(made, Fail)] == [range(1)]
    assert [one.position for one in kinds(made, Again)] == [1]


def test_a_timeout_ends_its_container_and_costs_the_others_nothing(world):
    publish(world, max_containers=1)
    warm(world, pace=0.001)
    arrive(world, "map", 30)
    made = world.answer("map", 0, status="timeout")
    assert kinds(made, Finish) == [Finish("map", (0,), 1, "c0")]
    assert kinds(made, Stop)[0].container_id == "c0"
    assert not kinds(made, Give)
    made = world.die("c0")
    assert not kinds(made, Again)
    world.all_ready()
    assert len(world.queues["c1"]) > 1  # the guilty one is known


def test_a_late_answer_frees_its_slot_and_nothing_else(world):
    publish(world, max_containers=1)
    arrive(world, "a")
    world.get_ready("c0")
    assert world.cancel("a") == [Cancel("a", -1, "c0", "n")]
    arrive(world, "b")
    assert ("b", 0) not in world.running
    del world.queues["c0"]["a", 0]
    made = world.happen(events.AttemptsEnded("a", "c0", 1, range(1), "cancelled"))
    assert made == [Give("b", 0, 1, 1, "c0")]
    # Somebody else's word for b counts for nothing.
    assert world.happen(events.AttemptsEnded("b", "c9", 1, range(1), "success")) == []
    assert world.happen(events.AttemptsEnded("b", "c0", 7, range(1), "success")) == []


def test_an_import_error_ends_what_waits_for_it(world):
    publish(world)
    arrive(world, "a")
    arrive(world, "b", 10_000)
    error = {"code": "remote", "message": "no such module"}
    world.forget("c0")
    call = world.state.calls["b"]
    made = world.happen(events.StartFailed("c0", "init_failure", error, final=True))
    assert [(one.call_id, one.positions) for one in kinds(made, Fail)] == [("a", range(1)), ("b", range(10_000))]
    assert not call.waiting


def test_a_container_that_does_not_start_is_tried_again_with_growing_waits(world):
    publish(world, max_containers=1, min_containers=1)
    arrive(world, "a")
    waits = []
    for name in ("c0", "c1"):
        world.forget(name)
        world.happen(events.StartFailed(name, "terminated", None, final=False))
        assert "before a container is tried again" in why_waiting(world.state, "a", world.now)
        waits.append(next_wake(world.state) - world.now)
        world.happen(later=waits[-1])
    assert waits[1] > waits[0]
    world.forget("c2")
    made = world.happen(events.StartFailed("c2", "terminated", None, final=False))
    assert kinds(made, Fail)[0].error["code"] == "internal_failure"
    world.happen(later=1000)
    assert not world.starting  # min_containers does not make a loop of crashes


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


def test_a_changed_function_gets_new_containers(world):
    publish(world)
    arrive(world, "a")
    world.get_ready("c0")
    assert not kinds(publish(world, memory=200), Stop)  # it works still
    made = arrive(world, "b")
    assert kinds(made, Start)[0].memory == 200
    made = world.answer("a", 0)
    assert kinds(made, Stop)[0].why == "the function was published anew"
    assert ("b", 0) not in world.running
    world.get_ready("c1")
    assert world.running["b", 0][1] == "c1"


def test_a_machine_that_comes_back_keeps_what_it_runs(world):
    publish(world)
    arrive(world, "a")
    world.get_ready("c0")
    world.happen(events.NodeAway("n"))
    arrive(world, "b")
    assert why_waiting(world.state, "b", world.now) == "waiting for a machine: none is connected"
    held = (events.Held("c0", "f", True, (events.Run("a", 0, 1),), 128), events.Held("c9", "gone", True))
    made = world.node(held=held)
    assert kinds(made, Stop) == [Stop("c9", "n", "its app has ended", 10.0)]
    assert Finish("a", range(1), 1, "c0") in world.answer("a", 0)
    assert world.running["b", 0]


def test_inputs_that_were_lost_on_the_way_to_their_container_are_given_again(world):
    publish(world)
    warm(world)
    arrive(world, "a", 10)
    assert world.running["a", 3]
    sent = {position for call, position in world.running if call == "a"}
    world.happen(events.NodeAway("n"))
    made = world.node(held=(events.Held("c0", "f", True, (events.Run("a", 0, 2), events.Run("x", 7, 9)), 128),))
    again = {position for one in kinds(made, Give) if one.call_id == "a" for position in range(one.start, one.stop)}
    assert again >= sent - {0, 1}
    assert not again & {0, 1}
    assert "x" not in world.state.calls  # claimed by a container that is known: done before


def test_a_new_server_takes_up_what_a_machine_runs(world):
    publish(world)
    arrive(world, "a", 5)
    held = (events.Held("c7", "f", True, (events.Run("a", 1, 3, 2), events.Run("never heard", 4, 6)), 128),)
    world.starting.clear()
    made = step_without_checks(world, events.NodeJoined("m", "host-m", 4, 1000, (), held))
    assert {(one.call_id, tuple(one.positions)) for one in made if type(one).__name__ == "Adopted"} == {
        ("a", (1, 2)),
        ("never heard", (4, 5)),
    }
    arrived = events.InputsArrived("never heard", "f", ((0, 6),))
    step_without_checks(world, arrived)
    assert world.state.calls["never heard"].waiting[0][:2] in ((0, 4), (1, 4))
    ended = events.AttemptsEnded("a", "c7", 2, range(1, 3), "success")
    assert Finish("a", range(1, 3), 2, "c7") in step_without_checks(world, ended)


def step_without_checks(world, *facts):
    from alight.scheduler.step import step

    return step(world.state, facts, world.now)


def test_a_machine_that_stays_away_loses_its_inputs_to_others(world):
    publish(world)
    arrive(world, "a")
    world.get_ready("c0")
    world.happen(events.NodeAway("n"))
    world.forget("c0")
    made = world.happen(events.NodeGone("n"))
    assert kinds(made, Again) == [Again("a", 0, 2, 0, 1, 0.0)]
    world.node("m")
    world.get_ready("c1")
    assert world.running["a", 0] == (2, "c1")


def test_the_end_of_an_app_ends_its_containers_and_forgets_its_inputs(world):
    publish(world)
    arrive(world, "a")
    arrive(world, "b")
    world.get_ready("c0")
    world.running.clear()
    made = world.happen(events.AppEnded("app"))
    assert {one.container_id for one in kinds(made, Stop)} == {"c0", "c1"}
    (given,) = kinds(made, Cancel)
    assert (given.position, given.container_id) == (-1, "c0")
    assert made.index(given) < min(made.index(one) for one in kinds(made, Stop))
    assert not world.state.calls
    assert kinds(arrive(world, "late"), Fail)[0].status == "cancelled"


def test_what_no_machine_can_run_is_said_at_once_with_a_way_out(world):
    with pytest.raises(errors.InvalidError, match=r"train\(\) asks for a GPU \(a100-40gb\)") as caught:
        place.check_possible(world.state, "train", Need(gpus=("a100-40gb",)))
    assert caught.value.hint == "run it without one: alight run --gpu none …"
    with pytest.raises(errors.InvalidError, match="host-n has 1000 MiB"):
        place.check_possible(world.state, "train", Need(memory=5000))
    with pytest.raises(errors.InvalidError, match="no such GPU") as caught:
        place.check_possible(world.state, "train", Need(gpus=("A9000",)))
    assert "known names are T4, L4" in caught.value.hint
    assert "shares the 4" in place.check_possible(world.state, "train", Need(cpu=64))
    assert place.check_possible(Pretend().state, "train", Need(gpus=("H100",))) == ""
    publish(world, memory=5000)
    assert kinds(arrive(world, "a", 10_000), Fail)[0].positions == range(10_000)


def test_gpus_are_exact_where_there_is_one_and_large_enough_where_there_is_none():
    world = Pretend()
    world.node(gpus=(L4, A100))
    publish(world, "exact", gpus=("l4",))
    publish(world, "smaller", gpus=("T4",))
    assert place.check_possible(world.state, "exact", Need(gpus=("l4",))) == ""
    said = place.check_possible(world.state, "smaller", Need(gpus=("T4",)))
    assert said == "smaller() asks for T4 and gets NVIDIA L4 (22 GB), which has at least as much memory"
    assert kinds(arrive(world, "a", function="exact"), Start)[0].gpus == ("g0",)
    world.get_ready("c0")
    assert not kinds(arrive(world, "b", function="exact"), Start)  # waits for the L4, takes no other
    assert "waiting for a GPU (l4): 1 container of exact()" in why_waiting(world.state, "b", 0)
    assert kinds(arrive(world, "c", function="smaller"), Start)[0].gpus == ("g1",)
    for asked in ("H100", "T4!", "A100:2"):
        with pytest.raises(errors.InvalidError, match="which is not enough"):
            place.check_possible(world.state, "f", Need(gpus=(asked,)))
    assert place.check_possible(world.state, "f", Need(gpus=("H100", "any"))) == ""


@pytest.mark.parametrize("text", ["L4:0", "L4:x", "L4:-1", "", "nothing"])
def test_gpu_requests_that_cannot_be(text):
    with pytest.raises(errors.InvalidError):
        gpus.parse(text, [L4])


def test_single_use_containers_serve_once(world):
    publish(world, single_use=True)
    arrive(world, "a")
    world.get_ready("c0")
    made = world.answer("a", 0)
    assert kinds(made, Stop)[0].why == "it serves one input only"
    assert kinds(arrive(world, "b"), Start)
