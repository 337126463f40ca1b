"""Protects what `alight container` and `alight app stats` ask of a server and what they print."""

from __future__ import annotations

import json
import time

import pytest

from alight.cli import main, session, start_words
from alight.wire.measures import AppAsked, AppReport, FunctionReport, GpuShown, GpusListed
from alight.wire.record import replace
from alight.wire.starts import (
    AppStarts,
    AppStats,
    ContainerDetails,
    ContainerList,
    ContainerListed,
    ContainerShow,
    ContainerStop,
    ContainerSummary,
    FunctionStarts,
    Stage,
    StageStats,
    Start,
)

BOX = "ta-" + "4" * 22
APP = "ap-" + "3" * 22
STAGES = (Stage("wait", 0.0004), Stage("exec", 0.06), Stage("import", 3.1), Stage("first_input", 0.002))
REMEDY = "import torch 3.0 s: enable_memory_snapshot=True would save it"


def summary(**fields):
    known = {
        "container_id": BOX,
        "app_id": APP,
        "app": "trainer",
        "function_id": "fu-1",
        "function": "fit",
        "node_id": "no-1",
        "machine": "lab",
        "state": "ready",
        "created_at": time.time() - 65,
        "how": "plain",
        "total": 3.1624,
    }
    return ContainerSummary(**{**known, **fields})


class Server:
    """Answers by method; a list is answered one by one, the last one for ever."""

    def __init__(self):
        self.asked = []
        self.answers = {}

    def ask(self, method, request, reply):
        self.asked.append((method, request))
        answer = self.answers[method]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        assert isinstance(answer, reply)
        return answer

    def tell(self, method, request):
        self.asked.append((method, request))

    def stream(self, method, request):
        self.asked.append((method, request))
        yield from self.answers[method]


@pytest.fixture
def server(monkeypatch):
    made = Server()
    for name in ("ask", "tell", "stream"):
        monkeypatch.setattr(session, name, getattr(made, name))
    return made


