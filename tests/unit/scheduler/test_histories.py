"""Whatever happens, in whatever order: nothing is over-allocated, every input ends, retries are bounded."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from alight.scheduler import events
from alight.scheduler.state import INFRASTRUCTURE_TRIES, Gpu, Need
from alight.wire.spec import RetryPolicy

sys.path.insert(0, str(Path(__file__).parent))
from world import Pretend

GPUS = (Gpu("g0", "A100-40GB", 40960), Gpu("g1", "L4", 23034))
NEEDS = [
    Need(memory=300),
    Need(memory=400, max_containers=1, scaledown_window=2, retries=RetryPolicy(2, 2.0, 1.0, 60.0)),
    Need(memory=100, gpus=("A100-40GB",), scaledown_window=5),
    Need(memory=100, gpus=("T4:2", "any"), max_concurrent=3, single_use=True),
    Need(memory=200, min_containers=1, buffer_containers=1, max_concurrent=2),
]
MAX_ATTEMPTS = INFRASTRUCTURE_TRIES + 2


class Histories(RuleBasedStateMachine):
    """Facts in any order that a real cluster could produce."""

    def __init__(self):
        super().__init__()
        self.world = Pretend()
        self.count = 0
        self.inputs = {}
        self.world.node("n", 2, 1000, GPUS)
        for number, need in enumerate(NEEDS):
            self.world.happen(events.FunctionPublished(f"f{number}", "app", f"f{number}", need))

    @rule(number=st.integers(0, len(NEEDS) - 1), child=st.booleans())
    def arrive(self, number, child):
        self.count += 1
        name = f"i{self.count}"
        self.inputs[name] = number
        parent = next(iter(self.world.running), "") if child else ""
        self.world.happen(events.InputArrived(name, f"f{number}", parent=parent))

    @precondition(lambda self: self.world.starting)
    @rule(data=st.data())
    def get_ready(self, data):
        self.world.get_ready(data.draw(st.sampled_from(sorted(self.world.starting))))

    @precondition(lambda self: self.world.starting)
    @rule(data=st.data(), final=st.booleans())
    def fail_to_start(self, data, final):
        name = data.draw(st.sampled_from(sorted(self.world.starting)))
        del self.world.starting[name]
        self.world.happen(events.StartFailed(name, "terminated", {"code": "remote", "message": "no"}, final))

    @precondition(lambda self: self.world.running)
    @rule(data=st.data(), status=st.sampled_from(["success", "exception", "timeout", "internal", "cancelled"]))
    def answer(self, data, status):
        self.world.answer(data.draw(st.sampled_from(sorted(self.world.running))), status)

    @precondition(lambda self: self.world.ready or self.world.stopping)
    @rule(data=st.data(), users_fault=st.booleans())
    def die(self, data, users_fault):
        everyone = sorted({**self.world.ready, **self.world.stopping})
        self.world.die(data.draw(st.sampled_from(everyone)), users_fault=users_fault)

    @precondition(lambda self: self.world.running)
    @rule(data=st.data(), kill=st.booleans())
    def cancel(self, data, kill):
        name = data.draw(st.sampled_from(sorted(self.world.running)))
        self.world.ended[name] = "cancelled"
        self.world.happen(events.InputCancelled(name, kill))

    @precondition(lambda self: self.world.ready)
    @rule(data=st.data(), on=st.booleans())
    def lend(self, data, on):
        self.world.happen(events.CpuLent(data.draw(st.sampled_from(sorted(self.world.ready))), on))

    @rule(number=st.integers(0, len(NEEDS) - 1))
    def publish_again(self, number):
        self.world.happen(events.FunctionPublished(f"f{number}", "app", f"f{number}", NEEDS[number]))

    @rule(seconds=st.floats(0.1, 100))
    def pass_time(self, seconds):
        self.world.happen(later=seconds)

    @rule(arrived=st.booleans())
    def lose_connection(self, arrived):
        """Away and back with everything that it held; whether the last inputs had arrived there is open."""
        world = self.world
        world.happen(events.NodeAway("n"))
        held = [
            events.Held(
                name,
                one.function_id,
                name not in world.starting,
                tuple(entry for entry, (_, where) in world.running.items() if where == name) if arrived else (),
                memory=one.memory,
                gpus=one.gpus,
            )
            for name, one in {**world.starting, **world.ready, **world.stopping}.items()
        ]
        world.node("n", 2, 1000, GPUS, held)

    @rule()
    def lose_machine(self):
        """Away for too long, and back empty."""
        world = self.world
        for place in (world.starting, world.ready, world.stopping, world.running):
            place.clear()
        world.happen(events.NodeAway("n"), events.NodeGone("n"))
        world.node("n", 2, 1000, GPUS)

    def teardown(self):
        """Let everything go well from here: then every input ends, and nothing is left running without a reason."""
        world = self.world
        for name in [*world.ready]:
            world.happen(events.CpuLent(name, False))
        for _ in range(2000):
            if world.stopping:
                world.die(next(iter(world.stopping)))
            elif world.starting:
                world.get_ready(next(iter(world.starting)))
            elif world.running:
                world.answer(next(iter(world.running)))
            elif set(self.inputs) - set(world.ended):
                world.happen(later=70)
            else:
                break
        assert not set(self.inputs) - set(world.ended), "an input never ended"
        for name, attempts in world.attempts.items():
            assert attempts <= MAX_ATTEMPTS, f"{name} ran {attempts} times"
        for _ in range(20):
            world.happen(later=200)
            while world.stopping:
                world.die(next(iter(world.stopping)))
            while world.starting:
                world.get_ready(next(iter(world.starting)))
        kept = [one for one in world.ready.values() if one.function_id != "f4"]
        assert not kept, "a container without a reason"


def test_histories():
    """150 histories of up to 60 facts each."""
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
