"""Web functions that are no ASGI application of the user's: WSGI, FastAPI endpoints, servers on a port, methods."""

from __future__ import annotations

import json
import socket
import textwrap

import pytest

from alight.wire import payload, web
from alight.wire.spec import MethodSpec
from tests.unit.runtime.gateway import Gateway
from tests.unit.runtime.templates import Template

WSGI = """
    import threading, time, sys
    from alight import current_input_id
    class Blocks:
        def __init__(self, blocks): self.blocks = blocks
        def __iter__(self): return iter(self.blocks)
        def close(self): print("closed", flush=True)
    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/raise":
            raise ValueError("before")
        if path == "/later":
            def blocks():
                yield b"x"
                raise ValueError("between")
            start_response("200 OK", [])
            return blocks()
        if path == "/large":
            start_response("200 OK", [])
            return Blocks(b"x" * 50_000 for _ in range(100))
        if path == "/write":
            write = start_response("200 OK", [("A", "b")])
            write(b"one ")
            return [b"two"]
        if path == "/count":
            size = sum(len(line) for line in environ["wsgi.input"])
            start_response("200 OK", [])
            return [str(size).encode()]
        if path == "/meet":
            meeting.wait()
        start_response("200 OK", [("Content-Type", "text/plain")])
        names = "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_NAME", "HTTP_X", "CONTENT_TYPE", "HTTP_HOST"
        said = [environ.get(name, "") for name in names] + [current_input_id(), environ["wsgi.input"].read().decode()]
        return ["|".join(said).encode("latin-1")]
    meeting = threading.Barrier(2, timeout=10)
    def f():
        return app
"""


def test_a_wsgi_application_answers_in_one_frame(serve):
    gateway = serve(WSGI, "wsgi_app")
    headers = {"x": "1", "content-type": "text/a", "host": "h", "content_type": "forged"}
    answer = gateway.answer(
        gateway.request("POST", "/a%C3%A9", b"body", root="/_/r", query="q=1", headers=headers, name="rq-9")
    )
    assert answer.frames == ["RESPONSE"]
    assert answer.headers == {"content-type": "text/plain"}
    assert answer.body == "/_/r|/aé|q=1|example.localhost|1|text/a|h|rq-9|body".encode()


def test_wsgi_bodies_flow_both_ways(serve, node):
    gateway = serve(WSGI, "wsgi_app")
    answer = gateway.get("/large")
    assert len(answer.body) == 5_000_000
    stream = gateway.request("POST", "/count", b"a\n", flags=0)
    for last in (0, web.LAST):
        gateway.send(web.BODY, stream, bytes((last,)), b"b\n" * 50_000)
    assert gateway.answer(stream).text == "200002"
    answer = gateway.get("/write")
    assert (answer.text, answer.headers) == ("one two", {"a": "b"})
    # A client that goes while it is written to.
    stream = gateway.request(path="/large")
    gateway.frame(stream)
    gateway.send(web.CANCEL, stream)
    while gateway.frame(stream).kind != web.CANCEL:
        pass
    assert len(gateway.get("/large").body) == 5_000_000
    assert node.stop()[1] == "closed\n" * 3


def test_wsgi_failures(serve, node):
    gateway = serve(WSGI, "wsgi_app")
    answer = gateway.get("/raise", name="rq-x")
    assert (answer.status, answer.text) == (500, "internal error, request rq-x\n")
    assert gateway.get("/later").cancelled
    assert gateway.answer(gateway.request(flags=web.LAST | web.WEBSOCKET)).status == 400
    err = node.stop()[2]
    assert "ValueError: before" in err
    assert "ValueError: between" in err


def test_wsgi_requests_run_beside_each_other_where_the_function_is_concurrent(serve):
    gateway = serve(WSGI, "wsgi_app", autoscaling={"max_concurrent_inputs": 2})
    streams = [gateway.request(path="/meet"), gateway.request(path="/meet")]
    assert [gateway.answer(stream).status for stream in streams] == [200, 200]


def test_flask(serve):
    pytest.importorskip("flask")
    gateway = serve(
        """
        from flask import Flask, request
        def f():
            app = Flask("x")
            @app.post("/form")
            def form(): return {"a": request.form["a"], "root": request.script_root}
            return app
        """,
        "wsgi_app",
    )
    headers = {"content-type": "application/x-www-form-urlencoded", "content-length": "3"}
    answer = gateway.answer(gateway.request("POST", "/form", b"a=b", root="/r", headers=headers))
    assert json.loads(answer.body) == {"a": "b", "root": "/r"}


