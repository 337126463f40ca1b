"""Short ways to tell a pretended cluster what happened, and to pick out what was decided."""

from __future__ import annotations

from alight.scheduler import events
from alight.scheduler.decisions import Give
from alight.scheduler.state import Need


def publish(world, name="f", app="app", **need):
    return world.happen(events.FunctionPublished(name, app, name, Need(**need)))


def arrive(world, call, count=1, function="f", **fields):
    return world.happen(events.InputsArrived(call, function, ((0, count),), **fields))


def kinds(decisions, kind):
    return [one for one in decisions if isinstance(one, kind)]


def given(decisions):
    return [(one.call_id, one.start, one.stop) for one in kinds(decisions, Give)]


def warm(world, function="f", pace=0.001, containers=1):
    """Containers that have answered an input, so that the pace is known."""
    arrive(world, f"warm-{function}", containers, function)
    world.all_ready()
    made = []
    for position in range(containers):
        made += world.answer(f"warm-{function}", position, busy=pace)
    return made
