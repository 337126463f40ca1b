"""Protects the dashboard with real containers: logging in from the command line, files, output, terminals, retries."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import time
from urllib.parse import urlsplit

import pytest

APP = """
import alight

volume = alight.Volume.from_name("dashboard-data", create_if_missing=True)
app = alight.App("dashed", image=alight.Image.debian_slim(python_version="3.11"))


@app.function(volumes={"/data": volume}, min_containers=1, env={"TOKEN": "not to be shown"})
def work(x):
    print(f"<b>working</b> on {x}")
    with open("/data/page.html", "w") as file:
        file.write("<script>alert(1)</script>")
    volume.commit()
    if x == "bad":
        raise ValueError(f"no {x}")
    return x


@app.function(schedule=alight.Period(days=30))
def nightly():
    return 1
"""
CALL = """
import alight

work = alight.Function.from_name("dashed", "work")
print(work.remote("good"))
try:
    work.remote("bad")
except ValueError:
    print("failed as it should")
print(work.get_dashboard_url())
"""


class Browser:
    def __init__(self, machine):
        self.machine = machine
        self.address = json.loads((machine.home / "run/server.json").read_text())["web"]
        self.host = f"alight.localhost:{self.address.rpartition(':')[2]}"
        self.fields = {"host": self.host}

    def log_in(self, *words):
        printed = self.machine.run("dashboard", *words).stdout.strip()
        assert printed.startswith(f"http://{self.host}/login?code="), printed
        status, said, _ = self.ask("GET", printed.removeprefix(f"http://{self.host}"))
        assert status == 303
        self.fields["cookie"] = said["set-cookie"].partition(";")[0]
        me = self.get("me")
        self.fields |= {"origin": f"http://{self.host}", "x-alight-csrf": me["csrf"]}
        return said["location"]

    def ask(self, method, target, body=None, more=None):
        connection = http.client.HTTPConnection(self.address, timeout=60)
        fields = {**self.fields, **({"content-type": "application/json"} if body is not None else {}), **(more or {})}
        connection.request(method, target, None if body is None else json.dumps(body), fields)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, data

    def get(self, path):
        status, _, data = self.ask("GET", f"/api/v1/{path}")
        assert status == 200, (path, status, data)
        return json.loads(data)

    def post(self, path, body=None):
        status, _, data = self.ask("POST", f"/api/v1/{path}", body or {})
        assert status == 200, (path, status, data)
        return json.loads(data)

    def until(self, path, condition, within=30.0):
        deadline = time.monotonic() + within
        while not condition(found := self.get(path)):
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
        return found


@pytest.fixture(scope="module")
def dashed(machine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dashed")
    (folder / "dashed_app.py").write_text(APP)
    (folder / "call.py").write_text(CALL)
    deployed = machine.run("deploy", folder / "dashed_app.py").stdout
    browser = Browser(machine)
    assert re.search(rf"view: http://{browser.host}/apps/ap-\w+", deployed), deployed
    browser.log_in()
    browser.printed = machine.python(folder / "call.py").stdout
    yield browser
    machine.run("app", "stop", "dashed", "--yes", status=None)
    machine.run("volume", "delete", "dashboard-data", "--yes", status=None)


def test_pages_of_objects_have_addresses(dashed):
    assert re.search(rf"http://{dashed.host}/functions/fu-\w+\n", dashed.printed)
    app_id = dashed.get("apps/dashed")["app"]["app_id"]
    other = Browser(dashed.machine)
    assert other.log_in(app_id) == f"/apps/{app_id}"
    assert "/apps/" in dashed.machine.run("app", "dashboard", "dashed").stdout
    assert "/volumes/vo-" in dashed.machine.run("volume", "dashboard", "dashboard-data").stdout
    wrong = dashed.machine.run("dashboard", "nonsense", status=1)
    assert "not the id" in wrong.stderr


def test_everything_that_runs_is_shown(dashed):
    app = dashed.get("apps/dashed")
    assert {one["name"] for one in app["app"]["functions"]} == {"work", "nightly"}
    assert [one["function"] for one in app["schedules"]] == ["nightly"]
    assert app["versions"]["current"] == 1
    function_id = next(one["function_id"] for one in app["app"]["functions"] if one["name"] == "work")
    shown = dashed.get(f"functions/{function_id}")
    assert "not to be shown" not in json.dumps(shown)
    assert (shown["succeeded"], shown["failed"]) == (1, 1)
    assert shown["starts"]["count"] >= 1
    container = next(one for one in dashed.get("containers?app=dashed")["containers"] if one["function"] == "work")
    details = dashed.get(f"containers/{container['container_id']}")
    assert details["start"]["stages"]
    assert details["volumes"][0]["path"] == "/data"
    assert dashed.get("nodes")["nodes"][0]["containers"] >= 1
    assert dashed.get("images")["images"]
    assert dashed.get("overview")["apps"]["deployed"] >= 1


def test_output_and_tracebacks_are_text(dashed):
    status, fields, data = dashed.ask("GET", "/api/v1/logs?app=dashed")
    assert (status, fields["content-type"]) == (200, "text/event-stream; charset=utf-8")
    lines = [json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith('data: {"at"')]
    assert any("<b>working</b> on good" in one["text"] for one in lines)
    last = re.findall(r"^id: (.+)$", data.decode(), re.MULTILINE)[-1]
    status, _, rest = dashed.ask("GET", "/api/v1/logs?app=dashed", more={"last-event-id": last})
    assert (status, b"event: line" in rest) == (200, False), "who comes back gets nothing twice"
    calls = dashed.get("calls?app=dashed&state=done")["calls"]
    bad = next(one for one in calls if one["failed"])
    failure = dashed.get(f"calls/{bad['call_id']}")["failure"]
    assert failure["error"] == "ValueError: no bad"
    assert any(frame["name"] == "work" for frame in failure["failure"]["frames"])


def test_output_is_followed_live(dashed):
    connection = http.client.HTTPConnection(dashed.address, timeout=30)
    connection.request("GET", "/api/v1/logs?app=dashed&tail=0&follow=1", headers=dashed.fields)
    answer = connection.getresponse()
    calls = dashed.get("calls?app=dashed&state=done")["calls"]
    bad = next(one["call_id"] for one in calls if one["failed"])
    again = dashed.post(f"calls/{bad}/retry")["call_id"]
    while True:
        line = answer.fp.readline()
        assert line, "the stream ended"
        if b"working</b> on bad" in line:
            break
    assert json.loads(line.removeprefix(b"data: "))["source"] == "stdout"
    connection.close()
    dashed.until(f"calls/{again}", lambda one: one["call"]["call"]["state"] == "done")


def test_budgets_are_set_and_taken_away_and_it_is_written_down_who(dashed):
    app_id = dashed.get("apps/dashed")["app"]["app_id"]
    said = dashed.post("cost/budgets", {"kind": "app", "name": app_id, "cost": 12.5, "gpu_seconds": None, "stop": True})
    assert said["done"] == "The budget of dashed is set."
    listed = json.loads(dashed.machine.run("app", "budget", "dashed", "--json").stdout)
    assert [(one["name"], one["cost"], one["stop"]) for one in listed] == [("dashed", 12.5, True)]
    for more in ({}, {"stop": False}, {"cost": -1}, {"cost": 1, "stop": "yes"}, {"cost": 1, "name": ""}, {"what": 1}):
        wrong = {"name": app_id, **more}
        assert dashed.ask("POST", "/api/v1/cost/budgets", wrong)[0] == 400, wrong
    dashed.post("cost/budgets/clear", {"kind": "app", "name": "dashed"})
    assert dashed.get("cost/budgets")["budgets"] == []
    lines = [(one["who"], one["action"], one["target"]) for one in dashed.get("audit")["entries"]]
    assert ("owner", "set the budget", app_id) in lines
    assert ("owner", "took the budget away", "app dashed") in lines


def test_files_of_volumes_are_downloads(dashed):
    volume = next(one for one in dashed.get("volumes")["volumes"] if one["name"] == "dashboard-data")
    files = dashed.get(f"volumes/{volume['volume_id']}/files?path=/")["files"]
    assert [one["path"].strip("/") for one in files] == ["page.html"]
    status, fields, data = dashed.ask("GET", f"/api/v1/volumes/{volume['volume_id']}/download?path=/page.html")
    assert (status, data) == (200, b"<script>alert(1)</script>")
    assert fields["content-type"] == "application/octet-stream"
    assert fields["content-disposition"].startswith("attachment")
    assert "sandbox" in fields["content-security-policy"]
    for path in ("/none", "/../../etc/passwd", "/"):
        assert dashed.ask("GET", f"/api/v1/volumes/{volume['volume_id']}/download?path={path}")[0] in {400, 403, 404}


def test_a_failed_call_runs_again_and_a_schedule_runs_now(dashed):
    calls = dashed.get("calls?app=dashed&state=done")["calls"]
    bad = next(one["call_id"] for one in calls if one["failed"])
    assert dashed.get(f"calls/{bad}")["retryable"]
    again = dashed.post(f"calls/{bad}/retry")["call_id"]
    found = dashed.until(f"calls/{again}", lambda one: one["call"]["call"]["state"] == "done")
    assert found["failure"]["error"] == "ValueError: no bad", "it ran with the arguments that it had"
    ran = dashed.post("schedules/run", {"app": "dashed", "function": "nightly"})["call_id"]
    done = dashed.until(f"calls/{ran}", lambda one: one["call"]["call"]["state"] == "done")
    assert done["call"]["call"]["succeeded"] == 1
    assert {one["action"] for one in dashed.get("audit")["entries"]} >= {"retried the call", "ran the schedule"}


def test_a_terminal_in_a_container(dashed):
    import websockets

    container = next(
        one["container_id"] for one in dashed.get("containers?app=dashed")["containers"] if one["function"] == "work"
    )
    url = f"ws://{dashed.address}/api/v1/containers/{container}/terminal?columns=90&rows=30"

    async def talk(fields):
        more = {"additional_headers": {"cookie": fields["cookie"]}, "origin": fields.get("origin")}
        async with websockets.connect(url.replace(dashed.address, dashed.host), **more, host="127.0.0.1",
                                      port=urlsplit(f"//{dashed.address}").port) as socket:  # fmt: skip
            await socket.send(b"stty size; echo to$((1+1))gether; exit 3\n")
            seen, ended = b"", None
            async with asyncio.timeout(30):
                async for message in socket:
                    if isinstance(message, str):
                        ended = json.loads(message)
                    else:
                        seen += message
        return seen, ended

    seen, ended = asyncio.run(talk(dashed.fields))
    assert b"30 90" in seen
    assert b"to2gether" in seen
    assert ended["ended"] == 3
    for fields in ({**dashed.fields, "origin": "http://evil.example"}, {**dashed.fields, "origin": None},
                   {**dashed.fields, "cookie": "x=y"}):  # fmt: skip
        with pytest.raises(websockets.InvalidStatus):
            asyncio.run(talk(fields))


def test_stopping_from_the_dashboard(dashed):
    container = next(
        one["container_id"] for one in dashed.get("containers?app=dashed")["containers"] if one["function"] == "work"
    )
    dashed.post(f"containers/{container}/stop", {"grace": 1})
    ended = dashed.get(f"containers/{container}")["container"]
    assert ended["state"] == "ended"
    log = dashed.machine.run("app", "logs", "dashed", status=None)
    assert container in json.dumps(dashed.get("audit")["entries"]), log.stdout
