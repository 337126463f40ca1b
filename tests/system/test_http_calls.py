"""Protects calls without Python: JSON by plain HTTP, tokens that open one app alone, and calls that happen once."""

from __future__ import annotations

import json
import os
import re
import signal
import textwrap
import threading

import httpx
import pytest

SCRIPT = """
import datetime, time
import alight

app = alight.App("sums", image=alight.Image.debian_slim(python_version="3.11"))
seen = alight.Volume.from_name("sums-seen", create_if_missing=True)


@app.function()
def add(x, y=1):
    return {"sum": x + y}


@app.function()
async def later(seconds):
    import asyncio

    await asyncio.sleep(seconds)
    return "done"


@app.function(volumes={"/seen": seen})
def once(word):
    with open("/seen/words", "a") as file:
        file.write(word + "\\n")
    time.sleep(0.3)
    return open("/seen/words").read().split().count(word)


@app.function()
def today():
    return {"days": [datetime.date(2026, 1, 1)]}


@app.function()
def boom():
    raise ValueError("on purpose")


@app.function()
def large():
    return ["x" * 1000] * 5000


@app.function()
def many():
    yield 1


@app.cls()
class Model:
    @alight.enter()
    def load(self):
        self.weights = 42

    @alight.method()
    def ask(self, x):
        return self.weights + x
"""


class Sums:
    def __init__(self, machine, folder) -> None:
        self.machine = machine
        script = folder / "sums.py"
        script.write_text(SCRIPT)
        machine.run("deploy", script)
        self.token = self.new_token("sums")
        self.base = f"http://{json.loads((machine.home / 'run' / 'server.json').read_text())['web']}/v1"
        self.client = httpx.Client(timeout=60)

    def new_token(self, app: str) -> str:
        made = self.machine.json("token", "new", "--call", app)[0]
        return f"{made['token_id']}.{made['token_secret']}"

    def call(
        self, function: str, body=None, *, query: str = "", token: str | None = None, app: str = "sums", **headers
    ):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(
            f"{self.base}/apps/{app}/functions/{function}/call{query}",
            json={} if body is None else body,
            headers={"Authorization": f"Bearer {token or self.token}", **headers},
        )

    def result(self, call_id: str, seconds: float = 30):
        path = f"{self.base}/calls/{call_id}?wait={seconds:g}"
        return self.client.get(path, headers={"Authorization": f"Bearer {self.token}"})


@pytest.fixture(scope="module")
def sums(machine, tmp_path_factory):
    made = Sums(machine, tmp_path_factory.mktemp("sums"))
    yield made
    made.client.close()
    machine.run("app", "stop", "sums", "--yes", status=None)


def test_values_come_back_as_json(sums):
    assert sums.call("add", {"args": [1, 2]}).json()["value"] == {"sum": 3}
    assert sums.call("add", {"args": [1], "kwargs": {"y": 0.5}}).json()["value"] == {"sum": 1.5}
    assert sums.call("add", {"kwargs": {"x": "a", "y": "ä"}}).json()["value"] == {"sum": "aä"}
    assert sums.call("later", {"args": [0]}).json()["value"] == "done"
    assert sums.call("Model.ask", {"args": [8]}).json()["value"] == 50
    answer = sums.call("large")
    assert answer.json()["value"] == ["x" * 1000] * 5000
    assert re.fullmatch(r"fc-\w{22}", answer.json()["call_id"])
    assert answer.headers["content-type"] == "application/json"


def test_what_is_wrong_is_said_with_the_status_that_fits(sums):
    answer = sums.call("today")
    assert answer.status_code == 422
    assert "[0] in ['days'] in the result of today() is of type datetime.date" in answer.text
    answer = sums.call("boom")
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "builtins.ValueError")
    assert answer.json()["error"]["message"] == "on purpose"
    assert any("in boom" in line for line in answer.json()["error"]["traceback"])
    assert sums.call("add").status_code == 500  # a TypeError of the function's: nothing is passed
    assert sums.call("nothing").status_code == 404
    assert sums.call("Model.nothing").status_code == 404
    assert sums.call("many").status_code == 400
    assert sums.call("add", [1]).status_code == 400
    assert sums.call("add", {"arg": [1]}).status_code == 400
    assert sums.call("add", query="?wait=x").status_code == 400
    assert sums.call("add", {"args": [1]}, Content_Type="text/plain").status_code == 415
    assert sums.call("add", {"args": ["x" * (3 << 20)]}).status_code == 413
    url = f"{sums.base}/apps/sums/functions/add/call"
    assert sums.client.get(url, headers={"Authorization": f"Bearer {sums.token}"}).status_code == 405
    assert sums.client.get(f"{sums.base}/nothing", headers={"Authorization": f"Bearer {sums.token}"}).status_code == 404


