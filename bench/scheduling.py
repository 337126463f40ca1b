"""What a step of the scheduler costs: ``PYTHONPATH=src python bench/scheduling.py``. Prints milliseconds, best of 5.

Placing: 10,000 calls of one input, of 200 functions with five shapes, for which 1,000 machines have room. Rounds: a
container answers 256 inputs of a map, the next 256 arrive, and it is given more.
"""

from __future__ import annotations

import gc
import itertools
import time

from alight.scheduler import events
from alight.scheduler.decisions import Give, Start
from alight.scheduler.state import Gpu, Need, State
from alight.scheduler.step import step

SHAPES = [
    Need(cpu=0.125, memory=128),
    Need(cpu=1, memory=1024),
    Need(cpu=2, memory=512),
    Need(cpu=4, memory=4096),
    Need(cpu=1, memory=2048, gpus=("L4",)),
]


def cluster(memory=262144):
    numbers = itertools.count()
    state = State(make_id=lambda: f"ta-{next(numbers)}")
    for number in range(1000):
        gpus = tuple(Gpu(f"gpu-{number}-{one}", "L4", 23034) for one in range(8))
        step(state, [events.NodeJoined(f"no-{number}", f"host-{number}", 32, memory, gpus)], 0.0)
    for number in range(200):
        need = SHAPES[number % len(SHAPES)]
        step(state, [events.FunctionPublished(f"fu-{number}", f"ap-{number}", f"f{number}", need)], 0.0)
    return state


def arrivals():
    one = ((0, 1),)
    return [events.InputsArrived(f"fc-{number}", f"fu-{number % 200}", one) for number in range(10_000)]


def placing():
    """Seconds of three steps: inputs arrive while no machine is connected, all machines come back, containers ready."""
    state, facts = cluster(), arrivals()
    joins = [
        events.NodeJoined(one.node_id, one.hostname, one.cpus, one.memory, one.gpus) for one in state.nodes.values()
    ]
    step(state, [events.NodeAway(one) for one in state.nodes], 1.0)
    gc.collect()
    began = time.perf_counter()
    assert not step(state, facts, 1.0)
    arrived = time.perf_counter() - began
    gc.collect()
    began = time.perf_counter()
    made = step(state, joins, 1.0)
    took = time.perf_counter() - began
    starts = [one.container_id for one in made if isinstance(one, Start)]
    assert len(starts) == 10_000, len(starts)
    ready = [events.ContainerReady(one) for one in starts]
    gc.collect()
    began = time.perf_counter()
    made = step(state, ready, 2.0)
    gave = time.perf_counter() - began
    assert sum(isinstance(one, Give) for one in made) == 10_000
    return arrived, took, gave


def crowded():
    """Seconds of a step in which a container ends while every machine is full and all functions want more."""
    state = cluster(memory=8192)
    step(state, [events.InputsArrived(f"fc-{n}", f"fu-{n}", ((0, 10_000),)) for n in range(200)], 1.0)
    for _ in range(200):
        starting = [events.ContainerReady(name) for name, one in state.containers.items() if not one.ready]
        if not starting:
            break
        step(state, starting, 1.0)
    names = list(state.containers)[:20]
    took = []
    for number, name in enumerate(names):
        began = time.perf_counter()
        step(state, [events.ContainerEnded(name)], 2.0 + number)
        took.append(time.perf_counter() - began)
    return min(took)


def rounds(count=2000, size=256):
    """Seconds of a round: a chunk is answered, another arrives, and the container gets it."""
    state = State(make_id=lambda: "ta-1")
    step(state, [events.NodeJoined("no-1", "host", 2, 4096)], 0.0)
    step(state, [events.FunctionPublished("fu-1", "ap-1", "f", Need(max_containers=1))], 0.0)
    step(state, [events.InputsArrived("fc-1", "fu-1", ((0, 1),))], 0.0)
    step(state, [events.ContainerReady("ta-1")], 0.0)
    ended = events.AttemptsEnded("fc-1", "ta-1", 1, range(1), "success", 0.00001)
    made = step(state, [ended, events.InputsArrived("fc-1", "fu-1", ((1, 1 + 8 * size),))], 0.0)
    done, arrived, given = 1, 1 + 8 * size, sum(one.stop - one.start for one in made if isinstance(one, Give))
    now = 0.0
    gc.collect()
    began = time.perf_counter()
    for _ in range(count):
        now += 0.00256
        chunk = events.InputsArrived("fc-1", "fu-1", ((arrived, arrived + size),))
        ended = events.AttemptsEnded("fc-1", "ta-1", 1, range(done, done + size), "success", 0.00001 * size)
        for one in step(state, [chunk, ended], now):
            if isinstance(one, Give):
                given += one.stop - one.start
        done, arrived = done + size, arrived + size
    took = time.perf_counter() - began
    assert given + 1 >= done
    return took / count


def main():
    best = [min(values) for values in zip(*(placing() for _ in range(5)), strict=True)]
    print(f"10,000 calls of one input of 200 functions arrive          {best[0] * 1e3:8.1f} ms")
    print(f"placing them on 1,000 machines                             {best[1] * 1e3:8.1f} ms")
    print(f"giving them to the containers that are ready               {best[2] * 1e3:8.1f} ms")
    print(f"one container ends where 200 functions wait for room       {crowded() * 1e3:8.1f} ms")
    print(f"a round of a chunk of 256: arrived, given, ended           {min(rounds() for _ in range(5)) * 1e6:8.1f} µs")


if __name__ == "__main__":
    main()