def test_the_other_kind_of_application_is_named(node):
    ready, _ = node.start(
        """
        class Made:
            def wsgi_app(self): ...
            def __call__(self, environ, start_response): ...
        def f():
            return Made()
        """,
        is_web=True,
        web={"kind": "asgi_app"},
    )
    assert "f() returned a Made, which is for @wsgi_app()" in ready.failure.message


ENDPOINT = """
    import alight
    app = alight.App()
    @app.function()
    @alight.fastapi_endpoint(docs=True)
    def f(x: int, y: str = "why"):
        if x < 0:
            raise ValueError("below")
        return {"x": x, "y": y, "id": alight.current_input_id()}
"""


def test_an_endpoint_is_made_from_a_function(serve, node):
    pytest.importorskip("fastapi")
    gateway = serve(ENDPOINT, said={"kind": "fastapi_endpoint", "method": "GET", "docs": True})
    assert json.loads(gateway.get(query="x=3", name="rq-1").body) == {"x": 3, "y": "why", "id": "rq-1"}
    assert gateway.get(query="x=a").status == 422
    assert gateway.answer(gateway.request("POST", query="x=1")).status == 405
    assert gateway.get("/docs").status == 200
    crossing = gateway.get(query="x=1", headers={"origin": "http://other.example"})
    assert crossing.headers["access-control-allow-origin"] in {"*", "http://other.example"}
    answer = gateway.get(query="x=-1", name="rq-2")
    assert (answer.status, answer.text) == (500, "internal error, request rq-2\n")
    code, _, err = node.stop()
    assert code == 0
    assert "ValueError: below" in err


def test_an_endpoint_takes_bodies_and_other_methods_and_has_no_docs_unless_asked(serve):
    pytest.importorskip("fastapi")
    gateway = serve(
        """
        import pydantic
        class Item(pydantic.BaseModel):
            name: str
        async def f(item: Item):
            return item.name * 2
        """,
        said={"kind": "fastapi_endpoint", "method": "PUT", "docs": False},
    )
    headers = {"content-type": "application/json"}
    answer = gateway.answer(gateway.request("PUT", body=b'{"name": "ab"}', headers=headers))
    assert answer.text == '"abab"'
    assert gateway.get("/docs").status == gateway.get("/openapi.json").status == 404


def test_an_image_without_fastapi_is_told_what_to_add(node):
    (node.directory / "fastapi.py").write_text("raise ModuleNotFoundError('no', name='fastapi')")
    ready, _ = node.start(
        ENDPOINT, is_web=True, web={"kind": "fastapi_endpoint"}, environ={"PYTHONPATH": str(node.directory)}
    )
    assert "needs FastAPI in the function's image" in ready.failure.message
    assert 'pip_install("fastapi[standard]")' in ready.error["hint"]


