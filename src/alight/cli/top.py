"""``alight top``: what runs, live, with what it uses."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import click

from alight.cli import options, session, tables, terminal
from alight.cli.terminal import Style
from alight.wire.measures import GpusListed, NodeList, NodesListed
from alight.wire.starts import ContainerList, ContainerListed, ContainerSummary

_ORDERS = ("cpu", "memory", "gpu", "age")
_COLUMNS = (
    "Container",
    "App",
    "Function",
    "State",
    "CPU %",
    "Memory",
    "GPU %",
    "GPU memory",
    "Net in",
    "Net out",
    "Age",
)
_RIGHT = frozenset(_COLUMNS[4:])
#: What a narrow terminal does without, the first first, before names are cut to fewer letters than this.
_FIRST_TO_GO = ("Net out", "Net in", "State", "Container", "GPU memory")
_LEGIBLE = 12
_MOST = 1000


@click.command()
@click.option(
    "--interval", type=click.FloatRange(min=0.5), default=1.0, show_default=True, help="Seconds between looks."
)
@click.option("-n", "--count", type=click.IntRange(min=1), metavar="N", help="Look so often, then end.")
@click.option("--sort", type=click.Choice(_ORDERS), default="cpu", show_default=True, help="What comes first.")
@click.option("--app", "app_name", metavar="APP", default="", help="Only containers of this app, by name or id.")
@options.environment
@options.as_json
def top(
    interval: float, count: Optional[int], sort: str, app_name: str, environment: Optional[str], as_json: bool
) -> None:
    """Show what runs and what it uses: CPU (100 % is one core), memory, GPUs, network. q ends it.

    Without a terminal, and with --json, it looks once and prints plain lines.
    """
    where = environment or ""  # all environments, unless one is asked for
    live = not as_json and count is None and terminal.is_terminal(sys.stdout) and terminal.is_terminal(sys.stdin)
    if not live:
        for number in range(count or 1):
            if number:
                time.sleep(interval)
            _print_once(_look(where, app_name), sort, as_json=as_json)
        return
    with _keys() as keys:
        while True:
            _draw(_look(where, app_name), sort)
            pressed = keys(interval)
            if pressed in {"q", "Q", "\x03", "\x1b"}:
                return
            sort = {"c": "cpu", "m": "memory", "g": "gpu", "a": "age"}.get(pressed, sort)


class Look:
    """What was found at one look."""

    def __init__(self, containers: Sequence[ContainerSummary], nodes: NodesListed, gpus: GpusListed) -> None:
        self.containers = containers
        self.nodes = nodes.nodes
        self.gpus = gpus.gpus
        self.at = time.time()


def rows_of(look: Look, sort: str) -> List[Tuple[str, ...]]:
    """The table, the largest first."""

    def weight(one: ContainerSummary) -> float:
        if sort == "age":
            return -one.created_at
        key = {"cpu": "cpu", "memory": "memory_bytes", "gpu": "gpu_utilization"}[sort]
        return one.usage.get(key, -1.0)

    ordered = sorted(look.containers, key=lambda one: (-weight(one), one.container_id))
    return [_row(one, look.at) for one in ordered]


def head_of(look: Look) -> List[str]:
    """A line for each machine, and one for its GPUs."""
    lines = []
    for one in look.nodes:
        if one.state != "connected":
            lines.append(f"{one.hostname}: away since {tables.when(one.last_seen)}")
            continue
        cpu = "?" if one.cpu is None else f"{one.cpu:.1f}"
        used = "?" if one.memory_used is None else tables.size(one.memory_used)
        many = f"{one.containers} container{'' if one.containers == 1 else 's'}"
        lines.append(f"{one.hostname}: {cpu} of {one.cpus:g} cores, {used} of memory in use, {many}")
        for gpu in look.gpus:
            if gpu.node_id == one.node_id:
                busy = "?" if gpu.utilization is None else f"{gpu.utilization:.0%}"
                memory = "?" if gpu.memory_used is None else tables.size(gpu.memory_used)
                holder = gpu.holder_function or gpu.holder or "free"
                lines.append(f"  {gpu.name} {gpu.index}: {busy} busy, {memory} of {tables.size(gpu.memory)}, {holder}")
    return lines


def fitted(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> List[str]:
    """Aligned lines that are no wider than this: long names give way, then columns that one can do without."""
    shown = list(columns)
    widths: Dict[int, int] = {}
    for gone in ("", *_FIRST_TO_GO):
        shown = [column for column in shown if column != gone]
        places = [columns.index(column) for column in shown]
        widths = {place: max(len(row[place]) for row in [columns, *rows]) for place in places}
        names = [place for place in places if columns[place] in {"App", "Function"}]
        while sum(widths.values()) + 2 * len(widths) - 2 > width:
            widest = max(names, key=lambda place: widths[place], default=-1)
            if widest < 0 or widths[widest] <= _LEGIBLE:
                break
            widths[widest] -= 1
        else:
            break
    lines = []
    for row in [columns, *rows]:
        cells = [
            row[place][:size].rjust(size) if columns[place] in _RIGHT else row[place][:size].ljust(size)
            for place, size in widths.items()
        ]
        lines.append("  ".join(cells).rstrip()[:width])
    return lines


def _look(environment: str, app: str) -> Look:
    listed = session.ask("container.list", ContainerList(environment, app, limit=_MOST), ContainerListed)
    nodes = session.ask("node.list", NodeList(watch=True), NodesListed)
    return Look(listed.containers, nodes, session.ask("gpu.list", NodeList(), GpusListed))


def _row(one: ContainerSummary, now: float) -> Tuple[str, ...]:
    use = one.usage

    def said(name: str, words: str) -> str:
        return words if name in use else ""

    return (
        one.container_id,
        one.app or one.app_id,
        one.function,
        one.state,
        said("cpu", f"{100 * use.get('cpu', 0.0):.0f}"),
        said("memory_bytes", tables.size(use.get("memory_bytes", 0.0))),
        said("gpu_utilization", f"{100 * use.get('gpu_utilization', 0.0):.0f}"),
        said("gpu_memory_bytes", tables.size(use.get("gpu_memory_bytes", 0.0))),
        said("net_rx", f"{tables.size(use.get('net_rx', 0.0))}/s"),
        said("net_tx", f"{tables.size(use.get('net_tx', 0.0))}/s"),
        tables.duration(max(0.0, now - one.created_at)),
    )


def _print_once(look: Look, sort: str, *, as_json: bool) -> None:
    if as_json:
        keys = ("container_id", "app", "app_id", "function", "function_id", "state", "machine", "created_at", "gpus")
        plain: List[Dict[str, Any]] = [
            {**{key: getattr(one, key) for key in keys}, "usage": dict(one.usage)} for one in look.containers
        ]
        print(json.dumps(plain, indent=2))
        return
    for line in head_of(look):
        print(terminal.clean(line))
    tables.show(_COLUMNS, rows_of(look, sort), as_json=False, empty="No container runs.")


def _draw(look: Look, sort: str) -> None:
    columns, lines = os.get_terminal_size(sys.stdout.fileno())
    style = Style(colour=terminal.wants_colour(sys.stdout))
    head = [terminal.clean(line)[:columns] for line in head_of(look)][: max(1, lines // 3)]
    rows = [tuple(terminal.clean(cell) for cell in row) for row in rows_of(look, sort)]
    table = fitted(_COLUMNS, rows, columns)
    keys = f"q ends · first: c CPU, m memory, g GPU, a age (now {sort})"[:columns]
    body = [*head, style.faint(keys), "", style.strong(table[0]), *table[1:]]
    if not rows:
        body.append("No container runs.")
    # From the top, each line cleared to its end: no flicker, and nothing left of what was longer.
    sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in body[: lines - 1]) + "\x1b[J")
    sys.stdout.flush()


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """The terminal for one key at a time, on a screen of its own; as it was afterwards."""
    import termios  # noqa: PLC0415  only where a terminal is
    import tty  # noqa: PLC0415  only where a terminal is

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def key(seconds: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        return os.read(descriptor, 1).decode("latin-1") if ready else ""

    sys.stdout.write("\x1b[?1049h\x1b[?25l\x1b[2J")
    tty.setcbreak(descriptor)
    try:
        yield key
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
