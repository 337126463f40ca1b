"""What can be read: paths to answers. Each asks routes of the server, with the rights of who asks.

An answer is what the route says, as JSON, or several of them put together for a page.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alight.dashboard.seams import Ask
from alight.wire import errors
from alight.wire.built import ImageWork
from alight.wire.calling import CallGraph, CallList, CallShow
from alight.wire.dashboard import AuditList, CallInputs, FunctionSeries, FunctionView
from alight.wire.deploying import AppFind, DeployHistory
from alight.wire.measures import FunctionAsked, NodeList, SeriesAsked
from alight.wire.messages import AppList
from alight.wire.scheduling import ScheduleList
from alight.wire.starts import AppStats, ContainerList, ContainerShow
from alight.wire.stored import NamedList, VolumePath

MOST = 1000  # things in one answer
_USUAL = 100
_MONTH = 30 * 86400.0
_EVERYWHERE = 200  # environments that are looked through


@dataclass(frozen=True)
class Asked:
    """A path taken apart. ``names``: what stands where its pattern has a name."""

    who: Any
    ask: Ask
    query: Mapping[str, str]
    names: tuple[str, ...] = field(default=())

    def text(self, name: str) -> str:
        """A word of the query, "" where it is absent."""
        return self.query.get(name, "")

    def flag(self, name: str) -> bool:
        """Whether something is asked for."""
        return self.text(name) not in {"", "0", "false"}

    def number(self, name: str, default: float = 0.0) -> float:
        """A number of the query. Raises InvalidError."""
        text = self.text(name)
        try:
            value = float(text) if text else default
        except ValueError:
            value = float("nan")
        if value != value or abs(value) > 1e15:  # noqa: PLR0124  not a number
            raise errors.InvalidError(f"{name}={text[:40]!r} is no number")
        return value

    @property
    def limit(self) -> int:
        """How many are wanted."""
        return max(1, min(int(self.number("limit", _USUAL)), MOST))

    async def one(self, method: str, args: Any = None) -> Any:
        """What a route answers."""
        return await self.ask.one(self.who, method, args)

    async def maybe(self, method: str, args: Any = None) -> Any:
        """The same, or None where there is nothing."""
        try:
            return await self.one(method, args)
        except (errors.NotFoundError, errors.UnimplementedError):
            return None


Reader = Callable[[Asked], Awaitable[Any]]


async def _overview(asked: Asked) -> Any:
    info, apps, calls, containers = await asyncio.gather(
        asked.one("server.info"),
        asked.one("app.list", AppList(limit=MOST)),
        asked.one("call.list", CallList(limit=1)),
        asked.one("container.list", ContainerList(limit=MOST)),
    )
    states = [one.state for one in apps.apps]
    up = [one.state for one in containers.containers]
    return {
        "apps": {state: states.count(state) for state in ("running", "detached", "deployed")},
        "containers": {state: up.count(state) for state in ("starting", "ready")},
        "waiting": calls.waiting,
        "running": calls.running,
        "nodes": info.nodes,
    }


async def _apps(asked: Asked) -> Any:
    found = await asked.one("app.list", AppList(asked.text("environment"), asked.limit, asked.text("name")))
    words = asked.text("q").lower()
    if not words:
        return found
    named = [one for one in found.apps if words in f"{one.name} {one.description} {one.app_id}".lower()]
    return {"apps": named}


async def _app(asked: Asked) -> Any:
    name, environment = asked.names[0], asked.text("environment")
    listed = await asked.one("app.list", AppList(environment, 1, name))
    if not listed.apps:
        raise errors.NotFoundError(f"there is no app {name}", hint="`alight app list` shows those there are")
    summary = listed.apps[0]
    environment = summary.environment
    app, schedules, versions = await asyncio.gather(
        asked.one("app.find", AppFind(summary.app_id, environment)),
        asked.one("schedule.list", ScheduleList(environment, summary.app_id)),
        asked.maybe("deploy.history", DeployHistory(summary.app_id, environment)) if summary.version else _nothing(),
    )
    return {"app": app, "summary": summary, "schedules": schedules.schedules, "versions": versions}


async def _nothing() -> None:
    return None


async def _app_stats(asked: Asked) -> Any:
    return await asked.one("app.stats", AppStats(asked.names[0], asked.text("environment"), asked.number("since")))


async def _function(asked: Asked) -> Any:
    return await asked.one("function.view", FunctionView(asked.names[0]))


async def _function_series(asked: Asked) -> Any:
    points = int(asked.number("points", 200))
    return await asked.one(
        "function.series", FunctionSeries(asked.names[0], asked.number("since"), asked.number("until"), points)
    )


async def _function_calls(asked: Asked) -> Any:
    shown = await asked.one("function.view", FunctionView(asked.names[0]))
    return await asked.one(
        "call.list",
        CallList("", shown.app_id, shown.name, asked.text("state"), asked.limit, asked.text("before")),
    )


async def _calls(asked: Asked) -> Any:
    text = asked.text
    return await asked.one(
        "call.list",
        CallList(text("environment"), text("app"), text("function"), text("state"), asked.limit, text("before")),
    )


async def _call(asked: Asked) -> Any:
    call_id = asked.names[0]
    details = await asked.one("call.show", CallShow(call_id))
    failure, retryable = None, False
    if details.call.failed:
        # The newest: the list of failed ones is in order of their positions.
        last = max((one[0] for one in details.failed), default=0)
        shown = await asked.one("call.inputs", CallInputs(call_id, max(0, last), 1))
        failure, retryable = shown.inputs[0] if shown.inputs else None, shown.retryable
    cost = await asked.maybe("usage.call", {"call_id": call_id})
    return {"call": details, "failure": failure, "retryable": retryable, "cost": cost}


async def _call_inputs(asked: Asked) -> Any:
    failed = asked.text("status") == "failed"
    return await asked.one("call.inputs", CallInputs(asked.names[0], int(asked.number("start")), asked.limit, failed))


async def _call_graph(asked: Asked) -> Any:
    return await asked.one("call.graph", CallGraph(asked.names[0]))


async def _containers(asked: Asked) -> Any:
    listed = await asked.one(
        "container.list", ContainerList(asked.text("environment"), asked.text("app"), asked.flag("all"), asked.limit)
    )
    function = asked.text("function")
    if not function:
        return listed
    return {
        "containers": [one for one in listed.containers if function in {one.function_id, one.function}],
        "more": listed.more,
    }


async def _container(asked: Asked) -> Any:
    return await asked.one("container.show", ContainerShow(asked.names[0]))


async def _container_with_volumes(asked: Asked) -> Any:
    details = await _container(asked)
    shown = await asked.maybe("function.view", FunctionView(details.container.function_id))
    mounts = shown.declared.get("volumes", ()) if shown is not None else ()
    return {"container": details.container, "start": details.start, "volumes": mounts}


async def _container_series(asked: Asked) -> Any:
    points = int(asked.number("points", 300))
    return await asked.one(
        "container.series", SeriesAsked(asked.names[0], asked.number("since"), asked.number("until"), points)
    )


async def _nodes(asked: Asked) -> Any:
    return await asked.one("node.list", NodeList(asked.flag("watch")))


async def _gpus(asked: Asked) -> Any:
    return await asked.one("gpu.list", NodeList(asked.flag("watch")))


async def _function_report(asked: Asked) -> Any:
    question = FunctionAsked(
        asked.names[0], since=asked.number("since"), until=asked.number("until"), all_variants=True
    )
    return await asked.one("function.report", question)


async def _function_metrics(asked: Asked) -> Any:
    groups = tuple(one for one in asked.text("groups").split(",") if one)
    question = FunctionAsked(
        asked.names[0],
        since=asked.number("since"),
        until=asked.number("until"),
        all_variants=True,
        step=asked.number("step", 60.0),
        groups=groups,
    )
    return await asked.one("function.metrics", question)


async def _cost(asked: Asked) -> Any:
    names = ("resolution", "tz", "environment", "app", "owner", "by")
    said = {name: asked.text(name) for name in names if asked.text(name)}
    start, end = asked.number("start") or asked.number("since"), asked.number("end") or asked.number("until")
    start = start or (end or time.time()) - _MONTH
    return await asked.one("usage.report", {**said, "start": start, "end": end})


async def _rates(asked: Asked) -> Any:
    return await asked.one("usage.rates")


async def _budgets(asked: Asked) -> Any:
    return await asked.one("budget.list")


async def _call_cost(asked: Asked) -> Any:
    return await asked.one("usage.call", {"call_id": asked.names[0]})


async def _app_cost(asked: Asked) -> Any:
    return await asked.one("usage.app", {"app_id": asked.names[0]})


async def _environments(asked: Asked) -> Any:
    return await asked.one("environment.list")


async def _everywhere(asked: Asked, method: str, field_name: str, **more: Any) -> list[Any]:
    """What a route that lists one environment has in all, or in the one that is asked for."""
    chosen = [asked.text("environment")]
    if not chosen[0]:
        listed = await asked.one("environment.list")
        chosen = [one.name for one in listed.environments][:_EVERYWHERE]
    found: list[Any] = []
    for name in chosen:
        found += getattr(await asked.one(method, NamedList(name, **more)), field_name)
        if len(found) >= asked.limit:
            break
    return found[: asked.limit]


async def _volumes(asked: Asked) -> Any:
    return {"volumes": await _everywhere(asked, "volume.list", "volumes", details=asked.flag("details"))}


async def _volume(asked: Asked) -> Any:
    volume, history = await asyncio.gather(
        asked.one("volume.info", VolumePath(asked.names[0])),
        asked.maybe("volume.history", {"volume_id": asked.names[0], "limit": 50}),
    )
    return {"volume": volume, "history": history}


async def _volume_files(asked: Asked) -> Any:
    at = VolumePath(asked.names[0], asked.text("path") or "/", snapshot=asked.text("snapshot"))
    found: list[Any] = []
    async for message, _ in asked.ask.all(asked.who, "volume.files", at):
        if message is not None:
            found.append(message)
    return found[0] if len(found) == 1 else found


async def _secrets(asked: Asked) -> Any:
    return {"secrets": await _everywhere(asked, "secret.list", "secrets")}


async def _images(asked: Asked) -> Any:
    listed, names = await asyncio.gather(
        asked.one("image.work", ImageWork("list")), asked.one("image.work", ImageWork("names"))
    )
    return {"images": listed.images, "names": names.names}


async def _image(asked: Asked) -> Any:
    return await asked.one("image.work", ImageWork("show", asked.names[0]))


async def _schedules(asked: Asked) -> Any:
    return await asked.one("schedule.list", ScheduleList(asked.text("environment"), asked.text("app")))


async def _audit(asked: Asked) -> Any:
    return await asked.one("audit.list", AuditList(asked.limit))


#: Paths below /api/v1; "*" stands for a name.
READING: dict[tuple[str, ...], Reader] = {
    ("overview",): _overview,
    ("environments",): _environments,
    ("apps",): _apps,
    ("apps", "*"): _app,
    ("apps", "*", "stats"): _app_stats,
    ("functions", "*"): _function,
    ("functions", "*", "series"): _function_series,
    ("functions", "*", "calls"): _function_calls,
    ("calls",): _calls,
    ("calls", "*"): _call,
    ("calls", "*", "inputs"): _call_inputs,
    ("calls", "*", "graph"): _call_graph,
    ("containers",): _containers,
    ("containers", "*"): _container_with_volumes,
    ("containers", "*", "series"): _container_series,
    ("nodes",): _nodes,
    ("nodes", "*", "series"): _container_series,
    ("gpus",): _gpus,
    ("gpus", "*", "series"): _container_series,
    ("functions", "*", "report"): _function_report,
    ("functions", "*", "metrics"): _function_metrics,
    ("cost",): _cost,
    ("cost", "rates"): _rates,
    ("cost", "budgets"): _budgets,
    ("calls", "*", "cost"): _call_cost,
    ("apps", "*", "cost"): _app_cost,
    ("volumes",): _volumes,
    ("volumes", "*"): _volume,
    ("volumes", "*", "files"): _volume_files,
    ("secrets",): _secrets,
    ("images",): _images,
    ("images", "*"): _image,
    ("schedules",): _schedules,
    ("audit",): _audit,
}