SERVER = """
    import http.server, threading, time, socket
    def f():
        server = http.server.HTTPServer(("127.0.0.1", {port}), http.server.SimpleHTTPRequestHandler)
        def serve():
            server.serve_forever()
            server.server_close()
        threading.Thread(target=serve, daemon=True).start()
        if {ends}:
            threading.Timer(0.2, server.shutdown).start()
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_a_server_is_waited_for(node):
    port = free_port()
    said = {"kind": "web_server", "port": port, "startup_timeout": 5.0}
    ready, _ = node.start(SERVER.format(port=port, ends=False), is_web=True, web=said)
    assert ready.failure is None
    socket.create_connection(("127.0.0.1", port)).close()
    assert node.stop()[0] == 0


def test_a_server_that_ends_takes_its_container_along(node):
    port = free_port()
    said = {"kind": "web_server", "port": port, "startup_timeout": 5.0}
    ready, _ = node.start(SERVER.format(port=port, ends=True), is_web=True, web=said)
    assert ready.failure is None
    assert node.returned() == []
    code, _, err = node.end()
    assert code == 0
    assert f"nothing listens on port {port} any more: the server that f() started has ended" in err


def test_a_server_that_does_not_listen_is_told_what_does(node):
    port, other = free_port(), free_port()
    said = {"kind": "web_server", "port": port, "startup_timeout": 0.3}
    ready, _ = node.start(SERVER.format(port=other, ends=False), is_web=True, web=said)
    message = ready.failure.message
    assert f"f() was to start a server on port {port} within 0.3 s, and nothing listens on that port" in message
    assert f"127.0.0.1:{other}" in message


def test_a_server_on_the_wrong_address_is_told_so(node):
    port = free_port()
    code = f"""
        import socket
        def f():
            global kept
            kept = socket.create_server(("127.0.0.77", {port}))
    """
    ready, _ = node.start(code, is_web=True, web={"kind": "web_server", "port": port, "startup_timeout": 0.2})
    assert "it listens on 127.0.0.77 only, which cannot be reached: let it bind to 0.0.0.0" in ready.failure.message


CLASS = """
    import alight, time
    app = alight.App()
    @app.cls()
    class C:
        x: str = alight.parameter(default="x")
        @alight.enter()
        async def start(self):
            self.began = "entered"
        @alight.exit()
        def end(self):
            print("left", flush=True)
        @alight.asgi_app()
        def one(self):
            async def app(scope, receive, send):
                if scope["type"] != "lifespan":
                    await send({"type": "http.response.start", "status": 200, "headers": []})
                    await send({"type": "http.response.body", "body": (self.began + self.x).encode()})
            return app
        @alight.wsgi_app()
        def two(self):
            def app(environ, start_response):
                start_response("200 OK", [])
                return [b"two " + self.began.encode()]
            return app
        @alight.method()
        def plain(self, n):
            time.sleep(0.05)
            return n + 1
"""
METHODS = (MethodSpec("one", is_web=True), MethodSpec("two", is_web=True), MethodSpec("plain"))


def test_methods_of_one_class_answer_requests_and_calls(serve, node):
    said = {"one": {"kind": "asgi_app"}, "two": {"kind": "wsgi_app"}}
    gateway = serve(CLASS, said=said, name="C.*", qualname="C", class_name="C", methods=METHODS)
    assert gateway.get(endpoint="one").text == "enteredx"
    node.give_chunk(0, [payload.dumps_bytes(((4,), {}))], method="plain")
    assert gateway.get(endpoint="two").text == "two entered"
    head, body = node.output()
    assert (head.status, payload.loads(body)) == ("success", 5)
    assert gateway.get(endpoint="three").status == 404
    other = Gateway(node.directory)
    assert other.get(endpoint="one").status == 200
    other.close()
    assert node.stop() == (0, "left\n", "")


def test_a_server_class_listens_after_its_hooks(node):
    port = free_port()
    said = {"": {"kind": "web_server", "port": port, "startup_timeout": 5.0}}
    code = f"""
        import alight, http.server, threading
        app = alight.App()
        @app.server(port={port}, unauthenticated=True)
        class S:
            @alight.enter()
            def start(self):
                self.server = http.server.HTTPServer(("", {port}), http.server.SimpleHTTPRequestHandler)
                threading.Thread(target=self.server.serve_forever, daemon=True).start()
            @alight.exit()
            def end(self):
                self.server.shutdown()
                print("ended", flush=True)
    """
    ready, _ = node.start(code, name="S.*", qualname="S", class_name="S", is_web=True, web=said)
    assert ready.failure is None
    socket.create_connection(("127.0.0.1", port)).close()
    code, out, _ = node.stop()
    assert (code, out) == (0, "ended\n")


@pytest.mark.parametrize("level", [1, 2])
def test_web_functions_start_from_templates(tmp_path, level):
    pytest.importorskip("fastapi")
    template = Template(tmp_path)
    try:
        said = {"is_web": True, "web": {"kind": "fastapi_endpoint", "method": "GET"}}
        said["source_path"] = str(tmp_path / "usercode.py")
        ready, _ = template.up(ENDPOINT if level == 2 else "", level=level, **said)
        assert ready.refused == ()
        assert ready.failure is None
        node = template.park().wake(cwd=str(template.directory))
        if level == 1:
            (tmp_path / "usercode.py").write_text(textwrap.dedent(ENDPOINT))
        ready, _ = node.start("", template=level, **template.spec)
        assert ready.failure is None
        gateway = Gateway(node.directory)
        assert json.loads(gateway.get(query="x=1").body)["x"] == 1
        gateway.close()
        if level == 2:
            assert ready.stages["enter"] < 0.5  # FastAPI was imported in the template
    finally:
        template.close()
