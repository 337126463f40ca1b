"""Protects what is said of functions, machines and GPUs: that it is what happened, and said to those who may know."""

from __future__ import annotations

import asyncio
import functools
import re
import time

import msgspec
import pytest

from alight.server.auth import USER, Principal
from alight.server.measuring import Asker
from alight.server.services import function_metrics, measure_views
from alight.server.services.function_metrics import Sampled
from alight.server.services.measures import paces
from alight.server.tally import BOUNDS, Minute, Tally, bucket_of, cumulative, from_text, middle_of, percentile, to_text
from alight.wire import errors
from alight.wire.commands import GpuInfo, GpuUse, Report
from alight.wire.measures import (
    AppAsked,
    AppReport,
    FunctionAsked,
    FunctionDeclared,
    FunctionMetrics,
    FunctionReport,
    GpusListed,
    NodeList,
    NodesListed,
    SeriesAsked,
    SeriesOf,
    VariantsListed,
)
from alight.wire.messages import FunctionBind, PublishedFunction
from alight.wire.spec import FunctionSpec, Resources

SQUARE = FunctionSpec("square", module="m", source_path="/m.py")
GPU = GpuInfo(0, "T4 (fake)", "T4", 16384, "GPU-fake-0", fake=True)


def broken(number):
    raise ValueError(number)


def driven(test):
    """Run a test in a world; see the fixture."""

    @functools.wraps(test)
    def run(world, **given):
        world(lambda place: test(place, **given))

    return run


async def say(node, report):
    await node._stream.send_raw(msgspec.json.encode(report))


@driven
async def test_a_report_counts_what_became_of_inputs(world):
    await world.serve(holder_grace=30)
    await world.node({"square": lambda number: number * number, "broken": broken})
    client = await world.client()
    app_id, functions = await client.app(SQUARE, FunctionSpec("broken", module="m", source_path="/m.py"))
    for number in range(3):
        await client.remote(functions["square"], number)
    assert await client.map(functions["square"], list(range(20))) == {one: one * one for one in range(20)}
    update, _ = await client.remote(functions["broken"], 1)
    assert update.status == "exception"
    found = await client.ask("function.report", FunctionAsked(functions["square"].function_id), FunctionReport)
    assert (found.success, found.failure, found.timeout, found.running) == (23, 0, 0, 0)
    assert (found.started, found.creating, found.variants) == (found.containers, 0, 1)
    by_name = FunctionAsked(app=app_id, name="broken")
    found = await client.ask("function.report", by_name, FunctionReport)
    assert (found.name, found.success, found.failure) == ("broken", 0, 1)
    whole = await client.ask("app.report", AppAsked(app_id), AppReport)
    assert [(one.name, one.success, one.failure) for one in whole.functions] == [("broken", 0, 1), ("square", 23, 0)]


FRONT = FunctionSpec(
    "Front.*",
    module="m",
    source_path="/m.py",
    is_web=True,
    class_name="Front",
    web={"kind": "web_server", "port": 8000},
)
PAGE = FunctionSpec("page", module="m", source_path="/m.py", is_web=True, web={"kind": "asgi_app"})


@driven
async def test_requests_are_counted_by_status_and_outlive_the_server(world):
    server = await world.serve(holder_grace=30)
    await world.node({})
    client = await world.client()
    app_id, functions = await client.app(FRONT, PAGE)
    front = functions["Front.*"].function_id
    for status, seconds in ((200, 0.01), (200, 0.02), (404, 0.03)):
        server.parts.web.gateway.on_answer(front, status, seconds)
    found = await client.ask("function.report", FunctionAsked(front), FunctionReport)
    assert found.statuses == {"200": 2, "404": 1}
    assert found.request_spreads["latency"]["50"] == pytest.approx(0.02, rel=0.1)
    await world.crash()
    server = await world.serve(holder_grace=30)
    client = await world.client()
    server.parts.web.gateway.on_answer(front, 200, 0.01)
    found = await client.ask("function.report", FunctionAsked(front), FunctionReport)
    assert found.statuses == {"200": 3, "404": 1}, "another process of the server adds what it counted"
    whole = await client.ask("app.report", AppAsked(app_id), AppReport)
    assert whole.servers == ("Front",), "a web function is no server class"
    assert {one.name: one.statuses for one in whole.functions}["page"] == {}


