"""The agent's conversation with the server: dialling, coming back, commands in, reports out.

Nothing is queued here for a server that is away: what must not be lost lies in the containers' outboxes, ledgers and
output files, and is said again after each reconnect. This file knows no container.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from alight.link.dial import Answers, dial_tcp, dial_unix
from alight.link.peer import OnStream, Peer, Stream
from alight.wire import chunk, errors
from alight.wire.codec import Buffer
from alight.wire.commands import Command, NodeHello, Report
from alight.wire.messages import Hello
from alight.wire.version import WIRE_VERSION, __version__

log = logging.getLogger(__name__)

_PING_EVERY = 10.0
_PING_LIMIT = 30.0
_BACKOFF_FIRST = 0.05
_BACKOFF_MOST = 5.0

encode_report = msgspec.json.encode
_decode_command = msgspec.json.Decoder(Command).decode


@dataclass(frozen=True)
class ServerAddress:
    """Where the server is: a unix socket's path, or host and port with the certificate's fingerprint."""

    path: str = ""
    host: str = ""
    port: int = 0
    fingerprint: str = ""
    token_id: str = ""
    token_secret: str = ""

    @classmethod
    def parse(cls, text: str, *, token_id: str = "", token_secret: str = "") -> ServerAddress:
        """``unix:PATH`` or ``tls:HOST:PORT#FINGERPRINT``. Raises InvalidError."""
        kind, _, rest = text.partition(":")
        if kind == "unix" and rest:
            return cls(path=rest)
        place, _, fingerprint = rest.partition("#")
        host, _, port = place.rpartition(":")
        if kind == "tls" and host and port.isdigit() and fingerprint:
            return cls("", host.strip("[]"), int(port), fingerprint.lower(), token_id, token_secret)
        raise errors.InvalidError(
            f"{text!r} is not the address of a server", hint="write unix:PATH or tls:HOST:PORT#FINGERPRINT"
        )


class Agent(Protocol):
    """Who this session speaks for."""

    def hello(self) -> NodeHello:
        """What the node is and holds, now."""
        ...

    def on_connected(self) -> None:
        """The server knows us: say again what it has not acknowledged."""
        ...

    def on_disconnected(self) -> None:
        """The server is away."""
        ...

    def on_command(self, command: Command, body: bytes) -> None:
        """Do what the server says. Must not block."""
        ...

    def on_inputs(self, inputs: chunk.Inputs, head: bytes, body: bytes) -> None:
        """Hand these to their container; ``head`` is what they were read from. Must not block."""
        ...


