"""What two parsers could read differently is refused: that is how requests are smuggled past a gateway."""

from __future__ import annotations

import pytest

from alight.gateway.framing import Chunked, Sized
from alight.gateway.heads import BadRequest, has_bare_newline, read_answer, read_request, split_host

HOST = b"Host: a.localhost\r\n"


def head(*lines: bytes, first: bytes = b"POST / HTTP/1.1") -> bytes:
    return b"\r\n".join([first, *lines]) + b"\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        [b"Host: a", b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Host: a", b"Transfer-Encoding: chunked", b"Content-Length: 5"],
        [b"Host: a", b"Content-Length: 5", b"Content-Length: 6"],
        [b"Host: a", b"Content-Length: 5", b"Content-Length: 5"],
        [b"Host: a", b"Content-Length: 5, 5"],
        [b"Host: a", b"Content-Length: +5"],
        [b"Host: a", b"Content-Length: -1"],
        [b"Host: a", b"Content-Length: 0x5"],
        [b"Host: a", b"Content-Length: 5 5"],
        [b"Host: a", b"Content-Length:"],
        [b"Host: a", b"Content-Length: 99999999999999999999"],
        [b"Host: a", b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"],
        [b"Host: a", b"Transfer-Encoding: xchunked"],
        [b"Host: a", b"Transfer-Encoding: gzip, chunked"],
        [b"Host: a", b"Transfer-Encoding:\x0bchunked"],
        [b"Host: a", b"Transfer-Encoding : chunked"],
        [b"Host: a", b" Transfer-Encoding: chunked"],
        [b"Host: a", b"X: y", b"\tfolded"],
        [b"Host: a", b"X: y", b" folded"],
        [b"Host: a", b"X: a\nTransfer-Encoding: chunked"],
        [b"Host: a", b"X: a\rTransfer-Encoding: chunked"],
        [b"Host: a", b"X: a\x00b"],
        [b"Host: a", b"no colon"],
        [b"Host: a", b": no name"],
        [b"Host: a", b"N\xc3\xa4me: x"],
        [b"Host: a", b"Host: b"],
        [b"X: no host at all"],
        [b"Host: a b"],
        [b"Host: a@b"],
        [b"Host: a/b"],
    ],
)
def test_smuggling_tries_are_bad_requests(lines):
    with pytest.raises(BadRequest) as caught:
        split_host(read_request(head(*lines)).host)
    assert caught.value.status in {400, 501}


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (b"GET /", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b" GET / HTTP/1.1", 400),
        (b"GET / http/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"G\tT / HTTP/1.1", 400),
        (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/1.2", 505),
        (b"GET / HTTP/0.9", 505),
        (b"PRI * HTTP/2.0", 505),
        (b"CONNECT a:443 HTTP/1.1", 405),
        (b"GET a HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"GET ftp://a/ HTTP/1.1", 400),
        (b"GET http://u@a/ HTTP/1.1", 400),
        (b"GET /a#b HTTP/1.1", 400),
        (b"GET /\x00 HTTP/1.1", 400),
    ],
)
def test_request_lines_are_taken_exactly(first, status):
    with pytest.raises(BadRequest) as caught:
        read_request(head(b"Host: a", first=first))
    assert caught.value.status == status


def test_a_head_is_read_and_what_is_about_the_connection_stays_here():
    found = read_request(
        head(
            b"hOST: App.localhost:9080",
            b"Connection: keep-alive, X-Private",
            b"Keep-Alive: timeout=5",
            b"X-Private: 1",
            b"TE: trailers",
            b"X-Forwarded-For: 6.6.6.6",
            b"Accept:\t text/html ",
            b"Cookie: a=1",
            b"Cookie: b=2",
            first=b"GET /a%20b/?q=1&r=%2F HTTP/1.1",
        )
    )
    assert (found.method, found.path, found.query) == (b"GET", b"/a%20b/", b"q=1&r=%2F")
    assert found.fields == [
        (b"host", b"App.localhost:9080"),
        (b"accept", b"text/html"),
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
    ]
    assert found.forwarded == [(b"x-forwarded-for", b"6.6.6.6")]
    assert split_host(found.host) == ("app.localhost", "9080")
    assert found.keep
    assert found.length == 0


def test_a_connection_option_cannot_take_away_what_frames_the_body():
    found = read_request(head(b"Host: a", b"Content-Length: 3", b"Connection: content-length, host"))
    assert found.length == 3
    assert (b"content-length", b"3") in found.fields


def test_the_host_of_an_absolute_target_wins():
    found = read_request(head(b"Host: other", first=b"GET http://a.localhost/x?y HTTP/1.1"))
    assert (found.host, found.path, found.query) == (b"a.localhost", b"/x", b"y")
    assert found.fields == [(b"host", b"a.localhost")]


@pytest.mark.parametrize(
    ("first", "option", "keep"),
    [
        (b"GET / HTTP/1.1", b"X: y", True),
        (b"GET / HTTP/1.1", b"Connection: close", False),
        (b"GET / HTTP/1.0", b"X: y", False),
        (b"GET / HTTP/1.0", b"Connection: Keep-Alive", True),
    ],
)
def test_connections_are_kept_as_the_version_says(first, option, keep):
    assert read_request(head(b"Host: a", option, first=first)).keep is keep


def test_bare_newlines_are_seen():
    assert has_bare_newline(b"GET / HTTP/1.1\nHost: a\n\n")
    assert not has_bare_newline(b"GET / HTTP/1.1\r\nHost")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_chunks_come_out_whole_however_they_are_cut(size):
    sent = b"4\r\nWiki\r\nA;name=value\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nGET /next"
    body, got, rest = Chunked(), b"", b""
    for start in range(0, len(sent), size):
        if body.done:
            rest += sent[start : start + size]
            continue
        pieces, rest = body.feed(sent[start : start + size])
        got += b"".join(pieces)
    assert (got, rest, body.done) == (b"Wiki0123456789", b"GET /next", True)


@pytest.mark.parametrize(
    "sent",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"5\r\nhellooo\r\n0\r\n\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"\r\n",
        b"g\r\n",
        b"1" * 17 + b"\r\n",
        b"5;\x00\r\nhello\r\n",
        b"0\r\nbad trailer\r\n\r\n",
        b"0\r\nA: b\n\r\n",
        b"1" * 5000,
    ],
)
def test_malformed_chunks_are_bad_requests(sent):
    with pytest.raises(BadRequest):
        Chunked().feed(sent)


