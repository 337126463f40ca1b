"""Protects web functions as the world meets them: real clients, on every kind of function, by every form of its URL."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import textwrap
import threading
import time
import urllib.request
from pathlib import Path

import httpx
import openai
import pytest
from websockets.sync.client import connect

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SITE = '''
import alight

image = alight.Image.debian_slim(python_version="3.11").pip_install("fastapi", "python-multipart", "flask", "starlette")
app = alight.App("site", image=image)


@app.function()
@alight.fastapi_endpoint()
def greet(name: str = "you"):
    return {"hello": name}


@app.function()
@alight.fastapi_endpoint(method="POST", label="posted")
def post(item: dict):
    return item


@app.function()
@alight.fastapi_endpoint(requires_proxy_auth=True)
def locked():
    return "open"


@app.cls()
class Model:
    @alight.enter()
    def load(self):
        self.weights = 42

    @alight.fastapi_endpoint()
    def predict(self, x: int):
        return self.weights + x

    @alight.method()
    def plain(self):
        return self.weights


@app.function()
@alight.concurrent(max_inputs=50)
@alight.asgi_app()
def pages():
    import asyncio
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, StreamingResponse
    from starlette.routing import Route, WebSocketRoute

    async def head(request):
        return JSONResponse({
            "path": request.url.path, "root": request.scope.get("root_path", ""), "method": request.method,
            "url": str(request.url_for("head", path="x")), "headers": dict(request.headers),
            "client": request.client.host,
        })

    async def upload(request):
        size = 0
        async for piece in request.stream():
            size += len(piece)
        return JSONResponse({"size": size})

    async def count(request):
        async def lines():
            for number in range(3):
                yield f"data: {number}\\n\\n"
                await asyncio.sleep(0.5)
        return StreamingResponse(lines(), media_type="text/event-stream")

    async def fail(request):
        raise ValueError("on purpose")

    async def echo(socket):
        await socket.accept()
        async for message in socket.iter_text():
            await socket.send_text(message.upper())

    return Starlette(routes=[
        Route("/upload", upload, methods=["POST"]), Route("/count", count), Route("/fail", fail),
        WebSocketRoute("/echo", echo),
        Route("/{path:path}", head, name="head", methods=["GET", "POST", "PUT", "DELETE"]),
    ])


@app.function()
@alight.wsgi_app()
def flask():
    from flask import Flask, request, session

    site = Flask(__name__)
    site.secret_key = "x"

    @site.route("/", methods=["GET", "POST"])
    def home():
        session["seen"] = session.get("seen", 0) + 1
        return f"{request.form.get('what', '')} {session['seen']} {request.script_root}"

    return site


@app.function()
def inside():
    """What the Gemma script does: a function calls its neighbours by their URLs, from within its container."""
    import json, urllib.request

    def ask(url, query):
        return json.load(urllib.request.urlopen(url + query))

    found = alight.Function.from_name("site", "greet").get_web_url()
    urls = [greet.get_web_url(), found, Model().predict.get_web_url()]
    return urls, [ask(urls[0], "?name=in"), ask(urls[1], "?name=by"), ask(urls[2], "?x=1")], inside.get_web_url()
'''


class Site:
    """The deployed app, and where it answers."""

    def __init__(self, machine, folder: Path) -> None:
        self.machine, self.folder = machine, folder
        (folder / "web_site.py").write_text(SITE)
        self.printed = machine.run("deploy", folder / "web_site.py").stdout
        self.port = re.search(r"http://site-greet\.localhost:(\d+)$", self.printed, re.MULTILINE).group(1)

    def url(self, label: str, path: str = "") -> str:
        return f"http://{label}.localhost:{self.port}{path}"

    def path(self, function: str, path: str = "") -> str:
        return f"http://localhost:{self.port}/_/main/site/{function}{path}"

    def python(self, body: str, **how):
        script = self.folder / "program.py"
        script.write_text("import alight, json\n" + textwrap.dedent(body))
        return self.machine.python(script, **how)


@pytest.fixture(scope="module")
def site(machine, tmp_path_factory):
    made = Site(machine, tmp_path_factory.mktemp("site"))
    yield made
    machine.run("app", "stop", "site", "--yes", status=None)


@pytest.fixture
def client(monkeypatch):
    ask = socket.getaddrinfo

    def resolved(host, *more, **named):
        # *.localhost is this machine by definition; browsers and curl know, not every resolver does.
        name = host.decode() if isinstance(host, bytes) else host
        return ask("127.0.0.1" if str(name).endswith(".localhost") else host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with httpx.Client(timeout=60) as made:
        yield made


def curl(*words: str) -> str:
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "60", *words], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_deploy_prints_every_url_and_each_of_them_answers(site):
    assert f"greet => http://site-greet.localhost:{site.port}" in site.printed
    assert f"http://localhost:{site.port}/_/main/site/greet" in site.printed
    assert f"Model.predict => http://site-model-predict.localhost:{site.port}" in site.printed
    assert re.search(r"locked => http://site-locked\.localhost:\d+  \(needs a token\)", site.printed)
    assert f"post => http://posted.localhost:{site.port}" in site.printed
    assert 'from_name("site", "inside")' in site.printed  # what can be called, and no web function
    assert json.loads(curl(site.url("site-greet", "/?name=curl"))) == {"hello": "curl"}
    assert json.loads(curl(site.path("greet", "?name=path"))) == {"hello": "path"}
    assert json.loads(curl(site.path("greet", "/?name=path"))) == {"hello": "path"}
    assert json.loads(curl(site.url("SITE-Greet", "/"))) == {"hello": "you"}


def test_get_web_url_gives_the_url_that_works_here(site):
    said = site.python(
        """
        names = [alight.Function.from_name("site", one).get_web_url() for one in ("greet", "pages", "inside")]
        model = alight.Cls.from_name("site", "Model")()
        print(json.dumps([*names, model.predict.get_web_url(), model.plain.get_web_url()]))
        """
    ).stdout
    greet, pages, inside, predict, plain = json.loads(said.splitlines()[-1])
    assert (inside, plain) == (None, None)
    # Where names below localhost resolve it is the one with a name; else the one that needs no resolver.
    for url, label, function in (
        (greet, "site-greet", "greet"),
        (pages, "site-pages", "pages"),
        (predict, "site-model-predict", "Model.predict"),
    ):
        assert url in {site.url(label), site.path(function)}
    assert json.load(urllib.request.urlopen(f"{greet}?name=plain", timeout=60)) == {"hello": "plain"}


def test_code_in_a_container_reaches_web_functions_by_the_url_that_it_is_given(site):
    said = site.python('print(json.dumps(alight.Function.from_name("site", "inside").remote()))').stdout
    urls, answers, own = json.loads(said.splitlines()[-1])
    assert urls == ["http://site-greet.alight.internal:9080"] * 2 + ["http://site-model-predict.alight.internal:9080"]
    assert answers == [{"hello": "in"}, {"hello": "by"}, 43]
    assert own is None


def test_a_class_answers_with_what_it_loaded(site, client):
    assert client.get(site.url("site-model-predict", "/?x=8")).json() == 50
    assert client.get(site.path("Model.predict", "?x=8")).json() == 50
    assert client.get(site.url("site-model-predict", "/?x=no")).status_code == 422


def test_the_path_form_tells_the_application_where_it_is_mounted(site, client):
    there = client.get(site.path("pages", "/a/b?c=d")).json()
    assert there["root"] == "/_/main/site/pages"
    assert there["url"].endswith("/_/main/site/pages/x")
    here = client.get(site.url("site-pages", "/a/b?c=d")).json()
    assert (here["root"], here["path"]) == ("", "/a/b")
    assert here["headers"]["host"] == f"site-pages.localhost:{site.port}"
    assert here["headers"]["x-forwarded-proto"] == "http"
    assert here["client"] == "127.0.0.1"


def test_methods_bodies_and_statuses_pass_through(site, client):
    assert client.post(site.url("posted"), json={"a": 1}).json() == {"a": 1}
    assert client.get(site.url("posted")).status_code == 405
    assert client.put(site.url("site-pages", "/x"), content=b"y").json()["method"] == "PUT"
    head = client.head(site.url("site-greet", "/?name=x"))
    assert head.status_code in {200, 405}
    assert head.content == b""
    size = 30 << 20

    def pieces():
        for _ in range(size >> 16):
            yield bytes(1 << 16)

    assert client.post(site.url("site-pages", "/upload"), content=pieces()).json() == {"size": size}
    assert json.loads(
        curl("-H", "Expect: 100-continue", "--data-binary", "x" * 2000, site.url("site-pages", "/upload"))
    ) == {"size": 2000}


def test_a_stream_arrives_piece_by_piece(site, client):
    client.get(site.url("site-pages", "/"))  # it is awake
    began = time.monotonic()
    with client.stream("GET", site.url("site-pages", "/count")) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines) == "data: 0"
        first = time.monotonic() - began
        assert [line for line in lines if line] == ["data: 1", "data: 2"]
    assert first < 0.4, first  # the rest takes a second and more
    assert time.monotonic() - began >= 1.0


def test_an_exception_of_user_code_is_a_plain_500_and_its_traceback_is_in_the_log(site, client):
    answer = client.get(site.url("site-pages", "/fail"))
    assert answer.status_code == 500
    assert "on purpose" not in answer.text
    logs = ""
    until = time.monotonic() + 20
    while "ValueError: on purpose" not in logs and time.monotonic() < until:
        logs = site.machine.run("app", "logs", "site").stderr
        time.sleep(0.2)
    assert "ValueError: on purpose" in logs


@pytest.mark.usefixtures("client")
def test_a_websocket_speaks_both_ways(site):
    for url in (f"ws://site-pages.localhost:{site.port}/echo", f"ws://localhost:{site.port}/_/main/site/pages/echo"):
        with connect(url) as talk:
            talk.send("hello")
            assert talk.recv(20) == "HELLO"
            talk.send("ä" * 100_000)
            assert talk.recv(20) == "Ä" * 100_000


def test_flask_keeps_its_session_and_reads_forms(site, client):
    url = site.url("site-flask")
    assert client.post(url, data={"what": "tea"}).text.split() == ["tea", "1"]
    assert client.post(url, data={"what": "tea"}).text.split() == ["tea", "2"]
    assert client.get(site.path("flask", "/")).text.split() == ["1", "/_/main/site/flask"]


def test_a_protected_function_wants_a_token(site, client):
    url, machine = site.url("site-locked"), site.machine
    assert client.get(url).status_code == 401
    assert client.get(url, headers={"Modal-Key": "wk-x", "Modal-Secret": "ws-x"}).status_code == 401
    made = machine.json("workspace", "proxy-tokens", "create", "--name", "ci")[0]
    key, secret = made["token_id"], made["token_secret"]
    for headers in (
        {"Modal-Key": key, "Modal-Secret": secret},
        {"Alight-Key": key, "Alight-Secret": secret},
        {"Authorization": f"Bearer {key}.{secret}"},
    ):
        answer = client.get(url, headers=headers)
        assert (answer.status_code, answer.text) == (200, '"open"')
    assert client.get(site.path("locked")).status_code == 401  # no other form of the URL is a way around
    listed = machine.json("workspace", "proxy-tokens", "list")
    assert [one["name"] for one in listed if one["token_id"] == key] == ["ci"]
    assert secret not in json.dumps(listed)
    machine.run("workspace", "proxy-tokens", "delete", key, "--yes")
    assert client.get(url, headers={"Modal-Key": key, "Modal-Secret": secret}).status_code == 401


def test_what_nobody_serves_is_a_404_that_tells_nothing(site, client):
    for url in (site.url("nobody"), site.path("nobody"), f"http://localhost:{site.port}/_/main/nobody/f"):
        answer = client.get(url)
        assert answer.status_code == 404
        assert "site-greet" not in answer.text


def test_two_functions_with_one_label_are_refused_before_anything_is_published(site, tmp_path):
    script = tmp_path / "twins.py"
    script.write_text(
        'import alight\napp = alight.App("twins")\n'
        + "".join(
            f'@app.function()\n@alight.fastapi_endpoint(label="{label}")\ndef {name}(): ...\n'
            for name, label in (("f", "same"), ("g", "same"))
        )
    )
    assert "f and g want the same label: 'same'" in site.machine.run("deploy", script, status=1).stderr
    script.write_text(script.read_text().replace('label="same")\ndef g', 'label="site-greet")\ndef g'))
    said = site.machine.run("deploy", script, status=1).stderr
    assert "g wants the label 'site-greet', which is that of greet of the app 'site'" in said
    lines = [line for line in site.machine.run("app", "list").stdout.splitlines() if "twins" in line]
    assert lines
    assert all("stopped" in line for line in lines)


def test_a_run_has_urls_of_its_own_and_a_second_one_takes_them_over(machine, tmp_path):
    script = tmp_path / "fleeting.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, urllib.request
            import alight

            app = alight.App("fleeting", image=alight.Image.debian_slim(python_version="3.11"))

            @app.function()
            @alight.asgi_app()
            def hello():
                async def serve(scope, receive, send):
                    await send({"type": "http.response.start", "status": 200, "headers": []})
                    await send({"type": "http.response.body", "body": b"hello"})
                return serve

            @app.local_entrypoint()
            def main():
                url = hello.get_web_url()
                print(url, flush=True)
                sys.stdin.readline()
            """
        )
    )
    with machine.start("run", script, stdin=subprocess.PIPE) as first:
        url = first.stdout.readline().strip()
        assert re.search(r"fleeting-hello-dev\.localhost|localhost:\d+/_/main/fleeting/hello$", url)
        url = "http://fleeting-hello-dev.localhost:{}".format(re.search(r":(\d+)", url).group(1))
        assert curl(url) == "hello"
        with machine.start("run", script, stdin=subprocess.PIPE) as second:
            second.stdout.readline()
            assert curl(url) == "hello"
            second.communicate("\n", timeout=60)
        assert curl(url) == "hello"  # the older one has it back
        first.communicate("\n", timeout=60)
    assert curl("-o", "/dev/null", "-w", "%{http_code}", url) == "404"


