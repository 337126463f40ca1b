"""Protects the boot: what the units of systemd start is enough for deployed apps to answer, run and be ready."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
import urllib.error
import urllib.request

from alight.cli import service

APP = """
import os
import alight

app = alight.App("shop", image=alight.Image.debian_slim(python_version="3.11"))


@app.function()
@alight.asgi_app()
def site():
    async def answer(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"open"})
    return answer


@app.function(schedule=alight.Period(seconds=1))
def tick(): ...


@app.function(min_containers=1)
def ready(): ...
"""


def until(what, seconds=60):
    ends = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.1)
    return found


def answer(url):
    try:
        with urllib.request.urlopen(url, timeout=60) as said:
            return said.read()
    except (urllib.error.URLError, OSError):
        return b""


def started_by(unit: str, folder) -> subprocess.Popen[bytes]:
    """The process that systemd would have started, with what it would have had."""
    settings = [line.partition("=")[::2] for line in unit.splitlines() if "=" in line]
    environment = dict(
        word.partition("=")[::2] for key, value in settings if key == "Environment" for word in shlex.split(value)
    )
    for key, value in settings:
        if key == "ExecStartPre":
            subprocess.run(shlex.split(value.removeprefix("-")), env=environment, check=True, cwd="/")
    (command,) = [value for key, value in settings if key == "ExecStart"]
    return subprocess.Popen(shlex.split(command), env=environment, cwd="/", stdin=subprocess.DEVNULL)


def ours(machine, module: str) -> set[int]:
    return {pid for pid, words in machine.processes().items() if f"-m {module} " in f"{words} "}


def test_what_the_units_start_brings_deployed_apps_back(fresh_machine, tmp_path):
    machine = fresh_machine
    script = tmp_path / "shop.py"
    script.write_text(APP)
    machine.run("deploy", script)
    described = machine.json("app", "info", "shop")
    (url,) = [one["web"][0]["path_url"] + "/" for one in described["functions"] if one["name"] == "site"]
    assert answer(url) == b"open"
    for pid in machine.processes():
        os.kill(pid, signal.SIGKILL)
    until(lambda: not machine.processes())
    (machine.home / "run" / "stopped").touch()  # somebody had stopped it, once
    off = time.time()
    units = service.units(machine.home, "none")
    processes = [started_by(text, tmp_path) for text in units.values()]
    try:
        until(lambda: answer(url) == b"open")
        runs = until(lambda: [one for one in machine.json("schedule", "list") if (one["last_run"] or "") > stamp(off)])
        assert runs[0]["function"] == "tick"
        states = until(
            lambda: {one["function"] for one in machine.json("container", "list") if one["state"] == "ready"}
        )
        assert "ready" in states
        server, node = processes
        assert (server.poll(), node.poll()) == (None, None)
        assert ours(machine, "alight.server") == {server.pid}
        assert ours(machine, "alight.node") == {node.pid}, "nobody else has started another one"
        node.kill()
        node.wait()
        time.sleep(1.5)  # longer than a server waits before it brings back a node that nobody keeps
        assert not ours(machine, "alight.node"), "that is for systemd"
        processes[1] = started_by(units["alight-node.service"], tmp_path)
        assert answer(url) == b"open"
    finally:
        machine.run("server", "stop", status=None)
        for one in processes:
            one.wait(30)


def stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
