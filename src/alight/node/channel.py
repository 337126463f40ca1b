"""The two sockets of a container: the runtime's link, and the SDK's way to the server.

Who speaks is decided by the kernel (SO_PEERCRED and the container's cgroup), never by what is said. The link is taken
once, by a process of this container, before any user code runs, and again only by that same process. On the SDK's
socket every stream is stamped with the container's id here, whatever came in; the server authorises by it.
Bodies pass through unread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from alight.link.dial import Answers, serve
from alight.link.peer import Peer, Stream
from alight.link.turn import turn_of
from alight.node.session import Session
from alight.wire import chunk, errors
from alight.wire.codec import Buffer, Frame, FrameReader, Kind, encode_frame
from alight.wire.commands import LinkHello, LinkReady, LinkReturned, LinkStop, Output, Run
from alight.wire.messages import Hello
from alight.wire.version import WIRE_VERSION, __version__, check_peer

log = logging.getLogger(__name__)

LINK = "link.sock"
SDK = "sdk.sock"
_CREDENTIALS = struct.Struct("3i")
_MOST_STREAMS = 4096
_MOST_EARLY = 256 << 20  # what a runtime may send again before it is admitted: all that was not acknowledged
_ACKS_WAIT = 0.02

_encode = msgspec.json.encode
_decode_hello = msgspec.json.Decoder(LinkHello).decode
_decode_ready = msgspec.json.Decoder(LinkReady).decode
_decode_output = msgspec.json.Decoder(Output).decode
_decode_returned = msgspec.json.Decoder(LinkReturned).decode
_decode_stop = msgspec.json.Decoder(LinkStop).decode

Inside = Callable[[], Awaitable[set[int]]]


class LinkOwner(Protocol):
    """The container on whose behalf a link is served."""

    id: str

    def may_link(self, pid: int) -> bool:
        """Whether this process, which is in the container, may have the link."""
        ...

    def on_link(self, link: RuntimeLink, hello: LinkHello) -> None: ...

    def on_link_ready(self, ready: LinkReady, body: bytes) -> None: ...

    def on_link_values(self, values: chunk.Outputs, head: bytes, body: bytes) -> None: ...

    def on_link_output(self, output: Output, body: bytes) -> None: ...

    def on_link_waiting(self, count: int) -> None: ...

    def on_link_returned(self, runs: tuple[Run, ...]) -> None: ...

    def on_link_lost(self, link: RuntimeLink) -> None: ...


def listen(folder: Path, name: str, mode: int) -> socket.socket:
    """A listening socket ``name`` in ``folder``, however long that path is. An old one is replaced."""
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=at)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            # A unix address holds 107 characters; the descriptor's path is short.
            listener.bind(f"/proc/self/fd/{at}/{name}")
            os.chmod(f"/proc/self/fd/{at}/{name}", mode)
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
        return listener
    finally:
        os.close(at)


class RuntimeLink(asyncio.Protocol):
    """One connection at link.sock: bare frames of stream 0."""

    def __init__(self, owner: LinkOwner, inside: Inside, pid: Callable[[], Awaitable[int]] | None = None) -> None:
        """``pid`` says who is at the other end, where the kernel cannot: of a connection that we made ourselves."""
        self._owner = owner
        self._inside = inside
        self._other_pid = pid
        self._reader = FrameReader()
        self._held: list[Frame] = []
        self._early = 0  # bytes of them
        self._acked: list[int] = []
        self._turn = turn_of(asyncio.get_running_loop())
        self._admitted = False
        self._greeted = False
        self._task: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None
        self.pid = 0

    def send(self, kind: int, message: Any = None, body: Buffer = b"") -> None:
        """One frame to the runtime."""
        self.send_raw(kind, b"" if message is None else _encode(message), body)

    def send_raw(self, kind: int, head: bytes, body: Buffer = b"") -> None:
        """``send`` for a head that is encoded already. Bodies are bounded by what the server gives at once."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return  # it is gone; what it has not answered is known and decided elsewhere
        pieces = encode_frame(kind, 0, head, body)
        if self._acked:
            pieces = [*self._acks(), *pieces]
        if len(pieces) == 1:
            transport.write(pieces[0])
        else:
            transport.writelines(pieces)

    def acknowledge(self, serial: int) -> None:
        """The runtime may forget a frame. Leaves with the next one or a little later: nobody waits for it, and a
        write of its own would wake the runtime in the middle of user code."""
        if not self._acked:
            asyncio.get_running_loop().call_later(_ACKS_WAIT, self.flush)
        self._acked.append(serial)

    def flush(self) -> None:
        """Send what waits for company."""
        if self._acked and self.transport is not None and not self.transport.is_closing():
            self.transport.writelines(self._acks())
        self._acked.clear()

    def _acks(self) -> list[Buffer]:
        serials, self._acked = self._acked, []
        return encode_frame(Kind.LINK_ACK, 0, b"", chunk.pack_serials(serials))

    def close(self) -> None:
        self.flush()
        if self.transport is not None:
            self.transport.close()

    def abandon(self) -> None:
        """Nobody is at the other end, nor will be."""
        if self._task is not None:
            self._task.cancel()
        if self.transport is not None and not self._admitted:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's by class
        if self._other_pid is None:
            sock = transport.get_extra_info("socket")
            said = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            self.pid, _, _ = _CREDENTIALS.unpack(said)
        self._task = asyncio.get_running_loop().create_task(self._admit())

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._reader.feed(data)
        except errors.InternalError as error:
            self._refuse(str(error))
            return
        if not self._admitted:
            self._held += frames
            self._early += len(data)
            if self._early > _MOST_EARLY:
                self._refuse("it speaks before it was admitted")
            return
        begun = self._turn.begin()
        try:
            for frame in frames:
                self._on_frame(frame)
        finally:
            if begun:
                self._turn.end()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._task is not None:
            self._task.cancel()
        if self._greeted:
            self._owner.on_link_lost(self)

    async def _admit(self) -> None:
        try:
            if self._other_pid is not None:
                self.pid = await self._other_pid()
                admitted = self._owner.may_link(self.pid)
            else:
                admitted = self.pid in await self._inside() and self._owner.may_link(self.pid)
        except errors.Error as error:
            self._refuse(str(error))
            return
        if not admitted:
            self._refuse(f"process {self.pid} is not this container's runtime")
            return
        self._admitted = True
        held, self._held = self._held, []
        for frame in held:
            self._on_frame(frame)

    def _on_frame(self, frame: Frame) -> None:
        kind, owner = frame.kind, self._owner
        try:
            if kind == Kind.LINK_OUTPUT and self._greeted:
                if chunk.is_chunk(frame.head):
                    owner.on_link_values(_decode_values(frame.head), frame.head, frame.body)
                else:
                    owner.on_link_output(_decode_output(frame.head), frame.body)
            elif kind == Kind.LINK_WAITING and self._greeted:
                owner.on_link_waiting(_decode_stop(frame.head or b"{}").count)
            elif kind == Kind.LINK_RETURNED and self._greeted:
                owner.on_link_returned(_decode_returned(frame.head or b"{}").runs)
            elif kind == Kind.LINK_READY and self._greeted:
                owner.on_link_ready(_decode_ready(frame.head or b"{}"), frame.body)
            elif kind == Kind.HELLO and not self._greeted:
                hello = _decode_hello(frame.head)
                check_peer(hello.wire, hello.version, "container")
                self._greeted = True
                owner.on_link(self, hello)
        except (msgspec.MsgspecError, errors.Error, UnicodeDecodeError) as error:
            self._refuse(str(error))

    def _refuse(self, why: str) -> None:
        log.warning("container %s: its link was refused: %s", self._owner.id, why)
        if self.transport is not None:
            self.transport.abort()


