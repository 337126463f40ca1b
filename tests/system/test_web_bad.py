"""Protects those who get something wrong: applications that fail in every way they can, requests that are no HTTP."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import time

import pytest

APP = """
import time

import alight

app = alight.App("bad", image=alight.Image.debian_slim(python_version="3.11"))


@app.function()
@alight.wsgi_app()
def wsgi():
    def application(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/early":
            raise RuntimeError("before anything was said")
        if path == "/silent":
            return [b"no start_response"]
        if path == "/break":
            start_response("200 OK", [("X-Split", "a\\r\\nSet-Cookie: b=c")])
            return [b""]
        if path == "/late":
            start_response("200 OK", [("Content-Type", "text/plain")])

            def pieces():
                yield b"a" * 10_000
                raise RuntimeError("in the middle")

            return pieces()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"fine"]

    return application


@app.function()
@alight.asgi_app()
def asgi():
    async def application(scope, receive, send):
        assert scope["type"] == "http"
        start = {"type": "http.response.start", "status": 200, "headers": []}
        if scope["path"] == "/early":
            raise RuntimeError("before anything was said")
        if scope["path"] == "/silent":
            return
        if scope["path"] == "/twice":
            await send(start)
            await send(start)
        if scope["path"] == "/break":
            await send({**start, "headers": [(b"x-split", b"a\\r\\nset-cookie: b=c")]})
        if scope["path"] == "/late":
            await send(start)
            await send({"type": "http.response.body", "body": b"a" * 10_000, "more_body": True})
            raise RuntimeError("in the middle")
        await send(start)
        await send({"type": "http.response.body", "body": b"fine"})

    return application
"""


BROKEN = """
import time

import alight

app = alight.App("broken", image=alight.Image.debian_slim(python_version="3.11"))


@app.function()
@alight.asgi_app()
def raises():
    raise RuntimeError("the factory fell over")


@app.function()
@alight.asgi_app()
def nothing():
    return None


@app.function()
@alight.fastapi_endpoint()
def endpoint(x: int):
    return x


@app.function(startup_timeout=5)
@alight.web_server(8001, startup_timeout=1)
def blocks():
    while True:
        time.sleep(1)
"""


class Bad:
    def __init__(self, machine, folder) -> None:
        self.machine = machine
        script = folder / "bad_app.py"
        script.write_text(APP)
        machine.run("deploy", script)
        self.host, _, port = json.loads((machine.home / "run/server.json").read_text())["web"].rpartition(":")
        self.port = int(port)

    def ask(self, label: str, path: str = "/") -> tuple[int, dict[str, str], bytes]:
        """The answer to GET, of a function by its label."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request("GET", path, headers={"Host": f"{label}.localhost"})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def logs(self) -> str:
        done = self.machine.run("app", "logs", "bad", status=None)
        return done.stdout + done.stderr

    def raw(self, data: bytes) -> bytes:
        """All that is answered until the gateway ends the connection."""
        with socket.create_connection((self.host, self.port), timeout=60) as sock:
            sock.sendall(data)
            said = b""
            while piece := sock.recv(65536):
                said += piece
            return said


def shown(condition, within: float = 60.0) -> bool:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture(scope="module")
def bad(machine, tmp_path_factory):
    made = Bad(machine, tmp_path_factory.mktemp("bad"))
    yield made
    machine.run("app", "stop", "bad", "--yes", status=None)


@pytest.fixture(scope="module")
def broken(bad, tmp_path_factory):
    """What `alight serve` prints of the app whose functions cannot start."""
    folder = tmp_path_factory.mktemp("broken")
    script, printed = folder / "broken_app.py", folder / "printed"
    script.write_text(BROKEN)
    with printed.open("w") as file:
        serving = bad.machine.start("serve", script, stdout=file, stderr=subprocess.STDOUT)
        yield printed
        serving.send_signal(signal.SIGINT)
        serving.wait(60)


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ("raises", "RuntimeError: the factory fell over"),
        ("nothing", "nothing() returned"),
        ("endpoint", 'pip_install("fastapi[standard]")'),
        ("blocks", "blocks() has not returned"),
    ],
)
def test_what_cannot_start_is_a_503_and_the_log_says_why(bad, broken, label, told):
    deadline = time.monotonic() + 120
    while (answer := bad.ask(f"broken-{label}-dev"))[0] == 404:
        assert time.monotonic() < deadline, broken.read_text()
    assert answer[0] == 503
    assert b"its app's log says why" in answer[2]
    assert told.encode() not in answer[2], "the world need not know"
    assert shown(lambda: told in broken.read_text()), broken.read_text()


