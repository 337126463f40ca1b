"""Two peers over a real socket pair: requests, streams, back-pressure, errors, refusals and loss."""

from __future__ import annotations

import asyncio
import socket

import pytest

from alight.link.dial import Answers, dial_unix, serve
from alight.link.peer import Peer, Stream
from alight.link.run import run
from alight.wire import errors
from alight.wire.messages import AppList, AppListed, Hello
from alight.wire.version import WIRE_VERSION

HELLO = Hello(wire=WIRE_VERSION, version="0", role="client")


async def _serve(tmp_path, on_stream, on_hello=None, at_once=None):
    async def greet(_peer: Peer) -> Hello:
        return Hello(wire=WIRE_VERSION, version="0", role="server", server_id="s1")

    path = str(tmp_path / "s.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    server = await serve(listener, Answers(on_stream=on_stream, on_hello=on_hello or greet, at_once=at_once))
    return path, server


def test_a_request_gets_its_answer_and_the_stream_is_forgotten(tmp_path):
    async def main():
        async def answer(_peer: Peer, stream: Stream) -> None:
            assert stream.method == "app.list"
            assert stream.arguments(AppList).limit == 7
            await stream.send(AppListed())

        path, server = await _serve(tmp_path, answer)
        peer = await dial_unix(path, HELLO)
        assert peer.hello is not None
        assert peer.hello.server_id == "s1"
        assert await peer.call("app.list", AppList(limit=7), AppListed) == AppListed()
        await peer.ping(5)
        assert not peer._streams
        peer.close()
        server.close()

    run(main())


def test_a_slow_reader_stops_its_sender_and_not_its_neighbour(tmp_path):
    async def main():
        sent = []

        async def answer(_peer: Peer, stream: Stream) -> None:
            if stream.method == "quick":
                await stream.send({"ok": True})
                return
            for number in range(64):
                await stream.send({"n": number}, b"x" * (1 << 20))
                sent.append(number)

        path, server = await _serve(tmp_path, answer)
        peer = await dial_unix(path, HELLO)
        slow = await peer.open("slow", end=True)
        for _ in range(3):
            quick = await peer.open("quick", end=True)
            assert await quick.recv() is not None
        assert len(sent) <= 10  # the window is 8 MiB
        assert [head async for head, _body in slow][-1] == b'{"n":63}'
        assert len(sent) == 64
        peer.close()
        server.close()

    run(main())


def test_an_error_arrives_as_itself_and_a_fault_without_its_details(tmp_path, caplog):
    async def main():
        async def answer(_peer: Peer, stream: Stream) -> None:
            if stream.method == "missing":
                raise errors.NotFoundError("no volume 'x'", hint="make it")
            raise RuntimeError("a secret detail")

        path, server = await _serve(tmp_path, answer)
        peer = await dial_unix(path, HELLO)
        with pytest.raises(errors.NotFoundError, match="no volume 'x'") as caught:
            await peer.call("missing", {}, dict)
        assert caught.value.hint == "make it"
        with pytest.raises(errors.InternalError) as fault:
            await peer.call("broken", {}, dict)
        assert "secret detail" not in str(fault.value)
        peer.close()
        server.close()

    run(main())
    assert "a secret detail" in caplog.text


def test_a_refused_hello_says_why(tmp_path):
    async def main():
        async def refuse(_peer: Peer) -> Hello:
            raise errors.AuthError("this token is not known here")

        path, server = await _serve(tmp_path, None, refuse)
        with pytest.raises(errors.AuthError, match="not known here"):
            await dial_unix(path, HELLO)
        server.close()

    run(main())


def test_an_old_peer_gets_one_sentence(tmp_path):
    async def main():
        path, server = await _serve(tmp_path, None)
        with pytest.raises(errors.VersionError, match="do not understand each other"):
            await dial_unix(path, Hello(wire=WIRE_VERSION + 5, version="9.9"))
        server.close()

    run(main())


def test_losing_the_connection_ends_every_wait(tmp_path):
    async def main():
        async def hang(peer: Peer, stream: Stream) -> None:
            peer.transport.abort()
            await stream.recv()

        path, server = await _serve(tmp_path, hang)
        peer = await dial_unix(path, HELLO)
        stream = await peer.open("x")
        with pytest.raises(errors.ConnectionError):
            await stream.recv()
        await asyncio.wait_for(peer.wait_closed(), 5)
        server.close()

    run(main())


def test_what_is_served_at_once_never_overtakes_what_was_asked_before(tmp_path):
    async def main():
        begun = []

        async def in_a_task(_peer: Peer, stream: Stream) -> None:
            begun.append(stream.method)
            await stream.send({})

        def at_once(_peer: Peer, stream: Stream) -> bool:
            if stream.method == "slow":
                return False
            begun.append(stream.method)
            stream.send_nowait({})
            stream.finish()
            return True

        path, server = await _serve(tmp_path, in_a_task, at_once=at_once)
        peer = await dial_unix(path, HELLO)
        streams = [await peer.open(method, {}, end=True) for method in ("quick", "slow", "quick2")]
        for stream in streams:
            assert await stream.recv() is not None
            assert await stream.recv() is None
        assert begun == ["quick", "slow", "quick2"]
        assert not peer._streams
        peer.close()
        server.close()

    run(main())


def test_a_listener_that_fails_ends_its_stream_alone(tmp_path):
    async def main():
        async def answer(_peer: Peer, stream: Stream) -> None:
            heard = []

            def listen(head: bytes, _body: bytes) -> None:
                if head == b'"bad"':
                    raise errors.InvalidError("not this one")
                heard.append(head)
                stream.send_nowait(len(heard))

            stream.listen(listen)
            await stream.recv()

        path, server = await _serve(tmp_path, answer)
        peer = await dial_unix(path, HELLO)
        one, other = await peer.open("say"), await peer.open("say")
        await one.send("good")
        assert (await one.recv())[0] == b"1"
        await one.send("bad")
        with pytest.raises(errors.InvalidError, match="not this one"):
            await one.recv()
        await other.send("good")
        assert (await other.recv())[0] == b"1"
        peer.close()
        server.close()

    run(main())