def _decode_values(head: bytes) -> chunk.Outputs:
    values = chunk.Outputs.decode(head)
    if not 0 < len(values.sizes) <= chunk.MOST:
        raise errors.InternalError(f"a chunk of {len(values.sizes)} outputs")
    return values


async def serve_link(folder: Path, owner: LinkOwner, inside: Inside) -> asyncio.AbstractServer:
    """Wait for the runtime at ``folder``/link.sock."""
    listener = listen(folder, LINK, 0o600)
    loop = asyncio.get_running_loop()
    return await loop.create_unix_server(lambda: RuntimeLink(owner, inside), sock=listener)


async def given_link(
    ours: socket.socket, owner: LinkOwner, inside: Inside, pid: Callable[[], Awaitable[int]]
) -> RuntimeLink:
    """The link at our end of a pair of sockets whose other end the runtime ``pid`` gets."""
    ours.setblocking(False)
    _, link = await asyncio.get_running_loop().connect_accepted_socket(lambda: RuntimeLink(owner, inside, pid), ours)
    return link


async def serve_sdk(folder: Path, container_id: str, inside: Inside, session: Session) -> SdkSocket:
    """Let the container's processes speak to the server at ``folder``/sdk.sock."""
    sdk = SdkSocket(container_id, inside, session)
    listener = listen(folder, SDK, 0o666)  # users other than root inside may call functions, too
    sdk.server = await serve(listener, Answers(on_stream=sdk.on_stream, on_hello=sdk.on_hello, on_close=sdk.on_close))
    return sdk


