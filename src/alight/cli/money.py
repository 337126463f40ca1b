"""Money and amounts of machines as people read them."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional

from alight.wire.billing import CostTold
from alight.wire.errors import InvalidError

_TIMES = "\u00d7"
_SIGNS = {"USD": "$", "EUR": "€", "GBP": "£"}
_UNITS = {"container": "container-hours", "cpu": "core-hours", "cpu_used": "core-hours used", "memory": "GiB-hours"}


def shown(amount: float, currency: str, digits: int = 2) -> str:
    """ "$0.03"; what is less than a hundredth says so, for nothing is free that ran."""
    least = 10.0**-digits
    if 0 < amount < least / 2:
        return f"< {_with_sign(f'{least:.{digits}f}', currency)}"
    return _with_sign(f"{amount:,.{digits}f}", currency)


def exact(amount: float, currency: str) -> str:
    """A sum that somebody set: "$100.00", and "$0.0001" where two digits do not show it."""
    text = f"{amount:,.2f}"
    return _with_sign(text if float(text.replace(",", "")) == amount else f"{amount:,.12f}".rstrip("0"), currency)


def _with_sign(text: str, currency: str) -> str:
    sign = _SIGNS.get(currency)
    return f"{sign}{text}" if sign else f"{text} {currency}"


def run_line(told: CostTold) -> str:
    """What a run had and cost: "41 s on 1 x A100-40GB, $0.03"; "12 s of 1 CPU, < $0.01"; "" when nothing ran."""
    cost = shown(told.cost, told.currency)
    gpus = {resource[4:]: amount for resource, amount in told.amounts.items() if resource.startswith("gpu:")}
    if gpus:
        words = [_gpus(kind, amount, told.peaks.get(kind, 0.0)) for kind, amount in gpus.items()]
    elif told.amounts.get("cpu"):
        words = [f"{seconds(told.amounts['cpu'])} of 1 CPU"]
    else:
        return ""
    idle = told.idle / told.cost if told.cost else 0.0
    idled = f" ({idle:.0%} of it while containers idled)" if idle >= 0.2 and told.cost >= 0.01 else ""
    return f"{', '.join(words)}, {cost}{idled}{unpriced(told.unpriced)}"


def _gpus(kind: str, amount: float, peak: float) -> str:
    if peak > 1:
        return f"{amount:,.0f} GPU-seconds on up to {peak:g} {_TIMES} {kind}"
    part = peak or 1.0  # below 1: a part of one
    return f"{seconds(amount / part)} on {part:g} {_TIMES} {kind}"


def in_all(total: float, idle: float, currency: str) -> str:
    """A sum, and what of it nobody worked for."""
    return f"{shown(total, currency)} in all, {shown(idle, currency)} of it for idle containers"


def unpriced(resources: Any) -> str:
    """What nobody gave a price, as a warning behind a sum; "" for nothing."""
    names = [name.replace("gpu:", "") for name in resources]
    return f" (without {', '.join(names)}: no price is set, see `alight billing rates`)" if names else ""


def seconds(amount: float) -> str:
    """ "0.4 s", "41 s", "3.2 h"."""
    if amount < 10:
        return f"{amount:.1f} s"
    return f"{amount:,.0f} s" if amount < 3 * 3600 else f"{amount / 3600:,.1f} h"


def call_line(told: CostTold) -> str:
    """What one call had of containers."""
    if told.small:
        return "less than 0.05 s of a container"
    held = [f"{seconds(told.amounts.get('container', 0.0))} of containers"]
    held += [
        f"{seconds(amount)} of {resource[4:]}"
        for resource, amount in told.amounts.items()
        if resource.startswith("gpu:")
    ]
    return f"{shown(told.cost, told.currency)} for {', '.join(held)}{unpriced(told.unpriced)}"


def amounts(found: Mapping[str, float]) -> str:
    """Amounts by resource in one cell."""
    words: List[str] = []
    for resource, amount in found.items():
        if resource.startswith("gpu:"):
            words.append(f"{amount / 3600:,.2f} h {resource[4:]}")
        elif resource == "energy":
            words.append(f"{amount / 3.6e6:,.3f} kWh")
        elif resource == "storage":
            words.append(f"{amount:,.1f} GiB-hours stored")
        elif resource in _UNITS and resource != "cpu_used":
            words.append(f"{amount / 3600:,.2f} {_UNITS[resource]}")
    return ", ".join(words)


def read(text: Optional[str], option: str) -> Optional[float]:
    """An amount of money or seconds from the command line. Raises InvalidError."""
    if text is None:
        return None
    bare = text.strip().lstrip("$€£").replace(",", "")
    try:
        number = float(bare)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e12:
        raise InvalidError(f"{option} {text}: not a number of 0 or more", hint=f"for example {option} 5")
    return number


def rounded(costs: Mapping[str, float]) -> Dict[str, float]:
    """For programs: enough digits that sums of rows are right."""
    return {name: round(cost, 9) for name, cost in costs.items()}
