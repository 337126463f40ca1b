"""A killed node is started again; one that runs, was told to end, or never was, is left alone."""

from __future__ import annotations

import asyncio
import fcntl
import json
import sys

import pytest

from alight.server import revive
from alight.wire.version import __version__


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(revive, "_FIRST_SECONDS", 0.0)
    monkeypatch.setattr(revive, "_LAST_SECONDS", 0.3)
    for name in ("run", "log"):
        (tmp_path / name).mkdir()
    started = tmp_path / "started"
    # What comes up in the node's place: says that it did, and ends as one that was told to.
    script = f"import pathlib; pathlib.Path({str(started)!r}).touch(); pathlib.Path('run/node.json').unlink()"
    argv = [sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r}); {script}"]
    (tmp_path / "run/node.json").write_text(json.dumps({"pid": 1, "version": __version__, "argv": argv}))
    return tmp_path


def bring_back(home):
    async def main():
        reviver = revive.Reviver(home)
        reviver.look("no-1")
        assert reviver._task is not None
        await reviver._task
        if reviver._child is not None:
            reviver._child.wait()

    asyncio.run(main())
    return (home / "started").exists()


def test_a_killed_node_is_started_again(home):
    assert bring_back(home)


def test_a_running_node_is_left_alone(home):
    with (home / "run/node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not bring_back(home)


def test_one_that_takes_its_time_to_end_is_waited_for(home, monkeypatch):
    slept = asyncio.sleep
    lock = (home / "run/node.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)

    async def ended(seconds):
        if seconds:  # looked once, and found it there still
            lock.close()
        await slept(0)

    monkeypatch.setattr(revive.asyncio, "sleep", ended)
    with lock:
        assert bring_back(home)


def test_one_that_ended_since_there_was_another_is_started_once_more(home):
    said = json.loads((home / "run/node.json").read_text())
    script = said["argv"][-1]
    once = f"import pathlib, sys; path = pathlib.Path({str(home / 'once')!r}); there = path.exists(); path.touch()"
    # Long enough to be seen once while it comes up.
    once += "; import time; time.sleep(0 if there else 0.45)"
    said["argv"][-1] = f"{once}; there or sys.exit(3); {script}"
    (home / "run/node.json").write_text(json.dumps(said))
    assert bring_back(home)


def test_a_machine_that_was_stopped_stays_stopped(home):
    (home / "run/stopped").touch()
    assert not bring_back(home)


def test_a_node_that_systemd_keeps_is_left_to_it(home):
    said = json.loads((home / "run/node.json").read_text())
    (home / "run/node.json").write_text(json.dumps({**said, "kept": True}))
    assert not bring_back(home)


@pytest.mark.parametrize("said", ["", "{", json.dumps({"version": "0.0.0", "argv": ["true"]}), json.dumps({})])
def test_what_another_version_or_nobody_left_is_not_run(home, said):
    (home / "run/node.json").write_text(said)
    assert not bring_back(home)