def test_a_token_opens_its_app_and_nothing_else(sums):
    url = f"{sums.base}/apps/sums/functions/add/call"
    assert sums.client.post(url, json={}).status_code == 401
    assert sums.call("add", token="wk-no.ws-no").status_code == 401
    assert sums.call("add", token=sums.token + "x").status_code == 401
    other = sums.new_token("other-app")
    assert sums.call("add", {"args": [1]}, token=other).status_code == 403
    assert sums.call("add", {"args": [1]}, query="?environment=other").status_code == 403
    call_id = sums.call("add", {"args": [1]}).json()["call_id"]
    stranger = sums.client.get(f"{sums.base}/calls/{call_id}", headers={"Authorization": f"Bearer {other}"})
    assert stranger.status_code == 404
    web = sums.machine.json("workspace", "proxy-tokens", "create")[0]
    assert sums.call("add", {"args": [1]}, token=f"{web['token_id']}.{web['token_secret']}").status_code == 401
    client = sums.machine.json("token", "new")[0]
    answer = sums.call("add", {"args": [1]}, token=f"{client['token_id']}:{client['token_secret']}")
    assert answer.status_code == 200
    page = sums.call("add", {"args": [1]}, Origin="http://evil.example")
    assert page.status_code == 403
    sums.machine.run("workspace", "proxy-tokens", "delete", other.partition(".")[0], "--yes")
    assert sums.call("add", {"args": [1]}, token=other).status_code == 401


def test_a_call_can_be_looked_for_later(sums):
    answer = sums.call("later", {"args": [1.5]}, query="?wait=0")
    assert answer.status_code == 202
    call_id = answer.json()["call_id"]
    assert answer.headers["location"] == f"/v1/calls/{call_id}"
    assert sums.result(call_id, 0.1).status_code == 202
    found = sums.result(call_id)
    assert (found.status_code, found.json()) == (200, {"call_id": call_id, "value": "done"})
    assert sums.result(call_id, 0).json()["value"] == "done"  # and again, and without waiting
    assert sums.result("fc-nothing").status_code == 404


def test_a_key_makes_a_call_happen_once(sums):
    answers = []

    def ask() -> None:
        answers.append(sums.call("once", {"args": ["tea"]}, Idempotency_Key="k1").json())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len({one["call_id"] for one in answers}) == 1
    assert [one.get("value", one) for one in answers] == [1] * 4
    assert sums.call("once", {"args": ["tea"]}, Idempotency_Key="k2").json()["value"] == 2
    assert sums.call("add", {"args": [1]}, Idempotency_Key="k1").status_code == 409


def test_a_call_that_was_accepted_survives_a_killed_server(sums):
    call_id = sums.call("later", {"args": [2]}, query="?wait=0").json()["call_id"]
    run = sums.machine.home / "run" / "server.json"
    os.kill(json.loads(run.read_text())["pid"], signal.SIGKILL)
    sums.machine.run("app", "list")  # starts the server again
    assert f"http://{json.loads(run.read_text())['web']}/v1" == sums.base  # where it was
    assert sums.result(call_id).json() == {"call_id": call_id, "value": "done"}


def test_the_description_is_there_for_everybody(sums):
    answer = sums.client.get(f"{sums.base}/openapi.json")
    assert answer.json()["openapi"].startswith("3.")
    assert set(answer.json()["paths"]) == {"/v1/apps/{app}/functions/{function}/call", "/v1/calls/{call_id}"}


def test_a_web_function_is_no_function_to_call(machine, tmp_path, sums):
    script = tmp_path / "page.py"
    script.write_text(
        textwrap.dedent(
            """
            import alight
            app = alight.App("paged", image=alight.Image.debian_slim(python_version="3.11"))

            @app.function()
            @alight.wsgi_app()
            def page():
                return lambda environ, start: (start("200 OK", []), [b"hello"])[1]
            """
        )
    )
    machine.run("deploy", script)
    try:
        answer = sums.call("page", app="paged", token=sums.new_token("paged"))
        assert answer.status_code == 400
        assert "it has a URL of its own" in answer.text
    finally:
        machine.run("app", "stop", "paged", "--yes")
