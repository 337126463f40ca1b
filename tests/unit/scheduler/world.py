"""A pretended cluster for the scheduler: it does what decisions say and lets tests choose what happens next."""

from __future__ import annotations

import itertools

from alight.scheduler import decisions as decided
from alight.scheduler import events
from alight.scheduler.state import State
from alight.scheduler.step import step


class Pretend:
    """Carries decisions out in memory and checks, at every step, what must never happen."""

    def __init__(self):
        numbers = itertools.count()
        self.state = State(make_id=lambda: f"c{next(numbers)}")
        self.now = 0.0
        self.starting, self.ready, self.stopping = {}, {}, {}
        self.running = {}  # input id → (attempt, container)
        self.ended = {}  # input id → how
        self.attempts = {}
        self.given = []
        self.memory, self.gpus = {}, {}

    def node(self, name="n", cpus=4, memory=1000, gpus=(), held=()):
        self.memory[name], self.gpus[name] = memory, {gpu.uuid for gpu in gpus}
        return self.happen(events.NodeJoined(name, f"host-{name}", cpus, memory, tuple(gpus), tuple(held)))

    def happen(self, *facts, later=0.0):
        self.now += later
        made = step(self.state, facts, self.now)
        for decision in made:
            self.carry_out(decision)
        self.check()
        return made

    def carry_out(self, decision):
        if isinstance(decision, decided.Start):
            self.starting[decision.container_id] = decision
        elif isinstance(decision, decided.Give):
            assert decision.container_id in self.ready, "an input for a container that takes none"
            again = self.running.get(decision.input_id)
            assert again in {None, (decision.attempt, decision.container_id)}, "an input given twice at once"
            assert decision.input_id not in self.ended, "an input given after its end"
            self.running[decision.input_id] = (decision.attempt, decision.container_id)
            if again is None:
                self.attempts[decision.input_id] = self.attempts.get(decision.input_id, 0) + 1
                self.given.append(decision.input_id)
        elif isinstance(decision, decided.Stop):
            found = self.starting.pop(decision.container_id, None) or self.ready.pop(decision.container_id, None)
            if found is not None:
                self.stopping[decision.container_id] = found
        elif isinstance(decision, (decided.Finish, decided.Fail)):
            assert decision.input_id not in self.ended, "an input ended twice"
            self.ended[decision.input_id] = decision

    def get_ready(self, container_id):
        self.ready[container_id] = self.starting.pop(container_id)
        return self.happen(events.ContainerReady(container_id))

    def answer(self, input_id, status="success"):
        attempt, container_id = self.running.pop(input_id)
        return self.happen(events.AttemptEnded(input_id, attempt, container_id, status))

    def die(self, container_id, **how):
        for place in (self.starting, self.ready, self.stopping):
            place.pop(container_id, None)
        for input_id in [one for one, (_, where) in self.running.items() if where == container_id]:
            del self.running[input_id]
        return self.happen(events.ContainerEnded(container_id, **how))

    def check(self):
        alive = {**self.starting, **self.ready, **self.stopping}
        for name, memory in self.memory.items():
            mine = [one for one in alive.values() if one.node_id == name]
            assert sum(one.memory for one in mine) <= memory, "more memory handed out than there is"
            handed = [uuid for one in mine for uuid in one.gpus]
            assert len(handed) == len(set(handed)), "a GPU handed out twice"
            assert set(handed) <= self.gpus[name], "a GPU that this machine lacks"
            node = self.state.nodes.get(name)
            if node is not None:
                known = [self.state.containers[one] for one in node.containers]
                assert node.memory_free == node.memory - sum(one.memory for one in known)
                assert set(node.gpus_free) == self.gpus[name] - {uuid for one in known for uuid in one.gpus}
                lent = sum(one.cpu for one in known if not one.cpu_lent)
                assert abs(node.cpu_used - lent) < 1e-6
                assert node.starting == sum(not one.ready for one in known)
        for function in self.state.functions.values():
            if function.need.max_containers is not None:
                assert len(function.containers) <= function.need.max_containers
            assert len(set(function.waiting)) == len(function.waiting), "an input waits twice"
