"""What can be changed at the dashboard: paths to requests, each with the words that the audit keeps of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alight.dashboard.seams import Ask
from alight.wire import errors, ids
from alight.wire.billing import BudgetSet
from alight.wire.calling import CallCancel
from alight.wire.dashboard import CallRetry
from alight.wire.deploying import DeployBack
from alight.wire.messages import AppList, AppStop, FunctionScale
from alight.wire.scheduling import ScheduleNamed
from alight.wire.starts import ContainerStop

_APP_WAIT = 2.0  # seconds in which containers may go before the answer


@dataclass(frozen=True)
class Change:
    """A request to change something. ``names``: what stands where its pattern has a name."""

    who: Any
    ask: Ask
    body: Mapping[str, Any]
    names: tuple[str, ...] = field(default=())

    def text(self, name: str, default: str = "") -> str:
        """A word of the body. Raises InvalidError."""
        value = self.body.get(name, default)
        if not isinstance(value, str):
            raise errors.InvalidError(f"{name} is text")
        return value

    def number(self, name: str, default: float) -> float:
        """A number of the body that is not negative. Raises InvalidError."""
        value = self.body.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
            raise errors.InvalidError(f"{name}={str(value)[:40]!r} is no number that can be")
        return value

    def limit(self, name: str) -> float | None:
        """The same of a number that may be absent or null: no limit. Raises InvalidError."""
        return None if self.body.get(name) is None else self.number(name, 0.0)

    def known(self, *names: str) -> None:
        """Raise InvalidError for words that mean nothing here."""
        unknown = sorted(set(self.body) - set(names))
        if unknown:
            raise errors.InvalidError(
                f"{unknown[0][:40]!r} means nothing here", hint=f"there is: {', '.join(names)}" if names else None
            )

    async def one(self, method: str, args: Any) -> Any:
        """What a route answers."""
        return await self.ask.one(self.who, method, args)


@dataclass(frozen=True)
class Done:
    """What was done, in a sentence for who asked, with what they go on with."""

    said: str
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Action:
    """``word`` is what the audit calls it; ``detail`` says how it was asked for, ``target`` what it was done to."""

    word: str
    do: Callable[[Change], Awaitable[Done]]
    detail: Callable[[Change], str] = lambda change: ""
    target: Callable[[Change], str] = lambda change: change.names[0]


async def _stop_app(change: Change) -> Done:
    change.known()
    app_id, _ = await _app(change)
    await change.one("app.stop", AppStop(app_id, "stopped at the dashboard", _APP_WAIT))
    return Done("The app is stopped.")


async def _roll_back(change: Change) -> Done:
    change.known("version")
    version = int(change.number("version", 0))
    app_id, environment = await _app(change)
    done = await change.one("deploy.rollback", DeployBack(app_id, environment, version))
    return Done(f"Version {done.version} serves.", {"version": done.version})


async def _app(change: Change) -> tuple[str, str]:
    """Id and environment of an app that they may see. Raises NotFoundError."""
    listed = await change.one("app.list", AppList(limit=1, name_or_id=change.names[0]))
    if not listed.apps:
        raise errors.NotFoundError(f"there is no app {change.names[0]}")
    return listed.apps[0].app_id, listed.apps[0].environment


async def _stop_container(change: Change) -> Done:
    change.known("grace")
    await change.one("container.stop", ContainerStop(change.names[0], change.number("grace", 30.0)))
    return Done("The container is stopped. What it ran is tried again elsewhere.")


async def _cancel_call(change: Change) -> Done:
    change.known("terminate")
    await change.one("call.cancel", CallCancel(change.names[0], bool(change.body.get("terminate", False))))
    return Done("The call is cancelled. What was done stays done.")


async def _retry_call(change: Change) -> Done:
    change.known()
    done = await change.one("call.retry", CallRetry(change.names[0]))
    inputs = "1 input runs" if done.inputs == 1 else f"{done.inputs} inputs run"
    return Done(f"{inputs} again, as the call {done.call_id}.", {"call_id": done.call_id})


async def _scale(change: Change) -> Done:
    scaling = await change.one("function.scale", FunctionScale(change.names[0], dict(change.body)))
    return Done("The function is scaled anew until it is published again.", {"scaling": scaling})


async def _run_schedule(change: Change) -> Done:
    done = await change.one("schedule.run", _schedule(change))
    return Done(f"{done.function} runs, as the call {done.call_id}.", {"call_id": done.call_id})


async def _pause(change: Change) -> Done:
    done = await change.one("schedule.pause", _schedule(change))
    return Done(f"{done.function} does not run by itself until it is resumed.", {"schedule": done})


async def _resume(change: Change) -> Done:
    done = await change.one("schedule.resume", _schedule(change))
    return Done(f"{done.function} runs by itself again.", {"schedule": done})


def _schedule(change: Change) -> ScheduleNamed:
    change.known("app", "function", "environment")
    if not change.text("app"):
        raise errors.InvalidError("the app is missing whose schedule is meant")
    return ScheduleNamed(change.text("app"), change.text("function"), change.text("environment"))


async def _set_budget(change: Change) -> Done:
    change.known("kind", "name", "environment", "cost", "gpu_seconds", "stop")
    cost, seconds, stop = change.limit("cost"), change.limit("gpu_seconds"), change.body.get("stop")
    if stop is not None and not isinstance(stop, bool):
        raise errors.InvalidError("stop is true or false")
    if cost is None and seconds is None and not stop:
        raise errors.InvalidError("a budget needs a limit", hint="say what it may cost, or how many GPU seconds it has")
    told = await change.one("budget.set", BudgetSet(*_budget_of(change), cost, seconds, stop))
    return Done(f"The budget of {told.budgets[0].name} is set.", {"budgets": told.budgets})


async def _clear_budget(change: Change) -> Done:
    change.known("kind", "name", "environment")
    asked = BudgetSet(*_budget_of(change))
    await change.one("budget.set", asked)
    return Done(f"{asked.name} has no budget any more.")


def _budget_of(change: Change) -> tuple[str, str, str]:
    """Of what kind of thing, of which, in which environment."""
    return change.text("kind", "app"), change.text("name"), change.text("environment")


def _plainly(change: Change) -> str:
    return ", ".join(f"{str(name)[:40]}={str(value)[:40]}" for name, value in sorted(change.body.items()))


def _scheduled(change: Change) -> str:
    return f"{change.body.get('app', '')}/{change.body.get('function', '')}"


def _budgeted(change: Change) -> str:
    """An app by its id, which is how its log hears of it; else what it is, and its name."""
    name = str(change.body.get("name", ""))
    return name if ids.is_id(name, ids.APP) else f"{change.body.get('kind', 'app')} {name}"


#: Paths below /api/v1; "*" stands for a name.
DOING: dict[tuple[str, ...], Action] = {
    ("apps", "*", "stop"): Action("stopped the app", _stop_app),
    ("apps", "*", "rollback"): Action("took back the app", _roll_back, _plainly),
    ("containers", "*", "stop"): Action("stopped the container", _stop_container, _plainly),
    ("calls", "*", "cancel"): Action("cancelled the call", _cancel_call, _plainly),
    ("calls", "*", "retry"): Action("retried the call", _retry_call),
    ("functions", "*", "scale"): Action("scaled the function", _scale, _plainly),
    ("schedules", "run"): Action("ran the schedule", _run_schedule, _plainly, _scheduled),
    ("schedules", "pause"): Action("paused the schedule", _pause, _plainly, _scheduled),
    ("schedules", "resume"): Action("resumed the schedule", _resume, _plainly, _scheduled),
    ("cost", "budgets"): Action("set the budget", _set_budget, _plainly, _budgeted),
    ("cost", "budgets", "clear"): Action("took the budget away", _clear_budget, _plainly, _budgeted),
}
