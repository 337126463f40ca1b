"""Protects what Starlette's documentation shows, through the gateway and with real clients of HTTP and WebSockets."""

from __future__ import annotations

import asyncio
import time

import pytest

httpx = pytest.importorskip("httpx")
websockets = pytest.importorskip("websockets")

APP = """
import contextlib
import os
import pathlib

import alight

image = alight.Image.debian_slim(python_version="3.11").pip_install("starlette", "itsdangerous", "python-multipart")
app = alight.App("starlette-page", image=image)


@app.function(max_containers=1)
@alight.concurrent(max_inputs=100)
@alight.asgi_app()
def page():
    import asyncio

    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.middleware.sessions import SessionMiddleware
    from starlette.responses import (
        FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse,
    )
    from starlette.routing import Host, Mount, Route, WebSocketRoute
    from starlette.staticfiles import StaticFiles

    folder = pathlib.Path("/tmp/static")
    folder.mkdir(exist_ok=True)
    (folder / "index.html").write_text("<h1>static</h1>")
    (folder / "large.bin").write_bytes(bytes(range(256)) * 4096)
    done = []

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield {"began": "by lifespan"}

    async def home(request):
        return JSONResponse({
            "state": request.state.began,
            "url": str(request.url_for("user", username="ada")),
            "query": dict(request.query_params),
            "client": request.client is not None,
        })

    async def user(request):
        return PlainTextResponse(f"{request.path_params['username']} {request.method}")

    async def add(request):
        return PlainTextResponse(str(request.path_params["a"] + request.path_params["b"]))

    async def form(request):
        async with request.form() as sent:
            file = sent["file"]
            return JSONResponse({"name": sent["name"], "file": file.filename, "size": len(await file.read())})

    async def visits(request):
        request.session["visits"] = request.session.get("visits", 0) + 1
        return PlainTextResponse(str(request.session["visits"]))

    async def drip():
        for number in range(3):
            yield f"data: {number}\\n\\n"
            await asyncio.sleep(0.3)

    async def stream(request):
        return StreamingResponse(drip(), media_type="text/event-stream")

    async def upload(request):
        size = 0
        async for piece in request.stream():
            size += len(piece)
        return PlainTextResponse(str(size))

    async def later(text):
        await asyncio.sleep(0.2)
        done.append(text)

    async def background(request):
        return PlainTextResponse("accepted", background=BackgroundTask(later, request.query_params["text"]))

    async def finished(request):
        return JSONResponse(done)

    async def file(request):
        return FileResponse(folder / "large.bin", filename="large.bin")

    async def elsewhere(request):
        return RedirectResponse(request.url_for("user", username="bob"))

    async def teapot(request):
        raise HTTPException(418, detail="a teapot")

    async def boom(request):
        raise RuntimeError("boom")

    async def not_found(request, error):
        return HTMLResponse("<p>nothing here</p>", status_code=404)

    class Thing(HTTPEndpoint):
        async def get(self, request):
            return PlainTextResponse("got")

        async def delete(self, request):
            return PlainTextResponse("deleted")

    class Echo(WebSocketEndpoint):
        encoding = "json"

        async def on_receive(self, websocket, data):
            await websocket.send_json({"echo": data, "room": websocket.path_params["room"]})

    async def chooser(websocket):
        await websocket.accept(subprotocol="chat" if "chat" in websocket.scope["subprotocols"] else None)
        async for data in websocket.iter_bytes():
            await websocket.send_bytes(data[::-1])

    async def refused(websocket):
        await websocket.close(4003, "not you")

    return Starlette(
        lifespan=lifespan,
        exception_handlers={404: not_found},
        middleware=[
            Middleware(SessionMiddleware, secret_key="for a test"),
            Middleware(GZipMiddleware, minimum_size=500),
            Middleware(CORSMiddleware, allow_origins=["https://elsewhere.example"]),
        ],
        routes=[
            Route("/", home),
            Route("/user/{username}", user, name="user", methods=["GET", "PUT"]),
            Route("/add/{a:int}/{b:float}", add),
            Route("/form", form, methods=["POST"]),
            Route("/visits", visits),
            Route("/stream", stream),
            Route("/upload", upload, methods=["POST"]),
            Route("/background", background),
            Route("/finished", finished),
            Route("/file", file),
            Route("/elsewhere", elsewhere),
            Route("/teapot", teapot),
            Route("/boom", boom),
            Route("/thing", Thing),
            WebSocketRoute("/ws/refused", refused),
            WebSocketRoute("/ws/bytes", chooser),
            WebSocketRoute("/ws/{room}", Echo),
            Mount("/static", StaticFiles(directory=folder, html=True)),
            Mount("/inner", Starlette(routes=[Route("/{rest:path}", lambda r: PlainTextResponse(
                f"{r.scope['root_path']} {r.path_params['rest']}"))])),
        ],
    )
"""


