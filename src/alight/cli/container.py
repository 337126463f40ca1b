"""``alight container``: which containers there are, where each one's start went, what it printed, and how to end it."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Dict, List, Mapping, Optional, Tuple

import click

from alight.cli import options, session, tables, terminal
from alight.cli.container_exec import exec_
from alight.cli.errors import UsageError
from alight.cli.logs import container_logs
from alight.cli.terminal import Style
from alight.wire import ids
from alight.wire.codec import to_plain
from alight.wire.gpus import grant
from alight.wire.measures import GpusListed, NodeList
from alight.wire.record import shape_of
from alight.wire.starts import (
    ContainerDetails,
    ContainerList,
    ContainerListed,
    ContainerShow,
    ContainerStop,
    ContainerSummary,
    Start,
)

_ALL = 1_000_000
_NAMES = 12  # columns of what stands before each line of `container show`
_SHOWN = 10  # slow modules
_BAR = 20  # columns of a bar that stands for the whole start


@click.group(short_help="List containers, see where their starts went, stop them.")
def container() -> None:
    """List containers, see where their starts went, stop them."""


container.add_command(exec_)
container.add_command(container_logs)


@container.command("list")
@click.option("--all", "ended", is_flag=True, help="Those that have ended, too.")
@click.option("--app", "--app-id", "app_name", metavar="APP", default="", help="Only of this app, by name or id.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    default=100,
    show_default=True,
    help="At most so many; 0 for all.",
)
@options.environment
@options.as_json
def list_(ended: bool, app_name: str, limit: int, environment: Optional[str], as_json: bool) -> None:
    """List containers that are there, the newest first."""
    request = ContainerList(session.environment(environment), app_name, ended, limit or _ALL)
    listed = session.ask("container.list", request, ContainerListed)
    if as_json:
        print(json.dumps([_fields(one) for one in listed.containers], indent=2))
        return
    columns = ["Container ID", "App", "Function", "Machine", "State", "Since", "Started", "In", "Memory"]
    rows: List[Tuple[Any, ...]] = [
        (
            one.container_id,
            one.app or one.app_id,
            one.function,
            one.machine,
            one.state,
            tables.when(one.created_at),
            how_of(one),
            "" if one.total is None else milliseconds(one.total),
            tables.size(one.usage["memory_bytes"]) if "memory_bytes" in one.usage else "",
        )
        for one in listed.containers
    ]
    if not any(row[-1] for row in rows):  # machines tell while somebody watches
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    chosen = bool(app_name) or not ended
    tables.show(columns, rows, as_json=False, empty="No containers." if chosen else "No containers yet.")
    if listed.more:
        print(f"(the newest {len(rows):,} are shown; --limit 0 shows all)", file=sys.stderr)


@container.command()
@click.argument("container_id", metavar="CONTAINER")
@options.as_json
def show(container_id: str, as_json: bool) -> None:
    """Show a container: what it is for, how it is, and where its start went. CONTAINER is its id."""
    details = _find(container_id)
    if as_json:
        start = details.start
        plain = None if start is None else {**_fields(start), "stages": {one.name: one.seconds for one in start.stages}}
        print(json.dumps({"container": _fields(details.container), "start": plain}, indent=2))
        return
    style = Style(colour=terminal.wants_colour(sys.stdout))
    named: Dict[str, str] = {}
    if details.container.gpus:
        named = {one.uuid: f"{one.index} {one.name}" for one in session.ask("gpu.list", NodeList(), GpusListed).gpus}
    for line in _lines(details, style, time.time(), named):
        print(line)


@container.command()
@click.argument("container_id", metavar="CONTAINER")
@click.option("--force", is_flag=True, help="At once, without a moment for what it runs.")
@click.option("--graceful", is_flag=True, hidden=True, help="What is done without --force.")
@options.yes
def stop(container_id: str, force: bool, graceful: bool, yes: bool) -> None:
    """Stop a container: it has 30 seconds to end what it runs, which is tried again elsewhere. CONTAINER is its id."""
    if force and graceful:
        raise UsageError("--force and --graceful exclude each other")
    found = _find(container_id).container
    if found.state == "ended":
        print(f"{container_id} had ended already", file=sys.stderr)
        return
    options.confirm(f"Stop {container_id} of {found.function} ({found.app or found.app_id})?", yes=yes)
    session.tell("container.stop", ContainerStop(container_id, 0.0 if force else 30.0))
    after = _find(container_id).container
    if after.state != "ended":
        print(f"{container_id} was told to stop and is still there", file=sys.stderr)
        return
    print(f"Stopped {container_id}", file=sys.stderr)


def how_of(one: ContainerSummary) -> str:
    """How a container came to be, in words; "" while nobody knows."""
    return f"{one.how} (level {one.level})" if one.level else one.how


def milliseconds(seconds: float) -> str:
    """Milliseconds to three digits: 0.42 ms, 61.3 ms, 3,140 ms."""
    value = 1e3 * seconds
    if value < 1:
        return f"{value:.2f} ms"
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def _find(container_id: str) -> ContainerDetails:
    if not container_id.startswith(f"{ids.CONTAINER}-"):
        raise UsageError(
            f"{container_id!r} is no id of a container",
            hint=f"it looks like {ids.CONTAINER}-…: `alight container list`",
        )
    return session.ask("container.show", ContainerShow(container_id), ContainerDetails)


def _lines(details: ContainerDetails, style: Style, now: float, gpus: Mapping[str, str]) -> List[str]:
    """``gpus``: numbers and names of GPUs that are there, by uuid."""
    one = details.container
    shade = {"ready": style.good, "ended": style.faint}.get(one.state, style.strong)
    pairs: List[Tuple[str, str]] = [
        ("container", f"{one.container_id}  {shade(one.state)}"),
        ("function", f"{one.function} of {one.app} ({one.app_id})" if one.app else f"{one.function} of {one.app_id}"),
        ("machine", f"{one.machine} ({one.node_id})" if one.machine != one.node_id else one.machine),
        ("created", _moment(one.created_at, now)),
    ]
    if one.gpus:
        for number, text in enumerate(one.gpus):
            part = grant(text)
            name = f"{gpus[part.uuid]}  " if part.uuid in gpus else ""
            share = f"  {part.memory} MiB of it" if part.is_share else ""
            pairs.append(("" if number else "GPUs", f"{name}{part.uuid}{share}"))
        pairs += [("", note) for note in (details.start.gpus if details.start is not None else ())]
    if one.usage:
        pairs.append(("uses", _usage(one)))
    if one.ended_at:
        lived = tables.duration(max(0.0, one.ended_at - one.created_at))
        pairs.append(("ended", f"{_moment(one.ended_at, now)}, after {lived}{_exit(one)}"))
        pairs.append(("", one.why))
    pairs += _start(one, details.start)
    if details.start is not None:
        pairs += [("remedy", style.warning(text)) for text in details.start.remedies]
    pairs.append(("output", f"alight container logs {one.container_id}"))
    return [
        f"{style.faint(name.ljust(_NAMES))} {terminal.clean(' '.join(text.split(chr(10))))}"
        for name, text in pairs
        if text
    ]


def _start(one: ContainerSummary, start: Optional[Start]) -> List[Tuple[str, str]]:
    if start is None:
        return [("start", "nothing was kept of it")]
    whole = sum(stage.seconds for stage in start.stages)
    words = [how_of(one) or "unknown how"]
    if start.reached == "ready":
        words.append("no input yet")
    elif start.reached and one.state == "ready":
        words.append("the rest was not told")  # it just got ready, or its machine's agent was restarted meanwhile
    elif start.reached:
        words.append(f"{'got' if one.state == 'ended' else 'is'} as far as: {_named(start.reached)}")
    pairs = [("start", f"{milliseconds(whole)}, {', '.join(words)}")]
    width = max((len(_named(stage.name)) for stage in start.stages), default=0)
    for stage in start.stages:
        share = stage.seconds / whole if whole else 0.0
        bar = "▇" * round(_BAR * share)
        pairs.append(
            ("", f"{_named(stage.name).ljust(width)}  {milliseconds(stage.seconds):>10}  {share:>4.0%}  {bar}")
        )
    pairs += [("imports" if not at else "", f"{name} {milliseconds(took)}") for at, (name, took) in
              enumerate(start.imports[:_SHOWN])]  # fmt: skip
    if start.waited:
        pairs.append(("waited", start.waited.removeprefix("waiting ")))
    if start.built:
        pairs.append(("image", "was built for this container"))
    pairs += [("no template" if not at else "", text) for at, text in enumerate(start.refused)]
    return pairs


def _named(stage: str) -> str:
    return stage.replace("_", " ")


def _usage(one: ContainerSummary) -> str:
    words = []
    if "memory_bytes" in one.usage:
        words.append(f"{tables.size(one.usage['memory_bytes'])} of memory")
    if "cpu_seconds" in one.usage:
        words.append(f"{one.usage['cpu_seconds']:.1f} s of CPU until now")
    if "gpu_memory_bytes" in one.usage and not one.ended_at:
        busy = f", {one.usage['gpu_utilization']:.0%} busy" if "gpu_utilization" in one.usage else ""
        words.append(f"{tables.size(one.usage['gpu_memory_bytes'])} of GPU memory{busy}")
    return ", ".join(words)


def _exit(one: ContainerSummary) -> str:
    if one.signal:
        return f", signal {one.signal}"
    return "" if one.exit_code is None else f", exit code {one.exit_code}"


def _fields(record: Any) -> Dict[str, Any]:
    """Every field, at its default too: programs should not have to know defaults."""
    shape = shape_of(type(record))
    return {name: to_plain(getattr(record, name)) for name in (shape.names if shape is not None else ())}


def _moment(seconds: float, now: float) -> str:
    return f"{tables.when(seconds)} ({tables.duration(max(0.0, now - seconds))} ago)"
