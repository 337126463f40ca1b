"""What the server measured, in the types of ``alight.types``: ``stats()``, ``info()`` and ``metrics`` of apps,
functions and servers. Loaded when one of them is asked for."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from alight.sdk import reports
from alight.sdk.client import default_client
from alight.wire import measures
from alight.wire.errors import InvalidError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_GROUPS_OF_SERVERS = ("containers", "cpu", "memory", "network", "disk", "gpu")


async def function_stats(
    callee: Any, since: Any, until: Any, container: Any, all_variants: bool
) -> reports.FunctionStats:
    """See ``Function.stats``."""
    return stats_of(await _report(callee, since, until, container, all_variants=bool(all_variants)))


def stats_of(found: measures.FunctionReport) -> reports.FunctionStats:
    """A report of the server in public types."""
    return reports.FunctionStats(
        since=_when(found.since),
        until=_when(found.until),
        input_success_count=found.success,
        input_failure_count=found.failure + found.cancelled,
        input_timeout_count=found.timeout,
        input_running_at_end_count=found.running,
        input_percentile_stats=_spreads(found.input_spreads),
        container_started_count=found.started,
        container_error_count=found.errors,
        container_creating_at_end_count=found.creating,
        container_percentile_stats=_spreads(found.container_spreads),
        container_total_count=found.containers,
        variant_count=found.variants,
        all_variants=found.all_variants,
    )


async def server_stats(callee: Any, since: Any, until: Any, container: Any) -> reports.ServerStats:
    """See ``Server.stats``."""
    return server_stats_of(await _report(callee, since, until, container, all_variants=True))


def server_stats_of(found: measures.FunctionReport) -> reports.ServerStats:
    """A report of the server about what serves the web, in public types."""
    count = sum(found.statuses.values())
    return reports.ServerStats(
        since=_when(found.since),
        until=_when(found.until),
        request_count=count,
        request_count_by_status_code={int(status): many for status, many in found.statuses.items()},
        request_rate_per_second=count / max(1.0, found.until - found.since),
        request_percentile_stats=_spreads(found.request_spreads),
        container_started_count=found.started,
        container_error_count=found.errors,
        container_creating_at_end_count=found.creating,
        container_total_count=found.containers,
        container_percentile_stats=_spreads(found.container_spreads),
        inference=None,
    )


async def app_stats(app_id: str, since: Any, until: Any, lifecycle: reports.AppLifecycle) -> reports.AppStats:
    """See ``App.stats``."""
    asked = measures.AppAsked(app_id, since=moment(since, "since"), until=moment(until, "until"))
    found = await default_client().call("app.report", asked, measures.AppReport)
    servers = set(found.servers)
    return reports.AppStats(
        since=_when(found.since),
        until=_when(found.until),
        functions={one.name: stats_of(one) for one in found.functions if one.name not in servers},
        servers={one.name: server_stats_of(one) for one in found.functions if one.name in servers},
        sandboxes=None,
        lifecycle=lifecycle,
        deployment_count=found.deployments,
    )


async def function_info(callee: Any) -> reports.FunctionInfo:
    """See ``Function.info``."""
    asked = measures.FunctionAsked(callee.function_id)
    return info_of(await callee.client.call("function.info", asked, measures.FunctionDeclared))


def info_of(found: measures.FunctionDeclared) -> reports.FunctionInfo:
    """What a function was declared with, in public types."""
    spec, scaling = found.spec, found.scaling
    needs = spec.get("resources") or {}
    hosted = spec.get("hosted_only") or {}
    batch, many = scaling.get("batch_size") or 0, scaling.get("max_concurrent_inputs") or 1
    batching = {"max_batch_size": batch, "wait_ms": round(1000 * (scaling.get("batch_wait") or 0.0))}
    concurrency = {"max_inputs": many, "target_inputs": scaling.get("target_concurrent_inputs")}
    methods = spec.get("methods") or ()
    return reports.FunctionInfo(
        cpu=_pair(needs, "cpu"),
        memory_mib=_pair(needs, "memory"),
        gpus=tuple(needs.get("gpus") or ()),
        ephemeral_disk_mib=needs.get("ephemeral_disk"),
        image_info=None,
        startup_timeout=spec.get("startup_timeout"),
        timeout=float(spec.get("timeout") or 300.0),
        max_retries=int((spec.get("retries") or {}).get("max_retries") or 0),
        nonpreemptible=bool(hosted.get("nonpreemptible")),
        regions=_several(hosted.get("region")),
        routing_region=hosted.get("routing_region"),
        cloud=hosted.get("cloud"),
        cluster_info={"size": spec["cluster"]} if spec.get("cluster") else None,
        batching_info=batching if batch else None,
        concurrency_info=concurrency if many > 1 else None,
        schedule=spec.get("schedule") or None,
        restrict_modal_access=bool(spec.get("restrict_access")),
        block_network=bool(spec.get("block_network")),
        single_use_containers=bool((spec.get("autoscaling") or {}).get("single_use")),
        volumes=_volumes(found),
        cloud_bucket_mounts=_buckets(spec),
        secrets=tuple(spec.get("secrets") or ()),
        web_info={"urls": list(found.urls), **(spec.get("web") or {})} if spec.get("is_web") else None,
        method_names=tuple(one["name"] for one in methods),
        method_details={one["name"]: one for one in methods},
    )


async def server_info(callee: Any) -> reports.ServerInfo:
    """See ``Server.info``."""
    asked = measures.FunctionAsked(callee.function_id)
    found = await callee.client.call("function.info", asked, measures.FunctionDeclared)
    spec, web = found.spec, found.spec.get("web") or {}
    needs, hosted = spec.get("resources") or {}, spec.get("hosted_only") or {}
    said = next((one for one in web.values() if isinstance(one, dict)), web)
    return reports.ServerInfo(
        server_url=found.urls[0] if found.urls else None,
        port=int(said.get("port") or 0),
        unauthenticated=not said.get("requires_proxy_auth"),
        h2_enabled=bool(said.get("h2_enabled")),
        routing_region=hosted.get("routing_region"),
        sessioned=bool(said.get("sessioned")),
        startup_timeout=float(said.get("startup_timeout") or spec.get("startup_timeout") or 0.0),
        exit_grace_period=float(said.get("exit_grace_period") or 0.0),
        image_info=None,
        cpu=_pair(needs, "cpu"),
        memory_mib=_pair(needs, "memory"),
        gpus=tuple(needs.get("gpus") or ()),
        ephemeral_disk_mib=needs.get("ephemeral_disk"),
        nonpreemptible=bool(hosted.get("nonpreemptible")),
        compute_regions=_several(hosted.get("region") or hosted.get("compute_region")),
        cloud=hosted.get("cloud"),
        cluster_info=None,
        volumes=_volumes(found),
        cloud_bucket_mounts=_buckets(spec),
        secrets=tuple(spec.get("secrets") or ()),
    )


async def export(  # noqa: PLR0913  the public form
    callee: Any, since: Any, until: Any, bucket_size: Any, groups: Any, all_variants: bool, *, server: bool = False
) -> reports.ObjectMetrics:
    """See ``Function.metrics.export``."""
    asked = measures.FunctionAsked(
        callee.function_id,
        since=moment(since, "since"),
        until=moment(until, "until"),
        step=seconds(bucket_size) if bucket_size is not None else 60.0,
        groups=_groups(groups, server=server),
        all_variants=all_variants,
    )
    found = await callee.client.call("function.metrics", asked, measures.FunctionMetrics)
    return reports.ObjectMetrics(
        object_id=found.function_id,
        since=_when(found.since),
        until=_when(found.until),
        bucket_size=found.step,
        point_count=len(found.at),
        series={
            name: _series(name, found.at, found.series[name])
            for group in measures.METRICS.values()
            for name in group
            if name in found.series
        },
    )


def schema(groups: Any, *, server: bool = False) -> Dict[str, reports.MetricsSchema]:
    """See ``Function.metrics.schema``. Asks nobody."""
    return {
        group: reports.MetricsSchema(
            group,
            tuple(reports.MetricDefinition(name, unit, text) for name, (unit, text) in measures.METRICS[group].items()),
        )
        for group in _groups(groups, server=server)
    }


def moment(value: Any, name: str) -> float:
    """Unix seconds of a datetime (local time where it has no zone), a number of those, or a timedelta before now.
    0 for None."""
    if value is None:
        return 0.0
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, timedelta):
        return time.time() - value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise InvalidError(f"{name}={value!r} is no moment", hint="pass a datetime, or a timedelta for so long ago")


def seconds(value: Any) -> float:
    """A length of time: a number of seconds, a timedelta, or "30s", "5m", "2h", "1d"."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str) and value[-1:] in _SECONDS and value[:-1].isdigit():
        return int(value[:-1]) * _SECONDS[value[-1]]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return float(value)
    raise InvalidError(f"bucket_size={value!r} is no length of time", hint='write "1m", "5m", "1h", "1d", or seconds')