@pytest.fixture(scope="module")
def url(machine, tmp_path_factory):
    script = tmp_path_factory.mktemp("starlette") / "starlette_page.py"
    script.write_text(APP)
    machine.run("deploy", script)
    [function] = machine.json("app", "info", "starlette-page")["functions"]
    yield function["web"][0]["path_url"]  # needs no resolver; and the application hears of a root path
    machine.run("app", "stop", "starlette-page", "--yes", status=None)


@pytest.fixture
def client(url):
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


pytestmark = pytest.mark.slow


def test_routes_and_what_requests_say(client, url):
    said = client.get("/", params={"a": "1 2"}).json()
    assert said == {"state": "by lifespan", "url": f"{url}/user/ada", "query": {"a": "1 2"}, "client": True}
    assert client.get("/user/ada").text == "ada GET"
    assert client.put("/user/ada").text == "ada PUT"
    assert client.post("/user/ada").status_code == 405
    assert client.get("/add/1/2.5").text == "3.5"
    assert (client.get("/thing").text, client.delete("/thing").text) == ("got", "deleted")
    assert client.head("/user/ada").status_code == 200
    assert client.get("/inner/deep/er").text.endswith("/inner deep/er")
    assert client.get("/elsewhere", follow_redirects=True).text == "bob GET"


def test_errors(client):
    assert (client.get("/teapot").status_code, client.get("/teapot").text) == (418, "a teapot")
    assert (client.get("/none").status_code, client.get("/none").text) == (404, "<p>nothing here</p>")
    assert client.get("/boom").status_code == 500
    assert "boom" not in client.get("/boom").text, "tracebacks are for the log"


def test_forms_uploads_and_sessions(client):
    files = {"file": ("a.bin", b"x" * 3_000_000)}
    assert client.post("/form", data={"name": "Ada"}, files=files).json() == {
        "name": "Ada", "file": "a.bin", "size": 3_000_000
    }  # fmt: skip
    assert client.post("/upload", content=(b"x" * 65536 for _ in range(160))).text == str(160 * 65536)
    assert [client.get("/visits").text for _ in range(3)] == ["1", "2", "3"]
    with httpx.Client(base_url=client.base_url) as another:
        assert another.get("/visits").text == "1"


def test_static_files_ranges_and_what_is_fresh(client):
    first = client.get("/static/")
    assert first.text == "<h1>static</h1>"
    assert client.get("/static/", headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    part = client.get("/file", headers={"Range": "bytes=256-511"})
    assert (part.status_code, part.content) == (206, bytes(range(256)))
    whole = client.get("/static/large.bin", headers={"Accept-Encoding": "gzip"})
    assert (whole.headers["content-encoding"], len(whole.content)) == ("gzip", 1 << 20)
    allowed = client.get("/", headers={"Origin": "https://elsewhere.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://elsewhere.example"


def test_streams_come_as_they_are_made_and_tasks_go_on_behind_the_answer(client):
    with client.stream("GET", "/stream") as answer:
        pieces = answer.iter_text()
        first, began = next(pieces), time.monotonic()
        rest = "".join(pieces)
        assert time.monotonic() - began > 0.3, "the rest was not there yet"
    assert first + rest == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert client.get("/background", params={"text": "done"}).text == "accepted"
    until = time.monotonic() + 20
    while client.get("/finished").json() != ["done"]:
        assert time.monotonic() < until


def test_websockets(url):
    place = url.replace("http://", "ws://")

    async def talk():
        async with websockets.connect(f"{place}/ws/red") as socket:
            await socket.send('{"a": 1}')
            assert await socket.recv() == '{"echo":{"a":1},"room":"red"}'
        async with websockets.connect(f"{place}/ws/bytes", subprotocols=["other", "chat"], max_size=None) as socket:
            assert socket.subprotocol == "chat"
            await socket.send(bytes(range(256)) * 8192)
            assert await socket.recv() == (bytes(range(256)) * 8192)[::-1]
        with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
            async with websockets.connect(f"{place}/ws/refused"):
                pass
        assert caught.value.response.status_code == 403

    asyncio.run(talk())
