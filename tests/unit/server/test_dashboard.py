"""Protects the dashboard's API on a whole server: who sees and changes what, what bad requests get, what is kept."""

from __future__ import annotations

import asyncio
import json
import re
from types import SimpleNamespace

import pytest

from alight.server.auth import OWNER
from alight.wire.dashboard import DashboardLink, DashboardUrl
from alight.wire.spec import FunctionSpec


class Browser:
    """One that keeps its cookie and sends what browsers send."""

    def __init__(self, port):
        self.port = port
        self.host = f"alight.localhost:{port}"
        self.cookie = self.csrf = ""

    async def ask(self, method, path, body=None, **fields):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        said = {"host": self.host, "content-length": str(len(data)), "connection": "close"}
        if self.cookie:
            said["cookie"] = self.cookie
        if method != "GET":
            said |= {"origin": f"http://{self.host}", "content-type": "application/json", "x-alight-csrf": self.csrf}
        said |= {name.replace("_", "-"): value for name, value in fields.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in said.items() if value is not None)
        writer.write(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + data)
        whole = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        head, _, answer = whole.decode().partition("\r\n\r\n")
        first, *rest = head.split("\r\n")
        names = {line.partition(": ")[0]: line.partition(": ")[2] for line in rest}
        if names.get("content-type") == "application/json":
            answer = json.loads(answer)
        return SimpleNamespace(status=int(first.split()[1]), fields=names, body=answer)

    async def get(self, path, **fields):
        return await self.ask("GET", f"/api/v1/{path}", **fields)

    async def post(self, path, body=None, **fields):
        return await self.ask("POST", f"/api/v1/{path}", {} if body is None else body, **fields)

    async def log_in(self, link):
        answer = await self.ask("GET", link.partition(str(self.port))[2])
        assert answer.status == 303, answer
        self.cookie = re.match(r"[^;]+", answer.fields["set-cookie"])[0]
        self.csrf = (await self.get("me")).body["csrf"]
        return answer

    async def log_in_as(self, token):
        answer = await self.post("login", {"token": f"{token.token_id}:{token.token_secret}"})
        assert answer.status == 200, answer.body
        self.cookie = re.match(r"[^;]+", answer.fields["set-cookie"])[0]
        self.csrf = (await self.get("me")).body["csrf"]


async def served(place, functions=None, **settings):
    """A server with its web port, a machine, a client and a browser that is logged in as the server's owner."""
    server = await place.serve(web_listen="127.0.0.1:0", **settings)
    await server.listen_web()
    await place.node(functions or {"double": lambda x: x * 2, "bad": fail})
    client = await place.client()
    browser = Browser(int(server.web_address.rpartition(":")[2]))
    link = await client.ask("dashboard.link", DashboardLink(login=True), DashboardUrl)
    await browser.log_in(link.login)
    return client, browser


def fail(x):
    raise ValueError(f"no {x} <script>alert(1)</script>")


async def stranger(place, browser, owner="eve", **kind):
    token = await place.server.parts.tokens.create(owner, 1.0, owner=owner, **kind)
    other = Browser(browser.port)
    await other.log_in_as(token)
    return other, token


def test_a_page_without_a_session_says_how_to_get_one(world):
    async def work(place):
        _, browser = await served(place)
        nobody = Browser(browser.port)
        answer = await nobody.get("apps")
        assert (answer.status, answer.body["error"]["code"]) == (401, "auth")
        assert "alight dashboard" in answer.body["error"]["hint"]
        assert (await nobody.ask("GET", "/apps/ap-1")).status in {200, 404}, "the page itself has nothing to hide"
        for cookie in ("alight=x", f"alight_{browser.port}=", f"alight_{browser.port}={'x' * 32}"):
            assert (await nobody.get("me", cookie=cookie)).status == 401

    world(work)


