"""Ten deploys in a row while requests of all kinds come: none fails, none is answered by half, no socket is cut."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from contextlib import closing

import pytest
from websockets.sync.client import connect

pytestmark = pytest.mark.slow

APP = '''
import asyncio
import subprocess

import alight

app = alight.App("loaded", image=alight.Image.debian_slim(python_version="3.11"))
VERSION = 0


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": f"{VERSION} {message['text']}"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    fields = [(b"x-version", b"%d" % VERSION)]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    if scope["path"] == "/drip":
        for number in range(10):
            await send({"type": "http.response.body", "body": b"data: %d\\n\\n" % number, "more_body": True})
            await asyncio.sleep(0.1)
    await send({"type": "http.response.body", "body": body})


@app.function(scaledown_window=30)
@alight.concurrent(max_inputs=50)
@alight.asgi_app()
def web():
    return application


@app.function(scaledown_window=30)
@alight.concurrent(max_inputs=50)
@alight.web_server(8000, startup_timeout=60)
def server():
    code = """
import socketserver
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("X-Version", "%d")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    do_GET = do_POST
    def log_message(self, *words):
        pass
class Server(ThreadingHTTPServer):
    request_queue_size = 128
Server(("127.0.0.1", 8000), Handler).serve_forever()
""" % VERSION
    subprocess.Popen(["python", "-c", code])
'''
BODY = os.urandom(100_000)


class Load:
    """Threads that ask all the time, and what they saw."""

    def __init__(self, machine) -> None:
        said = json.loads((machine.home / "run/server.json").read_text())["web"]
        self.host, _, port = said.rpartition(":")
        self.port = int(port)
        self.over = threading.Event()
        self.bad: list[str] = []
        self.seen: dict[str, set[int]] = {}
        self.done: dict[str, int] = {}
        kinds = (self.kept, self.posts, self.fresh, self.streams, self.kept_program, self.posts_program, self.sockets)
        self.threads = [threading.Thread(target=self.repeat, args=(kind,)) for kind in kinds for _ in range(2)]

    def __enter__(self):
        for one in self.threads:
            one.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.over.set()
        for one in self.threads:
            one.join()

    def repeat(self, kind) -> None:
        """One client after another, each for about a second."""
        while not self.over.is_set():
            began = time.monotonic()
            try:
                kind(began + 1.0)
            except Exception as error:  # noqa: BLE001  whatever it is, it is a request that failed
                self.bad.append(f"{kind.__name__}, {time.monotonic() - began:.2f} s in: {error!r}")

    def saw(self, kind: str, version: int) -> None:
        self.seen.setdefault(kind, set()).add(version)
        self.done[kind] = self.done.get(kind, 0) + 1

    def ask(self, connection, function: str, method: str = "GET", path: str = "/", body: bytes = b"") -> bytes:
        fields = {"Host": f"loaded-{function}.localhost"}
        connection.request(method, path, body or None, fields)
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise AssertionError(f"{answer.status} {data[:200]!r}")
        self.saw(f"{method} {path} {function}", int(answer.headers["X-Version"]))
        return data

    def client(self):
        return closing(http.client.HTTPConnection(self.host, self.port, timeout=60))

    def kept(self, until: float, function: str = "web") -> None:
        with self.client() as connection:
            while time.monotonic() < until:
                self.ask(connection, function)

    def posts(self, until: float, function: str = "web") -> None:
        with self.client() as connection:
            while time.monotonic() < until:
                assert self.ask(connection, function, "POST", body=BODY) == BODY
                time.sleep(0.01)

    def kept_program(self, until: float) -> None:
        self.kept(until, "server")

    def posts_program(self, until: float) -> None:
        self.posts(until, "server")

    def fresh(self, until: float) -> None:
        while time.monotonic() < until:
            with self.client() as connection:
                self.ask(connection, "web")

    def streams(self, until: float) -> None:
        with self.client() as connection:
            whole = b"".join(b"data: %d\n\n" % number for number in range(10))
            assert self.ask(connection, "web", path="/drip") == whole

    def sockets(self, until: float) -> None:
        there = socket.create_connection((self.host, self.port))
        with connect("ws://loaded-web.localhost/", sock=there, compression=None) as opened:
            versions = set()
            while time.monotonic() < until:
                opened.send("hello")
                version, _, text = opened.recv(30).partition(" ")
                assert text == "hello"
                versions.add(int(version))
                time.sleep(0.01)
            assert len(versions) == 1, "a socket stays with its container"
            self.saw("socket", versions.pop())


@pytest.mark.timeout(600)
def test_ten_deploys_in_a_row_fail_no_request(new_machine, tmp_path):
    machine = new_machine()
    script = tmp_path / "loaded_app.py"

    def deploy(version: int) -> None:
        script.write_text(APP.replace("VERSION = 0", f"VERSION = {version}"))
        machine.run("deploy", script)

    deploy(0)
    with Load(machine) as load:
        for version in range(1, 11):
            deploy(version)
        while not all(10 in seen for seen in load.seen.values()) and not load.bad:
            time.sleep(0.1)  # until all kinds of requests meet the last one
    assert not load.bad, f"{len(load.bad)} of {sum(load.done.values())}: {load.bad[:20]}"
    assert len(load.seen) == 6
    for kind, seen in load.seen.items():
        assert 10 in seen, kind
        assert len(seen) > 3, f"{kind} met few of the versions: {sorted(seen)}"
    machine.close()
