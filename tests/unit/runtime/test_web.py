"""Web functions in their container: ASGI applications, their lifespan, disconnects, the end."""

from __future__ import annotations

import json
import signal

import pytest

from alight.wire import web
from alight.wire.codec import Kind, encode_frame
from alight.wire.commands import LinkStop

PLAIN = """
    import asyncio, json
    from alight import current_input_id
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        said = {key: str(value) for key, value in scope.items()}
        said["body"] = body.decode()
        said["input"] = current_input_id()
        await send({"type": "http.response.start", "status": 201, "headers": [(b"X-Kind", b"plain")]})
        await send({"type": "http.response.body", "body": json.dumps(said).encode()})
    def f():
        return app
"""


def test_a_request_reaches_the_application_and_its_answer_comes_in_one_frame(serve):
    gateway = serve(PLAIN)
    answer = gateway.get("/a%20b/c", query="x=1", root="/_/main/app/f", name="rq-seven", headers={"a": "1"})
    assert (answer.status, answer.headers, answer.frames) == (201, {"x-kind": "plain"}, ["RESPONSE"])
    said = json.loads(answer.body)
    assert said["path"] == "/_/main/app/f/a b/c"
    assert said["root_path"] == "/_/main/app/f"
    assert said["raw_path"] == "b'/_/main/app/f/a%20b/c'"
    assert said["query_string"] == "b'x=1'"
    assert said["headers"] == "[(b'a', b'1')]"
    assert said["client"] == "('192.0.2.1', 4711)"
    assert said["server"] == "('example.localhost', 9080)"
    assert (said["scheme"], said["method"], said["http_version"]) == ("http", "GET", "1.1")
    assert said["input"] == "rq-seven"


STREAMS = """
    import asyncio
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/slow":
            await asyncio.sleep(0.05)
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            await receive()
            while (await receive())["type"] != "http.disconnect":
                pass
        elif scope["path"] == "/large":
            for _ in range(40):
                await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
            print("all sent", flush=True)
            await send({"type": "http.response.body"})
        elif scope["path"] == "/one":
            await send({"type": "http.response.body", "body": bytearray(b"y" * 1_000_000)})
        elif scope["path"] == "/count":
            size = 0
            while True:
                message = await receive()
                size += len(message["body"])
                if not message["more_body"]:
                    break
            await send({"type": "http.response.body", "body": str(size).encode()})
    def f():
        return app
"""


def test_the_head_leaves_before_the_body_is_there(serve):
    gateway = serve(STREAMS)
    stream = gateway.request(path="/slow", flags=0)
    head = gateway.frame(stream)
    assert (head.kind, head.head[0], head.body) == (web.RESPONSE, 0, b"")
    first = gateway.frame(stream)
    assert (first.kind, first.body) == (web.BODY, b"one")


def test_an_application_waits_for_a_slow_reader(serve, node):
    gateway = serve(STREAMS)
    stream = gateway.request(path="/large")
    size = 0
    while size < web.WINDOW:
        size += len(gateway.frame(stream).body)
    assert size == web.WINDOW
    # Another request is answered meanwhile, and nothing more of this one comes before it.
    assert gateway.get("/count").text == "0"
    assert not gateway.frames
    gateway.credit(stream, size)
    rest = gateway.answer(stream)
    assert size + len(rest.body) == 4_000_000
    assert node.stop()[1] == "all sent\n"


def test_one_large_piece_is_cut_to_the_window(serve):
    answer = serve(STREAMS).get("/one")
    assert answer.body == b"y" * 1_000_000
    assert len(answer.frames) > 4


def test_bodies_of_requests_are_granted_as_they_are_read(serve):
    gateway = serve(STREAMS)
    stream = gateway.request("POST", "/count", b"x" * 1000, flags=0)
    left, granted = web.WINDOW - 1000, 0
    for number in range(20):
        while left < 65536:
            frame = gateway.frame(stream)
            if frame.kind == web.CREDIT:
                granted += int.from_bytes(frame.body, "big")
                left += int.from_bytes(frame.body, "big")
        gateway.send(web.BODY, stream, bytes((web.LAST if number == 19 else 0,)), b"x" * 65536)
        left -= 65536
    assert gateway.answer(stream).text == str(1000 + 20 * 65536)
    assert granted <= 1000 + 20 * 65536


def test_a_client_that_goes_is_heard_of(serve, node):
    gateway = serve(
        """
        import asyncio
        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                return
            if scope["path"] == "/ping":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body"})
            elif scope["path"] == "/listens":
                await receive()
                print((await receive())["type"], flush=True)
            elif scope["path"] == "/sleeps":
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    print("cancelled", flush=True)
                    raise
            elif scope["path"] == "/sends":
                try:
                    await send({"type": "http.response.start", "status": 200, "headers": []})
                    while True:
                        await send({"type": "http.response.body", "body": b"x" * 10000, "more_body": True})
                except (asyncio.CancelledError, OSError) as error:
                    print("sender", isinstance(error, (OSError, asyncio.CancelledError)), flush=True)
        def f():
            return app
        """
    )
    for path in ("/listens", "/sleeps", "/sends"):
        stream = gateway.request(path=path)
        assert gateway.get("/ping").status == 200  # so that the other has begun
        gateway.send(web.CANCEL, stream)
        while gateway.frame(stream).kind != web.CANCEL:
            pass
    # Before user code began at all.
    stream = gateway.number + 1
    fields = [b"", b"GET", b"http", b"1.1", b"/sleeps", *[b""] * 7]
    both = encode_frame(web.REQUEST, stream, web.pack(web.LAST, fields)) + encode_frame(web.CANCEL, stream)
    gateway.socket.sendall(b"".join(both))
    assert gateway.frame(stream).kind == web.CANCEL
    _, out, err = node.stop()
    assert out == "http.disconnect\ncancelled\nsender True\n"
    assert "Traceback" not in err


