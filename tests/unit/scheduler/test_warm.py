"""The common case is decided as the long way decides it: the same decisions, and the same state after each."""

from __future__ import annotations

import itertools
import random

import pytest

from alight.scheduler import events
from alight.scheduler import step as stepping
from alight.scheduler.decisions import Finish, Give, Recall, Start
from alight.scheduler.state import Need, State
from alight.scheduler.step import next_wake, step

NEEDS = [
    Need(),
    Need(max_containers=1),
    Need(max_concurrent=3),
    Need(batch_size=4),
    Need(single_use=True),
    Need(min_containers=2),
    Need(buffer_containers=1),
]


def make(need):
    numbers = itertools.count()
    state = State(make_id=lambda: f"ta-{next(numbers)}")
    step(state, [events.NodeJoined("no", "host", 4, 2000)], 0.0)
    for name in ("fu", "other"):
        step(state, [events.FunctionPublished(name, "ap", name, need)], 0.0)
    return state


def seen(state):
    """All that later decisions depend on."""
    functions = [
        (
            one.waiting,
            one.pace,
            one.awake,
            [*one.idle],
            [*one.partly],
            sorted(one.serving),
            [*one.line],
            one.looking,
            one.quarantine,
        )
        for one in state.functions.values()
    ]
    containers = [
        (name, one.open, one.served, one.moved, one.idle_since, one.idle_timer, one.recalled, one.stalled, one.runs)
        for name, one in state.containers.items()
    ]
    calls = [
        (name, one.order, one.top, [*one.waiting], [*one.containers], one.parent) for name, one in state.calls.items()
    ]
    return functions, containers, calls, state.hungry, state.starved, state.idled, state.timers, state.count


def history(state, seed):
    """Single facts, most of them of calls of one input; yields each with its time."""
    rng, now, running, names = random.Random(seed), 1.0, [], itertools.count()
    for _ in range(250):
        now += rng.choice([0.0001, 0.001, 0.01, 0.2, 5.0])
        kind = rng.random()
        if kind < 0.3 or not running:
            stop = 1 if rng.random() < 0.8 else rng.randint(2, 80)
            fact = events.InputsArrived(f"fc-{next(names)}", rng.choice(["fu", "fu", "fu", "other"]), ((0, stop),))
        elif kind < 0.33:
            fact = events.InputsWaiting(rng.choice(running)[0], rng.randint(0, 1))
        else:
            container, call, position, attempt = running.pop(rng.randrange(len(running)) if kind > 0.9 else 0)
            status = "success" if rng.random() < 0.95 else "exception"
            busy = rng.choice([0.0, 0.00001, 0.001, 0.001, 0.03])
            fact = events.AttemptsEnded(call, container, attempt, range(position, position + 1), status, busy)
        made = yield [fact], now
        while made:
            for one in made:
                if isinstance(one, Give):
                    running += [(one.container_id, one.call_id, at, one.attempt) for at in range(one.start, one.stop)]
            starts = [one.container_id for one in made if isinstance(one, Start)]
            made = []
            for name in starts:
                made += yield [events.ContainerReady(name)], now


@pytest.mark.parametrize("need", NEEDS, ids=repr)
def test_the_common_case_is_decided_as_the_long_way_would(monkeypatch, need):
    common = dict(stepping._COMMON)
    taken = []

    def counted(way):
        def go(*args):
            taken.append(way(*args))
            return taken[-1]

        return go

    for seed in range(6):
        short, long = make(need), make(need)
        facts, made = history(short, seed), None
        while True:
            try:
                happened, now = facts.send(made)
            except StopIteration:
                break
            monkeypatch.setattr(stepping, "_COMMON", {kind: counted(way) for kind, way in common.items()})
            made = step(short, happened, now)
            monkeypatch.setattr(stepping, "_COMMON", {})
            assert made == step(long, happened, now), happened
            assert seen(short) == seen(long), happened
            assert next_wake(short) == next_wake(long)
    if not (need.single_use or need.min_containers):
        assert any(taken), "the common case never came"


def test_an_idle_container_takes_over_what_another_one_has_not_begun(monkeypatch):
    """A slow answer shows that what lies behind the other container's first input is worth a message."""
    need = Need()
    one, pairs = ((0, 1),), [*enumerate("ab")]
    facts = [
        *(events.InputsArrived(f"fc-{name}", "fu", one) for name in "ab"),
        *(events.ContainerReady(f"ta-{number}") for number in range(2)),
        *(events.AttemptsEnded(f"fc-{name}", f"ta-{at}", 1, range(1), "success", 0.004) for at, name in pairs),
        events.InputsArrived("fc-m", "fu", ((0, 8),)),
    ]
    states = []
    for common in (dict(stepping._COMMON), {}):
        monkeypatch.setattr(stepping, "_COMMON", common)
        state = make(need)
        for fact in facts:
            step(state, [fact], 1.0)
        while runs := state.containers["ta-1"].runs.get("fc-m"):
            done = range(runs[0].start, runs[0].stop)
            step(state, [events.AttemptsEnded("fc-m", "ta-1", 1, done, "success", 0.004 * len(done))], 1.0)
        assert state.containers["ta-0"].open == 2
        (run,) = step(state, [events.InputsArrived("fc-x", "fu", one)], 1.0)
        ended = events.AttemptsEnded("fc-x", run.container_id, 1, range(1), "success", 0.03)
        assert [type(one) for one in step(state, [ended], 1.03)] == [Finish, Recall]
        states.append(seen(state))
    assert states[0] == states[1]
