"""Protects the web port as the world uses it: a domain and a wildcard certificate, with real clients and a renewal."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from itertools import cycle

import pytest
from websockets.sync.client import connect

from tests.unit.server.certificates import make

DOMAIN = "apps.lab.example"
APP = """
import alight

app = alight.App("tls", image=alight.Image.debian_slim(python_version="3.11"))


async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": f"{scope['scheme']} {message['text']}"})
        return
    text = f"{scope['scheme']} {dict(scope['headers'])[b'x-forwarded-proto'].decode()}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


@app.function()
@alight.concurrent(max_inputs=20)
@alight.asgi_app()
def hello():
    return application


@app.function()
def where():
    return hello.get_web_url()
"""


class Site:
    def __init__(self, new_machine, folder) -> None:
        self.cert, self.key = make(folder, f"*.{DOMAIN}", DOMAIN)
        self.folder = folder
        self.machine = new_machine(
            ALIGHT_WEB_LISTEN="0.0.0.0:0",
            ALIGHT_WEB_DOMAIN=DOMAIN,
            ALIGHT_WEB_CERT=str(self.cert),
            ALIGHT_WEB_KEY=str(self.key),
        )
        script = folder / "tls_app.py"
        script.write_text(APP)
        self.printed = self.machine.run("deploy", script).stdout
        self.port = int(json.loads((self.machine.home / "run/server.json").read_text())["web"].rpartition(":")[2])
        self.host = f"tls-hello.{DOMAIN}"

    def curl(self, path: str, *more: str, host: str = "") -> str:
        name = host or self.host
        done = subprocess.run(
            ["curl", "-sS", "--max-time", "60", "--cacert", str(self.cert), "--resolve",
             f"{name}:{self.port}:127.0.0.1", f"https://{name}:{self.port}{path}", *more],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    def connect(self) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.cert)
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        return context.wrap_socket(sock, server_hostname=self.host)


@pytest.fixture(scope="module")
def site(new_machine, tmp_path_factory):
    made = Site(new_machine, tmp_path_factory.mktemp("tls"))
    yield made
    made.machine.close()


def ask(sock: ssl.SSLSocket, host: str) -> bytes:
    sock.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    said = b""
    while not said.endswith(b"https https"):
        piece = sock.recv(4096)
        assert piece, said
        said += piece
    return said


def test_what_is_printed_is_where_it_answers(site):
    url = f"https://{site.host}:{site.port}"
    assert url in site.printed
    assert f"https://{DOMAIN}:{site.port}/_/main/tls/hello" in site.printed
    assert site.curl("/") == "https https"
    assert site.curl("/_/main/tls/hello", host=DOMAIN) == "https https"


def test_get_web_url_says_it_here_and_containers_keep_their_own_name(site, tmp_path):
    script = tmp_path / "asks.py"
    script.write_text(
        "import alight\n"
        "print(alight.Function.from_name('tls', 'hello').get_web_url())\n"
        "print(alight.Function.from_name('tls', 'where').remote())\n"
    )
    said = site.machine.python(script).stdout.split()
    assert said == [f"https://{site.host}:{site.port}", "http://tls-hello.alight.internal:9080"]


def test_a_websocket_over_tls(site):
    key = base64.b64encode(os.urandom(16)).decode()
    with site.connect() as sock:
        sock.sendall(
            f"GET / HTTP/1.1\r\nHost: {site.host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        said = b""
        while b"\r\n\r\n" not in said and (piece := sock.recv(4096)):
            said += piece
        assert said.startswith(b"HTTP/1.1 101")
        mask, text = os.urandom(4), b"hello"
        sock.sendall(b"\x81" + bytes((0x80 | len(text),)) + mask + bytes(a ^ b for a, b in zip(text, cycle(mask))))
        frame = said.partition(b"\r\n\r\n")[2]
        while len(frame) < 11 and (piece := sock.recv(4096)):
            frame += piece
        assert frame == b"\x81\x09wss hello"


def test_a_websocket_client_as_people_have_it(site):
    sock = socket.create_connection(("127.0.0.1", site.port), timeout=60)
    context = ssl.create_default_context(cafile=site.cert)
    with connect(f"wss://{site.host}:{site.port}/", sock=sock, ssl=context, server_hostname=site.host) as there:
        for text in ("one", "two" * 50_000):
            there.send(text)
            assert there.recv(timeout=60) == f"wss {text}"


def test_only_http_1_1_is_agreed_on_and_plain_http_is_not_answered(site):
    assert site.curl("/", "--http2", "-w", " %{http_version}") == "https https 1.1"
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as plain:
        plain.sendall(f"GET / HTTP/1.1\r\nHost: {site.host}\r\n\r\n".encode())
        assert not plain.recv(100).startswith(b"HTTP/1.1 200")


def test_a_renewed_certificate_is_taken_up_under_traffic(site):
    stop, failures, answered = threading.Event(), [], []

    def load() -> None:
        while not stop.is_set():
            try:
                with site.connect_any() as sock:
                    answered.extend(ask(sock, site.host) for _ in range(5))
            except (OSError, AssertionError) as error:
                failures.append(error)

    before = ssl.PEM_cert_to_DER_cert(site.cert.read_text())
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE

    def connect_any() -> ssl.SSLSocket:
        sock = socket.create_connection(("127.0.0.1", site.port), timeout=60)
        return unchecked.wrap_socket(sock, server_hostname=site.host)

    site.connect_any = connect_any
    threads = [threading.Thread(target=load) for _ in range(4)]
    with site.connect() as kept:
        ask(kept, site.host)
        for thread in threads:
            thread.start()
        try:
            cert, key = make(site.folder, f"*.{DOMAIN}", DOMAIN, called="next")
            os.replace(cert, site.cert)
            os.replace(key, site.key)
            deadline = time.monotonic() + 60
            while True:
                with connect_any() as sock:
                    shown = sock.getpeercert(binary_form=True)
                if shown != before:
                    break
                assert time.monotonic() < deadline, "the new certificate is not shown"
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        ask(kept, site.host)  # it was there before, and goes on
    assert not failures
    assert answered
    assert shown == ssl.PEM_cert_to_DER_cert(site.cert.read_text())
    assert site.curl("/") == "https https"


def test_a_server_for_the_world_without_tls_does_not_start(new_machine):
    machine = new_machine(ALIGHT_WEB_LISTEN="0.0.0.0:0")
    said = machine.run("server", "start", status=None)
    assert said.returncode != 0
    assert "without TLS" in said.stderr + machine.logs()
    machine.close()