@driven
async def test_counts_outlive_the_server(world):
    await world.serve(holder_grace=30)
    await world.node({"square": lambda number: number * number})
    client = await world.client()
    _, functions = await client.app(SQUARE)
    await client.remote(functions["square"], 2)
    asked = FunctionAsked(functions["square"].function_id)
    assert (await client.ask("function.report", asked, FunctionReport)).success == 1
    await world.crash()
    await world.serve(holder_grace=30)
    client = await world.client()
    assert (await client.ask("function.report", asked, FunctionReport)).success == 1


@driven
async def test_measurements_become_series_and_metrics(world):
    server = await world.serve(holder_grace=30)
    node = await world.node({"square": lambda number: number * number}, gpus=(GPU,))
    client = await world.client()
    _, functions = await client.app(SQUARE)
    await client.remote(functions["square"], 2)
    (container_id,) = server.parts.containers.alive
    heard = []
    server.parts.nodes.reports.on_usage.append(lambda name, at, usage: heard.append((name, bool(usage.get("final")))))
    now = time.time()
    for ago in (30, 20, 10):
        usage = {"at": now - ago, "cpu_seconds": 100.0 - 2 * ago, "memory_bytes": 5e6, "net_rx_bytes": 0.0}
        await say(node, Report("usage", container_id, usage=usage))
    end = {"at": now, "cpu_seconds": 110.0, "net_rx_bytes": 1000.0, "final": 1.0}
    await say(node, Report("usage", container_id, usage=end))
    await say(node, Report("usage", container_id, usage=end))  # said again, as after a lost connection
    await world.until(lambda: len(heard) == 5)
    assert [final for _, final in heard] == [False, False, False, True, True]
    assert server.parts.nodes.usage_of(container_id)["cpu"] == pytest.approx(2.0)
    found = await client.ask("container.series", SeriesAsked(container_id, now - 60, now, 300), SeriesOf)
    known = [one for one in found.most["cpu"] if one is not None]
    assert (known[0], known[-1]) == (pytest.approx(2.0), pytest.approx(3.0))
    assert {one for one in found.series["memory_bytes"] if one is not None} == {5e6}
    assert len(found.at) == len(found.series["cpu"]) == len(found.most["cpu"])
    asked = FunctionAsked(functions["square"].function_id, since=now - 60, until=now, step=60.0)
    metrics = await client.ask("function.metrics", asked, FunctionMetrics)
    assert metrics.series["cpu_cores"] == pytest.approx([(2 * 10 + 2 * 10 + 3 * 10) / 60], rel=1e-3)
    assert metrics.series["cpu_cores_max"] == pytest.approx([3.0])
    assert sum(metrics.series["inputs_success"]) == 1
    with pytest.raises(errors.InvalidError, match="no group"):
        await client.ask("function.metrics", FunctionAsked(asked.function_id, groups=("cups",)), FunctionMetrics)


@driven
async def test_machines_and_gpus_are_listed_with_what_they_do(world):
    server = await world.serve(holder_grace=30)
    node = await world.node({"square": lambda number: number}, gpus=(GPU,))
    client = await world.client()
    wants = FunctionSpec("square", module="m", source_path="/m.py", resources=Resources(gpus=("T4",)))
    _, functions = await client.app(wants)
    await client.remote(functions["square"], 2)
    use = GpuUse(GPU.uuid, 0.5, 1e9, 70.0, 55.0)
    machine = {"at": time.time(), "cpu": 1.5, "memory_bytes": 3e9}
    await say(node, Report("machine", usage=machine, gpus=(use,)))
    session = server.parts.nodes.sessions[node.node_id]
    await world.until(lambda: session.gpus)
    (gpu,) = (await client.ask("gpu.list", NodeList(), GpusListed)).gpus
    (container_id,) = server.parts.containers.alive
    assert (gpu.holder, gpu.holder_function, gpu.fake, gpu.health) == (container_id, "square", True, "")
    assert (gpu.utilization, gpu.temperature, gpu.power, gpu.memory_used) == (0.5, 55.0, 70.0, 1e9)
    (one,) = (await client.ask("node.list", NodeList(), NodesListed)).nodes
    assert (one.state, one.containers, one.cpu, one.memory_used, one.fake_gpus) == ("connected", 1, 1.5, 3e9, True)
    found = await client.ask("container.series", SeriesAsked(GPU.uuid), SeriesOf)
    assert 55.0 in found.series["gpu_temperature"]
    await node.disconnect()
    await world.until(lambda: not server.parts.nodes.sessions)
    (one,) = (await client.ask("node.list", NodeList(), NodesListed)).nodes
    assert (one.state, one.cpu) == ("away", None)


