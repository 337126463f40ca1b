"""What clients and the server say of calls: started, answered, cancelled, looked at. Read as ``messages`` is."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from alight.wire.failure import Failure
from alight.wire.record import dataclass, field


@dataclass(frozen=True)
class Payload:
    """User bytes: inline in the frame's body when ``blob`` is empty, else a blob of the server."""

    blob: str = ""
    size: int = 0


@dataclass(frozen=True)
class CallStart:
    """call.start ⇉ CallUpdate and ``chunk.Outputs``; ends when all is said.

    One input: body: pickled (args, kwargs) unless ``payload.blob``, and the caller's half is over. ``many``: inputs
    follow as ``chunk.Inputs`` until the caller ends its half; positions count from 0 without gaps.

    The caller makes the id, so that it can send the same call again after a lost connection: known inputs are attached
    to, never run twice. With ``resend`` the server's first message is CallUpdate(state="accepted", accepted=N): it
    has the inputs before N, and the caller goes on from there; ``have`` are the positions (start, stop) whose outputs
    the caller has already, ``items`` how many items of its generator.

    ``wait=False`` (spawn): one CallUpdate(state="accepted") after everything is on disk, then END. Values come as
    ``chunk.Outputs`` (items of generators too), everything else as CallUpdate(state="done") for its ``position``.
    ``verb`` is for people: remote, remote_gen, map, for_each, spawn, spawn_map.
    """

    call_id: str
    function_id: str
    verb: str = "remote"
    many: bool = False
    wait: bool = True
    method: str = ""  # of a class
    payload: Payload = field(default_factory=Payload)
    parent_input: str = ""
    resend: bool = False  # sent before, on a connection that was lost: look for its results first
    have: Tuple[Tuple[int, int], ...] = ()
    items: int = 0
    json: bool = False  # the body is {"args": […], "kwargs": {…}}, and the value will be JSON as well


@dataclass(frozen=True)
class CallResult:
    """call.result ⇉ as call.start: attach to a call by id.

    ``index``: that input alone, and NotFoundError where there is none; -1: all from ``start`` to ``stop`` (None: the
    last that there will be), as they come. ``timeout`` seconds for the whole, None = for ever; 0: what is there now.
    Raises TimeoutError, OutputExpiredError.
    """

    call_id: str
    timeout: Optional[float] = None
    index: int = 0
    start: int = 0
    stop: Optional[int] = None
    have: Tuple[Tuple[int, int], ...] = ()
    items: int = 0


@dataclass(frozen=True)
class CallUpdate:
    """``state`` is accepted, waiting, running or done; the rest is set when done.

    Body (when ``payload.blob`` is empty): the pickled exception for exception and init_failure when
    ``failure.pickled``. ``error`` (an error's wire form) is set for every other status. A generator that ended well is
    done with status success and the number of its ``items``.
    ``log_offset``: the client has the output that belongs before this result once it has seen ``container`` up to
    there.
    """

    call_id: str
    state: str
    position: int = 0
    status: str = ""
    attempt: int = 1
    payload: Payload = field(default_factory=Payload)
    failure: Optional[Failure] = None
    error: Optional[Dict[str, Any]] = None
    container: str = ""
    log_offset: int = 0
    why: str = ""  # while waiting: why, in words
    accepted: int = 0  # so many inputs are kept
    items: int = 0


@dataclass(frozen=True)
class CallCancel:
    """call.cancel → {}. Idempotent; what is done stays done."""

    call_id: str
    terminate_containers: bool = False


@dataclass(frozen=True)
class CallList:
    """call.list → CallListed, newest first. ``state`` is "", "waiting", "running" or "done" (finished in any way).
    ``before`` (a call's id) goes on after that one.
    """

    environment: str = ""
    app: str = ""  # name or id
    function: str = ""
    state: str = ""
    limit: int = 50
    before: str = ""


@dataclass(frozen=True)
class CallSummary:
    """One call as people see it. ``total`` is None while more inputs may come."""

    call_id: str
    function: str
    function_id: str
    app_id: str
    app: str
    verb: str
    state: str  # waiting, running, done
    created_at: float
    done_at: Optional[float] = None
    accepted: int = 0
    total: Optional[int] = None
    waiting: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: bool = False
    caller_gone: bool = False  # its caller died before it had sent all inputs
    parent_input: str = ""


@dataclass(frozen=True)
class CallListed:
    """``waiting`` and ``running`` count inputs of all calls that match, not only of those that are shown."""

    calls: Tuple[CallSummary, ...] = ()
    more: bool = False
    waiting: int = 0
    running: int = 0


@dataclass(frozen=True)
class CallShow:
    """call.show → CallDetails."""

    call_id: str


@dataclass(frozen=True)
class Waiting:
    """Why inputs of a call wait. Every sentence stands alone."""

    since: float = 0.0  # unix time
    why: str = ""
    needs: str = ""  # "1 x H100, 2 cores, 4096 MiB for each container"
    ahead: int = 0  # inputs of this function that come first
    holders: Tuple[str, ...] = ()  # who holds what it needs
    starts_when: str = ""  # what would let it start now
    never: bool = False  # nothing that is under way will let it start


@dataclass(frozen=True)
class RunningInput:
    position: int
    input_id: str
    container: str
    since: float
    attempt: int = 1


@dataclass(frozen=True)
class CallDetails:
    """``failed`` are the last inputs that failed: position and the error's or exception's words. Position -1 stands for
    all that had not ended when the call did."""

    call: CallSummary
    waiting: Optional[Waiting] = None
    running: Tuple[RunningInput, ...] = ()
    failed: Tuple[Tuple[int, str], ...] = ()


@dataclass(frozen=True)
class CallGraph:
    """call.graph {call_id} → CallGraph: the inputs of the call (``inputs``, at most 1,000) and all that they called.

    ``status`` is a ResultStatus, or "" while it is not done. ``parent`` is an input's id, "" for those of this call.
    """

    call_id: str
    inputs: Tuple[Dict[str, Any], ...] = ()  # input_id, call_id, container, status, function, module, parent
