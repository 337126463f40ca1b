"""One connection to a server or node, on blocking sockets: no event loop, and no thread while a caller waits itself.

Whoever waits reads. A thread that waits for an answer takes the lead: it reads the socket and hands every message to
its stream, until its own has come; the others sleep meanwhile, and one of them is woken to lead next. Only what comes
while nobody waits (output of a running app, answers awaited by an event loop) needs the background thread, which
keeps out of the way of leaders. So a blocking call costs no thread switch.

Must never outlive a broken state: whatever is interrupted between reading bytes and handing them on (Ctrl-C) abandons
the connection, and callers start again by id on a new one.
"""

from __future__ import annotations

import _thread
import json
import select
import socket
import threading
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

from alight.sdk.conversation import Arrival, Stream
from alight.sdk.lost import LostError
from alight.wire import errors
from alight.wire.codec import PREFACE, Buffer, Kind, dumps_head, loads_head
from alight.wire.connection import Connection, Event
from alight.wire.messages import Hello
from alight.wire.version import check_peer

_READ = 256 << 10
_allocate_lock = _thread.allocate_lock
_HELLO_SECONDS = 10.0
_LINGER = 0.02  # how long the background thread keeps away after a leader left: the next call is often near
_LINGER_MOST = 0.2


class Cipher:
    """What TLS is to a carrier: bytes in, bytes out. The filling is in `tls.py`, which plain sockets never import."""

    fingerprint = ""  # of the certificate that was shown

    def encrypt(self, data: Buffer) -> bytes:
        raise NotImplementedError

    def decrypt(self, data: bytes) -> Tuple[bytes, bytes]:
        """Plain bytes, and what has to be sent at once for them."""
        raise NotImplementedError


