"""Protects sessions and bounds of server classes on a whole system: who stays where, through a deploy and a loss."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

APP = """
import http.server
import os
import threading
import time

import alight

app = alight.App("sticky", image=alight.Image.debian_slim(python_version="3.11"))
VERSION = 1


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith("/sleep"):
            print("sleeps in", type(self).__module__, self.server.server_port, flush=True)
            time.sleep(float(self.path.partition("?")[2]))
        session = self.headers.get("alight-session-id", "-")
        said = f"{VERSION} {os.environ['ALIGHT_TASK_ID']} {session}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_):
        pass


def begin(port):
    server = http.server.ThreadingHTTPServer(("", port), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()


@app.server(port=8003, min_containers=2, max_concurrency=20, target_concurrency=1, scaledown_window=2)
@alight.sessioned()
class Chat:
    @alight.enter()
    def start(self):
        begin(8003)


@app.server(port=8004, unauthenticated=True, max_concurrency=2, max_containers=1)
class Bounded:
    @alight.enter()
    def start(self):
        begin(8004)


@app.server(port=8005, unauthenticated=True, exit_grace_period=20)
class Patient:
    @alight.enter()
    def start(self):
        begin(8005)

    @alight.exit()
    def stop(self):
        print("the hook ends the server", flush=True)
        os._exit(0)
"""
START = """
import alight
chat = alight.Server.from_name("sticky", "Chat")
for timeout in {timeouts!r}:
    made = chat.sessions.start(idle_timeout=timeout)
    print(made.session_id, made.token)
"""
END = """
import alight
for token in {tokens!r}:
    alight.Server.from_name("sticky", "Chat").sessions.terminate(token)
"""


class Sticky:
    def __init__(self, machine, folder) -> None:
        self.machine, self.folder = machine, folder
        self.script = folder / "sticky_app.py"
        self.deploy(1)

    def deploy(self, version: int) -> None:
        self.script.write_text(APP.replace("VERSION = 1", f"VERSION = {version}"))
        self.machine.run("deploy", self.script)
        self.host = json.loads((self.machine.home / "run/server.json").read_text())["web"]

    def python(self, text: str) -> str:
        script = self.folder / "asks.py"
        script.write_text(text)
        return self.machine.python(script).stdout

    def start(self, *timeouts: int) -> list[tuple[str, str]]:
        return [tuple(line.split()) for line in self.python(START.format(timeouts=timeouts)).splitlines()]

    def ask(self, path: str = "/", token: str = "", server: str = "chat", word: str = "Alight-Authorization"):
        headers = {"host": f"sticky-{server}.localhost"}
        if token:
            headers[word] = f"Bearer {token}"
        request = urllib.request.Request(f"http://{self.host}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode().split()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def logs(self) -> str:
        done = self.machine.run("app", "logs", "sticky", status=None)
        return done.stdout + done.stderr

    def containers(self) -> set[str]:
        return {one["container_id"] for one in self.machine.json("container", "list")}


@pytest.fixture(scope="module")
def sticky(machine, tmp_path_factory):
    made = Sticky(machine, tmp_path_factory.mktemp("sticky"))
    yield made
    machine.run("app", "stop", "sticky", "--yes", status=None)


def test_sessions_stay_and_spread_through_a_deploy_and_end(sticky):
    ((one, first),) = sticky.start(600)
    status, (_, home, session) = sticky.ask(token=first)
    assert (status, session) == (200, one)
    tokens, others = [], {}
    for _, token in sticky.start(*[600] * 8):
        status, (_, where, _) = sticky.ask(token=token)
        assert status == 200
        others[where] = token
        tokens.append(token)
    assert len(others) > 1, "all sessions went to one container"
    other, second = next((where, token) for where, token in others.items() if where != home)
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda _: sticky.ask(token=first, word="Modal-Authorization"), range(24)))
    assert {(status, words[1]) for status, words in said} == {(200, home)}
    assert sticky.ask()[0] == 401, "a session's token opens its server, and nothing else does"

    sticky.deploy(2)
    ((_, third),) = sticky.start(600)
    assert sticky.ask(token=third)[1][0] == "2"
    assert sticky.ask(token=first)[1][:2] == ["1", home], "a session goes on where it is"

    sticky.python(END.format(tokens=[first]))
    status, said = sticky.ask(token=first)
    assert status == 410
    assert "start another one" in said
    deadline = time.monotonic() + 60
    sticky.python(END.format(tokens=[token for token in tokens if token != second]))
    while home in sticky.containers():
        assert time.monotonic() < deadline, "the container of the ended session is still there"
        time.sleep(0.2)
    assert sticky.ask(token=second)[1][:2] == ["1", other]

    sticky.machine.run("container", "stop", other, "--yes")
    deadline = time.monotonic() + 60
    while sticky.ask(token=second)[0] == 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    status, said = sticky.ask(token=second)
    assert status == 410
    assert sticky.ask(token=third)[0] == 200


def test_a_session_that_nobody_uses_is_over(sticky):
    ((_, token),) = sticky.start(1)
    assert sticky.ask(token=token)[0] == 200
    deadline = time.monotonic() + 60
    time.sleep(1.5)  # asking would keep it
    while sticky.ask(token=token)[0] != 410:
        assert time.monotonic() < deadline
        time.sleep(2.0)


def test_what_has_no_sessions_says_so(sticky):
    script = sticky.folder / "none.py"
    script.write_text("import alight\nalight.Server.from_name('sticky', 'Bounded').sessions.start()\n")
    done = sticky.machine.python(script, status=1)
    assert "Bounded has no sessions" in done.stderr
    assert "@alight.sessioned()" in done.stderr


def test_scaling_is_read_and_changed_while_a_server_runs(sticky):
    said = sticky.python(
        "import alight\n"
        "chat = alight.Server.from_name('sticky', 'Chat')\n"
        "for change in ({}, {'target_concurrency': 7, 'scaleup_window': 30}, {'target_concurrency': None}):\n"
        "    chat.autoscaler.update(**change)\n"
        "    found = chat.autoscaler.settings()\n"
        "    print(found.target_concurrency, found.scaleup_window, found.min_containers)\n"
        "chat.autoscaler.update(scaleup_window=None)\n"
    )
    assert said.splitlines() == ["1.0 0.0 2", "7.0 30.0 2", "1.0 30.0 2"]


def test_more_requests_than_a_bounded_server_takes_are_a_429(sticky):
    assert sticky.ask(server="bounded")[0] == 200
    with ThreadPoolExecutor(3) as pool:
        said = sorted(one[0] for one in pool.map(lambda _: sticky.ask("/sleep?2", server="bounded"), range(3)))
    assert said == [200, 200, 429]
    assert sticky.ask(server="bounded")[0] == 200


@pytest.mark.slow
def test_a_server_that_has_to_leave_ends_its_requests_within_its_grace_before_its_hooks(sticky):
    status, (_, home, _) = sticky.ask(server="patient")
    assert status == 200
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(sticky.ask, "/sleep?3", server="patient")
        deadline = time.monotonic() + 60
        while " 8005" not in sticky.logs():
            assert time.monotonic() < deadline
        sticky.machine.run("container", "stop", home, "--yes")
        assert under_way.result()[1][1] == home
    deadline = time.monotonic() + 60
    while "the hook ends the server" not in sticky.logs():
        assert time.monotonic() < deadline