@driven
async def test_a_function_is_described_with_its_variants_and_without_its_secrets(world):
    await world.serve(holder_grace=30)
    await world.node({"square": lambda number: number})
    client = await world.client()
    spec = FunctionSpec("square", module="m", source_path="/m.py", env={"TOKEN": "hidden-value"}, timeout=77.0)
    _, functions = await client.app(spec)
    function_id = functions["square"].function_id
    await client.ask("function.bind", FunctionBind(function_id, {"timeout": 5.0}, None), PublishedFunction)
    found = await client.ask("function.info", FunctionAsked(function_id), FunctionDeclared)
    assert (found.name, found.spec["timeout"], found.spec["env_names"]) == ("square", 77.0, ["TOKEN"])
    assert "hidden-value" not in str(found)
    listed = (await client.ask("function.variants", FunctionAsked(function_id), VariantsListed)).variants
    assert [one.changes for one in listed] == [{}, {"timeout": 5.0}]


@driven
async def test_nobody_sees_what_is_somebody_elses(world):
    server = await world.serve(holder_grace=30)
    await world.node({"square": lambda number: number})
    client = await world.client()
    _, functions = await client.app(SQUARE)
    await client.remote(functions["square"], 1)
    views = measure_views.MeasureViews(
        server.parts.store, server.measuring.measures, server.parts.functions, lambda name: None
    )
    asked = FunctionAsked(functions["square"].function_id)
    with pytest.raises(errors.NotFoundError):
        await views.find(asked, Principal(USER, "somebody"))


LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\n"])*",?)*)\})? ([0-9.e+-]+|\+Inf)')


def read_page(text):
    """Prometheus' text format, strictly: types by name. Each family has its head once and its samples behind it, no
    sample comes twice, and a histogram's buckets only grow up to its count."""
    assert text.endswith("\n")
    families, samples, name = {}, set(), ""
    buckets: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in families, line
            families[name] = kind
            continue
        found = LINE.fullmatch(line)
        assert found, line
        mine, labels, value = found[1], found[2] or "", float(found[3])
        assert re.fullmatch(f"{name}(_bucket|_sum|_count)?", mine), line
        assert (mine == name) == (families[name] != "histogram"), line
        assert (mine, labels) not in samples, line
        samples.add((mine, labels))
        of = name + re.sub(r',?le="[^"]*"', "", labels)
        if mine.endswith("_bucket"):
            assert value >= buckets.get(of, 0.0), line
            buckets[of] = value
        elif mine.endswith("_count") and families[name] == "histogram":
            assert value == buckets.pop(of), line
    return families


@driven
async def test_prometheus_reads_names_that_are_documented(world):
    server = await world.serve(holder_grace=30)
    node = await world.node({"square": lambda number: number}, gpus=(GPU,))
    client = await world.client()
    _, functions = await client.app(SQUARE)
    await client.remote(functions["square"], 1)
    await say(node, Report("machine", usage={"at": time.time(), "cpu": 1.0}, gpus=(GpuUse(GPU.uuid, 0.5),)))
    await world.until(lambda: server.parts.nodes.sessions[node.node_id].gpus)
    reader, writer = await asyncio.open_unix_connection(world.socket)
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
    head, _, body = (await asyncio.wait_for(reader.read(1 << 20), 5)).decode().partition("\r\n\r\n")
    while piece := await reader.read(1 << 20):
        body += piece.decode()
    writer.close()
    assert head.startswith("HTTP/1.1 200 OK")
    assert 'outcome="success"} 1' in body
    assert f'gpu="{GPU.uuid}",name="T4 (fake)",fake="true"}} 0.5' in body
    counts = [line for line in body.splitlines() if line.startswith("alight_input_run_seconds_bucket")]
    assert counts[-1].endswith('le="+Inf"} 1')
    families = read_page(body)
    assert families["alight_inputs_total"] == "counter"
    assert families["alight_input_run_seconds"] == "histogram"


