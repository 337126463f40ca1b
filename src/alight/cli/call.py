"""``alight call``: which calls there are, how each is doing and why it waits, and how to end or follow one."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

import click

from alight.cli import call_words, money, options, session, tables, terminal
from alight.cli.terminal import Style
from alight.wire import ids
from alight.wire.billing import CallCostAsk, CostTold
from alight.wire.calling import (
    CallCancel,
    CallDetails,
    CallGraph,
    CallList,
    CallListed,
    CallShow,
    CallSummary,
    RunningInput,
    Waiting,
)
from alight.wire.codec import to_plain
from alight.wire.errors import UnimplementedError
from alight.wire.record import shape_of

_STATES = ("waiting", "running", "done")
_ALL = 1_000_000
_CUT = 1000  # inputs of one call that the server shows in a graph
_SHOWN = 10  # of what may be many: running inputs, failures
_NAMES = 9  # columns of what stands before each line of `call show`


@click.group(short_help="Look at calls: what runs, what waits and why.")
def call() -> None:
    """Look at calls: what runs, what waits and why."""


@call.command("list")
@click.option("--app", "app_name", metavar="APP", default="", help="Only calls of this app, by name or id.")
@click.option("--function", metavar="NAME", default="", help="Only calls of this function, by name or id.")
@click.option("--state", type=click.Choice(_STATES), help="Only calls that wait, run or are done.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    default=50,
    show_default=True,
    help="At most so many; 0 for all.",
)
@options.environment
@options.as_json
def list_(
    app_name: str, function: str, state: Optional[str], limit: int, environment: Optional[str], as_json: bool
) -> None:
    """List calls, the newest first."""
    request = CallList(
        environment=session.environment(environment),
        app=app_name,
        function=function,
        state=state or "",
        limit=limit or _ALL,
    )
    listed = session.ask("call.list", request, CallListed)
    columns = ("Call ID", "App", "Function", "Verb", "State", "Waiting", "Running", "Done", "Failed", "Created at")
    rows = [
        (
            one.call_id,
            one.app,
            one.function,
            one.verb,
            call_words.state_of(one),
            one.waiting,
            one.running,
            one.succeeded + one.failed,
            one.failed,
            tables.when(one.created_at),
        )
        for one in listed.calls
    ]
    chosen = any((app_name, function, state))
    empty = "No calls like that." if chosen else "No calls yet. `alight run script.py` makes one."
    tables.show(columns, rows, as_json=as_json, empty=empty)
    if as_json or not rows:
        return
    words = [f"{call_words.count_of(listed.waiting, 'input')} waiting, {listed.running:,} running"]
    if listed.more:
        words.append(f"the newest {len(rows):,} calls are shown; --limit 0 shows all")
    print(f"({'; '.join(words)})", file=sys.stderr)


@call.command()
@click.argument("call_id", metavar="CALL")
@options.as_json
def show(call_id: str, as_json: bool) -> None:
    """Show how a call is doing: who made it, what is done, and why the rest waits. CALL is its id."""
    details = session.ask("call.show", CallShow(call_words.check(call_id)), CallDetails)
    cost = _cost(details.call.call_id)
    if as_json:
        told = cost and {"cost": round(cost.cost, 9), "currency": cost.currency, "amounts": money.rounded(cost.amounts)}
        print(json.dumps({**_whole(details), "cost": told}, indent=2))
        return
    style = Style(colour=terminal.wants_colour(sys.stdout))
    for line in _lines(details, cost, style, time.time()):
        print(line)


@call.command()
@click.argument("call_id", metavar="CALL")
@click.option(
    "--terminate-containers", is_flag=True, help="End the containers that run it, too, whatever else they run."
)
@options.yes
def cancel(call_id: str, terminate_containers: bool, yes: bool) -> None:
    """Cancel a call: what waits is dropped and what runs is interrupted; what is done stays. CALL is its id."""
    found = session.ask("call.show", CallShow(call_words.check(call_id)), CallDetails).call
    if found.state == "done":
        print(f"{call_id} had ended already: nothing was cancelled", file=sys.stderr)
        return
    left = f"{call_words.count_of(found.waiting, 'input')} waiting, {found.running:,} running"
    options.confirm(f"Cancel {call_id} of {found.function}() ({left})?", yes=yes)
    session.tell("call.cancel", CallCancel(call_id, terminate_containers))
    done = found.succeeded + found.failed
    kept = f"; what was done ({call_words.count_of(done, 'input')}) keeps its results" if done else ""
    print(f"Cancelled {call_id}{kept}", file=sys.stderr)


@call.command()
@click.argument("call_id", metavar="CALL")
@click.option("--results", is_flag=True, help="Print each result as it comes: its position, a tab, and the value.")
def attach(call_id: str, results: bool) -> None:
    """Follow a call to its end, wherever it was started. CALL is its id.

    The status is 0 when every input that its caller meant to send has succeeded. Ctrl-C leaves the call as it is.
    """
    from alight.cli import following  # noqa: PLC0415  loads what unpickles and draws

    following.follow(call_words.check(call_id), results=results)


@call.command()
@click.argument("call_id", metavar="CALL")
@options.as_json
def graph(call_id: str, as_json: bool) -> None:
    """Show which calls a call's inputs made, and those theirs. CALL is its id."""
    found = session.ask("call.graph", CallGraph(call_words.check(call_id)), CallGraph)
    if as_json:
        print(json.dumps(list(found.inputs), indent=2))
        return
    rows = _tree(found)
    columns = ("Input", "Function", "Status", "Container")
    tables.show(columns, rows, as_json=False, empty="This call has no inputs.")
    if sum(not one.get("parent") for one in found.inputs) >= _CUT:
        print(f"(the first {_CUT:,} inputs of a call are shown)", file=sys.stderr)