def test_a_question_about_logs_takes_moments_as_people_type_them_and_refuses_what_it_does_not_know(world):
    async def work(place):
        client, browser = await served(place)
        app_id, _ = await client.app(FunctionSpec(name="double"))
        await browser.log_in((await client.ask("dashboard.link", DashboardLink("", login=True), DashboardUrl)).login)
        for since in ("2h", "0", "1795307931.5", "14:30", "2026-01-31T12:00Z"):
            assert (await browser.ask("GET", f"/api/v1/logs?app={app_id}&since={since}")).status == 200
        for wrong, words in (("since=25:99", "is no moment"), ("sinse=2h", "no option 'sinse'"), ("tail=x", "number")):
            answer = await browser.get(f"logs?app={app_id}&{wrong}")
            assert answer.status == 400
            assert words in answer.body["error"]["message"]

    world(work)


def test_a_link_logs_in_once_and_leads_to_its_page(world):
    async def work(place):
        client, browser = await served(place)
        app_id, _ = await client.app(FunctionSpec(name="double"))
        link = await client.ask("dashboard.link", DashboardLink(app_id, login=True), DashboardUrl)
        assert link.url == f"http://{browser.host}/apps/{app_id}"
        other = Browser(browser.port)
        first = await other.log_in(link.login)
        assert first.fields["location"] == f"/apps/{app_id}"
        assert "HttpOnly" in first.fields["set-cookie"]
        again = await Browser(browser.port).ask("GET", link.login.partition(str(browser.port))[2])
        assert (again.status, again.fields["location"]) == (303, "/login?used=1")
        assert "set-cookie" not in again.fields
        assert (await other.post("session/end")).status == 200
        assert (await other.get("me")).status == 401
        for odd in ("nothing", "ap-", "../../x", "xx-" + "0" * 21):
            with pytest.raises(Exception, match="not the id"):
                await client.ask("dashboard.link", DashboardLink(odd), DashboardUrl)

    world(work)


def test_a_token_logs_in_and_its_end_ends_the_session(world):
    async def work(place):
        _, browser = await served(place)
        eve, token = await stranger(place, browser)
        assert (await eve.get("me")).body["who"] == "eve"
        wrong = await Browser(browser.port).post("login", {"token": f"{token.token_id}:as-wrong"})
        assert (wrong.status, "set-cookie" in wrong.fields) == (401, False)
        for body in ({"token": 1}, {}, [], b"{", b"token=x"):
            assert (await Browser(browser.port).post("login", body)).status in {400, 401}
        assert (await Browser(browser.port).post("login", {}, origin="http://evil.example")).status == 403
        await place.server.parts.tokens.delete(token.token_id)
        eve_again = place.server.dashboard._made.sessions
        eve_again._known = {key: (one, 0.0) for key, (one, _) in eve_again._known.items()}  # as after some seconds
        assert (await eve.get("me")).status == 401

    world(work)


def test_sessions_survive_a_restart_of_the_server(world):
    async def work(place):
        _, browser = await served(place)
        await place.server.close()
        server = await place.serve(web_listen=f"127.0.0.1:{browser.port}")
        await server.listen_web()
        assert (await browser.get("me")).status == 200

    world(work)