class SdkSocket:
    """The SDK's socket of one container, and the streams that run through it."""

    def __init__(self, container_id: str, inside: Inside, session: Session) -> None:
        self._id = container_id
        self._inside = inside
        self._session = session
        self._peers: set[Peer] = set()
        self._streams = 0
        self.server: asyncio.AbstractServer | None = None

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
        for peer in list(self._peers):
            peer.close()

    async def on_hello(self, peer: Peer) -> Hello:
        if peer.pid not in await self._inside():
            raise errors.AuthError("only processes of this container may speak here")
        self._peers.add(peer)
        return Hello(WIRE_VERSION, __version__, "server", server_id=self._session.server_id)

    def on_close(self, peer: Peer) -> None:
        self._peers.discard(peer)

    async def on_stream(self, _peer: Peer, stream: Stream) -> None:
        if self._streams >= _MOST_STREAMS:
            raise errors.ResourceExhaustedError(
                f"this container has {_MOST_STREAMS} requests under way", hint="wait for some of them first"
            )
        self._streams += 1
        try:
            await relay(stream, self._session, self._id)
        finally:
            self._streams -= 1


async def relay(stream: Stream, session: Session, container_id: str) -> None:
    """Carry one stream to the server and back until both halves are over, each at the pace of its reader.

    Raises the server's error, for the stream to end with.
    """
    peer = await session.peer()
    # What the container said about who it is went no further than here.
    upstream = await peer.open(stream.method, stream.args, stream.opened_body, container=container_id)
    up = asyncio.get_running_loop().create_task(_carry_up(stream, upstream))
    try:
        while (message := await upstream.recv()) is not None:
            await stream.send_raw(*message)
        await stream.end()
    except BaseException:
        if not upstream.broken:
            await upstream.fail(errors.ClientClosed("the container's process let go of this request"))
        raise
    finally:
        # The server has answered in full: what the container still says is of no use to anybody.
        up.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await up
        await upstream.end()


async def _carry_up(stream: Stream, upstream: Stream) -> None:
    try:
        while (message := await stream.recv()) is not None:
            await upstream.send_raw(*message)
        await upstream.end()
    except errors.Error:
        if stream.broken and not upstream.broken:
            await upstream.fail(errors.ClientClosed("the container's process let go of this request"))
            upstream.on_error(errors.ClientClosed("the container's process let go of this request"))
