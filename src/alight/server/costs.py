"""What amounts cost: seconds times prices. Pure.

Amounts are kept, costs are not: a price that was wrong is put right by setting it, for what has been, too.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from alight.server.metering import CPU, CPU_USED, ENERGY, GPU, MEMORY, STORAGE, WHOLE
from alight.wire import gpus

HOUR = 3600.0
JOULES = 3.6e6  # in a kWh
MONTH = 730.0  # hours
#: Of the GPUs that people rent by the hour, in dollars; what an owner's own cost is for ``prices.toml`` to say.
RENTED = {
    "T4": 0.59,
    "L4": 0.80,
    "A10G": 1.10,
    "L40S": 1.50,
    "A100-40GB": 2.50,
    "A100-80GB": 3.50,
    "H100": 4.00,
}
_SAME = {"A100": "A100-40GB", "A10040G": "A100-40GB", "A10080G": "A100-80GB"}


def kind_of(name: str) -> str:
    """One word for a type of GPU, however it is written: "RTX4090", "rtx 4090" and "RTX-4090" are one."""
    known = gpus.canonical(name) or gpus.key(name)
    return _SAME.get(known, known)


@dataclass(frozen=True)
class Prices:
    """What a unit costs. ``gpus`` by type, for an hour; ``any_gpu`` of a type that is not there, None: nobody knows.

    The defaults of cores, memory and volumes are of the size of what clouds ask; energy costs nothing by itself until
    somebody says what a kWh costs, since rents contain it.
    """

    currency: str = "USD"
    core_hour: float = 0.05
    gib_hour: float = 0.01
    storage_gib_month: float = 0.20
    kwh: float = 0.0
    gpus: Mapping[str, float] = field(default_factory=lambda: dict(RENTED))
    any_gpu: float | None = None

    def gpu_hour(self, kind: str) -> float | None:
        """An hour of a GPU of this type; None when nobody said."""
        return self._by_kind.get(kind_of(kind), self.any_gpu)

    @functools.cached_property
    def _by_kind(self) -> dict[str, float]:
        return {kind_of(name): price for name, price in self.gpus.items()}

    def of(self, resource: str, amount: float) -> float | None:
        """What an amount costs; None for a resource without a price."""
        if resource in {WHOLE, CPU_USED}:
            return 0.0  # told for their own sake: what they hold is priced
        if resource == CPU:
            return amount * self.core_hour / HOUR
        if resource == MEMORY:
            return amount * self.gib_hour / HOUR
        if resource == ENERGY:
            return amount * self.kwh / JOULES
        if resource == STORAGE:
            return amount * self.storage_gib_month / MONTH
        price = self.gpu_hour(resource.removeprefix(GPU)) if resource.startswith(GPU) else None
        return None if price is None else amount * price / HOUR


@dataclass
class Cost:
    """What amounts cost. ``unpriced``: resources that nobody gave a price, which are in no sum."""

    total: float = 0.0
    idle: float = 0.0  # of it, containers that had nothing to do
    starting: float = 0.0  # of it, containers that were not ready yet
    by_resource: dict[str, float] = field(default_factory=dict)
    unpriced: tuple[str, ...] = ()


def cost_of(amounts: Mapping[str, float], prices: Prices) -> Cost:
    """Of amounts by resource."""
    return cost_by_state([(resource, "", amount) for resource, amount in amounts.items()], prices)


def cost_by_state(amounts: Iterable[tuple[str, str, float]], prices: Prices) -> Cost:
    """Of (resource, state, amount)."""
    found = Cost()
    unpriced: dict[str, None] = {}
    for resource, state, amount in amounts:
        cost = prices.of(resource, amount)
        if cost is None:
            unpriced[resource] = None
            continue
        if not cost:
            continue
        found.total += cost
        found.by_resource[resource] = found.by_resource.get(resource, 0.0) + cost
        if state == "idle":
            found.idle += cost
        elif state == "starting":
            found.starting += cost
    found.unpriced = tuple(unpriced)
    return found