class Session:
    """The one connection to the server, made anew for ever."""

    def __init__(self, address: ServerAddress, agent: Agent, on_stream: OnStream) -> None:
        self._address = address
        self._agent = agent
        self._on_stream = on_stream
        self._stream: Stream | None = None
        self._sending = asyncio.Lock()
        self._up = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.server_id = ""

    @property
    def connected(self) -> bool:
        return self._stream is not None

    async def peer(self, patience: float = 30.0) -> Peer:
        """The connection, for streams of one's own. Waits while the server is away; then ConnectionError."""
        if self._stream is None:
            try:
                await asyncio.wait_for(self._up.wait(), patience)
            except asyncio.TimeoutError:
                raise errors.ConnectionError(
                    f"this machine has had no connection to the Alight server for {patience:g} s"
                ) from None
        assert self._stream is not None
        return self._stream.peer

    async def report(self, report: Report, body: Buffer = b"") -> bool:
        """Tell the server; waits while it does not read. False when it is away (it will hear by replay)."""
        return await self.send(encode_report(report), body)

    async def send(self, head: bytes, body: Buffer = b"") -> bool:
        """``report`` for a head that is encoded already."""
        async with self._sending:
            stream = self._stream
            if stream is None:
                return False
            try:
                await stream.send_raw(head, body)
            except errors.Error:
                return False
            return True

    def report_soon(self, report: Report, body: Buffer = b"") -> None:
        """``report`` without waiting: at once when the server takes more, else in turn."""
        if self._stream is None or self.send_soon(encode_report(report), body):
            return
        task = asyncio.get_running_loop().create_task(self._report(report, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def send_soon(self, head: bytes, body: Buffer = b"") -> bool:
        """``send`` at once. False: nothing was sent, because the server takes no more now, or is away."""
        stream = self._stream
        if stream is None or self._sending.locked() or not stream.may_send or stream.broken:
            return False
        stream.peer.connection.send(stream.id, head, body)
        stream.peer.flush_soon()
        return True

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Connect, serve, and connect again, until cancelled. ``on_ready`` is called once, at the first success.

        Raises AuthError when the server does not want this node in the first place.
        """
        delay, said = _BACKOFF_FIRST, ""
        first = True
        while True:
            try:
                peer = await self._dial()
                try:
                    await self._register(peer)
                    delay, said = _BACKOFF_FIRST, ""
                    if first:
                        first = False
                        on_ready()
                    await self._serve(peer)
                finally:
                    self._drop()
                    peer.close()
            except errors.Error as error:
                if first and isinstance(error, errors.AuthError):
                    raise  # asking again gets no other answer
                if str(error) != said:  # the same sentence every few seconds tells nobody anything
                    log.warning("no session with the server: %s", error)
                    said = str(error)
            await asyncio.sleep(delay * random.uniform(0.7, 1.3))
            delay = min(delay * 2, _BACKOFF_MOST)

    async def _report(self, report: Report, body: Buffer) -> None:
        await self.report(report, body)

    async def _dial(self) -> Peer:
        at = self._address
        hello = Hello(WIRE_VERSION, __version__, "node", token_id=at.token_id, token_secret=at.token_secret)
        answers = Answers(on_stream=self._on_stream)
        if at.path:
            return await dial_unix(at.path, hello, answers)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # the fingerprint says who it is, before our token is sent
        context.verify_mode = ssl.CERT_NONE
        return await dial_tcp(at.host, at.port, hello, answers, tls=context, fingerprint=at.fingerprint)

    async def _register(self, peer: Peer) -> None:
        stream = await peer.open("node.session", self._agent.hello())
        await peer.ping(_PING_LIMIT)
        if stream.broken:
            await stream.recv()  # raises what the server refused with
        self.server_id = peer.hello.server_id if peer.hello is not None else ""
        self._stream = stream
        self._up.set()
        log.info("connected to the server")
        self._agent.on_connected()

    async def _serve(self, peer: Peer) -> None:
        stream = self._stream
        assert stream is not None
        heartbeat = asyncio.get_running_loop().create_task(self._heartbeat(peer))
        try:
            stream.listen(self._on_command)
            await stream.recv()
        finally:
            heartbeat.cancel()
        raise errors.ConnectionError("the server ended the session")

    def _on_command(self, head: bytes, body: bytes) -> None:
        kind = "inputs"
        try:
            if chunk.is_chunk(head):
                self._agent.on_inputs(chunk.Inputs.decode(head), head, body)
            else:
                command = _decode_command(head)
                kind = command.kind
                self._agent.on_command(command, body)
        except (msgspec.MsgspecError, errors.InternalError):
            log.exception("a command of the server could not be read")
        except Exception:  # one of the four loops: a fault in one command must not end the session
            log.exception("fault %s in the command %s", os.urandom(4).hex(), kind)

    async def _heartbeat(self, peer: Peer) -> None:
        while True:
            await asyncio.sleep(_PING_EVERY)
            try:
                await peer.ping(_PING_LIMIT)
            except errors.ConnectionError as error:
                log.warning("%s: connecting again", error)
                if peer.transport is not None:
                    peer.transport.abort()
                return

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream = None
            self._up.clear()
            self._agent.on_disconnected()