def test_what_every_page_reads(world):
    async def work(place):
        client, browser = await served(place)
        app_id, functions = await client.app(FunctionSpec(name="double", env={"KEY": "hidden"}), name="shop")
        await client.remote(functions["double"], 4)
        function_id = functions["double"].function_id
        calls = (await browser.get("calls")).body["calls"]
        containers = (await browser.get("containers")).body["containers"]
        paths = {
            "overview": "containers",
            "apps": "apps",
            "apps?q=sho": "apps",
            f"apps/{app_id}": "app",
            "apps/shop": "app",
            f"apps/{app_id}/stats": "functions",
            f"functions/{function_id}": "latency",
            f"functions/{function_id}/series?points=7": "series",
            f"functions/{function_id}/calls": "calls",
            f"calls/{calls[0]['call_id']}": "call",
            f"calls/{calls[0]['call_id']}/inputs": "inputs",
            f"calls/{calls[0]['call_id']}/graph": "inputs",
            f"containers/{containers[0]['container_id']}": "container",
            "nodes": "nodes",
            "environments": "environments",
            "volumes": "volumes",
            "secrets": "secrets",
            "schedules": "schedules",
            "audit": "entries",
        }
        for path, key in paths.items():
            answer = await browser.get(path)
            assert answer.status == 200, (path, answer.body)
            assert answer.body[key] is not None, path
        shown = (await browser.get(f"functions/{function_id}")).body
        assert (shown["succeeded"], shown["latency"]["count"]) == (1, 1)
        assert shown["declared"]["env_names"] == ["KEY"]
        assert "hidden" not in json.dumps(shown), "what a function is given is nobody's to read"
        series = (await browser.get(f"functions/{function_id}/series?points=7")).body
        assert len(series["at"]) == 7
        assert sum(series["series"]["inputs"]) == 1
        assert series["series"]["ready"][-1] == 1

    world(work)


def test_lists_go_on_where_they_stopped(world):
    async def work(place):
        client, browser = await served(place)
        _, functions = await client.app(FunctionSpec(name="double"))
        for number in range(7):
            await client.remote(functions["double"], number)
        await place.server.parts.store.flush()
        whole = [one["call_id"] for one in (await browser.get("calls")).body["calls"]]
        assert len(whole) == 7
        for query in ("calls?", "calls?state=done&", f"functions/{functions['double'].function_id}/calls?"):
            found, before, more = [], "", True
            while more:
                page = (await browser.get(f"{query}limit=3&before={before}")).body
                found += [one["call_id"] for one in page["calls"]]
                before, more = found[-1], page["more"]
            assert found == whole, query
        assert (await browser.get("calls?before=fc-none")).status == 404

    world(work)


def test_what_is_somebody_elses_is_not_there(world):
    async def work(place):
        client, browser = await served(place)
        app_id, functions = await client.app(FunctionSpec(name="double"), name="shop")
        await client.remote(functions["double"], 1)
        await place.server.parts.store.flush()
        container = (await browser.get("containers")).body["containers"][0]["container_id"]
        call = (await browser.get("calls")).body["calls"][0]["call_id"]
        function_id = functions["double"].function_id
        eve, _ = await stranger(place, browser)
        for path in (
            f"containers/{container}",
            f"apps/{app_id}",
            "apps/shop",
            f"apps/{app_id}/stats",
            f"functions/{function_id}",
            f"functions/{function_id}/series",
            f"functions/{function_id}/calls",
            f"calls/{call}",
            f"calls/{call}/inputs",
            f"calls/{call}/graph",
            f"logs?container={container}",
            f"logs?app={app_id}",
        ):
            answer = await eve.get(path)
            assert answer.status in {403, 404}, path
            assert "double" not in json.dumps(answer.body), path
        for path in (
            f"containers/{container}/stop",
            f"apps/{app_id}/stop",
            f"apps/{app_id}/rollback",
            f"calls/{call}/cancel",
            f"calls/{call}/retry",
            f"functions/{function_id}/scale",
        ):
            assert (await eve.post(path)).status in {403, 404}, path
        for path, key in (("apps", "apps"), ("calls", "calls"), ("containers", "containers"), ("audit", "entries")):
            found = (await eve.get(path)).body[key]
            assert [one for one in found if one.get("who") != "eve"] == [], path
        assert (await eve.get("images")).status == 403, "what methods are for whom holds here, too"
        assert app_id in place.server.parts.apps.alive
        assert container in place.server.parts.containers.alive

    world(work)