def test_the_openai_client_streams_from_a_server_of_the_users_own(machine):
    said = machine.run("deploy", EXAMPLES / "web_chat.py").stdout
    try:
        base = re.search(r"(http://localhost:\d+/_/main/web-chat/serve)$", said, re.MULTILINE).group(1)
        chat = openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0, timeout=60)
        messages = [{"role": "user", "content": "one two three"}]
        assert [one.id for one in chat.models.list()] == ["echo"]
        whole = chat.chat.completions.create(model="echo", messages=messages)
        assert whole.choices[0].message.content == "one two three"
        pieces = [
            one.choices[0].delta.content
            for one in chat.chat.completions.create(model="echo", messages=messages, stream=True)
        ]
        assert [one for one in pieces if one] == ["one", " two", " three"]
    finally:
        machine.run("app", "stop", "web-chat", "--yes")


def test_the_example_of_all_kinds_runs(machine):
    said = machine.run("run", EXAMPLES / "web_functions.py").stdout
    assert 'from here:        {"hello":"Ada"}' in said
    assert 'from a container: {"hello":"Ada"}' in said


def test_requests_from_many_at_once_all_get_their_own_answer(site):
    wrong: list[str] = []

    def ask(number: int) -> None:
        with httpx.Client(timeout=60) as one:
            for round_ in range(20):
                answer = one.get(site.path("pages", f"/{number}/{round_}"))
                if answer.status_code != 200 or answer.json()["path"] != f"/_/main/site/pages/{number}/{round_}":
                    wrong.append(answer.text[:200])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not wrong


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser is installed")
def test_a_browser_loads_a_page_and_its_websocket(machine, tmp_path):
    said = machine.run("deploy", EXAMPLES / "web_functions.py").stdout
    try:
        found = re.findall(r"(http://localhost:\d+/\S+/page)$|page => (http://\S+)$", said, re.MULTILINE)
        assert len(found) == 2, said
        for url in found:
            seen, until = "", time.monotonic() + 90
            # Its clock for scripts runs ahead of the world's while a socket waits: another look has more of it.
            while "FROM THE PAGE" not in seen and time.monotonic() < until:
                seen = browsed("".join(url), tmp_path)
            assert "FROM THE PAGE" in seen
    finally:
        machine.run("app", "stop", "web-functions", "--yes")


def browsed(url: str, folder: Path) -> str:
    """The page as it is after its scripts have run."""
    words = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"]
    words += ["--virtual-time-budget=8000", "--dump-dom", url]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout
