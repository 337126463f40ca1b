"""The ledger of cold starts, as a user reads it: every stage of a real start, a slow module by its name, an ended
container and one that never got ready, all of it still there after the server was restarted."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.machine import Machine

SCRIPT = """
import sys
import time

import modal

image = modal.Image.debian_slim(python_version="3.11")
app = modal.App("starts-test", image=image)


@app.function()
def quick():
    return 1


@app.cls()
class Model:
    @modal.enter()
    def load(self):
        time.sleep(2)

    @modal.method()
    def name(self):
        return "model"


@app.local_entrypoint()
def main():
    print(quick.remote(), Model().name.remote())
"""
SLOW = """
import modal

image = modal.Image.debian_slim(python_version="3.11")
app = modal.App("slow-test", image=image.add_local_python_source("sluggish"))


@app.function()
def work():
    return 1


with image.imports():
    import sluggish
"""
BROKEN = """
import modal

app = modal.App("broken-test", image=modal.Image.debian_slim(python_version="3.11"))


@app.function()
def work():
    return 1


if not modal.is_local():
    raise RuntimeError("not like this")
"""
PLAIN = ["wait", "place", "mounts", "network", "exec", "runtime", "import", "first_input"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has written."""
    folder = tmp_path_factory.mktemp("starts")
    (folder / "job.py").write_text(SCRIPT)
    (folder / "slow.py").write_text(SLOW)
    (folder / "sluggish.py").write_text("import time\ntime.sleep(2.2)\n")
    (folder / "broken.py").write_text(BROKEN)
    return folder


def containers(machine: Machine, app: str) -> list[dict]:
    return machine.json("container", "list", "--all", "--app", app)


def shown(machine: Machine, app: str, function: str = "") -> dict:
    one = next(one for one in containers(machine, app) if one["function"].startswith(function))
    return machine.json("container", "show", one["container_id"])


def test_a_plain_start_has_all_its_stages(machine, folder):
    machine.run("run", folder / "job.py")
    found = shown(machine, "starts-test", "quick")
    one, start = found["container"], found["start"]
    stages = start["stages"]
    assert one["state"] == "ended"
    assert one["how"] in ("plain", "forked", "parked")
    assert start["reached"] == ""
    wanted = [name for name in PLAIN if one["how"] == "plain" or name not in ("network", "exec")]
    assert [name for name in wanted if name not in stages] == []
    assert sum(stages.values()) == pytest.approx(one["total"])
    assert stages.get("other", 0.0) < 0.3 * one["total"], "what no stage has is little, beside other tests, too"
    assert one["total"] < 30
    text = machine.run("container", "show", one["container_id"]).stdout
    assert re.search(r"import +[\d.,]+ ms +\d+%", text)


def test_hooks_are_not_imports(machine, folder):
    stages = shown(machine, "starts-test", "Model")["start"]["stages"]
    assert stages["enter"] > 1.5 > stages["import"]


def test_percentiles_by_function_and_stage(machine, folder):
    (found,) = [one for one in machine.json("app", "stats", "starts-test")["functions"] if one["function"] == "quick"]
    total = next(stage for stage in found["stages"] if stage["name"] == "total")
    assert total["count"] == found["starts"] == sum(found["how"].values()) == 1
    assert total["p50"] == total["p99"] == found["slowest"] > 0
    machine.run("run", folder / "job.py")
    (found,) = [one for one in machine.json("app", "stats", "starts-test")["functions"] if one["function"] == "quick"]
    assert found["starts"] == 2
    assert "total" in machine.run("app", "stats", "starts-test").stdout


@pytest.mark.slow
def test_a_slow_import_is_named_with_what_would_help(machine, folder):
    done = machine.run("run", folder / "slow.py")
    assert "took" in done.stderr
    assert re.search(r"import sluggish 2\.\d s: enable_memory_snapshot=True", done.stderr), done.stderr
    start = shown(machine, "slow-test")["start"]
    assert start["imports"][0][0] == "sluggish"
    assert start["imports"][0][1] > 2
    assert start["remedies"][0] in done.stderr


def test_one_that_never_got_ready_says_how_far_it_came(machine, folder):
    machine.run("run", folder / "broken.py", status=1)
    found = shown(machine, "broken-test")
    assert found["start"]["reached"] == "import"
    assert found["start"]["stages"]["runtime"] > 0
    assert found["container"]["total"] is None
    assert machine.json("app", "stats", "broken-test")["functions"][0]["failed"] == 1


@pytest.mark.slow
def test_all_of_it_outlives_the_server(machine, folder):
    machine.run("run", folder / "job.py")
    before = containers(machine, "starts-test")
    machine.run("server", "stop")
    machine.run("server", "start")
    assert containers(machine, "starts-test") == before
    assert machine.json("container", "show", before[0]["container_id"])["start"]["stages"]


def test_stopping_one_tries_its_input_elsewhere(machine, tmp_path):
    script = tmp_path / "long.py"
    script.write_text(
        SCRIPT.split("@app.cls", maxsplit=1)[0]
        + """

@app.function()
def work():
    print("at work", flush=True)
    time.sleep(600)


@app.local_entrypoint()
def main():
    work.remote()
"""
    )
    with machine.start("run", f"{script}::main") as running:
        for line in running.stdout:
            if "at work" in line:
                break
        (one,) = [one for one in machine.json("container", "list") if one["function"] == "work"]
        assert one["state"] == "ready"
        assert machine.run("container", "logs", one["container_id"]).stdout == "at work\n"
        machine.run("container", "stop", one["container_id"], status=1)  # nobody can be asked
        machine.run("container", "stop", "--force", "--yes", one["container_id"])
        after = machine.json("container", "show", one["container_id"])["container"]
        assert after["state"] == "ended"
        assert "container stop" in after["why"]
        for line in running.stdout:  # another container has begun
            if "at work" in line:
                break
        (other,) = [two for two in machine.json("container", "list") if two["function"] == "work"]
        assert other["container_id"] != one["container_id"]
        running.terminate()
        running.communicate(timeout=30)


def test_what_is_no_container(machine):
    assert "looks like ta-" in machine.run("container", "show", "nonsense", status=2).stderr
    missing = machine.run("container", "show", "ta-00000000000000000000000000", status=1)
    assert "there is no container" in missing.stderr
    assert json.loads(machine.run("container", "list", "--app", "no such app", "--json").stdout) == []
