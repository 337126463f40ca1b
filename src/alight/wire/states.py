"""The words for how things are. One word per state, the same in wire, store, CLI and docs."""

from __future__ import annotations


class AppState:
    """An app is *running* while a client holds it, *detached* or *deployed* when none needs to, then *stopped*."""

    RUNNING = "running"
    DETACHED = "detached"
    DEPLOYED = "deployed"
    STOPPED = "stopped"


class InputState:
    """An input is *waiting* for a container, *running* in one, then *done* (its output has a ResultStatus)."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"


class ResultStatus:
    """How an attempt ended."""

    SUCCESS = "success"
    EXCEPTION = "exception"  # the user's code raised
    INIT_FAILURE = "init_failure"  # importing the user's code or an @enter hook raised
    TIMEOUT = "timeout"  # the attempt ran longer than the function's timeout
    CANCELLED = "cancelled"
    TERMINATED = "terminated"  # its container ended: killed for memory, stopped, crashed
    IMPOSSIBLE = "impossible"  # no machine can ever run it (no such GPU, more memory than there is)
    INTERNAL = "internal"  # our fault; tried again without touching the user's retries


class ContainerState:
    """A container is *starting*, then *ready* (it may take inputs), then *ended*."""

    STARTING = "starting"
    READY = "ready"
    ENDED = "ended"
