"""The gateway: joins clients, pools and containers. What it cannot know (where a container is) it is told."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Protocol

from alight.gateway import sockets
from alight.gateway.answering import Answering
from alight.gateway.api import PATHS as API_PATHS
from alight.gateway.api import Api, ApiExchange
from alight.gateway.backend import Backend
from alight.gateway.client import Client, Refusal
from alight.gateway.exchange import Exchange
from alight.gateway.framed import Framed
from alight.gateway.heads import Request, split_host
from alight.gateway.limits import Limits
from alight.gateway.pools import Lease, Leases, Pool
from alight.gateway.sessions import GONE, Session, Sessions
from alight.gateway.site import Site, SiteExchange, SiteSocket
from alight.gateway.site import exchange as site_exchange
from alight.gateway.sockets import Socket
from alight.gateway.splice import Ports, Spliced
from alight.gateway.table import Table, Target

_TICK = 0.25  # seconds: how exact timeouts of requests are
_CLIENTS_EVERY = 4  # ticks between looks at all clients
_LATER = b"retry-after: 60\r\n"
_UNKILLED = 1.0  # seconds that a request with a container of its own may go on after it was told to end
_PORTS = "web_server"
_WITH_SOCKETS = {"asgi_app", "fastapi_endpoint"}
_KEYS = ((b"modal-key", b"modal-secret"), (b"alight-key", b"alight-secret"))
_TOKENS = frozenset((b"authorization", *(key for key, _ in _KEYS)))
_SESSION = frozenset((b"alight-authorization", b"modal-authorization"))
_SESSION_ID = b"alight-session-id"

Dial = Callable[[str, int], Awaitable[socket.socket]]
#: Whether a proxy token (its id and its secret) may use a function.
Check = Callable[[str, str, Target], bool]


class Server(Protocol):
    """Who carries requests to one container."""

    container_id: str

    @property
    def exchanges(self) -> dict[int, Framed] | dict[int, Spliced]: ...

    @property
    def is_idle(self) -> bool: ...

    def close(self) -> None: ...


class Gateway:
    """See the module. ``dial`` connects to a port of a container, or to its runtime (port 0)."""

    def __init__(self, table: Table, leases: Leases, dial: Dial, check: Check, limits: Limits) -> None:
        self.limits = limits
        self.table = table
        self.api: Api | None = None  # who answers for the server itself
        self.directory: Api | None = None  # who answers whoever shows a token and finds no function
        self.site: Site | None = None  # who answers for the server's own pages
        self._leases = leases
        self._dial = dial
        self._check = check
        self.sessions = Sessions()
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.statuses: dict[int, int] = {}  # answers since the start, by status
        #: Who counts by function: its id, the status, and the seconds until the answer began.
        self.on_answer: Callable[[str, int, float], None] | None = None
        self._pools: dict[str, Pool] = {}
        self._pool_of_lease: dict[str, Pool] = {}
        self._servers: dict[str, Backend | Ports] = {}
        self._clients: set[Client] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._ticks = 0
        self._requests = count(1)
        self._prefix = f"wr-{os.urandom(5).hex()}"

    # from listeners

    def client(self) -> Client:
        """The protocol of a client's connection."""
        return Client(self)

    def close(self) -> None:
        """End all connections."""
        if self._timer is not None:
            self._timer.cancel()
        for client in list(self._clients):
            client.abort()
        for server in list(self._servers.values()):
            server.close()

    def answered(self, status: int, answering: Answering | None = None) -> None:
        """One more answer, whoever gives it; ``answering`` where it is known whose request it was."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if answering is not None and answering.function_id and self.on_answer is not None:
            self.on_answer(answering.function_id, status, self.now() - answering.since)

    # from the scheduler

    def given(self, lease_id: str, container_id: str) -> bool:
        """A container is ours to use; False when the lease is not wanted any more."""
        pool = self._pool_of_lease.get(lease_id)
        return pool is not None and pool.on_given(lease_id, container_id, self.now()) is not None

    def lost(self, lease_id: str) -> None:
        """The container of a lease is gone; another one will come."""
        pool = self._pool_of_lease.get(lease_id)
        lease = pool.given.get(lease_id) if pool is not None else None
        if pool is None or lease is None:
            return
        server = self._servers.pop(lease.container_id, None)
        lease.usable = False
        self.sessions.lost(lease, self.now())
        pool.on_lost(lease_id, self.now(), 0 if server is None or server.is_idle else 1)
        if server is not None:
            server.close()

    def failed(self, lease_id: str, said: str) -> bool:
        """No container will come. Whether anybody had to hear so."""
        pool = self._pool_of_lease.pop(lease_id, None)
        if pool is None:
            return False
        lease = pool.given.get(lease_id)
        if lease is not None:
            server = self._servers.pop(lease.container_id, None)
            lease.usable = False
            self.sessions.lost(lease, self.now())
            if server is not None:
                server.close()
        if not pool.on_failed(lease_id, self.now()):
            return False
        waiting, pool.waiting = pool.waiting, {}
        for waiter in waiting:
            waiter.refuse(503, said)
        return True

    def stale(self, is_stale: Callable[[str], bool], is_leaving: Callable[[str], bool]) -> None:
        """Containers may have been told to leave, or a newer version has taken over: those get no new requests, save of
        the sessions that they have. Those end with containers that leave.
        """
        for server in list(self._servers.values()):
            if isinstance(server, Ports) and is_leaving(server.container_id):
                server.retire()
        for pool in list(self._pools.values()):
            for lease in list(pool.given.values()):
                if lease.sessions and is_leaving(lease.container_id):
                    self.sessions.lost(lease, self.now())
                if lease.usable and is_stale(lease.container_id):
                    pool.close(lease)

    def held(self, function_id: str, said: str) -> None:
        """A function may not begin anything for now: those who wait for it hear so."""
        pool = self._pools.get(function_id)
        if pool is not None:
            waiting, pool.waiting = pool.waiting, {}
            for waiter in waiting:
                waiter.refuse(503, said)

    @property
    def knows_containers(self) -> bool:
        """Whether it would have to hear of containers that leave."""
        return bool(self._servers)

    # from containers

    def going(self, container_id: str) -> None:
        """A container says that it leaves."""
        self.stale(lambda one: one == container_id, lambda one: one == container_id)

    def unreachable(self, container_id: str, why: str) -> None:
        """A container runs and cannot be reached."""
        self._leases.broken(container_id, why)

    def parted(self, server: Backend | Ports) -> None:
        """A connection to a container has ended."""
        if server.is_idle and self._servers.get(server.container_id) is server:
            del self._servers[server.container_id]

    async def connect(self, protocol: asyncio.Protocol, container_id: str, port: int) -> None:
        """Connect to a container. Raises alight's errors and OSError."""
        sock = await self._dial(container_id, port)
        try:
            if sock.family == socket.AF_UNIX:
                await self._loop.create_unix_connection(lambda: protocol, sock=sock)
            else:
                await self._loop.create_connection(lambda: protocol, sock=sock)
        except BaseException:
            sock.close()
            raise

    # from clients

    def joined(self, client: Client) -> bool:
        """A client connects; False when there are too many."""
        self._clients.add(client)
        self._wind()
        return len(self._clients) <= self.limits.connections

    def parted_client(self, client: Client) -> None:
        """A client is gone."""
        self._clients.discard(client)

    def exchange_for(
        self, client: Client, head: Request
    ) -> Exchange | ApiExchange | SiteExchange | SiteSocket | Refusal:
        """What a request becomes. Raises BadRequest."""
        host = split_host(head.host)[0]
        found = self.table.find(host, head.path)
        if found is None:
            if self.site is not None and not client.is_local and self.table.is_site(host):
                return site_exchange(client, head, self.site)
            if self.api is not None and head.path.startswith(API_PATHS) and self.table.takes_paths(host):
                return ApiExchange(client, head, self.api)
            if self.directory is not None and self.table.is_known(host) and _shows_token(head):
                return ApiExchange(client, head, self.directory)
            return self._unknown(host, head)
        target = found.target
        session = self._session_of(head, target) if target.sessioned else None
        if isinstance(session, Refusal):
            return session
        if session is None and target.protected and not self._may(head, target):
            said = "this function wants a proxy token: headers Modal-Key and Modal-Secret"
            return Refusal(401, said, b"www-authenticate: Bearer\r\n")
        if target.held:
            return Refusal(503, target.held, _LATER)
        request_id = f"{self._prefix}{next(self._requests):06x}"
        made: Exchange
        if target.kind == _PORTS:
            made = Spliced(client, head, found, request_id)
        elif target.kind in _WITH_SOCKETS and sockets.is_asked_for(head):
            fault = sockets.fault_of(head)
            if fault:
                return Refusal(426 if "version" in fault else 400, fault, b"sec-websocket-version: 13\r\n")
            made = Socket(client, head, found, request_id)
        else:
            made = Framed(client, head, found, request_id)
        if session is not None:
            made.session = session
        return made

    def start_session(self, function_id: str, idle_timeout: float) -> tuple[str, str] | None:
        """See ``Sessions.start``."""
        self._wind()
        return self.sessions.start(function_id, idle_timeout, self.now())

    # from exchanges

    def pool_of(self, target: Target) -> Pool:
        """The pool of a function, as it is declared now."""
        pool = self._pools.get(target.function_id)
        if pool is None:
            pool = self._pools[target.function_id] = Pool(target.function_id, _Noted(self))
        pool.capacity, pool.aim, pool.single_use = max(1, target.slots), target.aim, target.single_use
        pool.most, pool.scaleup = target.most, target.scaleup
        return pool

    def server_of(self, lease: Lease, target: Target) -> Backend | Ports:
        """Who carries requests to a container."""
        server = self._servers.get(lease.container_id)
        if server is None:
            if target.kind == _PORTS:
                server = Ports(self, lease.container_id, target.port)
            else:
                server = Backend(self, lease.container_id)
            self._servers[lease.container_id] = server
        return server

    # inside

    def _unknown(self, host: str, head: Request) -> Refusal:
        if not self.table.is_known(host):
            return Refusal(421, "this host name does not lead here")
        if self.table.takes_paths(host) and head.path == b"/":
            said = "web functions are at http://<label>.localhost and at /_/<environment>/<app>/<function>/"
            ours = "; the dashboard is at http://alight.localhost, at this port" if self.site is not None else ""
            return Refusal(404, said + ours)
        return Refusal(404, "no web function has this address")

    def _session_of(self, head: Request, target: Target) -> Session | Refusal | None:
        """The session that a request shows, which opens a protected function, too: whoever may use it began it. The
        token goes no further; the session's id does.
        """
        shown = next((value for name, value in head.fields if name in _SESSION), b"")
        head.fields = [one for one in head.fields if one[0] not in _SESSION and one[0] != _SESSION_ID]
        scheme, _, token = shown.decode("latin-1").partition(" ")
        if not shown:
            return None
        session = self.sessions.find(target.function_id, token.strip(), self.now())
        if session is None or scheme.lower() != "bearer":
            return Refusal(410, GONE)
        head.fields.append((_SESSION_ID, session.session_id.encode()))
        return session

    def _may(self, head: Request, target: Target) -> bool:
        """Whether a request shows a proxy token that may use the function. The token goes no further."""
        said = dict(head.fields)
        for key, secret in _KEYS:
            if key in said:
                token = said[key].decode("latin-1"), said.get(secret, b"").decode("latin-1")
                head.fields = [one for one in head.fields if one[0] not in {key, secret}]
                return self._check(*token, target)
        scheme, _, token_text = said.get(b"authorization", b"").decode("latin-1").partition(" ")
        first, dot, second = token_text.strip().partition(".")
        if scheme.lower() != "bearer" or not dot:
            return False
        head.fields = [one for one in head.fields if one[0] != b"authorization"]
        return self._check(first, second, target)

    def _wind(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_TICK, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self.now()
        self._ticks += 1
        for function_id, pool in list(self._pools.items()):
            pool.tick(now, self.limits.lease_seconds)
            if pool.is_over:
                del self._pools[function_id]
        for server in list(self._servers.values()):
            self._end_overdue(server, now)
        if self._ticks % _CLIENTS_EVERY == 0:
            self.sessions.tick(now)
            for client in list(self._clients):
                client.look(now)
        if self._pools or self._clients or self.sessions:
            self._wind()

    def _end_overdue(self, server: Server, now: float) -> None:
        every = self._ticks % _CLIENTS_EVERY == 0
        for exchange in list(server.exchanges.values()):
            if isinstance(exchange, Socket) and every:
                exchange.look(now)
            passed = now - exchange.since
            if passed < exchange.found.target.timeout:
                if isinstance(exchange, Socket):
                    continue
                break  # those behind it began later
            if not exchange.cancelled:
                exchange.timed_out()
            elif exchange.pool.capacity == 1 and now - exchange.cancelled > _UNKILLED and exchange.lease is not None:
                # One that goes on although nobody wants it keeps its container from all others.
                lease = exchange.lease
                lease.usable = False
                exchange.pool.given.pop(lease.lease_id, None)
                self._pool_of_lease.pop(lease.lease_id, None)
                self._leases.end(lease.lease_id, timed_out=True)


def _shows_token(head: Request) -> bool:
    return any(name in _TOKENS for name, _ in head.fields)


class _Noted(Leases):
    """The scheduler's side of leases, with a note of whose each is."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def ask(self, function_id: str) -> str:
        gateway = self._gateway
        lease_id = gateway._leases.ask(function_id)  # noqa: SLF001  of one mind with it
        gateway._pool_of_lease[lease_id] = gateway._pools[function_id]  # noqa: SLF001
        return lease_id

    def end(self, lease_id: str, *, timed_out: bool = False) -> None:
        self._gateway._pool_of_lease.pop(lease_id, None)  # noqa: SLF001
        self._gateway._leases.end(lease_id, timed_out=timed_out)  # noqa: SLF001

    def cancel(self, lease_id: str) -> None:
        self._gateway._pool_of_lease.pop(lease_id, None)  # noqa: SLF001
        self._gateway._leases.cancel(lease_id)  # noqa: SLF001

    def broken(self, container_id: str, why: str) -> None:
        self._gateway._leases.broken(container_id, why)  # noqa: SLF001