@pytest.mark.parametrize(
    ("open_", "host", "status"), [(False, "127.0.0.1", 401), (True, "127.0.0.1", 200), (True, "192.0.2.7", 401)]
)
@driven
async def test_over_the_network_it_needs_a_token(world, open_, host, status):
    server = await world.serve(metrics_open=open_)
    found, _, text = await server.measuring.page(Asker({}, None, host))
    assert found == status
    assert "Bearer" in text if status == 401 else "alight_info" in text


# the pure parts


def test_percentiles_are_right_to_a_tenth():
    one = Minute()
    values = [0.001 * number for number in range(1, 1001)]
    for seconds in values:
        one.count("success", 1, seconds, None)
    for share in (0.5, 0.95, 0.99):
        exact = values[int(share * 1000) - 1]
        assert percentile(one.run, share) == pytest.approx(exact, rel=0.1)
    assert percentile({}, 0.5) is None
    assert from_text(to_text(one.run)) == one.run


def test_buckets_keep_their_order_from_nothing_to_forever():
    durations = [0.0, 1e-9, 1e-4, 2e-4, 1.0, 86400.0, 1e12]
    buckets = [bucket_of(one) for one in durations]
    assert buckets == sorted(buckets)
    assert middle_of(bucket_of(1.0)) == pytest.approx(1.0, rel=0.1)
    counts = cumulative({bucket_of(bound): 1 for bound in BOUNDS})
    assert counts == list(range(1, len(BOUNDS) + 1)), "a duration at a bound is not above it"


def test_a_clock_that_is_set_back_loses_no_count():
    tally = Tally()
    tally.ended("fu-1", "success", 1, 120.0)
    tally.ended("fu-1", "timeout", 1, 30.0)
    ((name, minute),) = tally.take_out()
    assert (name, minute.minute, minute.success, minute.timeout) == ("fu-1", 2, 1, 1)
    assert tally.take_out() == []
    tally.ended("fu-1", "success", 1, 125.0)
    tally.ended("fu-1", "success", 1, 185.0)
    assert [(one.minute, one.success) for _, one in tally.take_out()] == [(2, 2), (3, 1)]
    assert tally.since_start()["fu-1"].success == 3


def test_counters_that_are_too_near_or_begin_anew_say_no_pace():
    before = {"at": 10.0, "cpu_seconds": 5.0}
    assert paces(before, {"at": 12.0, "cpu_seconds": 6.0}) == {"cpu": 0.5}
    assert paces(before, {"at": 10.1, "cpu_seconds": 6.0}) == {}
    assert paces(before, {"at": 12.0, "cpu_seconds": 1.0}) == {"cpu": 0.0}
    assert paces(None, before) == {}


def test_a_container_that_was_there_for_a_part_counts_with_that_part():
    row = [float("nan")] * 14
    row[0] = 4.0
    points = {"ta-a": [(10.0, row, row), (20.0, row, row)]}
    rows = [{"created_at": 0.0, "ended_at": 25.0, "total": 1.0, "state": "ended"}]
    ends, columns = function_metrics.over_time(Sampled(points, rows, []), 0.0, 100.0, 50.0)
    assert ends == [50.0, 100.0]
    assert columns["cpu_cores"] == [4.0 * 20 / 50, None]
    assert columns["containers_ready"] == [0, 0]


def test_a_series_is_no_finer_than_what_was_measured():
    row = [1.0] * 14
    points = [(float(at), row, row) for at in range(0, 600, 10)]
    found = measure_views.columns(points, 0.0, 600.0, 500)
    assert found.step >= 10.0
    assert None not in found.series["cpu"]


def test_windows_that_cannot_be():
    with pytest.raises(errors.InvalidError, match="before it begins"):
        measure_views.window(2000.0, 1000.0)
    with pytest.raises(errors.InvalidError, match="7 days"):
        measure_views.window(1.0, time.time())
