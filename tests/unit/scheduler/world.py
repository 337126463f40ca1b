"""A pretended cluster for the scheduler: it does what decisions say and lets tests choose what happens next."""

from __future__ import annotations

import itertools

from alight.scheduler import decisions as decided
from alight.scheduler import events
from alight.scheduler.line import waiting_in
from alight.scheduler.state import State, size, spans
from alight.scheduler.step import step
from alight.wire.gpus import grant


class Pretend:
    """Carries decisions out in memory and checks, at every step, what must never happen.

    An input is (call, position). ``queues`` holds what each container was given and has not answered, in order.
    """

    def __init__(self):
        numbers = itertools.count()
        self.state = State(make_id=lambda: f"c{next(numbers)}")
        self.now = 0.0
        self.starting, self.ready, self.stopping = {}, {}, {}
        self.running = {}  # input → (attempt, container)
        self.queues = {}  # container → {input: attempt}
        self.recalls = []  # containers asked to return what they have not begun
        self.ended = {}  # input → how
        self.attempts = {}
        self.given = []
        self.lent = {}  # container → inputs of it that wait
        self.takes_back = False  # versions that do not come up, by itself
        self.proven = {}  # function → what it needs, of the version that came up last
        self.is_held = False  # the app, for a budget that is used up
        self.tainted = set()  # inputs that began in a container that was lost
        self.memory, self.gpus = {}, {}

    def node(self, name="n", cpus=4, memory=1000, gpus=(), held=(), also=()):
        return self.happen(self.joined(name, cpus, memory, gpus, held), *also)

    def joined(self, name, cpus, memory, gpus, held=()):
        """What is said of a machine that is there, with what it holds."""
        self.memory[name], self.gpus[name] = memory, {gpu.uuid: gpu for gpu in gpus}
        return events.NodeJoined(name, f"host-{name}", cpus, memory, tuple(gpus), tuple(held))

    def happen(self, *facts, later=0.0):
        self.now += later
        made = step(self.state, facts, self.now)
        for decision in made:
            self.carry_out(decision)
        self.check()
        for fact in facts:
            if isinstance(fact, events.FunctionPublished) and not fact.trial:
                self.proven[fact.function_id] = fact.need
        for one in made:
            if isinstance(one, decided.TrialEnded) and not one.error:
                self.proven[one.function_id] = self.state.functions[one.function_id].need
        if self.takes_back:
            self.take_back([one.function_id for one in made if isinstance(one, decided.TrialEnded) and one.error])
        return made

    def hold(self, held, stop=False):
        """A budget of the app is used up, or no longer."""
        self.is_held = held
        stopped = frozenset({"app"} if stop and held else ())
        return self.happen(events.AppsHeld({"app": "held: there is no money"} if held else {}, stopped))

    def here(self, name, one):
        """Whether an input that a container has is awaited from it: nobody may want it, or another one runs it, too."""
        return self.running.get(one, (0, ""))[1] == name

    def on(self, node):
        """The containers that a machine has."""
        alive = {**self.starting, **self.ready, **self.stopping}
        return [name for name, one in alive.items() if one.node_id == node]

    def take_back(self, functions):
        """What a server does about versions that did not come up."""
        for one in functions:
            function = self.state.functions[one]
            need = self.proven.get(one, function.need)
            self.happen(events.FunctionReverted(one, "app", function.name, need, kept=function.kept))

    def carry_out(self, decision):
        if isinstance(decision, decided.Start):
            assert not self.is_held, "a container of a held app starts"
            self._check_count(self.state.functions[decision.function_id])
            self.starting[decision.container_id] = decision
        elif isinstance(decision, decided.Give):
            self.take(decision)
        elif isinstance(decision, decided.Recall):
            assert decision.container_id not in self.recalls, "asked twice to return its inputs"
            self.recalls.append(decision.container_id)
        elif isinstance(decision, decided.Stop):
            found = self.starting.pop(decision.container_id, None) or self.ready.pop(decision.container_id, None)
            if found is not None:
                self.stopping[decision.container_id] = found
        elif isinstance(decision, decided.Finish | decided.Fail):
            for position in decision.positions:
                one = decision.call_id, position
                assert one not in self.ended, "an input ended twice"
                assert one not in self.running, "an input ended that is open in a container"
                self.ended[one] = decision
        elif isinstance(decision, decided.Adopted):
            for one in [(decision.call_id, position) for position in decision.positions]:
                if one in self.ended:
                    continue  # its call was cancelled, which is said in the next breath
                # Where two run it, the other one is told that nobody wants its answer.
                if one in self.queues.get(decision.container_id, {}):
                    self.running[one] = self.queues[decision.container_id][one], decision.container_id
        elif isinstance(decision, decided.Again):
            assert (decision.call_id, decision.position) not in self.ended, "an ended input is tried again"

    def _check_count(self, function):
        """One more than there may be, while the version before serves on beside the first container of a new one.

        There may be more of that version than the new one allows: they serve until it is there.
        """
        most = function.need.max_containers
        if most is None:
            return
        if function.trial is not None:
            mine = [self.state.containers[name] for name in function.containers]
            serve = [one for one in mine if one.version < function.version and not (one.stopping or one.blocked)]
            most = max(most, len(serve)) + 1
        assert len(function.containers) - len(function.blocked) <= most, "above max_containers"

    def take(self, give):
        name = give.container_id
        assert name in self.ready, "an input for a container that takes none"
        queue = self.queues.setdefault(name, {})
        new = False
        for position in range(give.start, give.stop):
            one = give.call_id, position
            assert not self.is_held or one in self.running, "an input of a held app begins"
            again = self.running.get(one)
            assert again in {None, (give.attempt, name)}, "an input given twice at once"
            assert one not in self.ended, "an input given after its end"
            self.running[one] = give.attempt, name
            queue[one] = give.attempt
            if again is None:
                new = True
                self.attempts.setdefault(one, set()).add(give.attempt)
                self.given.append(one)
        function = self.state.functions.get(self.state.containers[name].function_id)
        slots = function.need.slots
        if slots > 1 and new:
            known = sum(self.ended.get(one, "cancelled") == "cancelled" for one in queue)  # the rest is done elsewhere
            assert known - min(self.lent.get(name, 0), known) <= slots, "a container above its concurrency"
        if self.tainted & queue.keys() and slots == 1:
            assert len(queue) == 1, "what may have ended a container shares one"

    def get_ready(self, container_id):
        self.ready[container_id] = self.starting.pop(container_id)
        return self.happen(events.ContainerReady(container_id))

    def all_ready(self):
        while self.starting:
            self.get_ready(next(iter(self.starting)))

    def answer(self, call_id, *positions, status="success", busy=0.0, later=0.0):
        """A container answers inputs of a call, all of which it holds."""
        found = {self.running.pop((call_id, position)) for position in positions}
        assert len(found) == 1, "answers of one container and attempt"
        attempt, name = found.pop()
        for position in positions:
            del self.queues[name][call_id, position]
            self.tainted.discard((call_id, position))
        whole = positions == tuple(range(positions[0], positions[-1] + 1))
        said = range(positions[0], positions[-1] + 1) if whole else positions
        return self.happen(events.AttemptsEnded(call_id, name, attempt, said, status, busy), later=later)

    def answer_head(self, name, count=1, **how):
        """The inputs that a container was given first, as far as they are of one call and attempt."""
        queue = list(self.queues[name].items())
        (call_id, _), attempt = queue[0]
        same = list(itertools.takewhile(lambda one: one[0][0] == call_id and one[1] == attempt, queue))
        return self.answer(call_id, *[one[0][1] for one in same[:count]], **how)

    def give_back(self, name, begun=1):
        """A container answers a recall."""
        if name in self.recalls:
            self.recalls.remove(name)
        runs = []
        for (call_id, position), attempt in list(self.queues.get(name, {}).items())[begun:]:
            del self.queues[name][call_id, position]
            if self.here(name, (call_id, position)):
                del self.running[call_id, position]
            runs.append(events.Run(call_id, position, position + 1, attempt))
        return self.happen(events.InputsReturned(name, tuple(runs)))

    def cancel(self, call_id, kill=False):
        for one in [one for one in self.running if one[0] == call_id]:
            del self.running[one]  # it stays in its container's queue until that has answered
        return self.happen(events.CallCancelled(call_id, kill))

    def die(self, container_id, **how):
        self.forget(container_id)
        return self.happen(events.ContainerEnded(container_id, **how))

    def forget(self, container_id):
        for place in (self.starting, self.ready, self.stopping, self.lent):
            place.pop(container_id, None)
        if container_id in self.recalls:
            self.recalls.remove(container_id)
        for one in self.queues.pop(container_id, {}):
            if self.here(container_id, one):
                del self.running[one]

    def outdated(self, name):
        """How old a container is: what a server that starts anew knows of it; see ``events.Held``."""
        container = self.state.containers[name]
        function = self.state.functions[container.function_id]
        if container.version == function.version:
            return 0
        return 1 if container.version >= function.proven else 2

    def held(self, name, arrived=True):
        """What a node says of a container that it holds."""
        one = {**self.starting, **self.ready, **self.stopping}[name]
        queue = self.queues.get(name, {}) if arrived else {}
        runs = tuple(
            events.Run(*one, one[1] + 1, attempt)
            for one, attempt in queue.items()
            if self.ended.get(one, "cancelled") == "cancelled"  # the server knows what is done
        )
        return events.Held(name, one.function_id, name not in self.starting, runs, one.memory, one.gpus)

    def check(self):
        self._check_machines()
        for function in self.state.functions.values():
            mine = [call for call in self.state.calls.values() if call.function_id == function.function_id]
            assert function.waiting == sum(waiting_in(call) for call in mine), "a wrong count of what waits"
            assert set(function.line) == {call.call_id for call in mine if call.waiting}
            assert set(function.first) == {call.call_id for call in mine if call.first}
            assert set(function.suspects) == {call.call_id for call in mine if call.suspects}
        for call in self.state.calls.values():
            if waiting_in(call) > 1000:
                continue  # looking at a million inputs at each step is for nobody
            waits = [p for spans in (call.waiting, call.first, call.suspects) for a, b, _ in spans for p in range(a, b)]
            waits += call.delayed
            assert len(waits) == len(set(waits)), "an input waits twice"
            for position in waits:
                assert (call.call_id, position) not in self.running, "an input waits and runs"
                assert (call.call_id, position) not in self.ended, "an input waits after its end"
        awaited = set()
        for name, container in self.state.containers.items():
            runs = [run for group in (container.runs, container.dropped) for of in group.values() for run in of]
            assert container.open == sum(map(size, runs))
            assert all(map(size, runs)), "an empty run"
            for call_id, mine in container.runs.items():
                assert name in self.state.calls[call_id].containers
                for start, stop in (span for run in mine for span in spans(run) if not container.rank):
                    if stop - start <= 1000:
                        here = {(call_id, position) for position in range(start, stop)}
                        assert not here & awaited, "an input is awaited from two"
                        awaited |= here

    def _check_machines(self):
        alive = {**self.starting, **self.ready, **self.stopping}
        for name, memory in self.memory.items():
            mine = [one for one in alive.values() if one.node_id == name]
            assert sum(one.memory for one in mine) <= memory, "more memory handed out than there is"
            self._check_gpus(name, mine)
            node = self.state.nodes.get(name)
            if node is not None:
                known = [self.state.containers[one] for one in node.containers]
                assert node.memory_free == node.memory - sum(one.memory for one in known)
                held = {grant(text).uuid for one in known for text in one.gpus}
                broken = {uuid for uuid, gpu in self.gpus[name].items() if gpu.fault}
                assert set(node.gpus_free) == set(self.gpus[name]) - held - broken
                assert abs(node.cpu_used - sum(one.cpu for one in known if not one.blocked)) < 1e-6
                assert node.starting == sum(not one.ready for one in known)

    def _check_gpus(self, name, mine):
        """Whole GPUs have one holder; parts are together no more than there is of memory and processors."""
        handed = [grant(text) for one in mine for text in one.gpus]
        assert {one.uuid for one in handed} <= set(self.gpus[name]), "a GPU that this machine lacks"
        for uuid in {one.uuid for one in handed}:
            parts = [one for one in handed if one.uuid == uuid]
            gpu = self.gpus[name][uuid]
            if not all(one.is_share for one in parts):
                assert len(parts) == 1, "a GPU handed out twice"
                continue
            assert not gpu.slice_of, "a part of a MIG instance"
            assert sum(one.memory for one in parts) <= gpu.memory, "more of a GPU's memory handed out than there is"
            assert sum(one.percent for one in parts) <= 100, "more than all of a GPU's processors handed out"
            node = self.state.nodes.get(name)
            known = node is not None and all(one.container_id in self.state.containers for one in mine)
            if known:
                used = node.gpus_shared[uuid]
                assert (used.holders, used.memory, used.percent) == (
                    len(parts),
                    sum(one.memory for one in parts),
                    sum(one.percent for one in parts),
                )
