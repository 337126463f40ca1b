"""What the peers' scripts share: samples of calls and rates, and rows as JSON on the last line."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

WARM_UP = 200


def say(text: str) -> None:
    """What is waited for."""
    print(f"  {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def latency(call: Callable[[], object], count: int) -> list[float]:
    """Milliseconds of each call, after some that don't count."""
    samples = []
    for number in range(count):
        began = time.perf_counter()
        call()
        if number >= WARM_UP:
            samples.append(1e3 * (time.perf_counter() - began))
    return samples


def rates(work: Callable[[], object], amount: float, rounds: int) -> list[float]:
    """Amount per second, once for each round."""
    samples = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        samples.append(amount / (time.perf_counter() - began))
    return samples


def rows(*found: tuple[str, list[float], str]) -> None:
    """Print them for bench/run.py. What is per second, or a share, is better when it is more."""
    print(
        json.dumps(
            [
                {"what": what, "samples": samples, "unit": unit, "more_is_better": "/s" in unit or "%" in unit}
                for what, samples, unit in found
            ]
        )
    )


def square(x: int) -> int:
    return x * x


def nap(x: int) -> int:
    time.sleep(0.01)
    return x


def nothing(*_: object) -> None:
    return None
