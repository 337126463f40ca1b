"""Functions whose inputs run on several containers at once: all start or none, and all answer or the input failed."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from alight.scheduler import decisions as decided
from alight.scheduler import events, place, why
from alight.scheduler.state import INFRASTRUCTURE_TRIES, Gpu, Need
from alight.wire.errors import InvalidError
from alight.wire.spec import RetryPolicy
from tests.unit.generated import times
from tests.unit.scheduler.world import Pretend

GPUS = tuple(Gpu(f"g{number}", "L4", 23034) for number in range(4))


class World(Pretend):
    """Members of a gang are containers of their own here; ``queues`` of all hold what their leader was given."""

    def __init__(self):
        super().__init__()
        self.of = {}  # container → its Start
        self.said = {}  # (input, attempt, gang) → {rank: status}
        self.next = {}  # input → the attempt that comes, as it was written down
        self.aside = {}  # leader → what its answer was about, not acknowledged

    def happen(self, *facts, later=0.0):
        made = super().happen(*facts, later=later)
        starts = [one for one in made if isinstance(one, decided.Start) and one.gang]
        for one in starts:
            mine = [other for other in starts if other.gang == one.gang]
            assert [other.container_id for other in mine] == list(one.members), "a part of a gang was started"
            assert len({other.node_id for other in mine}) == 1
        return made

    def carry_out(self, decision):
        if isinstance(decision, decided.Start):
            self.of[decision.container_id] = decision
        elif isinstance(decision, decided.Aside):
            if not decision.keep:
                self.aside.pop(decision.container_id, None)  # it is gone with a container that was lost
        elif isinstance(decision, decided.Again):
            one = decision.call_id, decision.position
            self.next[one] = decision.attempt
            self.running.pop(one, None)  # whoever still has it has it in vain
            if self.ended.get(one) == "cancelled":
                return  # a server that starts anew hears of that last
        elif isinstance(decision, decided.Finish):
            self._check_finish(decision)
        super().carry_out(decision)

    def _check_finish(self, finish):
        start = self.of[finish.container_id]
        if not start.gang:
            return
        for position in finish.positions:
            ranks = self.said[(finish.call_id, position), finish.attempt, start.gang]
            if start.rank or ranks[0] != "success":
                assert ranks[start.rank] != "success", "a value that is not rank 0's"
            else:
                assert ranks == dict.fromkeys(range(len(start.members)), "success"), "not all have answered"
        if finish.container_id in self.aside:
            del self.aside[finish.container_id]

    def take(self, give):
        for name in give.others:
            assert name in self.ready, "an input for a gang that is not there as a whole"
            for position in range(give.start, give.stop):
                one = give.call_id, position
                if self.of[name].rank not in self.said.get((one, give.attempt, self.of[name].gang), {}):
                    self.queues.setdefault(name, {})[one] = give.attempt
        for position in range(give.start, give.stop):
            again = self.running.get((give.call_id, position))
            assert again in {None, (give.attempt, give.container_id)}, f"{give} while {again} runs it"
        super().take(give)

    def answer_of(self, name, status="success", **how):
        """One container answers the first input that it holds."""
        one, attempt = next(iter(self.queues[name].items()))
        del self.queues[name][one]
        start = self.of[name]
        self.said.setdefault((one, attempt, start.gang), {})[start.rank] = status
        lead = start.members[0] if start.gang else name
        wanted = self.running.get(one) == (attempt, lead)
        open_elsewhere = any(self.queues.get(other, {}).get(one) == attempt for other in start.members)
        if wanted and (status != "success" or not open_elsewhere):
            del self.running[one]
        if wanted and status == "success" and open_elsewhere and not start.rank:
            self.aside[name] = one, attempt
        return self.happen(events.AttemptsEnded(one[0], name, attempt, range(one[1], one[1] + 1), status), **how)

    def forget(self, container_id):
        self.aside.pop(container_id, None)
        start = self.of[container_id]
        for one in [one for one, (_, where) in self.running.items() if where == container_id]:
            del self.running[one]
        if start.gang:
            lead = start.members[0]
            # One that has answered leaves the others to finish. What it was to get may never have come to it.
            for one, (attempt, where) in list(self.running.items()):
                if where == lead and start.rank not in self.said.get((one, attempt, start.gang), ()):
                    del self.running[one]
        super().forget(container_id)

    def held(self, name, arrived=True):
        found = super().held(name)
        start = self.of[name]
        # The server knows what is done, whoever still has it.
        mine = [run for run in found.runs if self.ended.get((run.call_id, run.start), "cancelled") == "cancelled"]
        runs = [run for run in mine if arrived or self.said.get(((run.call_id, run.start), run.attempt, start.gang))]
        if name in self.aside and self.ended.get(self.aside[name][0], "cancelled") == "cancelled":
            (call_id, position), attempt = self.aside[name]
            runs.append(events.Run(call_id, position, position + 1, attempt))
        return dataclasses.replace(found, runs=tuple(runs), gang=start.gang, rank=start.rank, size=len(start.members))

    def replay(self):
        """A machine that came back says again what was not acknowledged."""
        for name, (one, attempt) in list(self.aside.items()):
            self.happen(events.AttemptsEnded(one[0], name, attempt, range(one[1], one[1] + 1), "success"))


@pytest.fixture
def world():
    world = World()
    world.node("n", 4, 1000, GPUS)
    return world


def publish(world, name="f", **need):
    world.happen(events.FunctionPublished(name, "app", name, Need(**{"memory": 100, "cluster": 3, **need})))


def arrive(world, call="call", function="f", count=1):
    return world.happen(events.InputsArrived(call, function, ((0, count),)))


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


NEEDS = [
    Need(memory=200, cluster=2),
    Need(memory=100, cluster=3, retries=RetryPolicy(1, 1.0, 1.0, 60.0), scaledown_window=5),
    Need(memory=300, scaledown_window=3),
    Need(memory=100, cluster=2, gpus=("L4:2",), single_use=True),
    Need(memory=150, cluster=1, min_containers=1),
]


class Histories(RuleBasedStateMachine):
    """Facts in any order that a machine with gangs could produce."""

    def __init__(self):
        super().__init__()
        self.world = World()
        self.world.takes_back = True
        self.inputs, self.count, self.timeouts = set(), 0, 0
        self.functions = {}  # call → number
        self.world.node("n", 4, 1000, GPUS)
        for number, need in enumerate(NEEDS):
            self.world.happen(events.FunctionPublished(f"f{number}", "app", f"f{number}", need))

    @rule(number=st.integers(0, len(NEEDS) - 1), count=st.sampled_from([1, 1, 2, 5]))
    def arrive(self, number, count):
        self.count += 1
        name = f"call{self.count}"
        self.functions[name] = number
        self.inputs |= {(name, position) for position in range(count)}
        arrive(self.world, name, f"f{number}", count)

    @precondition(lambda self: self.world.starting)
    @rule(data=st.data())
    def get_ready(self, data):
        self.world.get_ready(data.draw(st.sampled_from(sorted(self.world.starting))))

    @precondition(lambda self: self.world.starting)
    @rule()
    def get_all_ready(self):
        self.world.all_ready()

    @precondition(lambda self: self.world.starting)
    @rule(data=st.data(), final=st.booleans())
    def fail_to_start(self, data, final):
        name = data.draw(st.sampled_from(sorted(self.world.starting)))
        self.world.forget(name)
        self.world.happen(events.StartFailed(name, "terminated", {"code": "remote", "message": "no"}, final))

    @precondition(lambda self: any(self.world.queues.values()))
    @rule(data=st.data(), status=st.sampled_from([*["success"] * 6, "exception", "timeout", "internal", "cancelled"]))
    def answer(self, data, status):
        name = data.draw(st.sampled_from(sorted(name for name, queue in self.world.queues.items() if queue)))
        self.timeouts += status == "timeout"
        self.world.answer_of(name, status)

    @precondition(lambda self: self.world.ready or self.world.stopping)
    @rule(data=st.data(), users_fault=st.booleans())
    def die(self, data, users_fault):
        everyone = sorted({**self.world.ready, **self.world.stopping})
        self.world.die(data.draw(st.sampled_from(everyone)), users_fault=users_fault)

    @precondition(lambda self: self.world.queues)
    @rule(data=st.data())
    def return_inputs(self, data):
        """A container that stops gives back what it had not begun."""
        world = self.world
        name = data.draw(st.sampled_from(sorted(world.queues)))
        runs = []
        for one, attempt in list(world.queues[name].items()):
            del world.queues[name][one]
            start = world.of[name]
            if world.running.get(one) == (attempt, start.members[0] if start.gang else name):
                del world.running[one]
            runs.append(events.Run(one[0], one[1], one[1] + 1, attempt))
        self.timeouts += 1  # it begins again at no charge
        if name in world.recalls:
            world.recalls.remove(name)
        world.happen(events.InputsReturned(name, tuple(runs)))

    @precondition(lambda self: self.world.ready)
    @rule(data=st.data())
    def stop_one(self, data):
        name = data.draw(st.sampled_from(sorted(self.world.ready)))
        self.world.happen(events.StopAsked(name, "somebody says so"))

    @precondition(lambda self: self.world.running)
    @rule(data=st.data(), kill=st.booleans())
    def cancel(self, data, kill):
        name = data.draw(st.sampled_from(sorted({call for call, _ in self.world.running})))
        for one in [one for one in self.inputs if one[0] == name and one not in self.world.ended]:
            self.world.ended[one] = "cancelled"
        self.world.cancel(name, kill)

    @rule(number=st.integers(0, len(NEEDS) - 1), recreate=st.booleans())
    def publish_again(self, number, recreate):
        self.timeouts += recreate
        event = events.FunctionPublished(f"f{number}", "app", f"f{number}", NEEDS[number], recreate=recreate)
        self.world.happen(event)

    @rule(seconds=st.floats(0.01, 100))
    def pass_time(self, seconds):
        self.world.happen(later=seconds)

    @rule(arrived=st.booleans())
    def lose_connection(self, arrived):
        world = self.world
        world.happen(events.NodeAway("n"))
        world.recalls.clear()
        held = [world.held(name, arrived) for name in {**world.starting, **world.ready, **world.stopping}]
        if not arrived:
            for name, queue in world.queues.items():
                there = next(
                    ({(run.call_id, run.start) for run in one.runs} for one in held if one.container_id == name), set()
                )
                for one in [one for one in queue if one not in there]:
                    del queue[one]
        world.node("n", 4, 1000, GPUS, held)
        world.replay()

    @rule()
    def lose_machine(self):
        world = self.world
        for name in {**world.starting, **world.ready, **world.stopping}:
            world.forget(name)
        world.happen(events.NodeAway("n"), events.NodeGone("n"))
        world.node("n", 4, 1000, GPUS)

    @rule(data=st.data())
    def restart_of_the_server(self, data):
        """A new state hears of the inputs that are not done, and of a machine of which some containers are gone."""
        world = self.world
        functions = list(world.state.functions.values())
        world.state = type(world.state)(make_id=world.state.make_id)
        world.recalls.clear()
        world.memory.clear()
        everyone = sorted({**world.starting, **world.ready, **world.stopping})
        for name in data.draw(st.lists(st.sampled_from(everyone), max_size=1)) if everyone else ():
            world.forget(name)
            self.timeouts += 1
        self.timeouts += 1
        world.running, running = {}, world.running
        for function in functions:
            world.happen(events.FunctionPublished(function.function_id, "app", function.name, function.need))
        tried = {}
        for call_id, position in sorted(self.inputs - set(world.ended)):
            attempt = world.next.get((call_id, position), 1)
            tried.setdefault(call_id, []).append(events.Attempt(position, attempt))
        for call_id, attempts in tried.items():
            ranges = tuple((one.position, one.position + 1) for one in attempts)
            again = tuple(one for one in attempts if one.attempt > 1)
            world.happen(events.InputsArrived(call_id, f"f{self.functions[call_id]}", ranges, None, again))
        world.ready.update(world.stopping)
        world.stopping.clear()
        # What only followers hold, or never came to its container, is not the machine's to go on with.
        claimed = {(one, name) for name, queue in world.queues.items() if not world.of[name].rank for one in queue}
        claimed |= {(one, name) for name, (one, _) in world.aside.items()}
        world.running = {one: where for one, where in running.items() if (one, where[1]) in claimed}
        held = [world.held(name) for name in {**world.starting, **world.ready}]
        unwanted = {call_id for (call_id, _), how in world.ended.items() if how == "cancelled"}
        cancelled = [events.CallCancelled(call_id) for call_id in sorted(unwanted)]
        lost = {
            (world.of[name].members or (name,))[0] for name in world.of if name not in {**world.starting, **world.ready}
        }
        world.running = {one: where for one, where in world.running.items() if where[1] not in lost}
        world.aside = {name: one for name, one in world.aside.items() if one[0] not in world.ended}
        world.node("n", 4, 1000, GPUS, held, cancelled)
        world.replay()

    def _left(self):
        world = self.world
        left = sorted(self.inputs - set(world.ended))
        words = [why.why_waiting(world.state, call, world.now) for call, _ in left]
        return left, words, world.running, world.state.containers, world.state.gangs

    def teardown(self):
        """Let everything go well from here: then every input ends, and nothing is left without a reason."""
        world = self.world
        for _ in range(3000):
            if world.stopping:
                world.die(next(iter(world.stopping)))
            elif world.starting:
                world.get_ready(next(iter(world.starting)))
            elif world.recalls:
                world.give_back(world.recalls[0])
            elif any(world.queues.values()):
                world.answer_of(next(name for name, queue in world.queues.items() if queue))
            elif self.inputs - set(world.ended):
                world.happen(later=70)
            else:
                break
        assert not self.inputs - set(world.ended), f"an input never ended: {self._left()}"
        assert not world.aside, "an answer is kept for ever"
        for one, attempts in world.attempts.items():
            assert len(attempts) <= INFRASTRUCTURE_TRIES + 2 + self.timeouts, f"{one} ran {len(attempts)} times"
        for _ in range(20):
            world.happen(later=200)
            while world.stopping:
                world.die(next(iter(world.stopping)))
            world.all_ready()
        assert {one.function_id for one in world.ready.values()} <= {"f4"}, "a container without a reason"
        assert not world.state.calls, "a call that is done is remembered"
        assert len(world.state.gangs) <= 1, "a gang that is gone is remembered"


@pytest.mark.timeout(600)
def test_histories():
    """Of up to 50 facts each; 100 where they are random."""
    run_state_machine_as_test(Histories, settings=settings(max_examples=times(25)))
