"""Following a call to its end: how far it is, its results where they are wanted, and what has become of it."""

from __future__ import annotations

import sys
import time
from typing import List, Optional

from alight.cli import call_words, render, session, tables, terminal
from alight.cli.errors import Interrupted
from alight.wire import chunk, payload
from alight.wire.calling import CallDetails, CallResult, CallShow, CallSummary, CallUpdate
from alight.wire.codec import loads_head
from alight.wire.errors import Error, RemoteError

#: Seconds between two looks at a call. Looking is cheap, and a call that ends at once is seen at once.
_FIRST, _SLOWEST = 0.1, 1.0


def follow(call_id: str, *, results: bool) -> None:
    """Draw a call until it has ended. Raises RemoteError when not everything succeeded, Interrupted for Ctrl-C."""
    drawing = render.make_renderer()
    try:
        found = _look(call_id).call
        drawing.note(f"{call_id}: {found.function}() of {found.app or found.app_id}, {call_words.inputs_of(found)}")
        if results:
            _print_results(call_id, found, drawing)
        found = _until_done(call_id, drawing)
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted: the call goes on; `alight call attach {call_id}` follows it again, "
            f"`alight call cancel {call_id}` ends it"
        ) from None
    finally:
        drawing.close()
    _say_end(found, drawing)


def _look(call_id: str) -> CallDetails:
    return session.ask("call.show", CallShow(call_id), CallDetails)


def _until_done(call_id: str, drawing: render.Drawing) -> CallSummary:
    pause = _FIRST
    while True:
        details = _look(call_id)
        found = details.call
        if found.state == "done":
            drawing.waiting(call_id, "")
            return found
        why = ""
        if found.waiting and not found.running and details.waiting is not None:
            why = details.waiting.why
        elif not found.waiting and not found.running:
            why = f"everything that was accepted is done; {call_words.MORE_MAY_COME}"
        drawing.waiting(call_id, why)
        if not why:
            drawing.phase(f"{found.function}(): {call_words.inputs_of(found)}")
        time.sleep(pause)
        pause = min(_SLOWEST, pause * 1.5)


def _say_end(found: CallSummary, drawing: render.Drawing) -> None:
    took = f" after {tables.duration(found.done_at - found.created_at)}" if found.done_at else ""
    if not found.failed and not found.cancelled and not found.caller_gone:
        drawing.done(f"{found.call_id} ended{took}: {call_words.inputs_of(found)}")
        return
    how = "was cancelled" if found.cancelled else "ended"
    words = [f"{found.call_id} {how}{took}: {call_words.inputs_of(found)}"]
    if found.caller_gone:
        words.append(call_words.never_sent(found))
    hint = f"`alight call show {found.call_id}` shows the last errors" if found.failed else None
    raise RemoteError("; ".join(words), hint=hint)


def _print_results(call_id: str, found: CallSummary, drawing: render.Drawing) -> None:
    """Values as they come to stdout, failures to stderr; ends with the call."""
    for head, body in session.stream("call.result", CallResult(call_id, index=-1)):
        update = None if chunk.is_chunk(head) else loads_head(CallUpdate, head)
        drawing.waiting(call_id, update.why if update is not None else "")
        if update is not None:
            _print_failure(update)
            continue
        for line in _values(chunk.Outputs.decode(head), body, found.function):
            print(line, flush=True)


def _values(outputs: chunk.Outputs, body: bytes, function: str) -> List[str]:
    if outputs.is_reference:
        _, size = chunk.read_reference(body)
        shown = [f"({tables.size(size)}: too large to print)"]
    else:
        shown = [_shown(piece, function) for piece in chunk.cut(outputs.sizes, body)]
    if outputs.is_items:
        return [f"{outputs.position}\t{text}" for text in shown]
    return [f"{position}\t{text}" for position, text in zip(outputs.positions, shown)]


def _shown(piece: chunk.Buffer, function: str) -> str:
    try:
        value = payload.loads(piece, f"a result of {function}()")
    except Error as error:  # made of what is not installed here: the others can still be shown
        return f"({error})"
    text = repr(value)
    return terminal.clean(text) if terminal.is_terminal(sys.stdout) else text


def _print_failure(update: CallUpdate) -> None:
    words = failure_words(update)
    if words:
        print(f"input {update.position}: {terminal.clean(words)}", file=sys.stderr, flush=True)


def failure_words(update: CallUpdate) -> Optional[str]:
    """One line for an input that failed; None for all other news."""
    if update.state != "done" or update.status == "success":
        return None
    if update.failure is not None:
        return f"{update.failure.type.rpartition('.')[2]}: {update.failure.message}"
    if update.error is not None:
        return str(update.error.get("message", update.status))
    return update.status
