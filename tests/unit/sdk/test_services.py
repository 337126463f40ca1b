"""Protects starts where systemd has server and node: they are its to start, by whoever needs them."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from alight.cli import service
from alight.sdk import local, services
from alight.wire import errors

#: What the services are here: processes that say of themselves what server and node do.
SERVER = """
import pathlib, signal, socket, sys
path = pathlib.Path(sys.argv[-1], "run", "server.sock")
sock = socket.socket(socket.AF_UNIX)
sock.bind(str(path))
sock.listen()
signal.pause()
"""
NODE = """
import json, os, pathlib, signal, sys
pathlib.Path(sys.argv[-1], "run", "node.json").write_text(json.dumps({"pid": os.getpid()}))
signal.pause()
"""
#: In systemctl's place: writes down what it is asked for, and starts the units.
SYSTEMCTL = """#!{python}
import pathlib, subprocess, sys
here = pathlib.Path({here!r})
with (here / "asked").open("a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
if (here / "broken").exists():
    sys.exit("Unit alight-server.service is masked.")
for unit in sys.argv[2:]:
    what = unit.removeprefix("alight-").removesuffix(".service")
    code = {{"server": {server!r}, "node": {node!r}}}[what]
    command = [sys.executable, "-c", code, "alight." + what, "--home", {home!r}]
    child = subprocess.Popen(command, stdin=-3, stdout=-3, stderr=-3, start_new_session=True)
    with (here / "pids").open("a") as file:
        file.write(str(child.pid) + "\\n")
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with the services of a state directory that is the one in force."""
    home, bin_ = tmp_path / "home", tmp_path / "bin"
    for folder in (home, bin_):
        folder.mkdir()
    text = SYSTEMCTL.format(python=sys.executable, here=str(tmp_path), home=str(home), server=SERVER, node=NODE)
    (bin_ / "systemctl").write_text(text)
    (bin_ / "systemctl").chmod(0o755)
    for name, unit in service.units(home, "").items():
        (tmp_path / name).write_text(unit)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    monkeypatch.setenv("ALIGHT_HOME", str(home))
    monkeypatch.setattr(services, "UNITS", tmp_path)
    monkeypatch.setattr(services, "SYSTEMD", tmp_path)
    monkeypatch.setattr(local.os, "geteuid", lambda: 0)
    yield tmp_path
    if (tmp_path / "pids").exists():
        for pid in (tmp_path / "pids").read_text().split():
            os.kill(int(pid), signal.SIGKILL)


def asked(machine):
    return (machine / "asked").read_text().splitlines()


def test_systemd_is_asked_and_once(machine):
    home = machine / "home"
    assert local.ensure() == str(home / "run" / "server.sock")
    assert local.status().node_pid == int((machine / "pids").read_text().split()[1])
    local.ensure()
    local.start(local.Options())
    assert asked(machine) == ["start alight-server.service alight-node.service"]
    assert not (home / "log" / "server.log").exists(), "nothing was started besides"


def test_without_a_node_the_server_alone(machine):
    local.start(local.Options(node=False))
    assert asked(machine) == ["start alight-server.service"]


def test_what_systemd_refuses_is_said(machine):
    (machine / "broken").touch()
    with pytest.raises(errors.ConnectionError, match="` failed: Unit alight-server"):
        local.ensure()


def test_one_that_does_not_come_up_is_said(machine, monkeypatch):
    monkeypatch.setattr(local, "_READY_SECONDS", 0.2)
    (machine / "bin" / "systemctl").write_text("#!/bin/sh\n")
    with pytest.raises(errors.ConnectionError, match="alight-server did not become ready within"):
        local.ensure()


def test_settings_of_a_start_are_refused_not_ignored(machine):
    with pytest.raises(errors.InvalidError, match="--listen is no setting of a start here"):
        local.start(local.Options(listen="127.0.0.1:9"))


def test_users_hear_who_starts_it(machine, monkeypatch):
    monkeypatch.setattr(local.os, "geteuid", lambda: 1000)
    with pytest.raises(errors.ConnectionError, match="a service of systemd, which root starts"):
        local.ensure()


def test_another_state_directory_is_none_of_systemds_business(machine, monkeypatch):
    monkeypatch.setenv("ALIGHT_HOME", str(machine / "another"))
    started = []
    monkeypatch.setattr(local, "_start_missing", lambda *how: started.append(how))
    local.start(local.Options())
    assert len(started) == 1
    assert not (machine / "asked").exists()
