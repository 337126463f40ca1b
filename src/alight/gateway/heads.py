"""Heads of HTTP/1.x: what a client asks, and what a program in a container answers. Pure.

Strict with clients, because what two parsers read differently is how requests are smuggled: one way to end a line, one
way to say how long a body is, no folded lines, no spaces before a colon.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

#: Fields that are about one connection and go no further.
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)  # fmt: skip
_SAID_BY_US = frozenset((b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"x-real-ip"))
_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-\xff]+) HTTP/(\d\.\d)")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\x00-\x08\x0a-\x1f\x7f]*)\r\n")
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%\-]*)(?::(\d{0,5}))?")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: [\t -\xff]*)?\r\n")
_WHOLE_FIELD = re.compile(rb"(([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\x00-\x08\x0a-\x1f\x7f]*)\r\n)")
_MOST_FIELDS = 256
_LONGEST_NUMBER = 18
_SPECIAL = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade", b"trailer")
) | _SAID_BY_US | HOP_BY_HOP  # fmt: skip

_NOTED = frozenset((b"content-length", b"date", b"server")) | HOP_BY_HOP  # of an answer's fields

_UNMEASURED = "the program in the container does not say how long its answer is"

Fields = list[tuple[bytes, bytes]]


class BadRequest(Exception):
    """What a client sent is not HTTP as we take it. ``status`` is what it gets; its connection ends."""

    def __init__(self, said: str, status: int = 400) -> None:
        super().__init__(said)
        self.status = status


class Request:
    """One request's head. Names of ``fields`` are in lower case; hop-by-hop ones are left out.

    ``length``: of the body, None when it is chunked. ``forwarded`` are fields that only a trusted proxy may set.
    """

    __slots__ = (
        "chunked", "expects", "fields", "forwarded", "host", "keep", "length", "method", "path", "query", "upgrade",
        "version",
    )  # fmt: skip

    def __init__(self) -> None:
        self.method = self.path = self.query = self.version = self.host = self.upgrade = b""
        self.fields: Fields = []
        self.forwarded: Fields = []
        self.length: int | None = 0
        self.chunked = self.expects = False
        self.keep = True


def read_request(block: bytes) -> Request:
    """A head, from its first byte to the end of its last line (the empty line is not part of it). Raises BadRequest."""
    first, _, rest = block.partition(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        raise BadRequest("the request line is malformed")
    head = Request()
    head.method, target, version = line.groups()
    if version not in {b"1.1", b"1.0"}:
        raise BadRequest("only HTTP/1.1 and HTTP/1.0 are spoken here", 505)
    head.version = version
    found = _FIELD.findall(rest)
    if len(found) > _MOST_FIELDS:
        raise BadRequest("too many header fields", 431)
    size, hosts, lengths, codings, options = 0, [], [], [], b""
    fields = head.fields
    for name, value in found:
        size += len(name) + len(value) + 3
        name = name.lower()  # noqa: PLW2901
        value = value.strip(b" \t")  # noqa: PLW2901
        if name not in _SPECIAL:
            fields.append((name, value))
        elif name == b"host":
            hosts.append(value)
            fields.append((name, value))
        elif name == b"content-length":
            lengths.append(value)
            fields.append((name, value))
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"connection":
            options = options + b"," + value if options else value
        elif name == b"upgrade":
            head.upgrade = value.lower()
        elif name == b"expect":
            head.expects = value.lower() == b"100-continue"
        elif name in _SAID_BY_US:
            head.forwarded.append((name, value))
    if size != len(rest):
        raise BadRequest("a header field is malformed")
    if lengths or codings:
        _measure(head, lengths, codings)
    _connection(head, options)
    _target(head, target, hosts)
    return head


@lru_cache(maxsize=1024)
def split_host(host: bytes) -> tuple[str, str]:
    """Name and port, the name in lower case and without the brackets of an address. Raises BadRequest."""
    found = _HOST.fullmatch(host)
    if found is None:
        raise BadRequest("the Host field is malformed")
    return found[1].decode().strip("[]").lower().rstrip("."), (found[2] or b"").decode()


class Answer:
    """The head of what a program in a container answered.

    ``lines`` are the fields that go on to the client, as they are, without ``said``, the length that they gave.
    ``length`` is the body's, -1: until the connection ends. ``dated``, ``served``: a Date, a Server is among them.
    """

    __slots__ = ("chunked", "dated", "keep", "length", "lines", "said", "served", "status", "upgrade")

    def __init__(self, status: int) -> None:
        self.status = status
        self.lines = b""
        self.said: int | None = None
        self.length = -1
        self.chunked = self.dated = self.served = self.upgrade = False
        self.keep = True


def read_answer(block: bytes, method: bytes) -> Answer:
    """As ``read_request``, for the other way. Raises BadRequest with 502."""
    line = _STATUS.match(block)
    if line is None:
        raise BadRequest("the program in the container does not answer in HTTP/1.1", 502)
    answer = Answer(int(line[2]))
    answer.keep = line[1] == b"1"
    size, lines, trailer = line.end(), [], b""
    for whole, name, value in _WHOLE_FIELD.findall(block, size):
        size += len(whole)
        low = name.lower()
        if low not in _NOTED:
            lines.append(whole)
        elif low == b"content-length":
            _take_length(answer, value.strip(b" \t"))
        elif low == b"date":
            answer.dated = True
            lines.append(whole)
        elif low == b"server":
            answer.served = True
            lines.append(whole)
        elif low == b"trailer":
            trailer = whole
        elif low == b"connection":
            options = {one.strip().lower() for one in value.split(b",")}
            answer.keep = b"keep-alive" in options or (answer.keep and b"close" not in options)
        elif low == b"transfer-encoding":
            answer.chunked = value.strip(b" \t").lower() == b"chunked"
            if not answer.chunked:
                raise BadRequest("the program in the container answers in a coding other than chunked", 502)
    if size != len(block):
        raise BadRequest("the program in the container does not answer in HTTP/1.1", 502)
    if answer.chunked and answer.said is not None:
        raise BadRequest(_UNMEASURED, 502)
    if answer.chunked and trailer:  # it has the client look for them, and they go on
        lines.append(trailer)
    answer.lines = b"".join(lines)
    status = answer.status
    answer.upgrade = status == 101
    if status < 200 or status in {204, 304} or method == b"HEAD":
        answer.length, answer.chunked = 0, False
    elif answer.said is not None:
        answer.length = answer.said
    return answer


def _take_length(answer: Answer, value: bytes) -> None:
    if not value.isdigit() or len(value) > _LONGEST_NUMBER or answer.said not in {None, int(value)}:
        raise BadRequest(_UNMEASURED, 502)
    answer.said = int(value)


def has_bare_newline(data: bytes) -> bool:
    """Whether a line ends without a carriage return: such a head would never end for us."""
    return data.count(b"\n") != data.count(b"\r\n")


def is_clean(parts: Iterable[bytes]) -> bool:
    """Whether an application's fields can be written without becoming something else."""
    return not any(b"\r" in one or b"\n" in one or b"\0" in one for one in parts)


