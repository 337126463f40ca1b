"""What usage cost, in rows: by interval and app, function or user; and the prices behind it."""

from __future__ import annotations

import json
import time
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo

from alight.server import costs
from alight.server.costs import Prices
from alight.server.prices import EXAMPLE, PriceFile, unknown
from alight.server.services.published import shown_name
from alight.server.services.usage import Usage
from alight.store.base import Row, Store
from alight.wire import errors
from alight.wire.billing import Rate, Rates, UsageAsk, UsageItem, UsageReported

_BY = ("app", "function", "user")
_TAG = "tag:"
_RESOLUTIONS = ("d", "h", "")
_MOST_DAYS = 800


@dataclass
class _Sum:
    at: float
    row: Row
    states: list[tuple[str, str, float]] = field(default_factory=list)
    amounts: dict[str, float] = field(default_factory=dict)


class Billing:
    """Reads what ``Usage`` keeps."""

    def __init__(self, store: Store, usage: Usage, prices: PriceFile) -> None:
        self._store = store
        self._usage = usage
        self._prices = prices

    async def report(self, asked: UsageAsk, owner: str) -> UsageReported:
        """Rows, the oldest first. ``owner`` '' means everybody's. Raises InvalidError."""
        start, end = asked.start, asked.end or time.time()
        if not 0 <= start <= end:
            raise errors.InvalidError("a report's end comes before its start", hint="--start is a day of the past")
        if end - start > _MOST_DAYS * 86400:
            raise errors.InvalidError(f"a report covers {_MOST_DAYS} days at most")
        tag = asked.by.removeprefix(_TAG) if asked.by.startswith(_TAG) else ""
        if (asked.by not in _BY and not tag) or asked.resolution not in _RESOLUTIONS:
            raise errors.InvalidError(f"a report is by {', '.join(_BY)} or {_TAG}NAME, and by d (day) or h (hour)")
        bucket = _buckets(asked.resolution, start, zone(asked.tz))
        prices = self._prices.checked()
        await self._usage.flush()
        rows = await self._store.read(
            "usage_between",
            first=-int(-start // 3600),
            stop=-int(-end // 3600),
            environment=asked.environment,
            owner=owner,
            app=asked.app,
        )
        sums: dict[tuple[float, str, str], _Sum] = {}
        for row in rows:
            at = bucket(row["hour"] * 3600.0)
            if tag:
                name = str(json.loads(row["tags"]).get(tag, ""))
            else:
                function = row["function_id"] or row["app_id"]  # a volume has none
                name = {"app": row["app_id"], "function": function, "user": row["owner"]}[asked.by]
            environment = "" if tag or asked.by == "user" else row["environment"]
            one = sums.get((at, environment, name))
            if one is None:
                one = sums[at, environment, name] = _Sum(at, row)
            one.states.append((row["resource"], row["state"], row["amount"]))
            one.amounts[row["resource"]] = one.amounts.get(row["resource"], 0.0) + row["amount"]
        items = [_item(key, one, asked.by, prices) for key, one in sorted(sums.items(), key=lambda pair: pair[0])]
        return UsageReported(start, end, prices.currency, tuple(items), self._usage.since)

    def rates(self) -> Rates:
        """What everything costs. Raises InvalidError for a file that cannot be read."""
        prices, file = self._prices.checked(), self._prices
        rates = [
            Rate("cpu", "core-hour", prices.core_hour),
            Rate("memory", "GiB-hour", prices.gib_hour),
            Rate("storage", "GiB-month", prices.storage_gib_month),
            Rate("energy", "kWh", prices.kwh),
            *(Rate(f"gpu:{kind}", "GPU-hour", price) for kind, price in prices.gpus.items()),
        ]
        return Rates(
            prices.currency,
            tuple(rates),
            str(file.file),
            defaults=not file.is_there,
            any_gpu=prices.any_gpu,
            example=EXAMPLE,
            notes=unknown(prices),
        )


def zone(name: str) -> tzinfo:
    """A time zone by its name; "" is UTC. Raises InvalidError."""
    if not name or name.upper() == "UTC":
        return UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise errors.InvalidError(
            f"there is no time zone {name!r}", hint="names are like Europe/Berlin, UTC, America/New_York"
        ) from None


def _buckets(resolution: str, start: float, where: tzinfo) -> Callable[[float], float]:
    """When the interval began that an hour belongs to."""
    if resolution == "h":
        return lambda at: at
    if resolution == "":
        return lambda at: start
    known: dict[float, float] = {}

    def day(at: float) -> float:
        found = known.get(at)
        if found is None:
            local = datetime.fromtimestamp(at, where)
            midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
            found = known[at] = midnight.timestamp()
            if found > at:  # the clocks went back over midnight
                found = known[at] = (midnight - timedelta(days=1)).timestamp()
        return found

    return day


def _item(key: tuple[float, str, str], one: _Sum, by: str, prices: Prices) -> UsageItem:
    at, environment, name = key
    row, cost = one.row, costs.cost_by_state(one.states, prices)
    whole = by == "user" or by.startswith(_TAG)  # not of one app
    shown = name if whole else row["app"]
    return UsageItem(
        at,
        name,
        shown or name,
        environment,
        "" if by.startswith(_TAG) else row["owner"],
        {resource: amount for resource, amount in one.amounts.items() if amount},
        cost.total,
        cost.idle,
        cost.starting,
        cost.by_resource,
        {by.removeprefix(_TAG): name} if by.startswith(_TAG) else json.loads(row["tags"]) if not whole else {},
        cost.unpriced,
        shown_name(row["function"]) if by == "function" else "",
    )