def test_a_terminal_that_somebody_may_not_have_is_written_down_as_refused(world):
    async def work(place):
        import websockets

        client, browser = await served(place)
        _, functions = await client.app(FunctionSpec(name="double"), name="shop")
        await client.remote(functions["double"], 1)
        container = (await browser.get("containers")).body["containers"][0]["container_id"]
        eve, _ = await stranger(place, browser)
        address = f"ws://{eve.host}/api/v1/containers/{container}/terminal"
        said = {"additional_headers": {"cookie": eve.cookie}, "origin": f"http://{eve.host}"}
        async with websockets.connect(address, **said, host="127.0.0.1", port=eve.port) as socket:
            ended = json.loads(await asyncio.wait_for(socket.recv(), 10))
        assert f"no container {container} runs" in ended["text"]
        (line,) = (await browser.get("audit")).body["entries"]
        assert (line["who"], line["action"]) == ("eve", "opened a terminal in the container")
        assert "no container" in line["problem"], "nobody was let in"

    world(work)


def test_a_machines_token_and_a_containers_principal_open_nothing(world):
    async def work(place):
        _, browser = await served(place)
        token = await place.server.parts.tokens.create("machine", 1.0, kind="node")
        said = f"Bearer {token.token_id}:{token.token_secret}"
        other = Browser(browser.port)
        assert (await other.get("apps", authorization=said)).status == 403
        assert (await other.post("login", {"token": said.removeprefix("Bearer ")})).status == 403

    world(work)


