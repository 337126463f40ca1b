"""Machines that go, come back and lack what is asked; servers that start anew; apps that end."""

from __future__ import annotations

import pytest

from alight.scheduler import events, gpus, place
from alight.scheduler.decisions import Again, Cancel, Fail, Finish, Give, Start, Stop
from alight.scheduler.state import Gpu, Need
from alight.scheduler.why import why_waiting
from alight.wire import errors
from tests.unit.scheduler.facts import arrive, kinds, publish, warm
from tests.unit.scheduler.world import Pretend

L4 = Gpu("g0", "L4", 23034, "NVIDIA L4")
A100 = Gpu("g1", "A100-40GB", 40536, "NVIDIA A100-SXM4-40GB")


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


def test_of_two_that_run_an_input_the_one_that_was_given_it_later_goes_on(world):
    """The first was given up and has not ended yet; a new server finds both."""
    publish(world, memory=100)
    old, new = (events.Held(f"c{n + 7}", "f", True, (events.Run("a", 0, 1, n),), 100) for n in (1, 2))
    made = step_without_checks(world, events.NodeJoined("m", "host-m", 4, 1000, (), (old, new)))
    assert [(one.container_id, one.position) for one in kinds(made, Cancel)] == [("c8", 0)]