def test_a_sized_body_ends_where_it_says():
    body = Sized(5)
    assert body.feed(b"he") == ([b"he"], b"")
    assert body.feed(b"lloGET") == ([b"llo"], b"GET")
    assert body.done


def test_answers_of_programs_say_where_they_end():
    assert read_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", b"GET").length == 3
    assert read_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", b"HEAD").length == 0
    assert read_answer(b"HTTP/1.1 204 No Content\r\n", b"GET").length == 0
    assert read_answer(b"HTTP/1.1 200 OK\r\n", b"GET").length == -1
    assert read_answer(b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n", b"GET").chunked
    assert not read_answer(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n", b"GET").keep
    for bad in (b"Content-Length: 3\r\nContent-Length: 4\r\n", b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"):
        with pytest.raises(BadRequest):
            read_answer(b"HTTP/1.1 200 OK\r\n" + bad, b"GET")


def test_what_a_program_says_goes_on_as_it_is_without_what_is_about_one_connection():
    said = read_answer(
        b"HTTP/1.1 200 OK\r\nDate:  today\r\nX-A: 1 \r\nConnection: close\r\nKeep-Alive: 5\r\nContent-Length: 3\r\n",
        b"GET",
    )
    assert said.lines == b"Date:  today\r\nX-A: 1 \r\n"
    assert (said.said, said.dated, said.served, said.keep) == (3, True, False, False)
    assert read_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", b"HEAD").said == 3
    for bad in (b"X A: 1\r\n", b"X-A: 1\n", b"X-A: \x00\r\n", b"Content-Length: " + b"9" * 5000 + b"\r\n"):
        with pytest.raises(BadRequest):
            read_answer(b"HTTP/1.1 200 OK\r\n" + bad, b"GET")
