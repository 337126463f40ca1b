"""Why an input waits, in words."""

from __future__ import annotations

from alight.scheduler import place
from alight.scheduler.state import State


def why_waiting(state: State, input_id: str, now: float) -> str:
    """One sentence for an input that waits; "" for one that runs or is unknown."""
    entry = state.inputs.get(input_id)
    if entry is None or entry.container:
        return ""
    function = state.functions.get(entry.function_id)
    if function is None:
        return ""
    if input_id not in function.waiting:
        return f"waiting for its next attempt ({entry.attempt})"
    starting = sum(
        not state.containers[one].ready and not state.containers[one].stopping for one in function.containers
    )
    if starting:
        ahead = len(function.waiting) - 1
        others = f", {ahead} other input{'s' if ahead > 1 else ''} waiting" if ahead else ""
        return f"waiting for a container: {starting} starting{others}"
    if function.start_after > now:
        return f"waiting {function.start_after - now:.1f} s before a container is tried again: the last did not start"
    return place.why_blocked(state, function)
