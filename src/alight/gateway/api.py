"""Requests for the server's own HTTP API, on hosts that are not a function's. Somebody else answers them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from alight.gateway.answering import Answering, Prepared
from alight.gateway.heads import BadRequest, Request

if TYPE_CHECKING:
    from alight.gateway.client import Client

log = logging.getLogger(__name__)
PATHS = (b"/v1/", b"/health")
_MOST = 16 << 20  # bytes of a body


#: Method, target, header fields by names in lower case, body → status, header fields, body.
Api = Callable[[str, str, Mapping[str, str], bytes], Awaitable[tuple[int, dict[str, str], bytes]]]


class ApiExchange:
    """One such request. Those of pages of another origin are refused: a browser sends them without being asked."""

    def __init__(self, client: Client, head: Request, api: Api) -> None:
        self.head = head
        self.answering = Answering(client, method=head.method, version=head.version, keep=head.keep)
        self._client: Client | None = client
        self._api = api
        self._pieces: list[bytes] = []
        self._size = 0
        self._done = head.length == 0
        self._let_in = False  # its body may be here before that is asked
        self._task: asyncio.Task[None] | None = None

    def enter(self) -> None:
        """Its head is read."""
        client = self._client
        if client is None:
            return
        origin = next((value for name, value in self.head.fields if name == b"origin"), b"")
        if origin and origin.partition(b"://")[2] != self.head.host:
            self._client = None
            client.answer(403, "this page is of another origin")
            return
        self._let_in = True
        if self._done:
            self._begin()
        elif self.head.expects:
            client.continue_body()

    def feed(self, pieces: list[bytes], *, done: bool) -> None:
        """See ``Exchange``."""
        self._size += sum(map(len, pieces))
        if self._size > _MOST:
            raise BadRequest(f"bodies may have {_MOST >> 20} MiB here", 413)
        self._pieces += pieces
        self._done = done
        if done and self._let_in and self._client is not None:
            self._begin()

    def left(self) -> None:
        """See ``Exchange``."""
        self._client = None  # what it began goes on

    def drained(self) -> None:
        """See ``Exchange``."""

    def filled(self) -> None:
        """See ``Exchange``."""

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._answer())

    async def _answer(self) -> None:
        client, head = self._client, self.head
        if client is None:
            return
        method, target = (
            head.method.decode(),
            (head.path + (b"?" + head.query if head.query else b"")).decode("latin-1"),
        )
        fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.fields}
        body, self._pieces = b"".join(self._pieces), []
        try:
            status, said, answer = await self._api(method, target, fields, body)
            lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in said.items()]
            prepared = Prepared.of_fields(status, [*lines, (b"x-content-type-options", b"nosniff")])
        except Exception:  # one of the four loops: a fault in one answer ends that request alone
            fault = os.urandom(4).hex()
            log.exception("fault %s at %s %s", fault, method, target)
            prepared, answer = Prepared.of_fields(500, []), f"internal error (fault {fault})\n".encode()
        client, self._client = self._client, None
        if client is not None:
            self.answering.start(prepared, answer, last=True)
            client.finished(keep=self.answering.keep)