def test_a_lost_connection_cancels_what_is_on_it_and_no_more(serve, node):
    gateway = serve(STREAMS)
    gateway.frame(gateway.request(path="/slow"))
    other = serve.connect()
    gateway.close()
    assert other.get("/count").text == "0"
    assert node.stop()[0] == 0


FAILING = """
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        if scope["path"] != "/before":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/after":
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        if scope["path"] == "/header":
            return
        if scope["path"] == "/exit":
            raise SystemExit(3)
        raise ValueError("a fault of user code")
    def f():
        return app
"""


def test_failures_are_a_500_with_the_request_and_a_traceback_in_the_log(serve, node):
    gateway = serve(FAILING)
    for path in ("/before", "/between", "/exit", "/header"):
        answer = gateway.get(path, name="rq-" + path[1:])
        assert (answer.status, answer.text) == (500, f"internal error, request rq-{path[1:]}\n")
    assert gateway.get("/after").cancelled
    _, _, err = node.stop()
    assert err.count("ValueError: a fault of user code") == 3
    assert "SystemExit: 3" in err
    assert "request rq-before (GET /before) failed:" in err
    assert "alight/runtime" not in err


def test_what_no_header_may_contain_never_leaves(serve):
    gateway = serve(
        """
        async def app(scope, receive, send):
            if scope["type"] != "lifespan":
                value = b"a\\r\\nset-cookie: x" if scope["path"] == "/line" else b"a\\0b"
                await send({"type": "http.response.start", "status": 200, "headers": [(b"x", value)]})
                await send({"type": "http.response.body"})
        def f():
            return app
        """
    )
    assert gateway.get("/line").status == 500
    assert gateway.get("/zero").status == 500


LIFESPAN = """
    import contextlib
    from alight import current_input_id
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["ready"] = "yes"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            print("shut down", flush=True)
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["state"]["ready"].encode()})
    def f():
        print("made", flush=True)
        return app
"""


def test_lifespan_surrounds_requests_and_its_state_reaches_them(serve, node):
    gateway = serve(LIFESPAN)
    assert gateway.get().text == gateway.get().text == "yes"
    assert node.stop() == (0, "made\nshut down\n", "")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f(): raise ValueError('no model')", "no model"),
        ("def f(): return None", "f() returned nothing, which is no application"),
        ("def f(): return 3", "f() returned a int"),
        ("async def f(): return 3", "returned a coroutine"),
        (
            """
            async def f_app(scope, receive, send):
                await receive()
                await send({"type": "lifespan.startup.failed", "message": "no database"})
            def f():
                return f_app
            """,
            "f() did not start: no database",
        ),
        (
            """
            async def f_app(scope, receive, send):
                await receive()
                await send({"type": "lifespan.startup.failed", "message": "x"})
                raise KeyError("the database")
            def f():
                return f_app
            """,
            "'the database'",
        ),
    ],
)
def test_an_application_that_cannot_be_made_fails_the_start(node, code, said):
    ready, _ = node.start(code, is_web=True, web={"kind": "asgi_app"})
    assert said in ready.failure.message
    code, _, err = node.end()
    assert code == 1
    assert said in err  # no caller gets it
    assert "alight/runtime" not in err


def test_requests_end_before_the_container_does(serve, node):
    gateway = serve(
        """
        import asyncio
        async def app(scope, receive, send):
            if scope["type"] != "lifespan":
                await receive()
                await asyncio.sleep(0.2)
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"to the end"})
        def f():
            return app
        """
    )
    stream = gateway.request()
    node.send(Kind.LINK_STOP, LinkStop(grace=5.0))
    assert gateway.frame(0).kind == web.GOING
    late = gateway.request()  # it crossed
    assert gateway.answer(stream).text == gateway.answer(late).text == "to the end"
    assert node.returned() == []
    assert node.end() == (0, "", "")


@pytest.mark.parametrize("how", ["told", "signalled"])
def test_requests_that_do_not_end_are_ended_within_the_grace(serve, node, how):
    gateway = serve(
        """
        import asyncio
        async def app(scope, receive, send):
            if scope["type"] != "lifespan":
                await asyncio.sleep(1000)
        def f():
            return app
        """
    )
    stream = gateway.request(name="rq-long")
    node.send(Kind.LINK_STOP, LinkStop(grace=0.4))
    assert gateway.frame(0).kind == web.GOING
    if how == "signalled":
        node.process.send_signal(signal.SIGTERM)
    answer = gateway.answer(stream)
    assert (answer.status, answer.text) == (503, "the container of request rq-long ends\n")
    code, _, err = node.end()
    assert code in {0, 143}
    assert "1 requests did not end within" in err
