"""What the scheduler decides in the situations that users meet."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from alight.scheduler import events, gpus, place
from alight.scheduler.decisions import Again, Cancel, Fail, Finish, Give, Start, Stop
from alight.scheduler.state import Gpu, Need
from alight.scheduler.step import next_wake
from alight.scheduler.why import why_waiting
from alight.wire import errors
from alight.wire.spec import RetryPolicy

sys.path.insert(0, str(Path(__file__).parent))
from world import Pretend

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


def arrive(world, *names, function="f", **fields):
    return world.happen(*[events.InputArrived(name, function, **fields) for name in names])


def kinds(decisions, kind):
    return [one for one in decisions if isinstance(one, kind)]


def test_inputs_of_a_function_go_out_in_the_order_in_which_they_came(world):
    publish(world, max_containers=1)
    names = [f"i{number}" for number in range(20)]
    arrive(world, *names)
    world.get_ready("c0")
    for name in names:
        world.answer(name)
    assert world.given == names


def test_a_container_that_is_free_takes_the_input_at_once(world):
    publish(world)
    arrive(world, "a")
    world.get_ready("c0")
    assert world.answer("a") == [Finish("a", 1)]
    assert arrive(world, "b") == [Give("b", 1, "c0")]


def test_idle_containers_end_after_their_window_and_not_before(world):
    publish(world, scaledown_window=30)
    arrive(world, "a")
    world.get_ready("c0")
    world.answer("a")
    assert not kinds(world.happen(later=29), Stop)
    arrive(world, "b")
    world.answer("b")
    assert not kinds(world.happen(later=29), Stop)
    assert kinds(world.happen(later=2), Stop) == [Stop("c0", "n", "nothing to do", 30.0)]
    world.die("c0")
    assert not world.state.containers


def test_max_containers_holds_and_the_wait_says_so(world):
    publish(world, max_containers=2)
    made = arrive(world, "a", "b", "c")
    assert len(kinds(made, Start)) == 2
    assert why_waiting(world.state, "c", world.now) == "waiting for a container: 2 starting, 2 other inputs waiting"
    world.get_ready("c0")
    world.get_ready("c1")
    assert why_waiting(world.state, "c", world.now) == "waiting for a container: all 2 of max_containers are busy"
    assert why_waiting(world.state, "a", world.now) == ""


def test_only_so_many_containers_start_together(world):
    publish(world, memory=1)
    made = arrive(world, *[f"i{number}" for number in range(50)])
    assert len(kinds(made, Start)) == 8  # twice the cores
    assert len(kinds(world.get_ready("c0"), Start)) == 1


def test_memory_that_others_hold_is_waited_for_in_words(world):
    publish(world, "big", memory=900)
    publish(world, "other", memory=900, app="elsewhere")
    arrive(world, "a", function="big")
    world.get_ready("c0")
    assert not kinds(arrive(world, "b", function="other"), Start)
    words = why_waiting(world.state, "b", world.now)
    assert words == "waiting for memory (900 MiB): 1 container of big() of app app holds it"


def test_an_idle_container_makes_room_for_somebody_elses_input(world):
    publish(world, "big", memory=900)
    publish(world, "other", memory=900)
    arrive(world, "a", function="big")
    world.get_ready("c0")
    world.answer("a")
    made = arrive(world, "b", function="other")
    assert kinds(made, Stop) == [Stop("c0", "n", "making room for other()", 30.0)]
    assert not kinds(world.happen(later=1), Stop)  # asked once
    assert len(kinds(world.die("c0"), Start)) == 1


def test_a_long_queue_does_not_starve_a_short_one(world):
    publish(world, "many", memory=250)
    publish(world, "one", memory=250)
    arrive(world, *[f"m{number}" for number in range(100)], function="many")
    arrive(world, "x", function="one")
    world.get_ready("c0")
    world.answer("m0", "internal")
    world.die("c0")
    assert any(world.state.containers[name].function_id == "one" for name in world.state.containers)


def test_a_poison_input_ends_as_an_error_after_three_containers(world):
    publish(world, retries=RetryPolicy(5))
    arrive(world, "poison", "good")
    died = 0
    while "poison" not in world.ended:
        while world.starting:
            world.get_ready(next(iter(world.starting)))
        made = world.die(world.running["poison"][1], error={"code": "remote", "message": "its container ended"})
        died += 1
    assert died == 3
    assert kinds(made, Fail)[0].error["message"] == "its container ended (tried in 3 containers)"
    assert world.running["good"]


def test_the_users_policy_counts_the_users_failures_only(world):
    publish(world, retries=RetryPolicy(2, 2.0, 1.0, 60.0))
    arrive(world, "a")
    world.get_ready("c0")
    made = world.answer("a", "exception")
    assert kinds(made, Again) == [Again("a", 2, 1, 0, 1.0)]
    assert why_waiting(world.state, "a", world.now) == "waiting for its next attempt (2)"
    world.happen(later=1.0)
    world.die("c0")  # ours: costs no retry
    world.get_ready("c1")
    made = world.answer("a", "exception")
    assert kinds(made, Again) == [Again("a", 4, 2, 1, 3.0)]
    assert next_wake(world.state) is not None
    world.happen(later=2.0)
    assert Finish("a", 4) in world.answer("a", "exception")


def test_backoff_stays_below_its_cap_whatever_the_policy(world):
    publish(world, scaledown_window=1e6, retries=RetryPolicy(1000, 10.0, 60.0, 60.0))
    arrive(world, "a")
    world.get_ready("c0")
    for _ in range(200):
        made = world.answer("a", "exception")
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
    assert kinds(world.die("c1", users_fault=True, error=error), Fail) == [Fail("a", "terminated", error)]


def test_a_timeout_ends_its_container(world):
    publish(world)
    arrive(world, "a", "b")
    world.get_ready("c0")
    made = world.answer("a", "timeout")
    assert kinds(made, Stop)[0].container_id == "c0"
    assert not kinds(made, Give)


def test_a_late_answer_frees_its_slot_and_nothing_else(world):
    publish(world)
    arrive(world, "a")
    world.get_ready("c0")
    made = world.happen(events.InputCancelled("a"))
    assert made == [Cancel("a", "c0", "n")]
    arrive(world, "b")
    assert "b" not in world.running
    del world.running["a"]
    assert world.happen(events.AttemptEnded("a", 1, "c0", "cancelled")) == [Give("b", 1, "c0")]
    # Somebody else's word for b counts for nothing.
    assert world.happen(events.AttemptEnded("b", 1, "c9", "success")) == []
    assert world.happen(events.AttemptEnded("b", 7, "c0", "success")) == []


def test_an_import_error_ends_what_waits_for_it(world):
    publish(world)
    arrive(world, "a", "b")
    error = {"code": "remote", "message": "no such module"}
    del world.starting["c0"]
    made = world.happen(events.StartFailed("c0", "init_failure", error, final=True))
    assert [one.input_id for one in kinds(made, Fail)] == ["a", "b"]


def test_a_container_that_does_not_start_is_tried_again_with_growing_waits(world):
    publish(world, max_containers=1)
    arrive(world, "a")
    waits = []
    for name in ("c0", "c1"):
        del world.starting[name]
        world.happen(events.StartFailed(name, "terminated", None, final=False))
        assert "before a container is tried again" in why_waiting(world.state, "a", world.now)
        waits.append(next_wake(world.state) - world.now)
        world.happen(later=waits[-1])
    assert waits[1] > waits[0]
    del world.starting["c2"]
    made = world.happen(events.StartFailed("c2", "terminated", None, final=False))
    assert kinds(made, Fail)[0].error["code"] == "internal_failure"


def test_a_child_that_only_its_waiting_parent_could_make_room_for_fails(world):
    publish(world, "parent", memory=900)
    publish(world, "child", memory=900)
    arrive(world, "p", function="parent")
    world.get_ready("c0")
    world.happen(events.CpuLent("c0", True))
    assert not kinds(arrive(world, "c", function="child", parent="p"), Fail)
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
    world.happen(events.CpuLent("c0", True))
    arrive(world, "c", function="child", parent="p")
    world.happen(later=30)
    assert "c" not in world.ended
    world.answer("b")
    world.die("c1")
    world.get_ready("c2")
    assert "c" in world.running


def test_a_changed_function_gets_new_containers(world):
    publish(world)
    arrive(world, "a")
    world.get_ready("c0")
    assert not kinds(publish(world, memory=200), Stop)  # it works still
    made = arrive(world, "b")
    assert kinds(made, Start)[0].memory == 200
    world.answer("a")
    assert "b" not in world.running
    world.get_ready("c1")
    assert world.running["b"][1] == "c1"


def test_a_machine_that_comes_back_keeps_what_it_runs(world):
    publish(world)
    arrive(world, "a")
    world.get_ready("c0")
    world.happen(events.NodeAway("n"))
    arrive(world, "b")
    assert why_waiting(world.state, "b", world.now) == "waiting for a machine: none is connected"
    held = (events.Held("c0", "f", True, ("a",), memory=128), events.Held("c9", "gone", True))
    made = world.node(held=held)
    assert kinds(made, Stop) == [Stop("c9", "n", "its app has ended", 10.0)]
    assert Finish("a", 1) in world.answer("a")
    assert world.running["b"]


def test_an_input_that_was_lost_on_the_way_to_its_container_is_given_again(world):
    publish(world)
    arrive(world, "a")
    world.get_ready("c0")
    world.happen(events.NodeAway("n"))
    made = world.node(held=(events.Held("c0", "f", True, (), memory=128),))
    assert made == [Give("a", 1, "c0")]
    assert Finish("a", 1) in world.answer("a")


def test_a_machine_that_stays_away_loses_its_inputs_to_others(world):
    publish(world)
    arrive(world, "a")
    world.get_ready("c0")
    world.happen(events.NodeAway("n"))
    world.running.clear()
    world.ready.clear()
    made = world.happen(events.NodeGone("n"))
    assert kinds(made, Again) == [Again("a", 2, 0, 1, 0.0)]
    world.node("m")
    world.get_ready("c1")
    assert world.running["a"] == (2, "c1")


def test_the_end_of_an_app_ends_its_containers_and_forgets_its_inputs(world):
    publish(world)
    arrive(world, "a", "b")
    world.get_ready("c0")
    made = world.happen(events.AppEnded("app"))
    assert {one.container_id for one in kinds(made, Stop)} == {"c0", "c1"}
    assert not world.state.inputs
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
    made = world.answer("a")
    assert kinds(made, Stop)[0].why == "it serves one input only"
    assert kinds(arrive(world, "b"), Start)