def _measure(head: Request, lengths: list[bytes], codings: list[bytes]) -> None:
    if codings:
        if lengths:
            raise BadRequest("both Content-Length and Transfer-Encoding are given")
        if head.version == b"1.0":
            raise BadRequest("HTTP/1.0 has no Transfer-Encoding")
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            raise BadRequest("the only Transfer-Encoding taken here is chunked", 501 if len(codings) == 1 else 400)
        head.chunked, head.length = True, None
        return
    if len(lengths) != 1 or not lengths[0].isdigit() or len(lengths[0]) > 18:
        raise BadRequest("Content-Length is not one number")
    head.length = int(lengths[0])


def _connection(head: Request, options: bytes) -> None:
    if not options:
        head.keep = head.version == b"1.1"
        head.upgrade = b""
        return
    named = {one.strip().lower() for one in options.split(b",")}
    head.keep = b"close" not in named and (head.version == b"1.1" or b"keep-alive" in named)
    if b"upgrade" not in named:
        head.upgrade = b""
    others = named - {b"close", b"keep-alive", b"upgrade", b"te", b""}
    if others:  # fields that the client says are about this connection
        kept = {b"host", b"content-length"}
        head.fields = [one for one in head.fields if one[0] not in others or one[0] in kept]


def _target(head: Request, target: bytes, hosts: list[bytes]) -> None:
    if len(hosts) > 1 or (not hosts and head.version == b"1.1"):
        raise BadRequest("a request names its host once")
    head.host = hosts[0] if hosts else b""
    if head.method == b"CONNECT":
        raise BadRequest("this is no proxy", 405)
    if not target.startswith(b"/"):
        if target == b"*" and head.method == b"OPTIONS":
            head.path = target
            return
        scheme, _, rest = target.partition(b"://")
        if scheme.lower() not in {b"http", b"https"} or not rest:
            raise BadRequest("the request's target is malformed")
        authority, slash, path = rest.partition(b"/")
        if b"?" in authority or b"#" in authority or b"@" in authority:
            raise BadRequest("the request's target is malformed")
        head.host, target = authority, slash + path or b"/"
        head.fields = [(b"host", authority), *(one for one in head.fields if one[0] != b"host")]
    path, _, query = target.partition(b"?")
    if b"#" in target:
        raise BadRequest("the request's target is malformed")
    head.path, head.query = path, query
