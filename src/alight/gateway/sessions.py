"""Sessions: requests that say that they belong together go to one container for as long as it lives. Pure.

A session begins without a container; its first request chooses one, and those that come meanwhile wait for that. The
container stays leased while it has sessions, and gets requests of theirs even when a newer version has taken over.
Sessions are kept in memory: a server that restarts has forgotten them.
"""

from __future__ import annotations

import hashlib
import secrets

from alight.gateway.pools import Lease, Pool, Waiter
from alight.wire import ids

_ID = "ss"
_MOST = 100_000  # sessions at a time
GONE = "this session is over, or never began: start another one"


class Session:
    """One session. ``idle_timeout``: seconds without a request after which it is over."""

    __slots__ = ("_chooser", "_line", "busy", "function_id", "idle_timeout", "is_over", "key", "lease", "pool",
                 "session_id", "since")  # fmt: skip

    def __init__(self, function_id: str, idle_timeout: float, key: bytes, now: float) -> None:
        self.session_id = ids.new_id(_ID)
        self.function_id = function_id
        self.idle_timeout = idle_timeout
        self.key = key
        self.since = now  # without a request
        self.busy = 0  # requests under way or waiting
        self.is_over = False
        self.lease: Lease | None = None
        self.pool: Pool | None = None
        self._chooser: Waiter | None = None  # the request that will have chosen the container
        self._line: dict[Waiter, None] = {}  # those that wait for its choice

    def enter(self, waiter: Waiter, pool: Pool, now: float) -> None:
        """A request of this session comes."""
        self.busy += 1
        self.pool = pool
        if self.lease is not None:
            pool.enter_at(waiter, self.lease)
        elif self._chooser is None:
            self._chooser = waiter
            pool.begin_apart(waiter, now)
        else:
            self._line[waiter] = None

    def begin(self, lease: Lease) -> None:
        """A container has room for a request of this session, the first of which decides for all."""
        if self.lease is not None or self.is_over:
            return  # what has ended since then is served where it came to
        self.lease, self._chooser = lease, None
        lease.sessions[self] = None
        line, self._line = self._line, {}
        for waiter in line:
            lease.pool.enter_at(waiter, lease)

    def leave(self, waiter: Waiter, now: float) -> None:
        """A request of this session is over, whether it was served or not."""
        self.busy -= 1
        self.since = now
        self._line.pop(waiter, None)
        if waiter is self._chooser:
            self._chooser = None
            if self._line and self.pool is not None:
                self._chooser = next(iter(self._line))
                del self._line[self._chooser]
                self.pool.begin_apart(self._chooser, now)

    def end(self) -> Lease | None:
        """It is over: requests that wait for its choice are refused. The container that it had."""
        self.is_over = True
        lease, self.lease = self.lease, None
        line, self._line = self._line, {}
        for waiter in line:
            waiter.refuse(410, GONE)
        return lease

    def is_idle(self, now: float) -> bool:
        """Whether nobody has used it for too long."""
        return not self.busy and now - self.since >= self.idle_timeout


class Sessions:
    """All sessions, by the token that their requests show."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Session] = {}

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def start(self, function_id: str, idle_timeout: float, now: float) -> tuple[str, str] | None:
        """A new session of a function: its id, and its token, which is kept as a hash. None: there are too many."""
        self.tick(now)
        if len(self._by_key) >= _MOST:
            return None
        token = f"st-{secrets.token_urlsafe(24)}"
        session = Session(function_id, idle_timeout, _key(token), now)
        self._by_key[session.key] = session
        return session.session_id, token

    def find(self, function_id: str, token: str, now: float) -> Session | None:
        """The session of a token; None when it is over."""
        session = self._by_key.get(_key(token))
        if session is None or session.function_id != function_id:
            return None
        if session.is_idle(now):
            self._end(session, now)
            return None
        return session

    def terminate(self, function_id: str, token: str, now: float) -> bool:
        """End a session: its requests that are under way go on, new ones are refused. False: there is none."""
        session = self.find(function_id, token, now)
        if session is not None:
            self._end(session, now)
        return session is not None

    def tick(self, now: float) -> None:
        """End those that nobody has used for too long."""
        for session in [one for one in self._by_key.values() if one.is_idle(now)]:
            self._end(session, now)

    def lost(self, lease: Lease, now: float) -> None:
        """A container is gone, or going: its sessions are over, and those of their requests that had not begun."""
        line, lease.line = lease.line, {}
        for session in list(lease.sessions):
            self._end(session, now)
        for waiter in line:
            waiter.refuse(410, "the container of this session has ended: start another session")

    def _end(self, session: Session, now: float) -> None:
        self._by_key.pop(session.key, None)
        lease = session.end()
        if lease is not None:
            lease.pool.let_go(lease, session, now)


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
