"""Protects servers of the user's own: functions and classes whose port answers, and what is said when it does not."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

APP = """
import http.server
import threading

import alight

app = alight.App("servers", image=alight.Image.debian_slim(python_version="3.11"))


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    said = b""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", str(len(self.said)))
        self.end_headers()
        self.wfile.write(self.said)

    def log_message(self, *_):
        pass


def begin(address, text):
    handler = type("Said", (Answer,), {"said": text.encode()})
    server = http.server.ThreadingHTTPServer(address, handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@app.function()
@alight.web_server(8001)
def loopback():
    begin(("127.0.0.1", 8001), "on loopback")


@app.function()
@alight.web_server(8002, startup_timeout=1)
def elsewhere():
    begin(("0.0.0.0", 9999), "nobody asks here")


@app.server(port=8003, unauthenticated=True)
class Front:
    @alight.enter()
    def start(self):
        begin(("", 8003), "from a class")


@app.server(port=8004)
class Locked:
    @alight.enter()
    def start(self):
        begin(("", 8004), "for those with a token")
"""


class Servers:
    def __init__(self, machine, folder: Path) -> None:
        self.machine = machine
        script = folder / "servers_app.py"
        script.write_text(APP)
        self.printed = machine.run("deploy", script).stdout
        self.host = json.loads((machine.home / "run/server.json").read_text())["web"]

    def ask(self, label: str) -> tuple[int, str]:
        request = urllib.request.Request(f"http://{self.host}/", headers={"host": f"servers-{label}.localhost"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def said(self, text: str, within: float = 20.0) -> bool:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            done = self.machine.run("app", "logs", "servers", status=None)
            if text in done.stdout + done.stderr:
                return True
            time.sleep(0.2)
        return False


@pytest.fixture(scope="module")
def servers(machine, tmp_path_factory):
    made = Servers(machine, tmp_path_factory.mktemp("servers"))
    yield made
    machine.run("app", "stop", "servers", "--yes", status=None)


def test_a_server_on_loopback_answers(servers):
    assert servers.ask("loopback") == (200, "on loopback")


def test_a_server_class_answers(servers):
    assert servers.ask("front") == (200, "from a class")


def test_a_server_class_wants_a_token_unless_it_says_otherwise(servers):
    assert servers.ask("locked")[0] == 401


def test_what_a_server_class_was_asked_is_counted(servers, tmp_path):
    servers.ask("front")
    file = tmp_path / "look.py"
    file.write_text(
        "import alight\n"
        'found = alight.Server.from_name("servers", "Front").stats()\n'
        "print(found.request_count, found.request_count_by_status_code[200], [*found.request_percentile_stats])\n"
        'info = alight.App.lookup("servers").info()\n'
        "print(sorted(info.servers), sorted(info.functions))"
    )
    counts, names = servers.machine.python(file).stdout.splitlines()
    count, fine, latency = counts.split()
    assert int(count) >= int(fine) >= 1
    assert latency == "['latency']"
    assert names == "['Front', 'Locked'] ['elsewhere', 'loopback']"


def test_a_server_that_does_not_listen_is_a_503_and_the_log_names_what_does(servers):
    status, text = servers.ask("elsewhere")
    assert status == 503
    assert "9999" not in text
    assert servers.said("nothing listens on that port. What listens in its container: ")
    assert servers.said("0.0.0.0:9999")