def _groups(groups: Any, *, server: bool) -> Tuple[str, ...]:
    known = _GROUPS_OF_SERVERS if server else tuple(measures.METRICS)
    given = known if groups is None else ((groups,) if isinstance(groups, str) else tuple(groups))
    wrong = [one for one in given if one not in known]
    if wrong:
        raise InvalidError(f"{wrong[0]!r} is no group of metrics", hint=f"there are: {', '.join(known)}")
    return given


def _series(name: str, at: Sequence[float], values: Sequence[Optional[float]]) -> reports.MetricSeries:
    unit, text = next(group[name] for group in measures.METRICS.values() if name in group)
    how = "sum"
    if name.endswith("_max"):
        how = "max"
    elif name[-4:] in {"_p50", "_p95"}:
        how = name[-3:]
    elif name == "gpu_utilization":
        how = "mean"
    elif name.startswith("containers_"):
        how = "last"
    points = tuple(reports.TimeSeriesPoint(_when(when), value) for when, value in zip(at, values) if value is not None)
    return reports.MetricSeries(name, unit, how, points, text)


def _spreads(found: Mapping[str, Mapping[str, float]]) -> Dict[str, reports.StatsPercentileDistribution]:
    return {
        name: reports.StatsPercentileDistribution(
            "seconds",
            tuple(reports.StatsPercentile(float(share), value) for share, value in sorted(values.items())),
        )
        for name, values in found.items()
    }


