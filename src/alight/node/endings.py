"""How a container ended, in facts and in words."""

from __future__ import annotations

import signal
import time

from alight.node.engine.base import ContainerState, Engine, Stats
from alight.wire import errors
from alight.wire.commands import Report
from alight.wire.spec import FunctionSpec

_MIB = 1 << 20


async def last_stats(engine: Engine, container_id: str) -> Stats:
    """What it used; zeros when that cannot be known any more."""
    try:
        return await engine.stats(container_id)
    except errors.Error:
        return Stats()


def report(state: ContainerState, function: FunctionSpec, stats: Stats, started_at: float) -> Report:
    """The facts for the server, and one sentence."""
    seconds = max(0.0, (state.ended_at or time.time()) - started_at)
    return Report(
        "ended",
        state.id,
        exit_code=state.exit_code,
        signal=state.signal,
        oom_killed=state.oom_killed,
        text=sentence(state, function, stats),
        # Before it was ready: no fault of the function's, whose calls must not fail for it.
        interrupted=bool(state.error),
        usage={
            "cpu_seconds": stats.cpu_seconds,
            "memory_peak_bytes": float(stats.memory_peak_bytes),
            "seconds": seconds,
        },
    )


def sentence(state: ContainerState, function: FunctionSpec, stats: Stats) -> str:
    """Why it ended, as a person wants to read it."""
    if state.error:
        return f"the container ended: {state.error}"
    if state.oom_killed:
        limit = function.resources.memory_limit
        used = f"{stats.memory_peak_bytes // _MIB} MiB" if stats.memory_peak_bytes else "more than it may"
        allowed = f"its limit is {limit} MiB" if limit else "the machine has no more"
        return f"the container was killed for memory: it used {used}, and {allowed}"
    if state.signal is not None:
        return f"the container was ended by {signal_name(state.signal)}"
    code = state.exit_code or 0
    if 128 < code < 128 + signal.NSIG:
        return f"the container was ended by {signal_name(code - 128)}"
    return f"the container ended with exit code {code}"


def before_ready(ended: Report, name: str) -> errors.Error:
    """The error for calls that waited for a container that never became ready."""
    if ended.exit_code is None and ended.signal == signal.SIGKILL and not ended.oom_killed:
        # Nothing of the user's: somebody outside ended it. The call may run again.
        return errors.InternalFailure(f"{name} was not loaded: {ended.text}")
    hint = "raise its memory limit" if ended.oom_killed else "its log may say more"
    return errors.RemoteError(f"{name} could not be loaded: {ended.text}", hint=hint)


def signal_name(number: int) -> str:
    """ "SIGKILL" for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def not_prepared(name: str, error: OSError) -> errors.Error:
    """Why the container of a function did not start: the machine refused something."""
    return errors.ResourceExhaustedError(
        f"the container of {name} could not be prepared: {error}",
        hint="`alight doctor` looks at the disk and at what the machine allows",
    )


def not_in_time(name: str, limit: float) -> errors.Error:
    """Why a container of a function was ended before it was ready."""
    return errors.FunctionTimeoutError(
        f"{name} was not ready within {limit:g} s of its container's start",
        hint="importing its code takes longer than that: raise startup_timeout (or timeout)",
    )
