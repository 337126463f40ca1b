"""Cases of calls: maps, spawned calls, and very many that wait."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from measured import Reading, processes_of, resident_mb

if TYPE_CHECKING:
    from measured import Bench

TINY = 100_000
PENDING = 1_000_000
PENDING_CALLS = 10_000


def warm(bench: Bench) -> list[Reading]:
    """`f.remote()` of a function that does nothing, in a container that is there."""
    bench.say("2,000 calls, one after another")
    samples = [1e3 * s for s in bench.python("warm.py", "2000")]
    slowest = sorted(samples)[int(0.99 * len(samples))]
    return [
        Reading("warm `f.remote()`, no-op", samples, "ms", 0.3),
        Reading("warm `f.remote()`, no-op: 99th percentile", [slowest], "ms", 1.5),
    ]


def map_chunked(bench: Bench) -> list[Reading]:
    """Tiny inputs through two containers, in chunks as the SDK makes them."""
    bench.say(f"{TINY:,} inputs through two containers, five times; then five times as many once, for memory")
    measured = bench.python("map.py", str(TINY), "5")
    more = bench.python("map.py", str(5 * TINY), "1")
    return [
        Reading(
            f"`f.map`, {TINY:,} tiny inputs, 2 containers",
            [TINY / s for s in measured["seconds"]],
            "inputs/s",
            100_000,
            more_is_better=True,
        ),
        Reading("its client: memory at most, beyond before", measured["grown"], "MiB"),
        Reading(f"the same with {5 * TINY:,} inputs", more["grown"], "MiB", note="must not follow the count"),
    ]


def map_single(bench: Bench) -> list[Reading]:
    """The same with one input in each message."""
    bench.say("30,000 inputs, each in a message of its own, three times")
    measured = bench.python("map.py", "30000", "3", "1")
    return [
        Reading(
            "`f.map`, one input per message, 2 containers",
            [30_000 / s for s in measured["seconds"]],
            "inputs/s",
            30_000,
            more_is_better=True,
        )
    ]


def map_naps(bench: Bench) -> list[Reading]:
    """How much of two containers' time goes into the inputs."""
    bench.say("1,000 inputs of 10 ms through two containers, three times")
    seconds = bench.python("map_naps.py", "3")
    return [
        Reading(
            "`f.map`, 1,000 inputs of 10 ms, 2 containers",
            [100 * 5.0 / s for s in seconds],
            "% of ideal",
            95,
            more_is_better=True,
        )
    ]


def spawn(bench: Bench) -> list[Reading]:
    """Until a spawned call is on disk; the budget follows the disk."""
    bench.say("500 spawned calls, one after another, and the disk's own fsync between them")
    measured = bench.python("spawn.py", "500", str(bench.home / "server"))
    disk = 1e3 * statistics.median(measured["fsync"])
    return [
        Reading("`f.spawn()`, until it is kept", [1e3 * s for s in measured["spawn"]], "ms", disk + 0.3),
        Reading("fdatasync of a page on that disk", [1e3 * s for s in measured["fsync"]], "ms"),
    ]


def pending(bench: Bench) -> list[Reading]:
    """A server on which a million inputs wait."""
    bench.say(f"{PENDING:,} inputs of one call, and {PENDING_CALLS:,} calls of one input, are to wait")
    before = _server_mb(bench)
    with bench.talk("pending.py", str(PENDING), str(PENDING_CALLS)) as script:
        script.until("full")
        bench.say("they wait; looking at the server")
        after = _server_mb(bench)
        whole = [1e3 * bench.alight("call", "list") for _ in range(5)]
        measured = script.answer()
    name = f"{PENDING + PENDING_CALLS:,} inputs pending"
    return [
        Reading(f"{name}: server", [after], "MB", 500, note=f"{before:.0f} MB before"),
        Reading(f"{name}: call.list", [1e3 * s for s in measured["listed"]], "ms", 100),
        Reading(f"{name}: `alight call list`, whole process", whole, "ms"),
        Reading(
            "spawned inputs of one call, accepted and kept",
            [PENDING / measured["accepted"]],
            "inputs/s",
            more_is_better=True,
        ),
        Reading(
            "spawned calls, a hundred at a time, kept",
            [PENDING_CALLS / measured["spawned"]],
            "calls/s",
            more_is_better=True,
        ),
    ]


def _server_mb(bench: Bench) -> float:
    return sum(resident_mb(pid) for pid, name in processes_of(bench.home).items() if name == "alight.server")