def show(server, capsys, details):
    server.answers["container.show"] = details
    assert main.run(["container", "show", BOX]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_gpus_are_shown_by_number_name_and_part(server, capsys):
    mine = GpuShown("GPU-1", "L4", 3, "no-1", "lab", float(24 << 30))
    server.answers["gpu.list"] = GpusListed((mine,))
    use = {"memory_bytes": 3 << 20, "gpu_memory_bytes": 2 << 30, "gpu_utilization": 0.5}
    lines = show(server, capsys, ContainerDetails(summary(gpus=("GPU-1@7372/30", "GPU-gone"), usage=use)))
    assert "GPUs 3 L4 GPU-1 7372 MiB of it" in lines
    assert "GPU-gone" in lines, "one of a machine that is away"
    assert "uses 3.0 MiB of memory, 2.0 GiB of GPU memory, 50% busy" in lines


def test_a_list(server, capsys):
    forked = summary(how="parked", level=2, total=0.0061, usage={"memory_bytes": 3 << 20})
    server.answers["container.list"] = ContainerListed((forked, summary(state="starting", how="", total=None)), True)
    assert main.run(["container", "list", "--all", "--app", "trainer", "--limit", "2", "-e", "lab"]) == 0
    assert server.asked == [("container.list", ContainerList("lab", "trainer", True, 2))]
    printed = capsys.readouterr()
    head, first, second = printed.out.splitlines()
    assert " ".join(head.split()) == "Container ID App Function Machine State Since Started In Memory"
    assert first.split()[:5] == [BOX, "trainer", "fit", "lab", "ready"]
    assert "parked (level 2)  6.1 ms  3.0 MiB" in first
    assert "starting" in second
    assert "newest 2" in printed.err


def test_what_nobody_knows_has_no_column(server, capsys):
    server.answers["container.list"] = ContainerListed((summary(),))
    assert main.run(["container", "list"]) == 0
    assert "Memory" not in capsys.readouterr().out


def test_where_a_start_went(server, capsys):
    start = Start(STAGES, "", (("torch", 3.0),), (), True, "waiting for memory (500 MiB): held by x", (REMEDY,))
    lines = show(server, capsys, ContainerDetails(summary(), start))
    assert f"container {BOX} ready" in lines
    assert "start 3,162 ms, plain" in lines
    assert "wait 0.40 ms 0%" in lines
    assert "exec 60.0 ms 2%" in lines
    assert "import 3,100 ms 98% ▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇▇" in lines
    assert "first input 2.0 ms 0%" in lines
    assert "imports torch 3,000 ms" in lines
    assert "waited for memory (500 MiB): held by x" in lines
    assert "image was built for this container" in lines
    assert f"remedy {REMEDY}" in lines
    assert lines[-1] == f"output alight container logs {BOX}"


def test_how_far_one_came(server, capsys):
    now = time.time()
    ended = summary(
        state="ended", created_at=now - 65.5, ended_at=now, why="it was killed", signal=9, total=None, how=""
    )
    lines = show(server, capsys, ContainerDetails(ended, Start(STAGES[:3], "import", refused=("it has a socket",))))
    assert "start 3,160 ms, unknown how, got as far as: import" in lines
    assert "no template it has a socket" in lines
    assert any(line.startswith("ended ") and line.endswith("after 1 min 5 s, signal 9") for line in lines)
    assert "it was killed" in lines
    lines = show(server, capsys, ContainerDetails(summary(), Start(STAGES[:3], "ready")))
    assert "start 3,160 ms, plain, no input yet" in lines
    lines = show(server, capsys, ContainerDetails(summary(how="", total=None), Start(STAGES[:1], "mounts")))
    assert "start 0.40 ms, unknown how, the rest was not told" in lines
    assert "start nothing was kept of it" in show(server, capsys, ContainerDetails(summary()))


def test_all_of_it_for_programs(server, capsys):
    server.answers["container.show"] = ContainerDetails(summary(), Start(STAGES, imports=(("torch", 3.0),)))
    assert main.run(["container", "show", BOX, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["start"]["stages"] == {"wait": 0.0004, "exec": 0.06, "import": 3.1, "first_input": 0.002}
    assert found["start"]["imports"] == [["torch", 3.0]]
    assert found["container"]["exit_code"] is None


def test_a_stop_is_asked_for_and_told(server, capsys):
    there, gone = ContainerDetails(summary()), ContainerDetails(summary(state="ended"))
    server.answers["container.show"] = [there, gone]
    assert main.run(["container", "stop", BOX]) == 1  # nobody can be asked
    assert "--yes" in capsys.readouterr().err
    server.answers["container.show"] = [there, gone]
    assert main.run(["container", "stop", "-y", "--force", BOX]) == 0
    assert ("container.stop", ContainerStop(BOX, 0.0)) in server.asked
    assert "Stopped" in capsys.readouterr().err
    assert main.run(["container", "stop", "-y", BOX]) == 0
    assert "had ended already" in capsys.readouterr().err
    server.answers["container.show"] = there
    assert main.run(["container", "stop", "-y", BOX]) == 0
    assert server.asked[-2:] == [("container.stop", ContainerStop(BOX, 30.0)), ("container.show", ContainerShow(BOX))]
    assert "still there" in capsys.readouterr().err


def test_what_is_no_id(server, capsys):
    assert main.run(["container", "show", "fc-1"]) == 2
    assert "ta-" in capsys.readouterr().err
    assert server.asked == []


TOTAL = StageStats("total", 11, 0.02, 1.5, 3.1624)
FIT = FunctionStarts("fit", "fu-1", 12, 1, {"plain": 3, "forked": 8}, (TOTAL,), 3.1624, BOX, (REMEDY,))


def test_statistics(server, capsys):
    server.answers["app.stats"] = AppStarts(APP, "trainer", 1, (FIT,))
    spreads = {"run_time": {"50": 0.5, "90": 1.0, "95": 2.0, "99": 2.0}}
    ended = FunctionReport("fu-1", "fit", APP, 0.0, 1.0, 7, 2, 1, input_spreads=spreads)
    server.answers["app.report"] = AppReport(APP, "trainer", 0.0, 1.0, (ended,))
    assert main.run(["app", "stats", "trainer", "-e", "lab"]) == 0
    assert server.asked == [("app.stats", AppStats("trainer", "lab")), ("app.report", AppAsked(APP))]
    printed = capsys.readouterr()
    lines = [line.split() for line in printed.out.splitlines()]
    assert ["fit", "7", "2", "1", "0", "0", "500", "ms", "2", "s"] in lines
    assert ["fit", "total", "11", "20.0", "1,500.0", "3,162.4"] in lines
    assert "fit: 8 forked, 3 plain, 1 never became ready" in printed.err
    assert REMEDY in printed.err
    assert main.run(["app", "stats", "trainer", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["functions"][0]["stages"][0]["p95"] == 1.5
    assert found["inputs"][0]["timeout"] == 1


def test_a_slow_run_says_once_what_would_help(server):
    server.answers["app.stats"] = AppStarts(APP, "trainer", 1, (FIT, replace(FIT, function="other", slowest=2.5)))
    assert start_words.slowest(APP) == f"fit took 3.2 s to start: {REMEDY} (alight container show {BOX})"
    server.answers["app.stats"] = AppStarts(APP, "trainer", 1, (replace(FIT, slowest=1.9),))
    assert start_words.slowest(APP) == ""
    server.answers["app.stats"] = AppStarts(APP, "trainer", 1, (replace(FIT, remedies=()),))
    assert start_words.slowest(APP) == ""
