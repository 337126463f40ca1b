"""What was used and what it cost, for ``Workspace.billing`` and ``Environment.billing``."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from alight.sdk.client import Client
from alight.wire.billing import Rates, RatesAsk, UsageAsk, UsageItem, UsageReported
from alight.wire.errors import InvalidError

if TYPE_CHECKING:
    from alight.sdk.reports import BillingReportItem

_CYCLE = re.compile(r"(\d{4})-(\d{2})")


async def report(
    client: Client,
    environment: str,
    start: datetime,
    end: Optional[datetime],
    resolution: str,
    tag_names: Optional[Sequence[str]],
) -> List[BillingReportItem]:
    """A row for each app and day (or hour), the oldest first. Moments without a time zone are UTC's."""
    from alight.sdk.reports import BillingReportItem  # noqa: PLC0415  only who asks

    if resolution not in {"d", "h"}:
        raise InvalidError(f"resolution={resolution!r} is neither 'd' (day) nor 'h' (hour)")
    asked = UsageAsk(_seconds(start, "start"), _seconds(end, "end") if end is not None else 0.0, resolution)
    found = await _ask(client, asked, environment)
    return [
        BillingReportItem(
            one.object_id,
            one.description,
            one.environment,
            _moment(one.at),
            _decimal(one.cost),
            _decimals(one.by_resource),
            dict(one.tags) if tag_names is None else {name: one.tags.get(name, "") for name in tag_names},
        )
        for one in found.items
    ]


async def month(
    client: Client, environment: str, cycle: Optional[str]
) -> Tuple[datetime, datetime, Dict[str, Decimal]]:
    """When a month begins and ends, and what it cost by resource."""
    first, last = _month(cycle)
    found = await _ask(client, UsageAsk(first.timestamp(), last.timestamp(), ""), environment)
    return first, last, _sums(found.items)


async def rates(client: Client) -> Dict[str, Any]:
    """Prices by resource, with their units, and the currency."""
    found = await client.call("usage.rates", RatesAsk(), Rates)
    prices: Dict[str, Any] = {one.resource: {"price": _decimal(one.price), "unit": one.unit} for one in found.rates}
    return {"currency": found.currency, **prices}


async def _ask(client: Client, asked: UsageAsk, environment: str) -> UsageReported:
    whole = UsageAsk(asked.start, asked.end, asked.resolution, environment=environment)
    return await client.call("usage.report", whole, UsageReported)


def _sums(items: Iterable[UsageItem]) -> Dict[str, Decimal]:
    sums: Dict[str, Decimal] = {}
    for one in items:
        for resource, cost in one.by_resource.items():
            sums[resource] = sums.get(resource, Decimal(0)) + _decimal(cost)
    return sums


def _month(cycle: Optional[str]) -> Tuple[datetime, datetime]:
    now = datetime.now(timezone.utc)
    number = now.year * 12 + now.month - 1
    if cycle == "last month":
        number -= 1
    elif cycle not in {None, "this month"}:
        named = _CYCLE.fullmatch(str(cycle))
        if named is None or not 1 <= int(named[2]) <= 12 or not 1970 <= int(named[1]) < 9999:
            raise InvalidError(f"cycle={cycle!r} is no month", hint='"2026-01", "this month" or "last month"')
        number = int(named[1]) * 12 + int(named[2]) - 1
    return _first(number), _first(number + 1)


def _first(number: int) -> datetime:
    return datetime(number // 12, number % 12 + 1, 1, tzinfo=timezone.utc)


def _seconds(at: datetime, name: str) -> float:
    if not isinstance(at, datetime):
        raise InvalidError(f"{name}={at!r} is no datetime")
    return (at if at.tzinfo is not None else at.replace(tzinfo=timezone.utc)).timestamp()


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _decimal(cost: float) -> Decimal:
    return Decimal(f"{cost:.9f}")


def _decimals(costs: Mapping[str, float]) -> Dict[str, Decimal]:
    return {name: _decimal(cost) for name, cost in costs.items()}
