"""The web gateway on a whole system: from zero, streaming both ways, those who leave, containers that end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from alight.node import cgroups
from alight.node.__main__ import instance_of
from alight.node.network import Names

APP = '''
import asyncio
import hashlib
import os
import time

import alight

app = alight.App("gateway", image=alight.Image.debian_slim(python_version="3.11"))
VERSION = 1
SLEEPING = []


async def body_of(receive):
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


async def reply(send, text, status=200):
    data = text.encode()
    fields = [(b"content-type", b"text/plain"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": data})


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    path = scope["path"].removeprefix(scope["root_path"])
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                print("socket left with", message.get("code"), flush=True)
                return
            if message.get("text") is not None:
                await send({"type": "websocket.send", "text": message["text"].upper()})
            else:
                await send({"type": "websocket.send", "bytes": message["bytes"]})
    if path == "/pid":
        # Its mounts tell it from processes of the same number in other containers.
        await reply(send, f"{os.getpid()} {os.stat('/proc/self/ns/mnt').st_ino}")
    elif path == "/version":
        await asyncio.sleep(0.05)
        await reply(send, str(VERSION))
    elif path == "/headers":
        await reply(send, repr({name.decode(): value.decode() for name, value in scope["headers"]}))
    elif path == "/sum":
        seen, size = hashlib.sha256(), 0
        async for piece in body_of(receive):
            seen.update(piece)
            size += len(piece)
        await reply(send, f"{size} {seen.hexdigest()}")
    elif path == "/down":
        size = int(scope["query_string"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        piece = bytes(range(256)) * 256
        for _ in range(size // len(piece)):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    elif path == "/drip":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for number in range(3):
            await send({"type": "http.response.body", "body": f"data: {number}\\n\\n".encode(), "more_body": True})
            await asyncio.sleep(0.5)
        await send({"type": "http.response.body", "body": b""})
    elif path == "/wait":
        print("waiting", flush=True)
        try:
            async for _ in body_of(receive):
                pass
            while (await receive())["type"] != "http.disconnect":
                pass
            print("the client left", flush=True)
        except asyncio.CancelledError:
            print("the client left", flush=True)
            raise
    elif path == "/sleep":
        SLEEPING.append(None)
        await asyncio.sleep(float(scope["query_string"]))
        SLEEPING.pop()
        await reply(send, "slept")
    elif path == "/sleeping":
        await reply(send, str(len(SLEEPING)))
    elif path == "/raise":
        raise RuntimeError("on purpose")
    else:
        await reply(send, "hello")


@app.function(scaledown_window=10, timeout=20)
@alight.concurrent(max_inputs=50)
@alight.asgi_app()
def web():
    return application


@app.function(max_containers=1, scaledown_window=10, timeout=60)
@alight.concurrent(max_inputs=50)
@alight.asgi_app()
def lone():
    return application


@app.function(max_containers=1, timeout=2)
@alight.asgi_app()
def single():
    return application


@app.function()
@alight.web_server(8000)
def server():
    import subprocess
    code = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        data = f"{self.path} {self.headers['X-Forwarded-For']} {self.headers.get('X-Forwarded-Prefix')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\\\\r\\\\n%s\\\\r\\\\n0\\\\r\\\\n\\\\r\\\\n" % (len(data), data))
    def log_message(self, *words):
        pass
ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""
    subprocess.Popen(["python", "-c", code])
'''


class Web:
    """The deployed app, and requests to it."""

    def __init__(self, machine, folder: Path) -> None:
        self.machine = machine
        self.script = folder / "gateway_app.py"
        self.script.write_text(APP)
        machine.run("deploy", self.script)
        self.host, _, port = json.loads((machine.home / "run/server.json").read_text())["web"].rpartition(":")
        self.port = int(port)

    def connection(self, timeout: float = 30) -> closing[http.client.HTTPConnection]:
        return closing(http.client.HTTPConnection(self.host, self.port, timeout=timeout))

    def ask(self, path: str, function: str = "web", method: str = "GET", body=None, **headers: str):
        """Status and body."""
        with self.connection() as connection:
            connection.request(method, path, body, {"Host": f"gateway-{function}.localhost", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def said(self, text: str, seconds: float = 20) -> bool:
        """Whether the app's output comes to have this in it."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            done = self.machine.run("app", "logs", "gateway", status=None)
            if text in done.stdout + done.stderr:
                return True
            time.sleep(0.2)
        return False


@pytest.fixture(scope="module")
def web(new_machine, tmp_path_factory):
    machine = new_machine()
    yield Web(machine, tmp_path_factory.mktemp("gateway"))
    machine.close()


def test_a_request_wakes_a_function_from_zero_and_connections_are_kept(web):
    pids = set()
    with web.connection() as connection:
        for _ in range(3):
            connection.request("GET", "/pid", headers={"Host": "gateway-web.localhost"})
            answer = connection.getresponse()
            assert answer.status == 200
            pids.add(answer.read())
            assert connection.sock is not None, "the connection was not kept"
    assert len(pids) == 1
    assert web.ask("/_/main/gateway/web/pid", Host="localhost")[1] in pids
    assert web.ask("/_/main/gateway/web", Host="127.0.0.1") == (200, b"hello")


