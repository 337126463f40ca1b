"""The way to the server: finds it, connects, and goes on after a lost connection.

A client is cheap until its first use. It reaches the server over the local unix socket, over TLS, or, inside a
container, over the node's socket, where the node says who is asking. When the connection is lost, requests are sent
again on a new one: every message either may be repeated or carries an id that makes repeating it harmless. Safe to
use from many threads and after a fork (the child connects anew).
"""

from __future__ import annotations

import json
import os
import time
import weakref
from _thread import allocate_lock
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Set, Tuple, Type, TypeVar

from alight.sdk import config, progress
from alight.sdk.lost import LostError
from alight.sdk.surface import unimplemented
from alight.sdk.sync import Future, dual, dual_function, in_event_loop, sleep
from alight.wire import errors
from alight.wire.codec import Buffer, loads_head, to_plain
from alight.wire.messages import BlobPlace, Hello
from alight.wire.record import dataclass, replace
from alight.wire.version import WIRE_VERSION, __version__

if TYPE_CHECKING:
    from alight.sdk.carrier import Carrier
    from alight.sdk.conversation import Stream


T = TypeVar("T")

DEFAULT_PORT = 9009
PATIENCE = 60.0  # seconds that a lost server may stay away before callers hear of it


@dataclass(frozen=True)
class Target:
    """Where a server is and who we are there. An empty one means: this machine's own server, started when there is
    none.
    """

    path: str = ""  # of a unix socket
    host: str = ""
    port: int = DEFAULT_PORT
    tls: bool = True
    fingerprint: str = ""  # of the pinned certificate; "any" during set-up alone
    token_id: str = ""
    token_secret: str = ""
    role: str = "client"

    @property
    def is_local(self) -> bool:
        return not self.path and not self.host

    def __str__(self) -> str:
        return self.path or (f"{self.host}:{self.port}" if self.host else "this machine's server")


