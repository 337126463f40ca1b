"""One request, from its head to the end of its answer, whoever serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alight.gateway.answering import Answering

if TYPE_CHECKING:
    from alight.gateway.client import Client
    from alight.gateway.heads import Request
    from alight.gateway.pools import Lease, Pool
    from alight.gateway.sessions import Session
    from alight.gateway.table import Found

_HARMLESS = {b"GET", b"HEAD", b"OPTIONS"}
_AGAIN = b"retry-after: 1\r\n"
WAITING, SENT, OVER = 0, 1, 2


class Exchange:
    """What all kinds of requests share. ``client`` is None once nobody listens any more."""

    def __init__(self, client: Client, head: Request, found: Found, request_id: str) -> None:
        self.gateway = client.gateway
        self.client: Client | None = client
        self.head = head
        self.found = found
        self.request_id = request_id
        self.pool: Pool = self.gateway.pool_of(found.target)
        self.lease: Lease | None = None
        self.server: Any = None  # who carries it to its container, once one has room
        self.state = WAITING
        self.since = 0.0  # when its container got it
        self.cancelled = 0.0  # when its container was told that it is not wanted any more
        self.tries = 0
        self.body_done = head.length == 0
        self._pieces: list[bytes] = []  # of the body, not sent yet
        self.session: Session | None = None
        tag = b"alight-call-id: " + request_id.encode() + b"\r\n"
        self.answering = Answering(
            client, method=head.method, version=head.version, keep=head.keep, tag=tag,
            function_id=found.target.function_id,
        )  # fmt: skip

    # from the pool

    def begin(self, lease: Lease) -> None:
        """See ``pools.Waiter``."""
        self.lease = lease
        if self.session is not None:
            self.session.begin(lease)
        self.server = self.gateway.server_of(lease, self.found.target)
        self.server.take(self)

    def refuse(self, status: int, said: str) -> None:
        """See ``pools.Waiter``."""
        self._leave_session()
        self._tell(status, f"{said} (request {self.request_id})")

    # from who carries it

    def sent(self) -> None:
        """Its container has it from now on."""
        self.state = SENT
        self.tries += 1
        self.since = self.gateway.now()
        if self.head.expects and self.client is not None and not self.body_done:
            self.client.continue_body()

    def return_to_line(self) -> None:
        """Its container never got it: the next one serves it."""
        self._release(0.0)
        if self.session is not None:
            self.refuse(410, "the container of this session has ended: start another session")
        elif self.client is not None:
            self.state = WAITING
            self.pool.enter_first(self, self.gateway.now())

    def lost(self) -> None:
        """The connection to its container is gone."""
        elsewhere = self.session is None and self.may_repeat()
        if self.client is not None and not self.answering.begun and elsewhere:
            self._release(0.0)
            self.state, self.server = WAITING, None
            self.rewind()
            self.pool.enter_first(self, self.gateway.now())
            return
        self._end(0.0)
        self._tell(
            502, f"the container that served this request ended before it had answered (request {self.request_id})"
        )

    # from the client

    def enter(self) -> None:
        """Get in line."""
        if self.session is None:
            self.pool.enter(self, self.gateway.now())
        else:
            self.session.enter(self, self.pool, self.gateway.now())

    def feed(self, pieces: list[bytes], *, done: bool) -> None:
        """Bytes of the request's body."""
        raise NotImplementedError

    def left(self) -> None:
        """The client is gone."""
        self.client = None
        if self.state == WAITING:
            self._withdraw()
        elif self.state == SENT:
            self.cancel()

    def drained(self) -> None:
        """The client has read what was written."""

    def filled(self) -> None:
        """The client reads more slowly than its answer comes."""

    # from the clock

    def timed_out(self) -> None:
        """Its function's timeout is over."""
        self.cancel()
        self._tell(504, f"{self.found.target.name}() took longer than its timeout (request {self.request_id})")

    def cancel(self) -> None:
        """Tell the container that nobody wants an answer any more."""
        raise NotImplementedError

    def rewind(self) -> None:
        """Be as before it was sent."""

    # inside

    def _withdraw(self) -> None:
        self.state = OVER
        if self.lease is None:
            self.pool.leave(self)
            self._leave_session()
        else:
            self.server.forget(self)
            self._leave_session()
            self._release(0.0)

    def may_repeat(self) -> bool:
        """Whether nothing is done twice when it is sent a second time."""
        harmless = self.head.method in _HARMLESS or any(one[0] == b"idempotency-key" for one in self.head.fields)
        return harmless and self.head.length == 0 and self.tries < 2

    def _end(self, seconds: float) -> None:
        """Nothing more will come from its container."""
        if self.state != OVER:
            self.state = OVER
            self._leave_session()
            self._release(seconds)

    def _leave_session(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.leave(self, self.gateway.now())

    def _release(self, seconds: float) -> None:
        lease, self.lease = self.lease, None
        if lease is not None:
            self.pool.release(lease, self.gateway.now(), seconds)

    def _tell(self, status: int, said: str) -> None:
        """The gateway answers, or ends the connection where an answer has begun."""
        client, self.client = self.client, None
        if client is None:
            return
        if self.answering.begun:
            client.abort()
        else:
            client.answer(status, said, _AGAIN if status == 429 else b"")
