"""Inputs that fail, and containers that fail: who is charged, what is tried again, and when that ends."""

from __future__ import annotations

from alight.scheduler import events
from alight.scheduler.decisions import Again, Cancel, Fail, Finish, Give, Stop
from alight.scheduler.step import next_wake
from alight.scheduler.why import why_waiting
from alight.wire.spec import RetryPolicy
from tests.unit.scheduler.facts import arrive, kinds, publish, warm


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