class Client:
    """A connection to a server. Most scripts never name one: everything uses ``Client.from_env()`` by itself."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._closed = False
        self._reset()
        _CLIENTS.add(self)

    def _reset(self) -> None:
        self._connecting = allocate_lock()
        self._carrier: Optional[Carrier] = None
        self._server: Optional[Hello] = None
        self._placed: Tuple[Optional[Carrier], BlobPlace] = (None, BlobPlace())
        self._lost_at: Optional[float] = None
        self.held_calls: Set[str] = set()  # sent and not yet answered: what a reconnect picks up

    # making one

    @staticmethod
    @dual_function
    async def from_env(_override_config: Optional[Dict[str, Any]] = None) -> Client:
        """The client that the environment and the active profile describe. The same one every time."""
        return default_client() if not _override_config else Client(_target_of(_override_config))

    @staticmethod
    @dual_function
    async def from_credentials(token_id: str, token_secret: str) -> Client:
        """A client for the configured server with a token of its own."""
        client = Client(replace(configured_target(), token_id=token_id, token_secret=token_secret))
        await client.connect()
        return client

    @staticmethod
    @dual_function
    async def anonymous(server_url: str) -> Client:
        """A client without a token, for set-up."""
        client = Client(replace(parse_url(server_url), fingerprint="any"))
        await client.connect()
        return client

    @staticmethod
    @dual_function
    async def verify(server_url: str, credentials: Any) -> None:
        """Raise AuthError unless the server takes these credentials (token id, token secret)."""
        token_id, token_secret = credentials
        client = Client(replace(parse_url(server_url), token_id=token_id, token_secret=token_secret))
        try:
            await client.connect()
        finally:
            client.shut()

    @staticmethod
    @dual_function
    @unimplemented("Client.from_oauth_credentials would sign in through an identity provider; Alight has tokens only")
    async def from_oauth_credentials(
        refresh_token: str,
        *,
        oauth_client_id: str,
        oauth_client_secret: Optional[str] = None,
        oauth_jwt_key: Optional[str] = None,
    ) -> Client: ...

    @dual
    async def hello(self) -> None:
        """Connect, when that has not happened yet. Raises what stands in the way."""
        await self.connect()

    @dual
    async def close(self) -> None:
        """Let go of the connection. Later uses raise ClientClosed."""
        self.shut()

    def shut(self) -> None:
        """``close`` for code that never waits."""
        self._closed = True
        if self._carrier is not None:
            self._carrier.close()

    def is_closed(self) -> bool:
        return self._closed

    @dual
    async def __enter__(self) -> Client:
        await self.connect()
        return self

    @dual
    async def __exit__(self, exc_type: Any, exc: Any, tb: Any) -> None:
        self.shut()

    async def __aenter__(self) -> Client:  # noqa: PYI034  as the verb it stands for
        return await self.__enter__.aio()

    async def __aexit__(self, exc_type: Any, exc: Any, tb: Any) -> None:
        self.shut()

    @property
    @unimplemented("Client.stub is of the hosted protocol; Alight has a wire of its own")
    def stub(self) -> Any: ...

    @dual
    @unimplemented("Client.get_stub is of the hosted protocol; Alight has a wire of its own")
    async def get_stub(self, server_url: str) -> Any: ...

    @dual
    @unimplemented("Client.get_input_plane_metadata is of the hosted protocol; Alight has one server")
    async def get_input_plane_metadata(self, input_plane_region: str) -> Any: ...

    # what the rest of the SDK uses: to be awaited within verbs

    @property
    def fingerprint(self) -> str:
        """Of the certificate that the server showed; empty without TLS."""
        return self._target.fingerprint

    @property
    def target(self) -> Target:
        return self._target

    async def call(self, method: str, args: Any, reply: Type[T], body: Buffer = b"") -> T:
        """A request with one answer. Sent again when the connection is lost."""
        head = encode_open(method, args)
        while True:
            carrier = await self.connect()
            try:
                answer = await carrier.open(head, body).recv()
            except LostError as lost:
                await self.after_loss(lost)
                continue
            if answer is None:
                raise errors.InternalError(f"the server ended {method} without an answer")
            return loads_head(reply, answer[0])

    async def place(self) -> BlobPlace:
        """Where the server keeps large values, when this process may go there itself. Asked once per connection."""
        carrier = await self.connect()
        if self._placed[0] is not carrier:
            where = BlobPlace()
            if self._target.role != "container" and not self._target.host:
                try:
                    where = await self.call("blob.place", {}, BlobPlace)
                except errors.UnimplementedError:
                    pass  # an older server: values stream
            self._placed = (carrier, where)
        return self._placed[1]

    async def do(self, method: str, args: Any) -> None:
        """A request whose answer says nothing but that it is done."""
        await self.call(method, args, _Nothing)

    async def open(self, method: str, args: Any, body: Buffer = b"", *, end: bool = True) -> Stream:
        """A stream, for callers that read or write more than one message. What breaks it raises LostError there."""
        return await self.open_head(encode_open(method, args), body, end=end)

    async def open_head(self, head: bytes, body: Buffer = b"", *, end: bool = True) -> Stream:
        """``open`` with a head that is encoded already."""
        while True:
            carrier = self._carrier
            if carrier is None or carrier.lost is not None:
                carrier = await self.connect()
            try:
                return carrier.open(head, body, end=end)
            except LostError as lost:
                await self.after_loss(lost)

    @property
    def carrier(self) -> Optional[Carrier]:
        """The connection as it is, without making one."""
        return self._carrier

    @staticmethod
    def encode(method: str, args: Any) -> bytes:
        """The head of a stream's first frame."""
        return encode_open(method, args)

    async def connect(self) -> Carrier:
        """The connection, made when there is none. A server that was there before is waited for."""
        carrier = self._carrier
        if carrier is not None and carrier.lost is None:
            return carrier
        if self._closed:
            raise errors.ClientClosed("this client was closed", hint="use a new one, or none: Alight finds its own")
        if in_event_loop():
            return await _in_thread(self._connect)
        return self._connect()

    async def after_loss(self, lost: LostError) -> None:
        """Called with what broke; returns when it is worth trying again on ``connect()``, else raises."""
        if self._closed:
            raise errors.ClientClosed("this client was closed while a request was under way") from lost
        with self._connecting:
            if self._carrier is lost.carrier:
                self._lost_at = time.monotonic()
        pause = 0.02
        while True:
            try:
                await self.connect()
                return
            except _Refused:
                raise
            except errors.ConnectionError as error:
                if time.monotonic() - (self._lost_at or 0) > PATIENCE:
                    raise errors.ConnectionError(
                        f"the connection to {self._target} was lost and has not come back for {PATIENCE:g} s: {error}",
                        hint="calls that it had accepted go on there; see `alight server status`",
                    ) from error
            await sleep(pause)
            pause = min(pause * 2, 1.0)

    def _connect(self) -> Carrier:
        with self._connecting:
            if self._carrier is not None and self._carrier.lost is None:
                return self._carrier
            again = self._server is not None
            given_up = self._carrier is not None and self._carrier.given_up
            carrier, hello = self._dial(again=again)
            if self._server is not None and not hello.server_id:
                carrier.close()  # a node that was killed and has not found its server yet
                raise errors.ConnectionError(f"{self._target} has no server yet")
            if self._server is not None and hello.server_id != self._server.server_id:
                carrier.close()
                raise _Refused(
                    f"another server answers at {self._target} now: what this program started there is not known to it",
                    hint="start the program again",
                )
            self._carrier, self._server = carrier, hello
        if again and not given_up:
            count = len(self.held_calls)
            what = f"; picked up {count} call{'' if count == 1 else 's'}" if count else ""
            word = "the server was restarted" if not self._target.host else "the connection to the server is back"
            progress.current().note(word + what)
        return carrier

    def _dial(self, *, again: bool) -> Tuple[Carrier, Hello]:
        target = self._target
        if target.is_local:
            from alight.sdk import local  # noqa: PLC0415  only who uses this machine's server needs it

            target = replace(target, path=local.ensure(again=again))
        hello = Hello(
            wire=WIRE_VERSION,
            version=__version__,
            role=target.role,
            token_id=target.token_id,
            token_secret=target.token_secret,
        )
        from alight.sdk import dialing  # noqa: PLC0415  whoever only declares functions does without
        from alight.sdk.carrier import Carrier  # noqa: PLC0415  likewise

        sock, cipher = dialing.connect_unix(target) if target.path else dialing.connect_tcp(target)
        if target.fingerprint == "any" and cipher is not None:
            self._target = replace(target, fingerprint=cipher.fingerprint)
        carrier = Carrier(sock, cipher)
        try:
            return carrier, carrier.greet(hello)
        except LostError as error:
            raise errors.ConnectionError(
                f"what answers at {target} closed the connection before it said hello",
                hint="is it an Alight server, and does the address begin with https:// where it speaks TLS?",
            ) from error
        except BaseException as error:
            carrier.close()
            if isinstance(error, errors.AuthError) and error.hint is None and not target.token_id:
                error.hint = "run `alight setup` to get a token for this server"
            raise


