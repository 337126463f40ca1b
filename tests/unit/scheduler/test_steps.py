"""Which inputs a container gets, in which order and how many at a time."""

from __future__ import annotations

from alight.scheduler import events
from alight.scheduler.decisions import Finish, Give, Recall, Start, Stop
from tests.unit.scheduler.facts import arrive, given, kinds, publish, warm


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


def test_single_use_containers_serve_once(world):
    publish(world, single_use=True)
    arrive(world, "a")
    world.get_ready("c0")
    made = world.answer("a", 0)
    assert kinds(made, Stop)[0].why == "it serves one input only"
    assert kinds(arrive(world, "b"), Start)
