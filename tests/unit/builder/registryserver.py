"""A registry in this process, for what a real one does not do on command: break off, lie, send elsewhere, be busy.

The system tests speak with a real one.
"""

from __future__ import annotations

import base64
import http.server
import json
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.unit.builder.archives import Made

#: What to do instead of answering: returns True when it has answered.
Instead = Callable[["Handler"], bool]


class RegistryServer:
    """``with RegistryServer() as registry``: images by repository and tag. ``asked`` remembers (path, headers)."""

    def __init__(self, certificate: Path | None = None) -> None:
        self._certificate = certificate  # with its key: speak TLS
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.instead: list[Instead] = []
        self.user = ""  # "name:password", wanted directly or for a token
        self.tokens = False
        self.chunk = 0  # blobs break off after so many bytes

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def push(self, name: str, image: Made, *others: Made) -> None:
        repository, _, tag = name.partition(":")
        for one in (image, *others):
            self.blobs.update(one.blobs)
            self.manifests[f"{repository}/{one.digest}"] = (one.media_type, one.manifest)
        self.manifests[f"{repository}/{tag}"] = (image.media_type, image.manifest)

    def blobs_asked(self) -> list[dict[str, str]]:
        return [headers for path, headers in self.asked if "/blobs/" in path]

    def __enter__(self) -> RegistryServer:  # noqa: PYI034  Python 3.9 has no Self
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.registry = self  # type: ignore[attr-defined]
        if self._certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        registry: RegistryServer = self.server.registry  # type: ignore[attr-defined]
        registry.asked.append((self.path, dict(self.headers)))
        if registry.instead and registry.instead[0](self):
            registry.instead.pop(0)
            return
        if self.path.startswith("/token"):
            self._token(registry)
        elif not self._may(registry):
            realm = f'Bearer realm="http://{registry.host}/token",service="here",scope="repository:a/b:pull"'
            self.answer(401, b"", **{"WWW-Authenticate": realm if registry.tokens else 'Basic realm="here"'})
        else:
            self._serve(registry)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _may(self, registry: RegistryServer) -> bool:
        if registry.tokens:
            return self.headers.get("Authorization") == "Bearer good-token"
        wanted = "Basic " + base64.b64encode(registry.user.encode()).decode()
        return not registry.user or self.headers.get("Authorization") == wanted

    def _token(self, registry: RegistryServer) -> None:
        wanted = "Basic " + base64.b64encode(registry.user.encode()).decode()
        if registry.user and self.headers.get("Authorization") != wanted:
            self.answer(401, b"{}")
            return
        asked = parse_qs(urlsplit(self.path).query)
        assert asked["service"] == ["here"]
        self.answer(200, json.dumps({"token": "good-token"}).encode())

    def _serve(self, registry: RegistryServer) -> None:
        repository, kind, name = self.path.removeprefix("/v2/").rsplit("/", 2)
        if kind == "manifests" and f"{repository}/{name}" in registry.manifests:
            media_type, body = registry.manifests[f"{repository}/{name}"]
            self.answer(200, body, **{"Content-Type": media_type})
        elif kind == "blobs" and name in registry.blobs:
            self._blob(registry, registry.blobs[name])
        else:
            error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            self.answer(404, json.dumps(error).encode())

    def _blob(self, registry: RegistryServer, content: bytes) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        rest = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if registry.chunk and len(rest) > registry.chunk:
            self.wfile.write(rest[: registry.chunk])
            self.close_connection = True
        else:
            self.wfile.write(rest)


class Proxy:
    """A proxy that wants credentials: ``asked`` remembers request lines with them."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _ProxyHandler)
        self._server.asked = self.asked  # type: ignore[attr-defined]
        self.url = f"http://me:p%40ss@127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Proxy:  # noqa: PYI034  Python 3.9 has no Self
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _ProxyHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _note(self) -> None:
        self.server.asked.append((self.requestline, self.headers.get("Proxy-Authorization", "")))  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        self._note()
        there = urlsplit(self.path)
        with socket.create_connection((there.hostname, there.port)) as further:
            further.sendall(f"GET {there.path} HTTP/1.0\r\nHost: {there.netloc}\r\n\r\n".encode())
            while piece := further.recv(65536):
                self.wfile.write(piece)

    def do_CONNECT(self) -> None:
        self._note()
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port))) as further:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(further, self.connection), daemon=True)
            back.start()
            _pump(self.connection, further)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return
