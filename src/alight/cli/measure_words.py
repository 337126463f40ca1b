"""How measurements are said to people, by every command that shows some."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Mapping, Optional, Tuple

from alight.cli import tables
from alight.wire.codec import to_plain
from alight.wire.measures import FunctionDeclared, FunctionReport
from alight.wire.record import shape_of

_NAMES = {"queue_time": "waited", "run_time": "ran", "cold_start": "started in", "latency": "answered in"}


def window(since: Optional[str], until: Optional[str]) -> Tuple[float, float]:
    """Unix times of two options; 0 where nothing is said."""
    from alight.cli.moments import parse_when  # noqa: PLC0415  few commands need it

    now = time.time()
    return (parse_when(since, now) if since else 0.0, parse_when(until, now) if until else 0.0)


def report_lines(found: FunctionReport) -> List[str]:
    """What became of a function's inputs and containers."""
    inputs = [f"{found.success} succeeded", f"{found.failure} failed", f"{found.timeout} timed out"]
    inputs += [f"{found.cancelled} cancelled"] if found.cancelled else []
    now = [f"{found.running} run", f"{found.waiting} wait"]
    containers = [f"{found.containers} in all", f"{found.started} started", f"{found.errors} failed"]
    containers += [f"{found.creating} start now"] if found.creating else []
    of = f" and its {found.variants - 1} variants" if found.all_variants and found.variants > 1 else ""
    lines = [
        f"{found.name}{of}  {found.function_id}",
        f"  from {tables.when(found.since)} to {tables.when(found.until)}",
        f"  inputs      {', '.join(inputs)}; now {', '.join(now)}",
        f"  containers  {', '.join(containers)}",
    ]
    if found.statuses:
        many = ", ".join(f"{count} x {status}" for status, count in found.statuses.items())
        lines.insert(2, f"  requests    {sum(found.statuses.values())}: {many}")
    spreads = (found.input_spreads, found.request_spreads, found.container_spreads)
    for name, spread in [pair for one in spreads for pair in one.items()]:
        words = "  ".join(f"p{share} {seconds(value)}" for share, value in sorted(spread.items()))
        lines.append(f"  {_NAMES.get(name, name):<10}  {words}")
    return lines


def declared(found: FunctionDeclared) -> List[Tuple[str, str]]:
    """What a function was declared with: names and words, of what there is to say."""
    spec, scaling = found.spec, found.scaling
    needs: Mapping[str, Any] = spec.get("resources") or {}
    retries = (spec.get("retries") or {}).get("max_retries") or 0
    facts: List[Tuple[str, Any]] = [
        ("Function", f"{found.name} ({found.function_id})"),
        ("App", f"{found.app} ({found.app_id}), {found.app_state}, environment {found.environment}"),
        ("Module", spec.get("module")),
        ("Methods", ", ".join(one["name"] for one in spec.get("methods") or ())),
        ("CPU", _with_limit(needs, "cpu", "cores")),
        ("Memory", _with_limit(needs, "memory", "MiB")),
        ("GPU", " or ".join(needs.get("gpus") or ())),
        ("Timeout", f"{spec.get('timeout', 300.0):g} s"),
        ("Startup timeout", f"{spec['startup_timeout']:g} s" if spec.get("startup_timeout") else ""),
        ("Retries", retries or ""),
        ("Containers", _scaling(scaling)),
        ("Inputs at once", scaling.get("max_concurrent_inputs") if scaling.get("max_concurrent_inputs", 1) > 1 else ""),
        ("Batches of", scaling.get("batch_size") or ""),
        ("Environment", ", ".join(spec.get("env_names") or ())),
        ("Secrets", ", ".join(spec.get("secrets") or ())),
        ("Volumes", ", ".join(f"{found.volumes.get(one['volume_id'], one['volume_id'])} at {one['path']}" for one in
                              spec.get("volumes") or ())),
        ("Buckets", ", ".join(f"{one['bucket']} at {one['path']}" for one in spec.get("buckets") or ())),
        ("Answers at", ", ".join(found.urls)),
        ("Network", "blocked" if spec.get("block_network") else ""),
        ("Memory snapshot", "yes" if spec.get("enable_memory_snapshot") else ""),
    ]  # fmt: skip
    return [(name, str(text)) for name, text in facts if text not in (None, "")]


def whole(record: Any) -> Dict[str, Any]:
    """Every field, at its default too: programs should not have to know defaults."""
    shape = shape_of(type(record))
    return {name: to_plain(getattr(record, name)) for name in (shape.names if shape is not None else ())}


def seconds(value: float) -> str:
    """A length of time in three digits: 420 µs, 61.3 ms, 3.14 s, 2 min 5 s."""
    if value < 1e-3:
        return f"{1e6 * value:.0f} µs"
    if value < 1:
        return f"{1e3 * value:.3g} ms"
    return f"{value:.3g} s" if value < 100 else tables.duration(value)


def value(name: str, number: Optional[float]) -> str:
    """A measurement by its name, in units of people's size."""
    if number is None:
        return ""
    if "time_p" in name:
        return seconds(number)
    if "bytes" in name:
        return tables.size(number)
    if name[:4] in {"net_", "disk"}:
        return f"{tables.size(number)}/s"
    if name == "gpu_utilization":
        return f"{number:.0%}"
    return f"{number:.0f}" if number == int(number) else f"{number:.2f}"


def _with_limit(needs: Mapping[str, Any], name: str, unit: str) -> str:
    wanted, limit = needs.get(name), needs.get(f"{name}_limit")
    words = [f"{wanted:g} {unit}"] if wanted is not None else []
    return ", ".join(words + ([f"at most {limit:g} {unit}"] if limit is not None else []))


def _scaling(scaling: Mapping[str, Any]) -> str:
    least, most = scaling.get("min_containers") or 0, scaling.get("max_containers")
    words = [f"{least} to {most}" if most is not None else f"{least} or more"]
    if scaling.get("buffer_containers"):
        words.append(f"{scaling['buffer_containers']} ready beyond those that work")
    if scaling.get("scaledown_window") is not None:
        words.append(f"idle ones end after {scaling['scaledown_window']:g} s")
    return ", ".join(words)