def _volumes(found: measures.FunctionDeclared) -> Dict[str, reports.VolumeMountInfo]:
    return {
        one["path"]: reports.VolumeMountInfo(
            found.volumes.get(one["volume_id"]), one["volume_id"], bool(one.get("read_only")), one.get("sub_path")
        )
        for one in found.spec.get("volumes") or ()
    }


def _buckets(spec: Mapping[str, Any]) -> Dict[str, reports.CloudBucketMountInfo]:
    return {
        one["path"]: reports.CloudBucketMountInfo(
            str(one.get("bucket") or ""), "s3", bool(one.get("read_only")), one.get("key_prefix") or None
        )
        for one in spec.get("buckets") or ()
    }


def _pair(needs: Mapping[str, Any], name: str) -> Any:
    """What is asked for; with its limit, where there is one."""
    limit = needs.get(f"{name}_limit")
    return needs.get(name) if limit is None else (needs.get(name), limit)


def _several(value: Any) -> Tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _when(at: float) -> datetime:
    return datetime.fromtimestamp(at, timezone.utc)


async def _report(
    callee: Any, since: Any, until: Any, container: Any, *, all_variants: bool
) -> measures.FunctionReport:
    asked = measures.FunctionAsked(
        callee.function_id,
        since=moment(since, "since"),
        until=moment(until, "until"),
        container=str(container or ""),
        all_variants=all_variants,
    )
    found: measures.FunctionReport = await callee.client.call("function.report", asked, measures.FunctionReport)
    return found