def test_a_program_with_a_token_asks_the_same_on_every_port(world):
    async def work(place):
        _, browser = await served(place)
        token = await place.server.parts.tokens.create("ours", 1.0, kind=OWNER)
        said = f"Bearer {token.token_id}:{token.token_secret}"
        program = Browser(browser.port)
        assert (await program.get("overview", authorization=said)).status == 200
        assert (await program.get("overview", authorization="Bearer ak-x:as-y")).status == 401
        assert (await program.get("overview", authorization="Basic eDp5")).status == 401
        done = await program.post("apps/none/stop", authorization=said, origin=None, x_alight_csrf=None)
        assert done.status == 404
        reader, writer = await asyncio.open_unix_connection(place.socket)
        writer.write(b"GET /api/v1/overview HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b'"waiting":0' in await asyncio.wait_for(reader.read(), 5)
        writer.close()
        reader, writer = await asyncio.open_unix_connection(place.socket)
        writer.write(b"GET /api/v1/overview HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example\r\n\r\n")
        assert b"403" in (await asyncio.wait_for(reader.read(), 5))[:20]
        writer.close()

    world(work)


CHANGES = [
    ({"origin": "http://evil.example"}, 403),
    ({"origin": None}, 403),
    ({"origin": "null"}, 403),
    ({"sec-fetch-site": "cross-site"}, 403),
    ({"x-alight-csrf": None}, 403),
    ({"x-alight-csrf": "0" * 32}, 403),
    ({"content-type": "text/plain"}, 400),
    ({"content-type": "application/x-www-form-urlencoded"}, 400),
    ({"host": "localhost:1"}, 404),
    ({"host": "evil.example"}, 421),
]


@pytest.mark.parametrize(("fields", "status"), CHANGES)
def test_a_change_that_another_page_has_a_browser_send_does_nothing(world, fields, status):
    async def work(place):
        client, browser = await served(place)
        app_id, _ = await client.app(FunctionSpec(name="double"))
        fields_ = {name.replace("-", "_"): value for name, value in fields.items()}
        assert (await browser.post(f"apps/{app_id}/stop", **fields_)).status == status
        assert app_id in place.server.parts.apps.alive

    world(work)


def test_bad_requests_get_sentences(world):
    async def work(place):
        client, browser = await served(place)
        app_id, functions = await client.app(FunctionSpec(name="double"))
        function_id = functions["double"].function_id
        for path in (
            "calls?limit=x",
            "calls?limit=nan",
            f"functions/{function_id}/series?since=soon",
            f"functions/{function_id}/series?since=9e12",
            "logs",
            "logs?app=none",
            f"logs?app={app_id}&tail=-1",
            f"logs?app={app_id}&since=yesterdayish",
            f"logs?app={app_id}&source=stdin",
            "volumes/vo-none/download",
            "volumes/vo-none/files",
            "nothing",
            "apps/none",
            "apps/%00",
            "calls/none",
            "containers/none",
            "functions/none",
            "%ff",
        ):
            answer = await browser.get(path)
            assert answer.status in {400, 404}, (path, answer)
            assert answer.body["error"]["message"], path
        for path, body in (
            (f"functions/{function_id}/scale", {"min_containers": "many"}),
            (f"functions/{function_id}/scale", {"nonsense": 1}),
            (f"functions/{function_id}/scale", {"min_containers": -1}),
            (f"functions/{function_id}/scale", [1]),
            (f"functions/{function_id}/scale", b"{"),
            (f"functions/{function_id}/scale", b"[" * 100_000),
            (f"apps/{app_id}/stop", {"now": True}),
            (f"apps/{app_id}/rollback", {"version": "x"}),
            ("containers/none/stop", {"grace": -1}),
            ("schedules/run", {}),
            ("schedules/run", {"app": 3}),
            ("schedules/run", {"app": "none"}),
            ("nothing/else", {}),
        ):
            answer = await browser.post(path, body)
            assert answer.status in {400, 404}, (path, body, answer)
        assert (await browser.post("apps", {})).status == 405
        assert (await browser.ask("DELETE", f"/api/v1/apps/{app_id}")).status == 405
        assert (await browser.ask("POST", "/", {})).status == 405
        for path in (
            "/static/../site.py",
            "/static/%2e%2e/site.py",
            "/static/none.js",
            "/static/.hidden.js",
            "/api/v2/x",
        ):
            assert (await browser.ask("GET", path)).status == 404, path

    world(work)


def test_changes_are_made_and_written_down_with_who(world):
    async def work(place):
        client, browser = await served(place)
        app_id, functions = await client.app(FunctionSpec(name="double"))
        await client.remote(functions["double"], 1)
        function_id = functions["double"].function_id
        assert (await browser.post(f"functions/{function_id}/scale", {"min_containers": 2})).status == 200
        await place.until(lambda: len(place.server.parts.loop.state.containers) == 2)
        container = (await browser.get("containers")).body["containers"][0]["container_id"]
        assert (await browser.post(f"functions/{function_id}/scale", {"min_containers": 0})).status == 200
        assert (await browser.post(f"containers/{container}/stop", {"grace": 0})).status == 200
        assert container not in place.server.parts.containers.alive
        assert (await browser.post("containers/ta-none/stop")).status == 404
        assert (await browser.post(f"apps/{app_id}/stop")).status == 200
        assert app_id not in place.server.parts.apps.alive
        entries = (await browser.get("audit")).body["entries"]
        assert [(one["who"], one["action"], one["target"], bool(one["problem"])) for one in entries] == [
            ("owner", "stopped the app", app_id, False),
            ("owner", "stopped the container", "ta-none", True),
            ("owner", "stopped the container", container, False),
            ("owner", "scaled the function", function_id, False),
            ("owner", "scaled the function", function_id, False),
        ]
        assert entries[4]["detail"] == "min_containers=2"

    world(work)


def test_failed_inputs_are_shown_with_their_tracebacks_and_run_again(world):
    async def work(place):
        odd_fails = True

        def work_on(x):
            if x % 2 and odd_fails:
                raise ValueError(f"no {x} <b>")
            return x

        client, browser = await served(place, {"work": work_on})
        _, functions = await client.app(FunctionSpec(name="work"))
        await client.map(functions["work"], [0, 1, 2, 3, 4], call="fc-" + "0" * 22)
        await place.server.parts.store.flush()
        shown = (await browser.get(f"calls/fc-{'0' * 22}")).body
        assert (shown["call"]["call"]["failed"], shown["retryable"]) == (2, True)
        assert shown["failure"]["error"] == "ValueError: no 3 <b>"
        inputs = (await browser.get(f"calls/fc-{'0' * 22}/inputs")).body
        assert [one["status"] for one in inputs["inputs"]] == [
            "success",
            "exception",
            "success",
            "exception",
            "success",
        ]
        window = (await browser.get(f"calls/fc-{'0' * 22}/inputs?start=2&limit=2")).body
        assert ([one["position"] for one in window["inputs"]], window["more"]) == ([2, 3], True)
        failed = (await browser.get(f"calls/fc-{'0' * 22}/inputs?status=failed")).body
        assert [one["position"] for one in failed["inputs"]] == [1, 3]

        odd_fails = False
        again = await browser.post(f"calls/fc-{'0' * 22}/retry")
        assert again.status == 200, again.body
        call_id = again.body["call_id"]

        async def over():
            while (await browser.get(f"calls/{call_id}")).body["call"]["call"]["state"] != "done":  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        await asyncio.wait_for(over(), 5)
        second = (await browser.get(f"calls/{call_id}")).body
        assert (second["call"]["call"]["succeeded"], second["retryable"]) == (2, False)
        assert (await browser.post(f"calls/{call_id}/retry")).status == 409

    world(work)


def test_a_single_call_that_failed_runs_again_also_after_a_restart(world):
    async def work(place):
        client, browser = await served(place)
        _, functions = await client.app(FunctionSpec(name="bad"), kind="detached")
        update, _ = await client.remote(functions["bad"], 7)
        await place.server.parts.store.flush()
        assert (await browser.get(f"calls/{update.call_id}")).body["retryable"]
        await place.nodes.pop().disconnect()
        await place.server.close()
        server = await place.serve(web_listen=f"127.0.0.1:{browser.port}")
        await server.listen_web()
        await place.node({"bad": fail})
        again = await browser.post(f"calls/{update.call_id}/retry")
        assert again.status == 200, again.body

    world(work)


def test_pages_hear_of_calls_within_a_second_and_users_of_their_own(world):
    async def work(place):
        client, browser = await served(place)
        _, functions = await client.app(FunctionSpec(name="double"))
        eve, _ = await stranger(place, browser)

        async def listen(one):
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
            writer.write(f"GET /api/v1/events HTTP/1.1\r\nhost: {one.host}\r\ncookie: {one.cookie}\r\n\r\n".encode())
            await asyncio.wait_for(reader.readuntil(b"hello"), 5)
            return reader, writer

        ours, theirs = await listen(browser), await listen(eve)
        update, _ = await client.remote(functions["double"], 1)
        await asyncio.wait_for(ours[0].readuntil(f"call:{update.call_id}".encode()), 1.5)
        await asyncio.sleep(0.5)
        heard = b""
        while True:
            try:
                heard += await asyncio.wait_for(theirs[0].read(65536), 0.3)
            except asyncio.TimeoutError:
                break
        assert update.call_id.encode() not in heard
        assert functions["double"].function_id.encode() not in heard
        assert place.server.parts.loop.seen is not None
        for _, writer in (ours, theirs):
            writer.close()
        await place.until(lambda: place.server.parts.loop.seen is None)

    world(work)


def test_output_comes_as_json_whatever_is_in_it(world):
    async def work(place):
        client, browser = await served(place)
        app_id, functions = await client.app(FunctionSpec(name="bad"))
        await client.remote(functions["bad"], 1)
        answer = await browser.get(f"logs?app={app_id}")
        assert answer.status == 200
        assert answer.fields["content-type"].startswith("text/event-stream")
        assert "event: end" in answer.body
        call = (await browser.get("calls")).body["calls"][0]["call_id"]
        page = await browser.get(f"calls/{call}")
        assert "<script>" in page.body["failure"]["error"], "told as it is"
        assert page.fields["content-type"] == "application/json", "and never as a page"
        assert page.fields["x-content-type-options"] == "nosniff"
        assert "sandbox" in page.fields["content-security-policy"]

    world(work)


def test_where_there_is_no_web_port_there_is_no_address(world):
    async def work(place):
        await place.serve(web_listen="none")
        client = await place.client()
        assert await client.ask("dashboard.link", DashboardLink(login=True), DashboardUrl) == DashboardUrl()

    world(work)
