"""What `alight top` draws: the right order, nothing wider than the terminal, and a word where nothing is known."""

from __future__ import annotations

import pytest

from alight.cli import measure_words, top
from alight.cli.errors import UsageError
from alight.cli.function import meant
from alight.wire.measures import FunctionDeclared, FunctionReport, GpuShown, GpusListed, NodeShown, NodesListed
from alight.wire.starts import ContainerSummary


def container(name, created_at=0.0, **usage):
    return ContainerSummary(name, "ap-1", "app", "fu-1", "work", "no-1", "host", "ready", created_at, usage=usage)


def look(*containers, nodes=(), gpus=()):
    return top.Look(containers, NodesListed(nodes), GpusListed(gpus))


def test_the_largest_comes_first_and_what_nobody_measured_last():
    found = look(
        container("ta-a", 3.0, cpu=0.5, memory_bytes=9.0),
        container("ta-b", 1.0),
        container("ta-c", 2.0, cpu=1.5, memory_bytes=5.0),
    )
    assert [row[0] for row in top.rows_of(found, "cpu")] == ["ta-c", "ta-a", "ta-b"]
    assert [row[0] for row in top.rows_of(found, "memory")] == ["ta-a", "ta-c", "ta-b"]
    assert [row[0] for row in top.rows_of(found, "age")] == ["ta-b", "ta-c", "ta-a"]
    assert top.rows_of(found, "cpu")[0][4] == "150"
    assert top.rows_of(found, "cpu")[2][4:10] == ("",) * 6


@pytest.mark.parametrize("width", [200, 100, 60, 20])
def test_no_line_is_wider_than_the_terminal(width):
    rows = [("ta-0123456789012345678901", "a-long-name-of-an-app" * 3, "function", "ready", *("1",) * 7)]
    lines = top.fitted([f"C{place}" for place in range(11)], rows, width)
    assert len(lines) == 2
    assert all(len(line) <= width for line in lines)


def test_a_usual_terminal_has_whole_names_and_numbers_and_no_ids_that_are_cut():
    busy = container(
        "ta-0123456789012345678901", cpu=1.5, memory_bytes=5e9, gpu_utilization=0.83, gpu_memory_bytes=4e10
    )
    head, line = top.fitted(top._COLUMNS, top.rows_of(look(busy), "cpu"), 80)
    assert head.split("  ")[0] == "App"
    assert "ta-0" not in line
    assert [word in line for word in ("app", "work", "150", "4.7 GiB", "83", "37.3 GiB")] == [True] * 6
    assert "ta-0123456789012345678901" in top.fitted(top._COLUMNS, top.rows_of(look(busy), "cpu"), 130)[1]


def test_machines_say_what_is_known_of_them():
    gpu = GpuShown("GPU-1", "T4 (fake)", 0, "no-1", "host", float(16 << 30), holder="ta-1", holder_function="train")
    here = NodeShown("no-1", "host", "connected", cpus=8.0, cpu=1.25, memory=1 << 30, memory_used=512.0 * (1 << 20))
    away = NodeShown("no-2", "other", "away", last_seen=1e9)
    lines = top.head_of(look(nodes=(here, away), gpus=(gpu,)))
    assert lines[0] == "host: 1.2 of 8 cores, 512.0 MiB of memory in use, 0 containers"
    assert lines[1] == "  T4 (fake) 0: ? busy, ? of 16.0 GiB, train"
    assert lines[2].startswith("other: away since ")


def test_what_is_said_of_a_function():
    found = FunctionReport("fu-1", "work", "ap-1", 1e9, 1e9 + 60, 3, 1, input_spreads={"run_time": {"50": 0.0042}})
    lines = measure_words.report_lines(found)
    assert any("3 succeeded, 1 failed, 0 timed out" in line for line in lines)
    assert any(line.split() == ["ran", "p50", "4.2", "ms"] for line in lines)
    spec = {"timeout": 60.0, "resources": {"gpus": ["T4", "A100"], "memory": 512, "memory_limit": 1024}}
    declared = FunctionDeclared("fu-1", "work", "ap-1", "app", "main", "deployed", spec)
    facts = dict(measure_words.declared(declared))
    assert (facts["GPU"], facts["Memory"]) == ("T4 or A100", "512 MiB, at most 1024 MiB")


@pytest.mark.parametrize("text", ["work", "app/", "/work", "fu-1", ""])
def test_a_function_is_named_with_its_app(text):
    with pytest.raises(UsageError, match="APP/NAME"):
        meant(text, None)
