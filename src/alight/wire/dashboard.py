"""What clients and the dashboard ask the server for, beside what commands ask. See ``messages`` for the notation."""

from __future__ import annotations

from alight.wire.failure import Failure
from alight.wire.messages import FunctionStats
from alight.wire.record import dataclass, field
from alight.wire.urls import WebUrl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Tuple
else:
    from typing import Any, Dict, Optional, Tuple  # decoders look the fields' types up


@dataclass(frozen=True)
class DashboardLink:
    """dashboard.link → DashboardUrl. ``object_id``: of the page to open, "" for the first one. ``login``: with a code
    that opens a session, once, within a minute."""

    object_id: str = ""
    login: bool = False


@dataclass(frozen=True)
class DashboardUrl:
    """``login`` is ``url`` with the code in it. Both "" where the web gateway does not listen."""

    url: str = ""
    login: str = ""


@dataclass(frozen=True)
class FunctionView:
    """function.view {function_id} → FunctionShown: a function, of a stopped app too."""

    function_id: str


@dataclass(frozen=True)
class Spread:
    """Percentiles in seconds of so many."""

    count: int = 0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0


@dataclass(frozen=True)
class FunctionShown:
    """``declared`` is its FunctionSpec without values of its environment. ``latency`` is of its newest finished calls
    with one input, from the call to its result; ``starts`` of its newest cold starts, ``how`` counts those."""

    function_id: str
    name: str
    app_id: str
    app: str
    environment: str
    app_state: str
    gone: str = ""
    declared: Dict[str, Any] = field(default_factory=dict)
    scaling: Dict[str, Any] = field(default_factory=dict)  # in force now
    web: Tuple[WebUrl, ...] = ()
    variants: int = 0
    now: FunctionStats = field(default_factory=FunctionStats)
    latency: Spread = field(default_factory=Spread)
    succeeded: int = 0
    failed: int = 0
    starts: Spread = field(default_factory=Spread)
    how: Dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FunctionSeries:
    """function.series → SeriesShown: containers and calls of a function over time. ``until`` 0 is now."""

    function_id: str
    since: float = 0.0
    until: float = 0.0
    points: int = 200


@dataclass(frozen=True)
class SeriesShown:
    """Columns of equal length: ``at`` (unix time of the end of each step), then by name. None: nothing is known."""

    step: float = 0.0
    at: Tuple[float, ...] = ()
    series: Dict[str, Tuple[Optional[float], ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class CallInputs:
    """call.inputs → InputsShown: what became of the inputs of a call, by position from ``start`` on. ``failed``: only
    those that gave no value."""

    call_id: str
    start: int = 0
    limit: int = 100
    failed: bool = False


@dataclass(frozen=True)
class InputShown:
    """``status`` is a ResultStatus, or waiting or running. ``error`` in one line; ``failure`` with its traceback."""

    position: int
    input_id: str
    status: str
    attempt: int = 1
    container: str = ""
    since: float = 0.0  # running
    ended: float = 0.0
    error: str = ""
    failure: Optional[Failure] = None


@dataclass(frozen=True)
class InputsShown:
    inputs: Tuple[InputShown, ...] = ()
    more: bool = False
    total: int = 0  # that have come
    retryable: bool = False  # whether call.retry would find those that failed


@dataclass(frozen=True)
class CallRetry:
    """call.retry → CallRetried: the inputs of an ended call that failed, again, as a call of their own.
    NotFoundError when their arguments are not kept any more, ConflictError when the function is gone or none failed.
    """

    call_id: str


@dataclass(frozen=True)
class CallRetried:
    call_id: str
    inputs: int = 0


@dataclass(frozen=True)
class AuditList:
    """audit.list → AuditListed, newest first: what was changed at the dashboard, and by whom."""

    limit: int = 100


@dataclass(frozen=True)
class AuditEntry:
    """``problem``: why it was not done, "" for what was."""

    at: float
    who: str
    action: str
    target: str
    detail: str = ""
    problem: str = ""


@dataclass(frozen=True)
class AuditListed:
    entries: Tuple[AuditEntry, ...] = ()