def _cost(call_id: str) -> Optional[CostTold]:
    """What a call had of containers; None from a server that does not count it."""
    try:
        return session.ask("usage.call", CallCostAsk(call_id), CostTold)
    except UnimplementedError:
        return None


def _lines(details: CallDetails, cost: Optional[CostTold], style: Style, now: float) -> List[str]:
    found = details.call
    state = call_words.state_of(found)
    shade = {"failed": style.bad, "done": style.good}.get(state, style.strong)
    pairs: List[Tuple[str, str]] = [
        ("call", f"{found.call_id}  {shade(state)}"),
        ("function", f"{found.function}() of {_app(found)}"),
        ("made", f"{_moment(found.created_at, now)}, by {_caller(found)}"),
    ]
    if found.done_at:
        took = tables.duration(max(0.0, found.done_at - found.created_at))
        pairs.append(("ended", f"{_moment(found.done_at, now)}, after {took}"))
    if cost is not None and (found.state == "done" or not cost.small):
        pairs.append(("cost", money.call_line(cost)))
    pairs.append(("inputs", call_words.inputs_of(found)))
    if found.total is None and found.state != "done":
        pairs.append(("", call_words.MORE_MAY_COME))
    if found.caller_gone:
        pairs.append(("", style.warning(call_words.never_sent(found))))
    pairs += _running(details.running, found.running, now)
    if details.waiting is not None:
        pairs += _waiting(details.waiting, style, now)
    pairs += _failed(details, found)
    return [f"{style.faint(name.ljust(_NAMES))} {terminal.clean(_one_line(text))}" for name, text in pairs]


def _failed(details: CallDetails, found: CallSummary) -> List[Tuple[str, str]]:
    shown = details.failed[:_SHOWN]
    texts = [f"input {position:,}: {words}" if position >= 0 else f"the rest: {words}" for position, words in shown]
    whole = any(position < 0 for position, _ in shown)  # then the number of failures says nothing about those before
    if not whole and found.failed > len(shown) > 0:
        texts.append(f"and {found.failed - len(shown):,} before these")
    return [("failed" if not index else "", text) for index, text in enumerate(texts)]


def _running(running: Sequence[RunningInput], count: int, now: float) -> List[Tuple[str, str]]:
    pairs = []
    for index, one in enumerate(running[:_SHOWN]):
        attempt = f", attempt {one.attempt}" if one.attempt > 1 else ""
        since = f" for {tables.duration(max(0.0, now - one.since))}" if one.since else ""
        pairs.append(("running" if not index else "", f"input {one.position:,} in {one.container}{since}{attempt}"))
    if pairs and count > len(pairs):
        pairs.append(("", f"and {count - len(pairs):,} more"))
    return pairs


def _waiting(waiting: Waiting, style: Style, now: float) -> List[Tuple[str, str]]:
    pairs = []
    why = waiting.why.removeprefix("waiting ")
    if waiting.holders:  # who holds it has lines of its own
        why = why.partition(": ")[0]
    since = f", since {_moment(waiting.since, now)}" if waiting.since else ""
    pairs.append(("waits", f"{why}{since}"))
    if waiting.ahead:
        comes = "comes" if waiting.ahead == 1 else "come"
        pairs.append(("line", f"{call_words.count_of(waiting.ahead, 'input')} of this function {comes} first"))
    pairs.append(("needs", waiting.needs))
    pairs += [("held by" if not index else "", holder) for index, holder in enumerate(waiting.holders)]
    alone = waiting.starts_when.startswith(("never", "in "))
    pairs.append(("starts", waiting.starts_when if alone or not waiting.starts_when else f"when {waiting.starts_when}"))
    if waiting.never:
        pairs.append(("", style.bad("nobody will ever return what it needs")))
    return [(name, text) for name, text in pairs if text]


def _tree(found: CallGraph) -> List[Tuple[str, str, str, str]]:
    """The inputs in rows, those that an input called beneath it and indented."""
    children: Dict[str, List[Dict[str, Any]]] = {}
    for one in found.inputs:
        children.setdefault(one.get("parent", ""), []).append(one)
    rows: List[Tuple[str, str, str, str]] = []
    todo = [(0, one) for one in reversed(children.get("", []))]
    while todo:
        depth, one = todo.pop()
        name = f"{one.get('function', '')}()"
        status = one.get("status") or ("running" if one.get("container") else "waiting")
        rows.append((f"{'  ' * depth}{one['input_id']}", name, status, one.get("container", "")))
        todo += [(depth + 1, child) for child in reversed(children.get(one["input_id"], []))]
    return rows


def _whole(details: CallDetails) -> Dict[str, Any]:
    """Every field, at its default too: programs should not have to know defaults."""
    return {
        "call": _fields(details.call),
        "waiting": None if details.waiting is None else _fields(details.waiting),
        "running": [_fields(one) for one in details.running],
        "failed": [{"position": position, "error": words} for position, words in details.failed],
    }


def _fields(record: Any) -> Dict[str, Any]:
    shape = shape_of(type(record))
    return {name: to_plain(getattr(record, name)) for name in (shape.names if shape is not None else ())}


def _app(found: CallSummary) -> str:
    return f"{found.app} ({found.app_id})" if found.app else found.app_id


def _caller(found: CallSummary) -> str:
    verb = f" ({found.verb})" if found.verb else ""
    if not found.parent_input:
        return f"a client{verb}"
    call_id, position = ids.of_input(found.parent_input)
    return f"input {position:,} of {call_id}{verb}"


def _moment(seconds: float, now: float) -> str:
    return f"{tables.when(seconds)} ({tables.duration(max(0.0, now - seconds))} ago)"


def _one_line(text: str) -> str:
    return " ".join(text.split("\n"))