def test_the_first_piece_of_a_stream_comes_before_the_second_is_made(web):
    with web.connection() as connection:
        connection.request("GET", "/drip", headers={"Host": "gateway-web.localhost"})
        answer = connection.getresponse()
        assert answer.read1(100) == b"data: 0\n\n"
        first = time.monotonic()
        assert answer.read() == b"data: 1\n\ndata: 2\n\n"
        assert time.monotonic() > first + 0.5


def test_large_bodies_pass_in_both_directions_in_constant_memory(web):
    server = json.loads((web.machine.home / "run/server.json").read_text())["pid"]
    web.ask("/")
    before = _peak(server)
    size = 200 << 20

    def pieces():
        for _ in range(size >> 20):
            yield bytes(1 << 20)

    status, said = web.ask("/sum", method="POST", body=pieces())
    assert (status, said.split()[0]) == (200, b"%d" % size)
    with web.connection() as connection:
        connection.request("GET", f"/down?{size}", headers={"Host": "gateway-web.localhost"})
        answer, got = connection.getresponse(), 0
        while data := answer.read(1 << 20):
            got += len(data)
    assert got == size
    assert _peak(server) - before < 30 << 10, "KiB of memory that the server took for 200 MiB"


def test_a_client_that_leaves_is_noticed_by_the_application(web):
    with socket.create_connection((web.host, web.port)) as sock:
        sock.sendall(b"GET /wait HTTP/1.1\r\nHost: gateway-web.localhost\r\n\r\n")
        assert web.said("waiting")
    assert web.said("the client left")


def test_an_exception_is_a_clean_500_and_its_traceback_is_in_the_log(web):
    status, said = web.ask("/raise")
    assert status == 500
    assert b"on purpose" not in said
    assert web.said("RuntimeError: on purpose")


def test_the_timeout_is_the_limit_of_a_request_and_ends_a_container_that_goes_on(web):
    web.ask("/", function="single")
    started = time.monotonic()
    status, _ = web.ask("/sleep?60", function="single")
    assert status == 504
    assert 1.5 < time.monotonic() - started < 6
    assert web.ask("/", function="single") == (200, b"hello")


def test_a_killed_container_costs_what_it_served_and_nothing_else(web):
    pid = _on_host(web, "lone")
    with ThreadPoolExecutor(20) as pool:
        # Posts: what may not be repeated. The others are served by the next container.
        slow = [pool.submit(web.ask, "/sleep?50", "lone", method="POST", body=b"x") for _ in range(4)]
        until = time.monotonic() + 20
        while web.ask("/sleeping", "lone") != (200, b"4"):
            assert time.monotonic() < until, "they have not all begun"
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        for one in slow:
            status, said = one.result()
            assert status == 502, said
            assert b"the container that served this request ended" in said
        assert all(one.result() == (200, b"hello") for one in [pool.submit(web.ask, "/", "lone") for _ in range(20)])


def test_a_program_of_the_users_own_serves_on_its_port(web):
    with web.connection() as connection:
        for number in range(3):
            connection.request("GET", f"/a/{number}?x=1", headers={"Host": "gateway-server.localhost"})
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, f"/a/{number}?x=1 127.0.0.1 None".encode())
    assert web.ask("/_/main/gateway/server/b", Host="localhost")[1] == b"/b 127.0.0.1 /_/main/gateway/server"
    body = os.urandom(3 << 20)
    assert web.ask("/", function="server", method="POST", body=body) == (200, body)


def test_no_request_fails_while_a_new_version_takes_over(web):
    over, bad, seen = threading.Event(), [], set()

    def ask() -> None:
        while not over.is_set():
            status, said = web.ask("/version")
            seen.add(said)
            if status != 200:
                bad.append((status, said))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for version in (2, 3):
            web.script.write_text(APP.replace("VERSION = 1", f"VERSION = {version}"))
            web.machine.run("deploy", web.script)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not bad
    assert {b"1", b"3"} <= seen
    assert web.ask("/version") == (200, b"3")


def test_a_killed_node_interrupts_no_answer_and_a_killed_server_finds_its_containers_and_its_port_again(web):
    same = web.ask("/pid")[1]
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(web.ask, "/sleep?2")
        time.sleep(0.5)
        os.kill(json.loads((web.machine.home / "run/node.json").read_text())["pid"], signal.SIGKILL)
        assert slow.result() == (200, b"slept")
    assert web.ask("/pid") == (200, same)
    os.kill(json.loads((web.machine.home / "run/server.json").read_text())["pid"], signal.SIGKILL)
    web.machine.run("app", "list")
    assert json.loads((web.machine.home / "run/server.json").read_text())["web"] == f"{web.host}:{web.port}"
    assert web.ask("/pid") == (200, same)


def _peak(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0])


def _on_host(web: Web, function: str) -> int:
    """The process of the container that serves a function, as the host numbers it."""
    inside, mounts = web.ask("/pid", function)[1].decode().split()
    group = Names.of(instance_of(web.machine.home.resolve())).group
    pids = {
        int(pid)
        for tree in cgroups.trees()
        for file in Path(f"{tree}{group}").glob("**/cgroup.procs")
        for pid in file.read_text().split()
    }
    for pid in pids:
        numbers = Path(f"/proc/{pid}/status").read_text().partition("NSpid:")[2].splitlines()[0].split()
        if numbers[-1] == inside and os.stat(f"/proc/{pid}/ns/mnt").st_ino == int(mounts):
            return pid
    raise AssertionError(f"no process of a container is {inside} in it")
