"""Protects `alight curl`: protected web functions answer it, others never see its token, and it leaves none behind."""

from __future__ import annotations

import http.server
import os
import signal
import threading
import time

import pytest

APP = """
import asyncio

import alight

app = alight.App("curled", image=alight.Image.debian_slim(python_version="3.11"))


async def answer(scope, receive, send):
    if scope["type"] == "http":
        if scope["path"].endswith("/slow"):
            await asyncio.sleep(60)
        names = sorted(name.decode() for name, _ in scope["headers"])
        body = (await receive())["body"]
        status = 404 if scope["path"].endswith("/none") else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": " ".join(names).encode() + b"|" + body})


@app.function()
@alight.asgi_app(requires_proxy_auth=True)
def locked():
    return answer


@app.function()
@alight.asgi_app()
def free():
    return answer
"""


def listed(machine):
    return {one["token_id"] for one in machine.json("workspace", "proxy-tokens", "list")}


@pytest.fixture
def tokens(machine):
    """The tokens that this test made and that are there: others share its machine."""
    before = listed(machine)
    return lambda: listed(machine) - before


@pytest.fixture(scope="module")
def urls(machine, tmp_path_factory):
    script = tmp_path_factory.mktemp("curled") / "curled.py"
    script.write_text(APP)
    machine.run("deploy", script)
    described = machine.json("app", "info", "curled")
    yield {one["name"]: one["web"][0] for one in described["functions"]}
    machine.run("app", "stop", "curled", "--yes", status=None)


@pytest.mark.parametrize("form", ["url", "path_url"])
def test_a_protected_function_answers_and_sees_no_token(machine, urls, tokens, form):
    said = machine.run("curl", "-sSf", "-d", "http://data", urls["locked"][form] + "/x").stdout
    names, _, body = said.partition("|")
    assert body == "http://data"
    assert not {"authorization", "alight-key", "modal-key"} & set(names.split())
    own = machine.run("curl", "-sSf", "-H", "Authorization: Basic x", urls["locked"][form]).stdout
    assert "authorization" in own, "the user's own header arrives"
    assert not tokens()


def test_the_exit_status_is_curls_and_others_get_no_token(machine, urls, tokens):
    assert machine.run("curl", "-sSf", urls["free"]["url"] + "/none", status=None).returncode == 22
    seen = []

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append({name.lower() for name in self.headers})
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words):
            pass

    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    place = f"http://127.0.0.1:{other.server_port}/"
    try:
        machine.run("curl", "-sS", place)
        said = machine.run("curl", "-sS", urls["locked"]["url"], place)
    finally:
        other.shutdown()
        other.server_close()
    assert "is no web function of this server" in said.stderr
    assert len(seen) == 2
    assert not {"authorization", "alight-key"} & (seen[0] | seen[1])
    assert not tokens()


def test_a_command_that_is_killed_leaves_no_token(machine, urls, tokens):
    def until(condition):
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.05)

    running = machine.start("curl", "-sS", urls["locked"]["url"] + "/slow", start_new_session=True)
    until(tokens)
    os.killpg(running.pid, signal.SIGKILL)  # curl with it
    running.communicate()
    until(lambda: not tokens())