class Carrier:
    """A connected socket with the protocol on it. ``greet`` comes first."""

    def __init__(self, sock: socket.socket, cipher: Optional[Cipher] = None) -> None:
        self._sock = sock
        self._cipher = cipher
        self._wire = Connection(initiator=True)
        self._state = threading.Lock()  # around the protocol's state
        self._writing = threading.Lock()  # around write order
        self._reading = threading.Lock()  # held by the leader
        self._streams: Dict[int, Stream] = {}
        self._followers: Dict[int, Any] = {}  # locks that sleeping callers hold
        self._hello: Optional[Hello] = None
        self._greeted = Arrival(self)
        self._lost: Optional[errors.Error] = None
        self.given_up = False  # by us, because of an interrupt: the server is well
        self._consuming = False
        self._led = 0
        self._leading = False
        self._left_at = 0.0
        self._background: Optional[threading.Thread] = None

    @property
    def lost(self) -> Optional[errors.Error]:
        """Why this connection is of no more use, or None."""
        return self._lost

    def greet(self, hello: Hello) -> Hello:
        """Say hello and wait for the server's. Raises what it refuses with, or VersionError."""
        with self._state:
            self._wire.hello(dumps_head(hello))
        self._flush(PREFACE)
        if not self._greeted.wait(_HELLO_SECONDS):
            self.close()
            raise errors.ConnectionError(
                f"the server took the connection and has not said hello for {_HELLO_SECONDS:g} s"
            )
        self._greeted.result()
        assert self._hello is not None
        check_peer(self._hello.wire, self._hello.version, self._hello.role)
        return self._hello

    def open(self, head: bytes, body: Buffer = b"", *, end: bool = True) -> Stream:
        """Open a stream with an encoded ``Open``. Raises LostError when the connection is gone."""
        stream = Stream(self)
        with self._state:
            if self._lost is not None:
                raise self._lost_error()
            stream.number = self._wire.open(head, body, end=end)
            self._streams[stream.number] = stream
        self._flush()
        return stream

    def may_send(self, number: int) -> bool:
        with self._state:
            return self._lost is not None or self._wire.may_send(number)

    def send(self, number: int, head: bytes, body: Buffer) -> None:
        with self._state:
            self._wire.send(number, head, body)
        self._flush()

    def send_from(self, number: int, messages: Sequence[Tuple[bytes, Buffer]], at: int) -> int:
        """Send messages from an index on, in one write, while there is credit; returns the index of the next."""
        wire = self._wire
        with self._state:
            while at < len(messages) and wire.may_send(number):
                wire.send(number, *messages[at])
                at += 1
        self._flush()
        return at

    def end(self, number: int) -> None:
        with self._state:
            self._wire.end(number)
            self._forget_if_over(number)
        self._flush()

    def fail(self, number: int, error: Dict[str, Any]) -> None:
        with self._state:
            self._wire.fail(number, json.dumps(error).encode())
            self._streams.pop(number, None)
        if self._lost is None:
            self._flush()

    def took(self, number: int, size: int) -> None:
        with self._state:
            self._wire.took(number, size)
        # A grant, if there is one, leaves with the next write or after this read.
        if size:
            self._flush()

    def close(self, why: str = "the connection was closed") -> None:
        """Let go of the socket; whatever waits gets LostError."""
        self._on_lost(why)

    def _give_up(self, while_it_was: str) -> None:
        self.given_up = True
        self.close(f"the connection was given up while it was {while_it_was}")

    def forget_in_child(self) -> None:
        """After a fork: the socket is the parent's; drop the child's copy without a word on it."""
        self._sock.close()

    # waiting and reading

    def wait_for(self, future: Arrival, timeout: Optional[float]) -> bool:
        """Block until ``future`` is done, reading the socket when nobody else does. Returns whether it is done."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not future.done():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            if self._reading.acquire(False):
                self._lead(future, deadline)
            else:
                self._follow(future, left)
        if self._followers and not self._reading.locked():
            self._wake_next()
        return future.done()

    def ensure_background(self) -> None:
        """Have somebody read while no caller waits."""
        if self._background is not None or self._lost is not None:
            return
        thread = threading.Thread(target=self._read_in_background, name="alight-reader", daemon=True)
        with self._state:
            first = self._background is None
            if first:
                self._background = thread
        if first:
            thread.start()

    def _lead(self, future: Arrival, deadline: Optional[float]) -> None:
        """Read until ``future`` is done or time is up. The caller holds ``_reading``."""
        self._led += 1
        self._leading = True
        try:
            while not future.done():
                left = None if deadline is None else deadline - time.monotonic()
                if (left is not None and left <= 0) or not self._read_once(left):
                    return
        finally:
            self._leading = False
            self._left_at = time.monotonic()
            self._stop_reading()

    def _follow(self, future: Arrival, left: Optional[float]) -> None:
        """Sleep until ``future`` is done or the leader has left."""
        gate = _allocate_lock()
        gate.acquire()
        self._followers[id(gate)] = gate
        try:
            if self._reading.acquire(False):  # the leader left before we were on the list
                self._stop_reading()
                return
            future.on_done(lambda: _open(gate))
            gate.acquire(True, -1 if left is None else left)
        finally:
            self._followers.pop(id(gate), None)

    def _stop_reading(self) -> None:
        self._reading.release()
        if self._followers:
            self._wake_next()

    def _wake_next(self) -> None:
        for gate in list(self._followers.values()):
            _open(gate)
            return

    def _read_in_background(self) -> None:
        pause, led = _LINGER, -1
        while self._lost is None:
            if self._leading or time.monotonic() - self._left_at < _LINGER:
                pause = min(pause * 2, _LINGER_MOST) if led == self._led else _LINGER
                led = self._led
                time.sleep(pause)
                continue
            if not _readable(self._sock, 0.5) or self._lost is not None:
                continue
            if not self._reading.acquire(False):
                time.sleep(_LINGER)
                continue
            try:
                self._read_once(0.0)
            finally:
                self._stop_reading()

    def _read_once(self, timeout: Optional[float]) -> bool:
        """Read what is there and hand it on. False when nothing came in time."""
        if self._lost is not None:
            return True
        if timeout is not None and not _readable(self._sock, timeout):
            return False
        try:
            data = self._sock.recv(_READ)
        except OSError as error:
            self._on_lost(f"the connection to the server was lost: {error.strerror or error}")
            return True
        if not data:
            self._on_lost("the server closed the connection")
            return True
        self._consuming = True
        try:
            self._consume(data)
        except BaseException:
            self._give_up("read from")
            raise
        finally:
            self._consuming = False
        return True

    def _consume(self, data: bytes) -> None:
        if self._cipher is not None:
            data, answer = self._cipher.decrypt(data)
            if answer:
                with self._writing:
                    self._sock.sendall(answer)
        with self._state:
            events = self._wire.receive(data)
        for event in events:
            self._dispatch(event)
        self._flush()

    def _dispatch(self, event: Event) -> None:
        kind = event.kind
        if event.stream == 0:
            if kind == Kind.HELLO:
                self._hello = loads_head(Hello, event.head)
                self._greeted.set()
            elif kind == Kind.ERROR:
                error = errors.from_wire(json.loads(event.head))
                self._greeted.set(error=error)
                self._on_lost(str(error), error)
            return
        stream = self._streams.get(event.stream)
        if stream is None:
            return
        if kind in (Kind.END, Kind.ERROR):
            with self._state:
                self._forget_if_over(event.stream)
        stream.on_event(event)

    def _forget_if_over(self, number: int) -> None:
        if not self._wire.is_open(number):
            self._streams.pop(number, None)

    # writing

    def _flush(self, before: bytes = b"") -> None:
        try:
            with self._writing:
                with self._state:
                    pieces = self._wire.take_output()
                if before:
                    pieces.insert(0, before)
                if pieces:
                    self._write(pieces)
        except OSError as error:
            self._on_lost(f"the connection to the server was lost: {error.strerror or error}")
        except BaseException:
            self._give_up("written to")
            raise

    def _write(self, pieces: List[Buffer]) -> None:
        if self._lost is not None:
            return
        if self._cipher is not None:
            for piece in pieces:
                self._sock.sendall(self._cipher.encrypt(piece))
        elif len(pieces) == 1:
            self._sock.sendall(pieces[0])
        elif sum(len(piece) for piece in pieces) < _READ:
            self._sock.sendall(b"".join(pieces))
        else:
            for piece in pieces:
                self._sock.sendall(piece)

    def _on_lost(self, why: str, error: Optional[errors.Error] = None) -> None:
        with self._state:
            if self._lost is not None:
                return
            self._lost = error or LostError(why)
            streams, self._streams = list(self._streams.values()), {}
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was gone already
        self._sock.close()
        self._greeted.set(error=self._lost)
        for stream in streams:
            stream.on_error(self._lost_error())

    def _lost_error(self) -> LostError:
        error = LostError(str(self._lost))
        error.carrier = self
        return error


def _open(gate: Any) -> None:
    try:
        gate.release()
    except RuntimeError:
        pass  # somebody else opened it


def _readable(sock: socket.socket, timeout: float) -> bool:
    """Whether a read would not block (data, end or error), within ``timeout`` seconds."""
    try:
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            return bool(poll.poll(max(0.0, timeout) * 1000))
        return bool(select.select([sock], [], [], max(0.0, timeout))[0])
    except (OSError, ValueError):
        return True  # closed under us: the read says so
