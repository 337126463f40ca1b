"""Protects what serves while a new version proves itself: whoever is killed meanwhile, and whatever nobody uses yet."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.system.shop import SHOP, Shop, opened


@pytest.fixture
def shop(machine, tmp_path, request):
    with opened(machine, tmp_path, request.node.name) as made:
        yield made


def until(what, seconds=60):
    ends = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.05)
    return found


def kill_server(machine):
    server = next(pid for pid, words in machine.processes().items() if "-m alight.server" in words)
    os.kill(server, signal.SIGKILL)
    until(lambda: server not in machine.processes())


HELD = """
if not alight.is_local():
    print("version {version} starts", flush=True)
    while not os.path.exists("/gate/open"):
        time.sleep(0.02)
    {then}
"""


@pytest.mark.slow
@pytest.mark.parametrize("comes_up", [True, False])
def test_a_trial_goes_on_after_its_server_was_killed(fresh_machine, tmp_path, comes_up):
    shop = Shop(fresh_machine, tmp_path, "tried")
    gate = "volumes={'/gate': alight.Volume.from_name('gate', create_if_missing=True)}"
    shop.version(1, gate)
    first = shop.price()
    held = HELD.format(version=2, then="" if comes_up else "raise RuntimeError('no licence')")
    shop.write(held + SHOP.format(version=2, options=gate))
    deploying = fresh_machine.start("deploy", shop.script)
    until(lambda: "version 2 starts" in fresh_machine.run("app", "logs", shop.name).stdout)
    kill_server(fresh_machine)
    fresh_machine.run("server", "start")
    assert shop.price() == first, "the old container serves on, also in the new process"
    kill_server(fresh_machine)
    fresh_machine.run("server", "start")
    assert shop.price() == first
    (tmp_path / "open").write_text("")
    fresh_machine.run("volume", "put", "gate", tmp_path / "open", "/open")
    said, wrong = deploying.communicate(timeout=60)
    if comes_up:
        assert deploying.returncode == 0, wrong
        assert "Deployed tried v2" in said
        assert shop.price()[0] == 2
        return
    assert deploying.returncode == 1, said
    assert "v2 of tried did not come up" in wrong
    assert "no licence" in wrong
    assert shop.price() == first
    assert [(one["version"], one["state"]) for one in shop.history()] == [("v2", "failed"), ("v1", "serves")]
    shop.version(3, gate)
    assert shop.price()[0] == 3


ELSEWHERE = """
@app.function(image=alight.Image.debian_slim(python_version="3.11").env({"A": "1"}))
def other(): pass

if os.environ.get("A"):
    raise RuntimeError("no licence")
"""


@pytest.mark.parametrize(
    ("unused", "said"),
    [
        ("if not alight.is_local():\n    import not_there_at_all\n", "No module named 'not_there_at_all'"),
        ("@app.function()\n@alight.asgi_app()\ndef site():\n    import not_there_at_all\n", "not_there_at_all"),
        (ELSEWHERE, "no licence"),
    ],
    ids=["import", "factory", "other-image"],
)
def test_a_version_that_nobody_has_called_yet_is_proved_too(shop, unused, said):
    shop.version(1)
    wrong = shop.deploy(unused + SHOP.format(version=2, options=""), status=1).stderr
    assert "v2 of" in wrong
    assert said in wrong
    assert "v1 serves on" in wrong
    assert shop.price()[0] == 1
    assert [(one["version"], one["state"]) for one in shop.history()] == [("v2", "failed"), ("v1", "serves")]
