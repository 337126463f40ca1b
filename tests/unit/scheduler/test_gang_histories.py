"""Whatever happens to gangs, in whatever order: all start or none, every input ends, and nothing is left over."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from alight.scheduler import events, why
from alight.scheduler.state import INFRASTRUCTURE_TRIES, Need
from alight.wire.spec import RetryPolicy
from tests.unit.generated import times
from tests.unit.scheduler.gang_world import GPUS, World, arrive

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
