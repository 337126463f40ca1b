"""A server's end of a connection, for the SDK to talk to: real protocol, scripted answers, a socketpair."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest

from alight.sdk.carrier import Carrier
from alight.sdk.client import Client, Target
from alight.wire import chunk, errors
from alight.wire.codec import PREFACE, Kind, dumps_head
from alight.wire.connection import Connection
from alight.wire.messages import Hello
from alight.wire.version import WIRE_VERSION, __version__


class Asked:
    """One stream that the client opened, and the ways to answer on it."""

    def __init__(self, end: End, number: int, method: str, args: Dict[str, Any], body: bytes) -> None:
        self._end = end
        self.number = number
        self.method = method
        self.args = args
        self.body = body
        self.pieces: List[bytes] = []
        self.heads: List[bytes] = []  # of the pieces
        self.error: Optional[Dict[str, Any]] = None  # what the client ended it with
        self.ended = False

    def say(self, message: Any = None, body: bytes = b"") -> None:
        self._end.write(lambda wire: wire.send(self.number, dumps_head(message or {}), body))

    def say_chunk(self, outputs: chunk.Outputs, body: bytes) -> None:
        """Values, in the form in which they come from containers."""
        self._end.write(lambda wire: wire.send(self.number, outputs.encode(), body))

    def value(self, call_id: str, data: bytes, position: int = 0, **more: Any) -> None:
        """One value and the end: what a call with one input gets."""
        self.say_chunk(chunk.Outputs(call_id, range(position, position + 1), [len(data)], **more), data)
        self.end()

    def break_off(self) -> None:
        self._end.break_off()

    def end(self) -> None:
        self._end.write(lambda wire: wire.end(self.number))

    def answer(self, message: Any = None, body: bytes = b"") -> None:
        self.say(message, body)
        self.end()

    def fail(self, error: errors.Error) -> None:
        self._end.write(lambda wire: wire.fail(self.number, dumps_head(errors.to_wire(error))))


class End:
    """The server's end of one connection, on a thread."""

    def __init__(self, server: FakeFarSide, sock: socket.socket) -> None:
        self.server = server
        self._sock = sock
        self._wire = Connection(initiator=False)
        self._lock = threading.Lock()
        self.streams: Dict[int, Asked] = {}
        self.dead = False
        threading.Thread(target=self._read, daemon=True).start()

    def write(self, act: Callable[[Connection], Any]) -> None:
        with self._lock:
            act(self._wire)
            data = b"".join(bytes(piece) for piece in self._wire.take_output())
        if data:
            try:
                self._sock.sendall(data)
            except OSError:
                return

    def break_off(self) -> None:
        """What a killed server does: nothing that it had read counts any more."""
        self.dead = True
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def _read(self) -> None:
        start = b""
        while len(start) < len(PREFACE):
            piece = self._sock.recv(len(PREFACE) - len(start))
            if not piece:
                self._sock.close()
                return
            start += piece
        assert start == PREFACE
        while True:
            try:
                data = self._sock.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                self._sock.close()
                return
            with self._lock:
                events = self._wire.receive(data)
            self.write(lambda wire: None)
            for event in events:
                if not self.dead:
                    self._on(event)

    def _on(self, event: Any) -> None:
        if event.kind == Kind.HELLO:
            self.server.hellos.append(json.loads(event.head))
            if self.server.refuse is not None:
                refusal = dumps_head(errors.to_wire(self.server.refuse))
                from alight.wire.codec import encode_frame

                self._sock.sendall(b"".join(bytes(one) for one in encode_frame(Kind.ERROR, 0, refusal)))
                return
            hello = Hello(wire=self.server.wire, version=__version__, role="server", server_id=self.server.server_id)
            self.write(lambda wire: wire.hello(dumps_head(hello)))
        elif event.kind == Kind.OPEN:
            head = json.loads(event.head)
            asked = Asked(self, event.stream, head["method"], head.get("args", {}), event.body)
            self.streams[event.stream] = asked
            self.server.asked.append(asked)
            self.server.on(asked)
        elif event.kind == Kind.DATA:
            self.write(lambda wire: wire.took(event.stream, len(event.body)))
            asked = self.streams[event.stream]
            asked.pieces.append(bytes(event.body))
            asked.heads.append(bytes(event.head))
            took = self.server.at_data.get(asked.method)
            if took is not None:
                took(asked, asked.heads[-1], asked.pieces[-1])
        elif event.kind == Kind.ERROR and event.stream in self.streams:
            self.streams[event.stream].error = json.loads(event.head)
        elif event.kind == Kind.END:
            asked = self.streams[event.stream]
            asked.ended = True
            handler = self.server.at_end.get(asked.method)
            if handler is not None:
                handler(asked)


class FakeFarSide:
    """Answers by method: ``answers[method](asked)``; ``at_end`` once the client has said all. A fake."""

    def __init__(self) -> None:
        self.answers: Dict[str, Callable[[Asked], Any]] = {}
        self.at_end: Dict[str, Callable[[Asked], Any]] = {}
        self.at_data: Dict[str, Callable[[Asked, bytes, bytes], Any]] = {}
        self.asked: List[Asked] = []
        self.hellos: List[Dict[str, Any]] = []
        self.ends: List[End] = []
        self.server_id = "sv-fake"
        self.wire = WIRE_VERSION
        self.refuse: Optional[errors.Error] = None

    def connect(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.ends.append(End(self, theirs))
        return ours

    def on(self, asked: Asked) -> None:
        handler = self.answers.get(asked.method)
        if handler is not None:
            handler(asked)
        elif asked.method not in self.at_end:
            asked.fail(errors.UnimplementedError(f"the fake server has no answer to {asked.method}"))

    def methods(self) -> List[str]:
        return [asked.method for asked in self.asked]

    def of(self, method: str) -> List[Asked]:
        return [asked for asked in self.asked if asked.method == method]


class FakeClient(Client):
    """A client whose connections lead to a FakeFarSide."""

    def __init__(self, far: FakeFarSide) -> None:
        super().__init__(Target(path="/fake"))
        self.far = far

    def _dial(self, *, again: bool) -> Tuple[Carrier, Hello]:
        del again
        carrier = Carrier(self.far.connect())
        try:
            return carrier, carrier.greet(Hello(wire=WIRE_VERSION, version=__version__))
        except BaseException:
            carrier.close()
            raise


@pytest.fixture
def far():
    """The server's side."""
    side = FakeFarSide()
    yield side
    for end in side.ends:
        end.break_off()


@pytest.fixture
def client(far):
    """A client that talks to ``far``."""
    made = FakeClient(far)
    yield made
    made.shut()


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch, tmp_path):
    """No test reads the settings of whoever runs it."""
    import os

    for name in list(os.environ):
        if name.startswith(("ALIGHT_", "MODAL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ALIGHT_CONFIG_PATH", str(tmp_path / "alight.toml"))
    monkeypatch.setenv("ALIGHT_HOME", str(tmp_path / "home"))
