"""What clients and the server say to each other about usage, cost and budgets. See ``messages`` for the notation.

Amounts are by resource: ``container`` (seconds), ``cpu`` (core-seconds: held or used, whichever is more), ``cpu_used``
(core-seconds), ``memory`` (GiB-seconds), ``gpu:TYPE`` (seconds), ``energy`` (joules), ``storage`` (GiB-hours).
"""

from __future__ import annotations

from alight.wire.record import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Optional, Tuple
else:
    from typing import Dict, Optional, Tuple  # decoders look the fields' types up


@dataclass(frozen=True)
class UsageAsk:
    """usage.report → UsageReported. Unix seconds; ``end`` 0 is now. ``resolution``: d, h, or "" for all in one.

    ``by``: app, function, user, or tag:NAME. ``tz`` names the time zone that days are of; "" is UTC. Hours are whole:
    one counts when it begins within.
    """

    start: float
    end: float = 0.0
    resolution: str = "d"
    by: str = "app"
    tz: str = ""
    environment: str = ""
    app: str = ""  # name or id
    owner: str = ""  # whose; for the owner of the server to say


@dataclass(frozen=True)
class UsageItem:
    """One interval of one app (function, user). ``description`` is the app's name, or the user.

    ``idle`` and ``starting`` are parts of ``cost``; ``unpriced`` are resources that nobody gave a price, in no cost.
    """

    at: float
    object_id: str
    description: str
    environment: str
    owner: str
    amounts: Dict[str, float]
    cost: float
    idle: float
    starting: float
    by_resource: Dict[str, float]
    tags: Dict[str, str] = field(default_factory=dict)
    unpriced: Tuple[str, ...] = ()
    function: str = ""


@dataclass(frozen=True)
class UsageReported:
    """``since``: before it nothing was counted."""

    start: float
    end: float
    currency: str
    items: Tuple[UsageItem, ...] = ()
    since: float = 0.0


@dataclass(frozen=True)
class CallCostAsk:
    """usage.call → CostTold: what one call has had of containers until now, without their idle times."""

    call_id: str


@dataclass(frozen=True)
class AppCostAsk:
    """usage.app → CostTold: what one app has had until now, all its life."""

    app_id: str


@dataclass(frozen=True)
class CostTold:
    """``peaks``: the most GPUs (by type) that it had at once, as far as is known. ``small``: a call that had too little
    of a container for an account of its own."""

    cost: float
    currency: str
    amounts: Dict[str, float] = field(default_factory=dict)
    by_resource: Dict[str, float] = field(default_factory=dict)
    idle: float = 0.0
    starting: float = 0.0
    unpriced: Tuple[str, ...] = ()
    peaks: Dict[str, float] = field(default_factory=dict)
    small: bool = False


@dataclass(frozen=True)
class RatesAsk:
    """usage.rates → Rates."""


@dataclass(frozen=True)
class Rate:
    """What one unit of a resource costs."""

    resource: str
    unit: str
    price: float


@dataclass(frozen=True)
class Rates:
    """``file``: where they are set; ``defaults``: it is not there; ``notes``: what in it may not be what was meant."""

    currency: str
    rates: Tuple[Rate, ...]
    file: str = ""
    defaults: bool = False
    any_gpu: Optional[float] = None
    example: str = ""
    notes: Tuple[str, ...] = ()


@dataclass(frozen=True)
class BudgetSet:
    """budget.set → Budgets. ``kind``: app (``name`` or id, by month), user (by month), run (an app's id, over its
    life). ``stop``: what runs ends when it is reached. What is None stays as it was set before; with nothing at all
    the budget is taken away."""

    kind: str
    name: str
    environment: str = ""
    cost: Optional[float] = None
    gpu_seconds: Optional[float] = None
    stop: Optional[bool] = None


@dataclass(frozen=True)
class BudgetList:
    """budget.list → Budgets: all that concern who asks. With a ``name`` (of kind app: or an id) those of that one."""

    kind: str = ""
    name: str = ""
    environment: str = ""


@dataclass(frozen=True)
class Budget:
    """One budget and what of it is used. ``since``: the month's begin, 0 for a run's. ``used_up``: inputs wait.

    ``apps``: how many it concerns at the moment."""

    kind: str
    name: str
    environment: str
    cost: Optional[float]
    gpu_seconds: Optional[float]
    stop: bool
    spent: float
    spent_gpu_seconds: float
    used_up: bool
    since: float = 0.0
    set_by: str = ""
    apps: int = 0


@dataclass(frozen=True)
class Budgets:
    currency: str
    budgets: Tuple[Budget, ...] = ()
