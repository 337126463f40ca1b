"""Which call made which: the inputs of a call, the calls that they made, and theirs, with what became of each."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from alight.server.services.call_views import CallViews
from alight.server.services.published import shown_name
from alight.store.base import Row, Store
from alight.wire import chunk, ids
from alight.wire.calling import CallGraph, CallUpdate
from alight.wire.states import ResultStatus

_OF_A_CALL = 1000  # inputs of one call that are shown
_IN_ALL = 10_000  # inputs in one answer
_CALLS = 1000  # that the inputs of one call made
_PAGE = 500  # output rows at a time
_VALUES, _END, _END_OF_REST, _TAKEN = 0, 1, 3, 4  # kinds of rows of outputs: see migration 2
_decode_update = msgspec.json.Decoder(CallUpdate).decode


async def draw(store: Store, views: CallViews, root: Row) -> CallGraph:
    """The graph below a call. Large ones are cut: at most so many inputs of each call, and so many in all."""
    inputs: list[dict[str, Any]] = []
    known: dict[str, Row] = {}  # functions by id
    todo: deque[tuple[Row, str]] = deque([(root, "")])
    while todo and len(inputs) < _IN_ALL:
        row, parent = todo.popleft()
        inputs += (await _inputs(store, views, row, parent, known))[: _IN_ALL - len(inputs)]
        for child in await store.read("calls_children", call_id=row["call_id"], limit=_CALLS):
            todo.append((child, ids.input_id(child["parent_call"], child["parent_position"])))
    return CallGraph(root["call_id"], tuple(inputs))


async def _inputs(store: Store, views: CallViews, row: Row, parent: str, known: dict[str, Row]) -> list[dict[str, Any]]:
    call_id, function_id = row["call_id"], row["function_id"]
    if function_id not in known:
        found = await store.one("function_module", function_id=function_id)
        known[function_id] = found if found is not None else {"name": function_id, "module": ""}
    function = known[function_id]
    count = min(row["accepted"], _OF_A_CALL)
    rest, ended = await _ended(store, call_id, count)
    if row["done_at"] is not None and not rest[0]:
        rest = (row["status"] if row["status"] in {"cancelled", "success"} else "", "")
    running = {one.position: one.container for one in views.running(call_id)}
    made = []
    for position in range(count):
        status, container = ended.get(position, rest)
        made.append(
            {
                "input_id": ids.input_id(call_id, position),
                "call_id": call_id,
                "container": container or running.get(position, ""),
                "status": status,
                "function": shown_name(function["name"], row["method"]),
                "module": function["module"] or "",
                "parent": parent,
            }
        )
    return made


async def _ended(store: Store, call_id: str, count: int) -> tuple[tuple[str, str], dict[int, tuple[str, str]]]:
    """Status and container of the first ``count`` inputs that have ended, and of those without an end of their own."""
    rest = ("", "")
    ended: dict[int, tuple[str, str]] = {}
    after = 0
    while rows := await store.read("outputs_index", call_id=call_id, after=after, limit=_PAGE):
        after = rows[-1]["number"]
        for row in rows:
            if row["kind"] == _VALUES:
                outputs = chunk.Outputs.decode(row["head"])
                here = (ResultStatus.SUCCESS, outputs.container)
                ended.update((position, here) for position in outputs.positions if position < count)
            elif row["kind"] == _TAKEN:
                taken = range(row["start"], min(count, row["start"] + row["count"]))
                ended.update((position, (ResultStatus.SUCCESS, "")) for position in taken)
            elif row["kind"] in {_END, _END_OF_REST}:
                update = _decode_update(row["head"])
                if row["kind"] == _END_OF_REST:
                    rest = (update.status, "")
                elif row["start"] < count:
                    ended[row["start"]] = (update.status, update.container)
        if len(ended) >= count:
            break
    return rest, ended
