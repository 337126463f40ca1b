"""What is said of calls, by every command that speaks of one."""

from __future__ import annotations

from alight.cli.errors import UsageError
from alight.wire import ids
from alight.wire.calling import CallSummary

MORE_MAY_COME = "more inputs may come from its caller, which counts as dead when it has been gone for a while"


def check(call_id: str) -> str:
    """The id of a call. Raises UsageError for what cannot be one."""
    if not ids.is_id(call_id, ids.CALL):
        raise UsageError(f"{call_id!r} is not the id of a call", hint="they look like fc-…: `alight call list`")
    return call_id


def state_of(found: CallSummary) -> str:
    """Its state for people: done says how."""
    if found.state != "done":
        return found.state
    if found.cancelled:
        return "cancelled"
    if found.failed:
        return "failed"
    return "incomplete" if found.caller_gone else "done"


def inputs_of(found: CallSummary) -> str:
    """How far a call is, in numbers."""
    done = found.succeeded + found.failed
    if found.total is not None:
        words = [f"{done:,} of {found.total:,} done"]
    else:
        words = [f"{done:,} done of {found.accepted:,} accepted so far"]
    failed = "failed or cancelled" if found.cancelled else "failed"
    for count, what in ((found.failed, failed), (found.running, "running"), (found.waiting, "waiting")):
        if count:
            words.append(f"{count:,} {what}")
    return ", ".join(words)


def never_sent(found: CallSummary) -> str:
    """What is said of a call whose caller died half-way; "" for all others."""
    if not found.caller_gone:
        return ""
    if not found.accepted:
        return "its caller died before the server had any of its inputs"
    were = "was" if found.accepted == 1 else "were"
    return (
        f"its caller died after {count_of(found.accepted, 'input')} {were} accepted; "
        "whatever it had not sent by then was never run"
    )


def count_of(count: int, what: str) -> str:
    """A number with its noun."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
