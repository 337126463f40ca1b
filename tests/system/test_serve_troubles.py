"""Protects `alight serve` where things go wrong: kills, editors that replace files, files that go."""

from __future__ import annotations

import os
import signal
import time
import urllib.request

from tests.system.serving import SCRIPT, serving

WEB = (
    SCRIPT
    + """

@app.function()
@alight.asgi_app()
def site():
    async def answer(scope, receive, send):
        if scope["type"] == "http":
            await send({{"type": "http.response.start", "status": 200, "headers": []}})
            await send({{"type": "http.response.body", "body": b"site {version}"}})
    return answer
"""
)


def until(what, seconds=60):
    ends = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.1)
    return found


def kill_server(machine):
    (server,) = [pid for pid, words in machine.processes().items() if "-m alight.server " in f"{words} "]
    os.kill(server, signal.SIGKILL)


def save_as_editors_do(file, text):
    """Written beside, and put in its place."""
    beside = file.with_name(f".{file.name}.swp")
    beside.write_text(text)
    os.replace(beside, file)


def answer(url):
    with urllib.request.urlopen(url, timeout=60) as said:
        return said.read().decode()


def test_a_killed_server_is_started_again_and_the_app_goes_on(fresh_machine, tmp_path):
    with serving(fresh_machine, tmp_path, WEB) as served:
        url = served.until("/_/main/served/site").split()[-1]
        served.until("Serving ap-")
        assert answer(url) == "site 1"
        kill_server(fresh_machine)
        assert served.call() == "(1, 'one')"
        save_as_editors_do(served.script, WEB.format(version=2))
        served.until("Reloaded in")
        assert served.call() == "(2, 'one')"
        assert answer(url) == "site 2"
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(30) == 0
        served.close()
        said = "".join(served.seen) + "".join(served.lines.queue)
        assert said.count("served-site-dev.localhost") == 1, "URLs are said once"


def test_a_killed_command_leaves_no_app_and_no_process(new_machine, tmp_path):
    machine = new_machine(ALIGHT_HOLDER_GRACE="1")
    with serving(machine, tmp_path) as served:
        served.until("Serving ap-")
        assert served.call() == "(1, 'one')"
        served.process.kill()
        until(lambda: not [words for words in machine.processes().values() if "reloader" in words])
        until(lambda: {one["state"] for one in machine.json("app", "list")} == {"stopped"})
        until(lambda: not machine.json("container", "list"))


def test_a_file_that_is_away_for_a_moment_and_one_that_is_replaced(machine, tmp_path):
    with serving(machine, tmp_path) as served:
        served.until("Serving ap-")
        helper = tmp_path / "helper.py"
        helper.rename(tmp_path / "away.py")
        served.until("this version cannot be served: the one before goes on")
        assert served.call() == "(1, 'one')"
        (tmp_path / "away.py").rename(helper)
        served.until("Reloaded in")
        save_as_editors_do(helper, "NAME = 'two'\n")
        served.until("Reloaded in")
        assert served.call() == "(1, 'two')"