@pytest.mark.parametrize("label", ["bad-wsgi", "bad-asgi"])
def test_an_application_that_fails_costs_its_own_request_alone(bad, label):
    for path in ("/early", "/silent", "/break"):
        status, fields, body = bad.ask(label, path)
        assert status in {500, 502}, path
        assert fields["alight-call-id"].encode() in body
        assert "set-cookie" not in fields
        assert b"Traceback" not in body
    with pytest.raises(http.client.IncompleteRead):
        bad.ask(label, "/late")  # it must not be taken for whole
    assert bad.ask(label)[2] == b"fine"
    for text in ("before anything was said", "in the middle"):
        assert shown(lambda text=text: text in bad.logs()), text


def test_an_application_that_starts_two_answers_is_cut_off(bad):
    status, fields, body = bad.ask("bad-asgi", "/twice")
    assert status == 500
    assert fields["alight-call-id"].encode() in body


HOST = b"Host: bad-wsgi.localhost\r\n"
TWO = b"GET /two HTTP/1.1\r\n" + HOST + b"\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (
            b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + TWO,
            400,
        ),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + TWO, 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + TWO, 501),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + TWO, 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\nZ\r\n0\r\n\r\n" + TWO, 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +5\r\n\r\nhello" + TWO, 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Host: other.localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\n" + HOST + b"\n\n", 400),
        (b"GET /\x00 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
        (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", 405),
    ],
)
def test_what_is_no_http_is_refused_once_and_what_follows_is_not_read(bad, data, status):
    said = bad.raw(data)
    assert said.startswith(b"HTTP/1.1 %d " % status), said
    assert said.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /v1/apps/bad/functions/x/call HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n", 403),
        (b"POST /v1/apps/bad/functions/x/call HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n", 403),
        (b"POST /v1/apps/bad/functions/x/call HTTP/1.1\r\nHost: rebound.example\r\n", 421),
        (b"GET /_/main/bad/wsgi/ HTTP/1.1\r\nHost: rebound.example\r\n", 421),
        (b"GET /_/main/bad/wsgi/ HTTP/1.1\r\nHost: 127.0.0.1.rebound.example\r\n", 421),
        (b"POST /v1/apps/bad/functions/x/call HTTP/1.1\r\nHost: localhost\r\n", 401),
    ],
)
def test_pages_of_others_and_rebound_names_reach_nothing(bad, head, status):
    said = bad.raw(head + b"Content-Length: 2\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n{}")
    assert said.startswith(b"HTTP/1.1 %d " % status), said
    assert b"access-control-allow" not in said.lower()


def test_a_wrong_label_lists_what_there_is_for_whoever_shows_a_token(bad):
    made = bad.machine.run("workspace", "proxy-tokens", "create").stdout
    words = made.replace('"', " ").replace(",", " ").split()
    key = next(word for word in words if word.startswith("wk-"))
    secret = next(word for word in words if word.startswith("ws-"))
    ask = b"GET / HTTP/1.1\r\nHost: worng.localhost\r\nConnection: close\r\n"
    assert b"bad-wsgi" not in bad.raw(ask + b"\r\n")
    said = bad.raw(ask + f"Modal-Key: {key}\r\nModal-Secret: {secret}\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 404 ")
    assert f"http://bad-wsgi.localhost:{bad.port}".encode() in said
    assert b"bad-wsgi" not in bad.raw(ask + f"Modal-Key: {key}\r\nModal-Secret: ws-wrong\r\n\r\n".encode())
