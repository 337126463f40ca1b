"""Whatever happens, in whatever order: nothing is over-allocated, every input ends, retries are bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from alight.scheduler import events
from alight.scheduler.state import INFRASTRUCTURE_TRIES, Gpu, Need
from alight.wire.spec import RetryPolicy
from tests.unit.generated import times
from tests.unit.scheduler.world import Pretend

GPUS = (Gpu("g0", "A100-40GB", 40960), Gpu("g1", "L4", 23034))
NEEDS = [
    Need(memory=300),
    Need(memory=400, max_containers=1, scaledown_window=2, retries=RetryPolicy(2, 2.0, 1.0, 60.0)),
    Need(memory=100, gpus=("A100-40GB",), scaledown_window=5),
    Need(memory=100, gpus=("T4:2", "any"), max_concurrent=3, single_use=True),
    Need(memory=200, min_containers=1, buffer_containers=1, max_concurrent=2),
    Need(memory=150, batch_size=4),
]
#: Ours, the user's (one function has two), and one for each timeout beside which an innocent input ran.
MAX_ATTEMPTS = INFRASTRUCTURE_TRIES + 2


class Histories(RuleBasedStateMachine):
    """Facts in any order that a real cluster could produce."""

    needs, gpus = NEEDS, GPUS

    def __init__(self):
        super().__init__()
        self.world = Pretend()
        self.world.takes_back = True
        self.count = 0
        self.inputs = set()
        self.timeouts = 0
        self.tops = {}  # call → (function, positions so far)
        self.machines = {"n": (2, 1000, self.gpus), "m": (1, 450, ())}
        for name in self.machines:
            self.join(name)
        for number, need in enumerate(self.needs):
            self.world.happen(events.FunctionPublished(f"f{number}", "app", f"f{number}", need))

    def join(self, name, held=()):
        self.world.node(name, *self.machines[name], held)

    @rule(number=st.integers(0, len(NEEDS) - 1), count=st.sampled_from([1, 1, 2, 7, 40]), child=st.booleans())
    def arrive(self, number, count, child):
        self.count += 1
        name = f"call{self.count}"
        self.inputs |= {(name, position) for position in range(count)}
        self.tops[name] = number, count
        parent = next(iter(self.world.running), None) if child else None
        self.world.happen(events.InputsArrived(name, f"f{number}", ((0, count),), parent))

    @precondition(lambda self: self.tops)
    @rule(data=st.data(), count=st.integers(1, 5), overlap=st.booleans())
    def arrive_more(self, data, count, overlap):
        """More of a call, which may be forgotten by now, perhaps with some that are known."""
        name = data.draw(st.sampled_from(sorted(self.tops)))
        number, top = self.tops[name]
        if any(self.world.ended.get((name, position)) == "cancelled" for position in range(top)):
            return
        start = top
        while overlap and start and (name, start - 1) not in self.world.ended:
            start -= 1
        self.inputs |= {(name, position) for position in range(top, top + count)}
        self.tops[name] = number, top + count
        self.world.happen(events.InputsArrived(name, f"f{number}", ((start, top + count),)))

    @rule(number=st.integers(0, len(NEEDS) - 1), recreate=st.booleans(), kept=st.booleans())
    def deploy_any(self, number, recreate, kept):
        self.deploy(number, recreate, kept)

    @rule(number=st.integers(0, len(NEEDS) - 1), like=st.integers(0, len(NEEDS) - 1), recreate=st.booleans())
    def deploy_changed(self, number, like, recreate):
        """One that needs something else from now on."""
        self.deploy(number, recreate, False, self.changed(number, like))

    def changed(self, number, like):
        """A function that needs what another one does, but keeps as many containers as before.

        One that kept others than its own could hold for ever what the rest wait for: then inputs would rightly not end.
        """
        need, least = self.needs[like], self.needs[number].min_containers
        if least:
            most, window = need.max_containers, need.scaledown_window
            return replace(self.needs[number], max_containers=most, scaledown_window=window)
        return replace(need, min_containers=0)

    def deploy(self, number, recreate, kept, need=None):
        """A version that somebody waits to hear of; one that does not come up is taken back (``Pretend``)."""
        need = need or self.needs[number]
        self.timeouts += recreate  # what a replaced container ran begins again at no charge
        event = events.FunctionPublished(f"f{number}", "app", f"f{number}", need, True, recreate, kept)
        self.world.happen(event)

    @precondition(lambda self: self.world.ready)
    @rule(data=st.data(), recreate=st.booleans(), kept=st.booleans())
    def deploy_used(self, data, recreate, kept):
        """One whose containers are there: it is tried."""
        name = data.draw(st.sampled_from(sorted(self.world.ready)))
        function = self.world.state.containers.get(name)
        if function is not None:
            self.deploy(int(function.function_id[1:]), recreate, kept)

    @precondition(lambda self: self.world.starting)
    @rule(data=st.data())
    def fail_for_good(self, data):
        self.fail_to_start(data, True)

    @precondition(lambda self: self.world.starting)
    @rule(data=st.data())
    def get_ready(self, data):
        self.world.get_ready(data.draw(st.sampled_from(sorted(self.world.starting))))

    @precondition(lambda self: self.world.starting)
    @rule(data=st.data(), final=st.booleans())
    def fail_or_not(self, data, final):
        self.fail_to_start(data, final)

    def fail_to_start(self, data, final):
        name = data.draw(st.sampled_from(sorted(self.world.starting)))
        self.world.forget(name)
        self.world.happen(events.StartFailed(name, "terminated", {"code": "remote", "message": "no"}, final))

    @precondition(lambda self: self.world.running)
    @rule(
        data=st.data(),
        count=st.integers(1, 60),
        status=st.sampled_from(["success", "success", "exception", "timeout", "internal", "cancelled"]),
        pace=st.sampled_from([0.0, 0.0001, 0.01, 10.0]),
    )
    def answer_in_order(self, data, count, status, pace):
        name = data.draw(st.sampled_from(sorted({where for _, where in self.world.running.values()})))
        call_id, position = next(one for one in self.world.queues[name] if self.world.here(name, one))
        attempt, _ = self.world.running[call_id, position]
        last = position
        while last - position + 1 < count and self.world.running.get((call_id, last + 1)) == (attempt, name):
            last += 1
        if status == "timeout":
            last, self.timeouts = position, self.timeouts + 1
        self.world.answer(call_id, *range(position, last + 1), status=status, busy=pace * (last - position + 1))

    @precondition(lambda self: self.world.running)
    @rule(data=st.data(), step=st.integers(1, 3))
    def answer_scattered(self, data, step):
        one = data.draw(st.sampled_from(sorted(self.world.running)))
        mine = [
            p for (call, p), where in self.world.running.items() if (call, where) == (one[0], self.world.running[one])
        ]
        self.world.answer(one[0], *sorted(mine)[::step])

    @precondition(lambda self: self.world.queues)
    @rule(data=st.data())
    def answer_cancelled(self, data):
        """A container is done with an input whose call was cancelled."""
        world = self.world
        for name, queue in world.queues.items():
            for one in [one for one in queue if not world.here(name, one)]:
                attempt = queue.pop(one)
                world.happen(events.AttemptsEnded(one[0], name, attempt, range(one[1], one[1] + 1), "cancelled"))
                return

    @precondition(lambda self: self.world.given)
    @rule(data=st.data(), attempt=st.integers(1, 3))
    def answer_twice(self, data, attempt):
        """The answer of a container that does not hold the input (any more) changes nothing that runs or is done."""
        one = data.draw(st.sampled_from(sorted(set(self.world.given))))
        if one in self.world.running or one in self.world.ended:
            before = self.world.running.get(one), self.world.ended.get(one)
            said = events.AttemptsEnded(one[0], "c999", attempt, range(one[1], one[1] + 1), "success")
            self.world.happen(said)
            assert (self.world.running.get(one), self.world.ended.get(one)) == before

    @precondition(lambda self: self.world.recalls)
    @rule(begun=st.integers(0, 2))
    def return_inputs(self, begun):
        self.world.give_back(self.world.recalls[0], begun)

    @precondition(lambda self: self.world.ready or self.world.stopping)
    @rule(data=st.data(), users_fault=st.booleans())
    def die(self, data, users_fault):
        everyone = sorted({**self.world.ready, **self.world.stopping})
        self.world.die(data.draw(st.sampled_from(everyone)), users_fault=users_fault)

    @precondition(lambda self: self.world.running)
    @rule(data=st.data(), kill=st.booleans())
    def cancel(self, data, kill):
        name = data.draw(st.sampled_from(sorted({call for call, _ in self.world.running})))
        for one in [one for one in self.inputs if one[0] == name and one not in self.world.ended]:
            self.world.ended[one] = "cancelled"
        self.world.cancel(name, kill)

    @precondition(lambda self: self.world.ready)
    @rule(data=st.data(), count=st.integers(0, 3))
    def wait_for_calls(self, data, count):
        name = data.draw(st.sampled_from(sorted(self.world.ready)))
        self.world.lent[name] = count
        self.world.happen(events.InputsWaiting(name, count))

    @rule(number=st.integers(0, len(NEEDS) - 1), like=st.integers(0, len(NEEDS) - 1))
    def publish_again(self, number, like):
        need = self.changed(number, like)
        self.world.happen(events.FunctionPublished(f"f{number}", "app", f"f{number}", need))

    @rule(number=st.integers(0, len(NEEDS) - 1), like=st.integers(0, len(NEEDS) - 1))
    def scale(self, number, like):
        """How many containers, and how long they stay, is changed by hand."""
        function, other = self.world.state.functions[f"f{number}"], self.needs[like]
        need = replace(
            function.need,
            max_containers=other.max_containers,
            buffer_containers=other.buffer_containers,
            scaledown_window=other.scaledown_window,
        )
        self.world.happen(events.FunctionScaled(f"f{number}", need))

    @rule(number=st.integers(0, len(NEEDS) - 1))
    def retire(self, number):
        """It is published no more, until it is again."""
        self.world.happen(events.FunctionRetired(f"f{number}", {"code": "not_found", "message": "gone"}))

    @rule(held=st.booleans(), stop=st.booleans())
    def hold(self, held, stop):
        """A budget is used up, or there is a new one."""
        self.timeouts += stop  # what it stops begins again at no charge
        self.world.hold(held, stop)

    @precondition(lambda self: self.world.ready or self.world.starting)
    @rule(data=st.data())
    def stop_one(self, data):
        name = data.draw(st.sampled_from(sorted({**self.world.ready, **self.world.starting})))
        self.world.happen(events.StopAsked(name, "somebody says so"))

    @precondition(lambda self: self.world.running)
    @rule(data=st.data())
    def give_items(self, data):
        one = data.draw(st.sampled_from(sorted(self.world.running)))
        self.world.happen(events.ItemsCame(*one))

    @rule(seconds=st.floats(0.01, 100))
    def pass_time(self, seconds):
        self.world.happen(later=seconds)

    @rule(arrived=st.booleans(), node=st.sampled_from(["n", "n", "m"]), late=st.booleans())
    def lose_connection(self, arrived, node, late):
        """Away and back with everything that it held; whether the last inputs had arrived there is open."""
        world = self.world
        world.happen(events.NodeAway(node))
        if late:
            world.happen(later=1.0)
        names = world.on(node)
        world.recalls = [name for name in world.recalls if name not in names]
        held = [world.held(name, arrived) for name in names]
        if not arrived:
            for name in names:
                queue = world.queues.get(name, {})
                for one in [one for one in queue if not world.here(name, one)]:
                    del queue[one]
        self.join(node, held)

    @rule(data=st.data(), fault=st.sampled_from(["XID 79: it has fallen off the bus", "", ""]))
    def break_or_repair(self, data, fault):
        """A GPU goes out of service, or is back."""
        at = data.draw(st.integers(0, len(self.gpus) - 1))
        self.change_gpus(tuple(replace(gpu, fault=fault) if n == at else gpu for n, gpu in enumerate(self.gpus)))

    def change_gpus(self, gpus):
        self.gpus = gpus
        self.machines["n"] = (*self.machines["n"][:2], gpus)
        self.world.gpus["n"] = {gpu.uuid: gpu for gpu in gpus}
        self.world.happen(events.GpusChanged("n", gpus))

    @rule(node=st.sampled_from(["n", "n", "m"]))
    def lose_machine(self, node):
        """Away for too long, and back empty."""
        world = self.world
        for name in world.on(node):
            world.forget(name)
        world.happen(events.NodeAway(node), events.NodeGone(node))
        self.join(node)

    @rule(node=st.sampled_from(["n", "n", "m"]), seconds=st.sampled_from([0.0, 1.0, 100.0]))
    def miss_machine(self, node, seconds):
        """Away for too long, and back with everything: what it ran has begun elsewhere meanwhile, or is done."""
        world = self.world
        names = world.on(node)
        outdated = {name: world.outdated(name) for name in names}
        for one in [one for one, (_, name) in world.running.items() if name in names]:
            del world.running[one]
        world.recalls = [name for name in world.recalls if name not in names]
        self.timeouts += 1
        world.happen(events.NodeAway(node), events.NodeGone(node))
        world.happen(later=seconds)
        for name in names:
            if name in world.stopping:
                world.ready[name] = world.stopping.pop(name)
        held = [replace(world.held(name), outdated=outdated[name]) for name in names]
        world.happen(world.joined(node, *self.machines[node], held), *self._cancelled())

    @rule(late=st.booleans())
    def restart_of_the_server(self, late):
        """A new state hears of machines that run some inputs, and of those that are not done; of these first when the
        machines come too ``late`` to be waited for.
        """
        world = self.world
        functions = list(world.state.functions.values())
        outdated = {name: world.outdated(name) for name in world.state.containers}
        world.state = type(world.state)(make_id=world.state.make_id)
        world.recalls.clear()
        for one in functions:
            event = events.FunctionPublished(one.function_id, "app", one.name, one.need, kept=one.kept)
            world.happen(event)
            if one.trial is not None:
                world.happen(replace(event, trial=True, resumed=True))
            if one.retired is not None:
                world.happen(events.FunctionRetired(one.function_id, one.retired))
                late = False  # or what it still runs would be over
        world.hold(world.is_held)
        world.memory.clear()
        running, world.running = world.running, {}
        if late:
            self._arrive_again()
        held = {
            node: [replace(world.held(name), outdated=outdated[name]) for name in world.on(node)]
            for node in self.machines
        }
        world.ready.update(world.stopping)  # the new server does not know that it had asked
        world.stopping.clear()
        world.running = running
        # All machines at once: a server waits for them before it gives what they may run to others.
        world.happen(
            *[world.joined(node, *self.machines[node], held[node]) for node in self.machines], *self._cancelled()
        )
        if not late:
            self._arrive_again()

    def _cancelled(self):
        """Machines run inputs of cancelled calls, too: the server knows that nobody wants them."""
        unwanted = {call_id for (call_id, _), how in self.world.ended.items() if how == "cancelled"}
        return [events.CallCancelled(call_id) for call_id in sorted(unwanted)]

    def _arrive_again(self):
        tried = {}
        for call_id, position in sorted(self.inputs - set(self.world.ended)):
            attempt = max(self.world.attempts.get((call_id, position), {1}))
            tried.setdefault(call_id, []).append(events.Attempt(position, attempt))
        for call_id, attempts in tried.items():
            ranges = tuple((one.position, one.position + 1) for one in attempts)
            again = tuple(one for one in attempts if one.attempt > 1)
            self.world.happen(events.InputsArrived(call_id, f"f{self.tops[call_id][0]}", ranges, None, again))

    def teardown(self):
        """Let everything go well from here: then every input ends, and nothing is left running without a reason."""
        world = self.world
        self.change_gpus(tuple(replace(gpu, fault="") for gpu in self.gpus))
        world.hold(False)
        for name in [*world.ready, *world.stopping]:
            world.lent.pop(name, None)
            world.happen(events.InputsWaiting(name, 0))
        for _ in range(3000):
            if world.recalls:
                world.give_back(world.recalls[0])
            elif world.stopping:
                world.die(next(iter(world.stopping)))
            elif world.starting:
                world.get_ready(next(iter(world.starting)))
            elif any(world.queues.values()):
                self._answer_any()
            elif self.inputs - set(world.ended):
                world.happen(later=70)
            else:
                break
        assert not self.inputs - set(world.ended), "an input never ended"
        for one, attempts in world.attempts.items():
            assert len(attempts) <= MAX_ATTEMPTS + self.timeouts, f"{one} ran {len(attempts)} times"
        for _ in range(20):
            world.happen(later=200)
            while world.stopping:
                world.die(next(iter(world.stopping)))
            world.all_ready()
        for function in world.state.functions.values():
            kept = [one for one in world.ready.values() if one.function_id == function.function_id]
            assert len(kept) <= function.need.min_containers, "a container without a reason"
        assert not world.state.calls, "a call that is done is remembered"

    def _answer_any(self):
        world = self.world
        name, queue = next((name, queue) for name, queue in world.queues.items() if queue)
        one, attempt = next(iter(queue.items()))
        if world.here(name, one):
            world.answer(*one)
        else:
            del queue[one]
            world.happen(events.AttemptsEnded(one[0], name, attempt, range(one[1], one[1] + 1), "cancelled"))


class GpuHistories(Histories):
    """Functions that want whole GPUs, several, parts of one, and what a MIG instance serves."""

    needs = (
        Need(memory=50, gpus=("A100",), scaledown_window=5),
        Need(memory=50, gpus=("A100:0.5",), scaledown_window=2, retries=RetryPolicy(2, 2.0, 1.0, 60.0)),
        Need(memory=50, gpus=("any:15GB",), max_concurrent=2),
        Need(memory=50, gpus=("A100:2", "any"), single_use=True),
        Need(memory=50, gpus=("L4:0.3",), min_containers=1),
        Need(memory=50, gpus=("H100:0.25", "A100!:0.7"), max_containers=3),
    )
    gpus = (
        Gpu("g0", "A100-40GB", 40960),
        Gpu("g1", "A100-40GB", 40536),
        Gpu("g2", "L4", 23034),
        Gpu("MIG-0", "H100", 20096, slice_of="g3", whole=81559),
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", [Histories, GpuHistories])
def test_histories(kind):
    """Of up to 50 facts each; 100 where they are random."""
    run_state_machine_as_test(kind, settings=settings(max_examples=times(25)))
