"""WebSockets of ASGI applications, by the frames that the gateway sees."""

from __future__ import annotations

import struct

import pytest

from alight.wire import web

ASK = web.LAST | web.WEBSOCKET

ECHO = """
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        assert scope["type"] == "websocket", scope
        assert (await receive())["type"] == "websocket.connect"
        if scope["path"] == "/deny":
            return await send({"type": "websocket.close"})
        if scope["path"] == "/explain":
            await send({"type": "websocket.http.response.start", "status": 418, "headers": [(b"x", b"y")]})
            await send({"type": "websocket.http.response.body", "body": b"no ", "more_body": True})
            return await send({"type": "websocket.http.response.body", "body": b"tea"})
        if scope["path"] == "/neither":
            return
        chosen = scope["subprotocols"][-1] if scope["subprotocols"] else None
        await send({"type": "websocket.accept", "subprotocol": chosen, "headers": [(b"a", b"b")]})
        if scope["path"] == "/raise":
            raise ValueError("in a socket")
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                print(message["code"], message["reason"], flush=True)
                return
            if message.get("text") == "bye":
                return await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
            if message.get("text") == "end":
                return
            await send({**message, "type": "websocket.send"})
    def f():
        return app
"""


def opened(gateway, path="/", **headers):
    stream = gateway.request(path=path, flags=ASK, headers=headers)
    frame = gateway.frame(stream)
    assert frame.kind == web.ACCEPT, frame
    return stream, web.unpack(frame.head)[1]


def closed(frame):
    assert frame.kind == web.CLOSE, frame
    return struct.unpack_from("!H", frame.body)[0], frame.body[2:].decode()


def test_messages_go_both_ways_as_texts_and_bytes(serve):
    gateway = serve(ECHO)
    stream, accepted = opened(gateway, **{"sec-websocket-protocol": "one, two"})
    assert accepted == [b"two", b"a", b"b"]
    for flags, body in ((web.TEXT, "größe".encode()), (0, b"\xff\0"), (web.TEXT, b"")):
        gateway.send(web.MESSAGE, stream, bytes((flags,)), body)
        frame = gateway.frame(stream)
        assert (frame.kind, frame.head[0], frame.body) == (web.MESSAGE, flags, body)
    gateway.send(web.MESSAGE, stream, bytes((web.TEXT,)), b"bye")
    assert closed(gateway.frame(stream)) == (4001, "enough")


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_a_client_that_goes_is_heard_of(serve, node, how):
    gateway = serve(ECHO)
    stream, _ = opened(gateway)
    if how == "close":
        gateway.send(web.CLOSE, stream, b"", struct.pack("!H", 1001) + b"away")
        assert closed(gateway.frame(stream))[0] == 1001
    else:
        gateway.send(web.CANCEL, stream)
        assert gateway.frame(stream).kind in {web.CLOSE, web.CANCEL}
    assert node.stop()[1] == ("1001 away\n" if how == "close" else "1006 \n")


def test_an_application_may_deny(serve):
    gateway = serve(ECHO)
    for path, status, text in (("/deny", 403, "the WebSocket was refused\n"), ("/explain", 418, "no tea")):
        answer = gateway.answer(gateway.request(path=path, flags=ASK))
        assert (answer.status, answer.text) == (status, text)


def test_ends_of_user_code_close(serve, node):
    gateway = serve(ECHO)
    stream, _ = opened(gateway)
    gateway.send(web.MESSAGE, stream, bytes((web.TEXT,)), b"end")
    assert closed(gateway.frame(stream))[0] == 1000
    stream, _ = opened(gateway, "/raise")
    assert closed(gateway.frame(stream))[0] == 1011
    assert gateway.answer(gateway.request(path="/neither", flags=ASK)).status == 500
    err = node.stop()[2]
    assert "ValueError: in a socket" in err
    assert "neither accepted nor closed" in err


def test_large_messages_pass_one_at_a_time(serve):
    gateway = serve(ECHO)
    stream, _ = opened(gateway)
    body = b"z" * (web.WINDOW + 100_000)
    for _ in range(3):
        gateway.send(web.MESSAGE, stream, b"\0", body)
        frame = gateway.frame(stream)
        while frame.kind == web.CREDIT:
            frame = gateway.frame(stream)
        assert frame.body == body
        gateway.credit(stream, len(body))