class _Refused(errors.ConnectionError):
    """The server is there and we must not go on with it."""


@dataclass(frozen=True)
class _Nothing:
    """The answer {}."""


def default_client() -> Client:
    """The client of this process, made from the settings in force at its first use."""
    global _default  # noqa: PLW0603  one client for a process
    with _default_lock:
        if _default is None or _default.is_closed():
            _default = Client(configured_target())
        return _default


def configured_target() -> Target:
    """Where the settings in force point: a container's own socket, the configured server, or this machine's."""
    if config.in_container():
        return Target(path=_container_socket(), role="container")
    return _target_of(config.load().values)


def _target_of(values: Any) -> Target:
    url = values.get("server_url") or ""
    target = parse_url(url) if url else Target()
    return replace(
        target,
        token_id=values.get("token_id") or "",
        token_secret=values.get("token_secret") or "",
        fingerprint=values.get("fingerprint") or target.fingerprint,
    )


def parse_url(url: str) -> Target:
    """`https://host:9009`, `tls:host:9009#fingerprint`, `http://…` (no TLS: asked for in as many words),
    `unix:/path`.
    """
    text, _, fingerprint = url.strip().partition("#")
    scheme, colon, rest = text.partition(":")
    if scheme == "unix" and colon:
        return Target(path="/" + rest.lstrip("/"))
    if scheme not in {"https", "tls", "http", "tcp"}:
        if "/" in text and not text.startswith("/") and "://" in text:
            raise errors.InvalidError(f"{url!r} is not a server's address", hint="for example https://gpu-box:9009")
        scheme, rest = ("unix", text) if text.startswith("/") else ("https", text)
        if scheme == "unix":
            return Target(path=rest)
    where = rest.lstrip("/").split("/")[0]
    host, port = _split_port(where, url)
    return Target(host=host, port=port, tls=scheme in {"https", "tls"}, fingerprint=fingerprint)


def encode_open(method: str, args: Any) -> bytes:
    """The head of a stream's first frame."""
    return _encode({"method": method, "args": args if isinstance(args, dict) else to_plain(args)}).encode()


def encode_start(function_id: str, call_id: str, method: str = "", parent_input: str = "") -> bytes:
    """``encode_open`` of the plainest CallStart, by hand: it is in each warm call. Ids need no escaping."""
    more = f',"method":{_encode(method)}' if method else ""
    if parent_input:
        more += f',"parent_input":"{parent_input}"'
    return f'{{"method":"call.start","args":{{"call_id":"{call_id}","function_id":"{function_id}"{more}}}}}'.encode()


_encode = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make a new one each time


def _split_port(where: str, url: str) -> Tuple[str, int]:
    host, port = where, ""
    if where.startswith("["):
        host, _, after = where[1:].partition("]")
        port = after.lstrip(":")
    elif where.count(":") == 1:
        host, port = where.split(":")
    if not host or (port and not port.isdigit()):
        raise errors.InvalidError(f"{url!r} is not a server's address", hint="for example https://gpu-box:9009")
    return host, int(port or DEFAULT_PORT)


def _container_socket() -> str:
    named = os.environ.get("ALIGHT_SDK")
    if named:
        return named
    link = os.environ.get("ALIGHT_LINK")
    return os.path.join(os.path.dirname(link), "sdk.sock") if link else "/run/alight/sdk.sock"


async def _in_thread(function: Callable[[], T]) -> T:
    """Do something that blocks without stopping the caller's event loop."""
    future = Future()

    def work() -> None:
        try:
            future.set(function())
        except BaseException as error:  # noqa: BLE001  it is raised where it is awaited
            future.set(error=error)

    import threading  # noqa: PLC0415  whoever only declares functions does without

    threading.Thread(target=work, daemon=True, name="alight-connect").start()
    result: T = await future
    return result


_CLIENTS: weakref.WeakSet[Client] = weakref.WeakSet()
_default: Optional[Client] = None
_default_lock = allocate_lock()


def _after_fork() -> None:
    global _default_lock  # noqa: PLW0603  the parent may have held it
    _default_lock = allocate_lock()
    for client in list(_CLIENTS):
        if client._carrier is not None:  # noqa: SLF001  of this file
            client._carrier.forget_in_child()  # noqa: SLF001
        client._reset()  # noqa: SLF001


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
