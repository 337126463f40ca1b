"""Protects starts of this machine's node by several at once: whoever goes on has a node that the server knows."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from alight.sdk import local, processes
from alight.wire import errors


@pytest.fixture
def node():
    """A process that says of itself that it is a node."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "alight.node"]) as process:
        while not processes.is_one(process.pid, "node"):  # its words are not there yet
            time.sleep(0.001)
        yield process
        process.kill()


@pytest.fixture
def say(tmp_path, node):
    """What the node leaves for others."""
    (tmp_path / "run").mkdir()

    def said(**more):
        (tmp_path / "run" / "node.json").write_text(json.dumps({"pid": node.pid, **more}))

    return said


def test_one_that_somebody_else_starts_is_waited_for_until_it_is_ready(tmp_path, say, monkeypatch):
    say(ready=False)
    assert not local._node_runs(tmp_path)
    monkeypatch.setattr(local.time, "sleep", lambda _: say(ready=True))
    assert local._comes_up(tmp_path, time.monotonic() + 60)


def test_one_that_was_killed_meanwhile_is_not_waited_for(tmp_path, say, node):
    say(ready=True)
    node.kill()
    node.wait()
    assert not local._comes_up(tmp_path, time.monotonic() + 60)


def test_one_that_does_not_come_up_is_said(tmp_path, say):
    say(ready=False)
    with pytest.raises(errors.ConnectionError, match="did not become ready"):
        local._comes_up(tmp_path, 0)


def test_one_of_an_older_version_is_taken_as_ready(tmp_path, say):
    say()
    assert local._node_runs(tmp_path)
