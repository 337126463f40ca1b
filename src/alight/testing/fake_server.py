"""A server that is not there: enough of one to talk to a node. Keeps all in memory, decides nothing, is called fake."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from alight.link.dial import Answers, serve
from alight.link.peer import Peer, Stream
from alight.wire import chunk, errors
from alight.wire.commands import Command, NodeHello, Output, Report, Run, StartContainer
from alight.wire.messages import BlobGet, BlobPut, Hello
from alight.wire.spec import digest_of
from alight.wire.version import WIRE_VERSION, __version__


class FakeServer:
    """One node's other side. ``reports`` is all that it said in words, ``values`` what it sent as chunks, ``told`` both
    by kind in the order in which they came; ``acknowledge`` decides whether it is answered."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hellos: list[NodeHello] = []
        self.reports: list[tuple[Report, bytes]] = []
        self.values: list[tuple[chunk.Outputs, bytes]] = []
        self.told: list[str] = []
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, dict[str, Any], str]] = []
        self.logs: dict[str, bytes] = {}
        self.acknowledge = True
        self._stream: Stream | None = None
        self._peers: list[Peer] = []
        self._server: asyncio.AbstractServer | None = None
        self._news = asyncio.Condition()

    async def open(self) -> None:
        """Listen. May be called again after ``close``, as a server that comes back."""
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.path))
        self._server = await serve(listener, Answers(on_stream=self._on_stream, on_hello=self._on_hello))

    async def close(self) -> None:
        """Go away without a word, as a killed server does."""
        if self._server is not None:
            self._server.close()
        for peer in self._peers:
            if peer.transport is not None:
                peer.transport.abort()
        self._peers.clear()
        self._stream = None
        await asyncio.sleep(0)

    @property
    def peer(self) -> Peer:
        """The node's connection, for node.build and node.volume."""
        assert self._stream is not None
        return self._stream.peer

    async def say(self, command: Command, body: bytes = b"") -> None:
        """One command to the node."""
        stream = await self.wait_session()
        await stream.send(command, body)

    async def start(self, start: StartContainer) -> None:
        await self.say(Command("start", start=start))

    async def give(self, inputs: chunk.Inputs, body: bytes) -> None:
        """Inputs to the container that they name."""
        stream = await self.wait_session()
        await stream.send_raw(inputs.encode(), body)

    def keep(self, content: bytes) -> str:
        """Put content among the blobs; its digest."""
        digest = digest_of(content)
        self.blobs[digest] = content
        return digest

    async def wait_session(self, seconds: float = 10.0) -> Stream:
        await self._wait(lambda: self._stream is not None, seconds, "the node did not come")
        assert self._stream is not None
        return self._stream

    async def wait_report(self, kind: str, container: str = "", seconds: float = 10.0) -> tuple[Report, bytes]:
        """The first report of that kind (of that container)."""

        def found() -> tuple[Report, bytes] | None:
            return next(
                (one for one in self.reports if one[0].kind == kind and container in ("", one[0].container)), None
            )

        await self._wait(lambda: found() is not None, seconds, f"the node did not report {kind}")
        result = found()
        assert result is not None
        return result

    async def wait_value(self, call_id: str, position: int = 0, seconds: float = 10.0) -> bytes:
        """What an input returned: the payload, or the reference to it. Fails when it ended otherwise."""

        def found() -> bytes | None:
            for values, body in self.values:
                if values.call_id == call_id and not values.is_items and position in values.positions:
                    return bytes(chunk.cut(values.sizes, body)[list(values.positions).index(position)])
            return None

        def done() -> bool:
            return found() is not None or self._output(call_id, position) is not None

        await self._wait(done, seconds, f"no value of {call_id}")
        result = found()
        assert result is not None, self._output(call_id, position)
        return result

    async def wait_output(self, call_id: str, position: int = 0, seconds: float = 10.0) -> tuple[Output, bytes]:
        """How an input ended that returned no value."""
        await self._wait(lambda: self._output(call_id, position) is not None, seconds, f"no output of {call_id}")
        result = self._output(call_id, position)
        assert result is not None
        return result

    def _output(self, call_id: str, position: int) -> tuple[Output, bytes] | None:
        for report, body in self.reports:
            output = report.output
            if output is not None and (output.call_id, output.position) == (call_id, position):
                return output, body
        return None

    async def _wait(self, done: Callable[[], bool], seconds: float, problem: str) -> None:
        async with self._news:
            try:
                await asyncio.wait_for(self._news.wait_for(done), seconds)
            except asyncio.TimeoutError:
                said = [(report.kind, report.text, report.error) for report, _ in self.reports]
                raise AssertionError(f"{problem} within {seconds:g} s; it said {said}") from None

    async def _on_hello(self, peer: Peer) -> Hello:
        self._peers.append(peer)
        return Hello(WIRE_VERSION, __version__, "server", server_id="fake")

    async def _on_stream(self, _peer: Peer, stream: Stream) -> None:
        if stream.method == "node.session":
            await self._session(stream)
            return
        self.requests.append((stream.method, stream.args, stream.container))
        if stream.method == "blob.get":
            digest = stream.arguments(BlobGet).digest
            content = self.blobs.get(digest)
            if content is None:
                raise errors.NotFoundError(f"the fake server has no blob {digest[:12]}")
            for start in range(0, len(content), 1 << 20):
                await stream.send(None, content[start : start + (1 << 20)])
        elif stream.method == "blob.put":
            content = b"".join([body async for _, body in stream])
            await stream.send(BlobPut(self.keep(content), len(content)))
        elif stream.method == "fake.echo":
            await stream.send({"you": stream.container}, stream.opened_body)
            async for head, body in stream:
                await stream.send_raw(head, body)
        else:
            raise errors.UnimplementedError(f"the fake server does not know {stream.method}")

    async def _session(self, stream: Stream) -> None:
        self.hellos.append(stream.arguments(NodeHello))
        async with self._news:
            self._stream = stream
            self._news.notify_all()
        async for head, body in stream:
            if chunk.is_chunk(head):
                values = chunk.Outputs.decode(head)
                self.values.append((values, body))
                self.told.append("values")
                if self.acknowledge:
                    await stream.send(Command("ack", values.container, serials=(values.serial,)))
            else:
                await self._reported(stream, msgspec.json.decode(head, type=Report), body)
            async with self._news:
                self._news.notify_all()

    async def _reported(self, stream: Stream, report: Report, body: bytes) -> None:
        self.reports.append((report, body))
        self.told.append(report.kind)
        if report.kind == "log":
            kept = self.logs.get(report.container, b"")
            if report.offset <= len(kept):
                self.logs[report.container] = kept[: report.offset] + body
        if self.acknowledge:
            await self._acknowledge(stream, report)

    async def _acknowledge(self, stream: Stream, report: Report) -> None:
        container, output = report.container, report.output
        if output is not None and output.serial:
            await stream.send(Command("ack", container, serials=(output.serial,)))
        elif output is not None:
            run = Run(output.call_id, output.position, output.position + 1, output.attempt)
            await stream.send(Command("ack", container, answered=(run,)))
        elif report.kind == "log":
            await stream.send(Command("ack", container, offset=len(self.logs[container])))
        elif report.kind == "ended":
            await stream.send(Command("ack", container, ended=True))


def random_content(size: int) -> bytes:
    """Bytes that nothing compresses or guesses."""
    seed = os.urandom(32)
    blocks = (hashlib.sha256(seed + number.to_bytes(4, "big")).digest() for number in range(size // 32 + 1))
    return b"".join(blocks)[:size]
