"""Requests from a client's bytes to a container's frames and back."""

from __future__ import annotations

import asyncio
import functools

import pytest

from alight.gateway.table import Target
from alight.wire import web
from tests.unit.gateway.world import GET, POST, World, answer


def live(test):
    """Run an async test in a loop of its own."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 30))

    return run


@live
async def test_a_request_reaches_the_container_with_all_that_is_known_of_it():
    async with World() as world, world.client(GET) as (reader, writer):
        got = await world.request()
        assert (got.method, got.path, got.query, got.root, got.scheme) == (b"GET", b"/x", b"y=1", b"", b"http")
        assert got.done
        assert got.body == b""
        assert got.ends[0] == b"127.0.0.1"
        assert got.fields[b"x-forwarded-for"] == b"127.0.0.1"
        assert got.fields[b"x-forwarded-host"] == got.fields[b"host"] == b"hello.localhost"
        got.respond(b"hi", b"content-type", b"text/plain", b"connection", b"close", b"X-A", b"1")
        first, fields, body = await answer(reader)
        assert (first, body) == (b"HTTP/1.1 200 OK", b"hi")
        assert fields[b"X-A"] == b"1"
        assert {b"date", b"server", b"content-length"} <= set(fields)
        assert b"connection" not in fields, "the application's word about connections is not about ours"
        writer.write(GET)
        (await world.request()).respond(b"again")
        assert (await answer(reader))[2] == b"again"


@live
async def test_pipelined_requests_are_answered_in_order():
    async with World() as world, world.client(GET * 3) as (reader, _):
        for number in range(3):
            (await world.request()).respond(b"%d" % number)
        assert [(await answer(reader))[2] for _ in range(3)] == [b"0", b"1", b"2"]


@live
async def test_answers_are_counted_by_status_whoever_gives_them():
    async with World() as world:
        async with world.client(GET * 2) as (reader, _):
            for _ in range(2):
                (await world.request()).respond(b"hi")
                await answer(reader)
        async with world.client(b"GET / HTTP/1.1\r\nHost: other.localhost\r\n\r\n") as (reader, _):
            await answer(reader)
        async with world.client(b"nonsense\r\n\r\n") as (reader, _):
            await answer(reader)
        assert world.gateway.statuses == {200: 2, 404: 1, 400: 1}


@live
async def test_answers_are_counted_by_function_with_how_long_they_took_to_begin():
    async with World() as world:
        counted = []
        world.gateway.on_answer = lambda *one: counted.append(one)
        async with world.client(GET) as (reader, _):
            (await world.request()).respond(b"hi")
            await answer(reader)
        async with world.client(b"GET / HTTP/1.1\r\nHost: other.localhost\r\n\r\n") as (reader, _):
            await answer(reader)
        assert [one[:2] for one in counted] == [("fu-1", 200)], "what nobody serves is no function's"
        assert 0 <= counted[0][2] < 60


@live
async def test_the_path_form_takes_its_prefix_off_and_names_it():
    async with World() as world:
        for path, want in ((b"/_/main/app/hello/a%2Fb", b"/a%2Fb"), (b"/_/main/app/hello", b"/")):
            async with world.client(b"GET " + path + b" HTTP/1.1\r\nHost: 127.0.0.1:9080\r\n\r\n"):
                got = await world.request()
                assert (got.path, got.root) == (want, b"/_/main/app/hello")


@live
@pytest.mark.parametrize(
    ("host", "path", "status"),
    [
        (b"other.localhost", b"/", b"404"),
        (b"localhost", b"/_/main/app/other", b"404"),
        (b"localhost", b"/", b"404"),
        (b"rebound.example", b"/_/main/app/hello", b"421"),
        (b"rebound.example", b"/", b"421"),
    ],
)
async def test_what_nobody_serves_gets_an_answer_that_names_nothing(host, path, status):
    async with World() as world:
        said = await world.said(b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
        assert said.split()[1] == status
        assert b"/hello" not in said


@live
async def test_custom_domains_and_names_inside_containers_lead_to_their_function():
    async with World() as world:
        for host in (b"api.example.com", b"API.example.com.:80", b"hello.alight.internal:9080"):
            async with world.client(GET.replace(b"hello.localhost", host)):
                assert (await world.request()).path == b"/x"


@live
@pytest.mark.parametrize(
    "data",
    [
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\nHost: hello.localhost\n\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n",
        POST + b" X: folded\r\n\r\n",
    ],
)
async def test_bad_requests_end_their_connection(data):
    async with World() as world:
        said = await world.said(data)
        assert said.count(b"HTTP/1.1 ") == 1
        assert said.startswith(b"HTTP/1.1 400 ")


@live
async def test_too_large_a_head_and_too_large_a_body_are_refused():
    async with World(head_bytes=1000, body_bytes=10) as world:
        assert (await world.said(GET[:-2] + b"X: " + b"y" * 1000)).startswith(b"HTTP/1.1 431 ")
        assert (await world.said(POST + b"Content-Length: 11\r\n\r\n")).startswith(b"HTTP/1.1 413 ")
        chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n"
        assert (await world.said(chunked + b"b\r\n01234567890\r\n0\r\n\r\n")).startswith(b"HTTP/1.1 413 ")


@live
async def test_slow_heads_and_idle_connections_are_ended():
    async with World(head_seconds=0.1, idle_seconds=0.1) as world:
        assert (await world.said(b"GET / HT")).startswith(b"HTTP/1.1 408 ")
        assert await world.said(b"") == b""


@live
async def test_a_chunked_body_arrives_as_it_comes_and_the_client_is_told_to_go_on():
    async with (
        World() as world,
        world.client(POST + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n") as (reader, writer),
    ):
        got = await world.request()
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert not got.done
        writer.write(b"5\r\nhello\r\n")
        await got.until(lambda: got.body == b"hello")
        writer.write(b"0\r\n\r\n")
        await got.until(lambda: got.done)
        got.respond(b"ok")
        assert (await answer(reader))[2] == b"ok"


@live
async def test_a_client_that_was_not_told_to_go_on_is_not_read_on():
    async with World() as world:
        said = await world.said(
            POST.replace(b"hello.", b"other.") + b"Expect: 100-continue\r\nContent-Length: 90\r\n\r\n"
        )
        assert said.startswith(b"HTTP/1.1 404 ")
        assert b"100 Continue" not in said


@live
async def test_head_requests_and_answers_without_a_body_have_none():
    async with World() as world, world.client(GET.replace(b"GET", b"HEAD") + GET) as (reader, _):
        (await world.request()).respond(b"hidden", b"content-length", b"6")
        (await world.request()).respond(b"x", status=204)
        assert b"content-length: 6" in await reader.readuntil(b"\r\n\r\n")
        said = await reader.readuntil(b"\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 204 ")
        assert b"content-length" not in said


@live
async def test_a_stream_is_chunked_and_its_first_piece_is_not_held_back():
    async with World() as world, world.client(GET) as (reader, _):
        got = await world.request()
        got.respond(b"one", last=False)
        assert (await reader.readuntil(b"one\r\n")).endswith(b"\r\n\r\n3\r\none\r\n")
        got.more(b"two", last=True)
        assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\ntwo\r\n0\r\n\r\n"


@live
async def test_old_clients_get_streams_until_the_connection_ends():
    async with World() as world, world.client(b"GET / HTTP/1.0\r\nHost: hello.localhost\r\n\r\n") as (reader, _):
        got = await world.request()
        got.respond(b"one", last=False)
        got.more(b"two", last=True)
        said = await reader.read()
        assert said.endswith(b"\r\n\r\nonetwo")
        assert b"chunked" not in said


@live
async def test_an_answer_shorter_than_it_says_is_not_taken_for_whole():
    async with World() as world, world.client(GET) as (reader, _):
        (await world.request()).respond(b"abc", b"content-length", b"10")
        with pytest.raises(asyncio.IncompleteReadError):
            await answer(reader)


@live
async def test_fields_with_line_breaks_never_reach_the_client():
    async with World() as world, world.client(GET) as (reader, _):
        (await world.request()).respond(b"", b"x-a", b"1\r\nset-cookie: evil")
        first, fields, _ = await answer(reader)
        assert first.split()[1] == b"502"
        assert b"set-cookie" not in fields


@live
async def test_a_client_that_leaves_cancels_its_request_and_counts_until_the_code_has_ended():
    async with World() as world:
        world.serve(Target("fu-1", "hello", slots=1))
        async with world.client(GET):
            got = await world.request()
        world.gives = False  # as with max_containers=1
        await got.until(lambda: got.cancelled)
        async with world.client(GET) as (reader, _):
            await asyncio.sleep(0.05)
            assert world.arrived.empty(), "its container was still busy"
            got.send(web.CANCEL)
            (await world.request()).respond(b"next")
            assert (await answer(reader))[2] == b"next"


@live
async def test_a_client_that_leaves_while_it_waits_gives_up_its_place():
    async with World() as world:
        world.gives = False
        async with world.client(GET):
            while not world.leases:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with world.client(GET.replace(b"/x", b"/second")):
            await asyncio.sleep(0.05)
            world.gateway.given(world.leases[0], "ta-1")
            assert (await world.request()).path == b"/second"


@live
async def test_a_slow_reader_stops_the_application_by_its_credit():
    async with World() as world, world.client(GET) as (reader, _):
        got = await world.request()
        got.respond(b"", last=False)
        piece, sent = bytes(64 << 10), 0
        while sent < 64 << 20 and got.credit + web.WINDOW >= sent:  # as a runtime does
            got.more(piece)
            sent += len(piece)
            await asyncio.sleep(0)
            if got.credit + web.WINDOW < sent + len(piece):
                await asyncio.sleep(0.02)
                if got.credit + web.WINDOW < sent + len(piece):
                    break
        assert sent < 32 << 20, "nothing held the application back"
        before, size = got.credit, 0
        while size < sent // 2:
            size += len(await reader.read(1 << 20))
        await got.until(lambda: got.credit > before)


@live
async def test_an_application_that_does_not_read_stops_its_client():
    async with World() as world, world.client(POST + b"Content-Length: 100000000\r\n\r\n") as (_, writer):
        got = await world.request()
        sent = 0
        while sent < 100_000_000:
            writer.write(bytes(1 << 20))
            sent += 1 << 20
            done, _ = await asyncio.wait([asyncio.ensure_future(writer.drain())], timeout=0.5)
            if not done:
                break
        assert sent < 100_000_000
        assert len(got.body) == web.WINDOW
        got.send(web.CREDIT, b"", (100_000).to_bytes(4, "big"))
        await got.until(lambda: len(got.body) == web.WINDOW + 100_000)


@live
async def test_an_early_answer_leaves_the_connection_usable_once_the_body_is_over():
    async with World() as world, world.client(POST + b"Content-Length: 10\r\n\r\n01234") as (reader, writer):
        (await world.request()).respond(b"early")
        assert (await answer(reader))[2] == b"early"
        writer.write(b"56789" + GET)
        (await world.request()).respond(b"next")
        assert (await answer(reader))[2] == b"next"


@live
async def test_a_lost_container_costs_what_may_not_be_repeated_and_only_that():
    async with (
        World() as world,
        world.client(POST + b"Content-Length: 1\r\n\r\nx") as (posting, _),
        world.client(GET) as (getting, _),
    ):
        first = await world.request()
        await world.request()
        first.container.transport.abort()
        status, _, said = await answer(posting)
        assert status.split()[1] == b"502"
        assert b"ended before it had answered" in said
        (await world.request()).respond(b"from the next")
        assert (await answer(getting))[2] == b"from the next"


@live
async def test_a_request_over_its_functions_timeout_gets_504_and_its_container_ends_when_it_goes_on():
    async with World() as world:
        world.serve(Target("fu-1", "hello", slots=1, timeout=0.2))
        async with world.client(GET) as (reader, _):
            got = await world.request()
            status, _, said = await answer(reader)
            assert status.split()[1] == b"504"
            assert got.id in said
            await got.until(lambda: got.cancelled)
        async with asyncio.timeout(5):
            while not world.timed_out:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


@live
async def test_a_start_that_fails_is_said_to_all_who_wait():
    async with World() as world:
        world.gives = False
        async with world.client(GET) as (one, _), world.client(GET) as (other, _):
            while len(world.leases) < 1 or len(world.gateway._pools["fu-1"].waiting) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert world.gateway.failed(world.leases[0], "no container could be started")
            for reader in (one, other):
                status, _, said = await answer(reader)
                assert status.split()[1] == b"503"
                assert b"no container could be started" in said


@live
async def test_a_leaving_container_finishes_and_the_next_request_goes_elsewhere():
    async with World() as world, world.client(GET) as (one, _):
        got = await world.request()
        got.container.send(web.GOING, 0)
        async with world.client(GET) as (other, _):
            later = await world.request()
            assert later.container is not got.container
            got.respond(b"last")
            later.respond(b"first")
            assert (await answer(one))[2] == b"last"
            assert (await answer(other))[2] == b"first"


@live
async def test_a_function_of_a_held_app_says_so_at_once_and_when_to_come_back():
    async with World() as world:
        world.serve(Target("fu-1", "hello", slots=9, held="this app is held"))
        said = await world.said(GET[:-2] + b"Connection: close\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 60\r\n" in said
        assert b"this app is held" in said
        assert world.leases == []


@live
async def test_protected_functions_want_a_token_that_goes_no_further():
    async with World() as world:
        world.serve(Target("fu-1", "hello", protected=True, slots=9))
        assert (await world.said(GET[:-2] + b"Connection: close\r\n\r\n")).startswith(b"HTTP/1.1 401 ")
        wrong = GET[:-2] + b"Modal-Key: wk-1\r\nModal-Secret: no\r\nConnection: close\r\n\r\n"
        assert (await world.said(wrong)).startswith(b"HTTP/1.1 401 ")
        for shown in (b"Modal-Key: wk-1\r\nModal-Secret: open\r\n", b"Authorization: Bearer wk-1.open\r\n"):
            async with world.client(GET[:-2] + shown + b"\r\n"):
                got = await world.request()
                assert not {b"modal-key", b"modal-secret", b"authorization"} & set(got.fields)


@live
async def test_the_servers_own_interface_is_for_its_own_hosts_and_not_for_other_pages():
    asked = []

    async def api(method, target, fields, body):
        asked.append(body)
        return 200, {"content-type": "text/plain"}, f"{method} {target} {body.decode()}".encode()

    async with World() as world:
        world.gateway.api = api
        ask = b"POST /v1/a?b HTTP/1.1\r\nHost: localhost:1\r\nContent-Length: 2\r\nConnection: close\r\n"
        assert (await world.said(ask + b"\r\nhi")).endswith(b"\r\n\r\nPOST /v1/a?b hi")
        assert (await world.said(ask + b"Origin: http://localhost:1\r\n\r\nhi")).endswith(b"hi")
        assert (await world.said(ask + b"Origin: http://evil.example\r\n\r\nhi")).startswith(b"HTTP/1.1 403 ")
        async with world.client(ask.replace(b"localhost:1", b"hello.localhost") + b"\r\nhi"):
            assert (await world.request()).path == b"/v1/a", "a function has this path for itself"
        kept = ask.replace(b"Connection: close\r\n", b"")
        two = kept + b"Origin: http://evil.example\r\n\r\nno" + ask + b"\r\nhi"
        said = await world.said(two)
        assert said.count(b"HTTP/1.1 ") == 2, "one answer each: what is refused is not done, whose body is there or not"
        assert said.endswith(b"POST /v1/a?b hi")
        assert asked == [b"hi", b"hi", b"hi"]


@live
async def test_whoever_shows_a_token_and_finds_nothing_is_told_what_there_is_by_who_knows():
    async with World() as world:
        asked = []

        async def directory(method, target, fields, body):
            asked.append((method, target, fields["authorization"]))
            return 404, {"content-type": "text/plain"}, b"the list"

        world.gateway.directory = directory
        other = b"GET /x HTTP/1.1\r\nHost: other.localhost\r\nConnection: close\r\n"
        assert b"the list" not in await world.said(other + b"\r\n")
        said = await world.said(other + b"Authorization: Bearer wk-1.ws-1\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 404 ")
        assert said.endswith(b"the list")
        assert asked == [("GET", "/x", "Bearer wk-1.ws-1")]
        said = await world.said(other.replace(b"other.localhost", b"rebound.example") + b"Modal-Key: wk-1\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 421 ")


@live
async def test_each_answer_names_its_request():
    async with World() as world, world.client(GET) as (reader, writer):
        got = await world.request()
        got.respond(b"whole", b"content-type", b"text/plain")
        _, fields, _ = await answer(reader)
        assert fields[b"alight-call-id"] == got.id
        writer.write(GET)
        later = await world.request()
        later.send(web.CANCEL)  # the application raised
        first, fields, body = await answer(reader)
        assert first.startswith(b"HTTP/1.1 500 ")
        assert fields[b"alight-call-id"] == later.id != got.id
        assert later.id in body


@live
@pytest.mark.parametrize("at_once", [True, False])
async def test_trailers_of_a_program_reach_its_client(at_once):
    async def program(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Checksum\r\n\r\n3\r\nabc\r\n")
        if not at_once:
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.write(b"0\r\nChecksum: 17\r\nSet-Cookie: a=b\r\nContent-Length: 9\r\n\r\n")
        await reader.read()

    async with World() as world:
        world.serve(Target("fu-1", "hello", "web_server", port=8000))
        world.programs = program
        async with world.client(GET) as (reader, _):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"transfer-encoding: chunked\r\n" in head
            assert b"Trailer: Checksum\r\n" in head
            assert await reader.readexactly(8) == b"3\r\nabc\r\n"
            assert await reader.readuntil(b"\r\n\r\n") == b"0\r\nChecksum: 17\r\n\r\n"
