"""A pretended machine with gangs: their members get and answer inputs each for itself."""

from __future__ import annotations

import dataclasses

from alight.scheduler import decisions as decided
from alight.scheduler import events
from alight.scheduler.state import Gpu
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


def arrive(world, call="call", function="f", count=1):
    return world.happen(events.InputsArrived(call, function, ((0, count),)))
