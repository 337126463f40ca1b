"""Web functions: applications made once, served to the gateway over a socket of the container's directory (decision
0013).

The event loop has the main thread. Methods of the same class that are called run as coroutines and in threads beside.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time

from alight.runtime import tasks
from alight.runtime.web_connection import Connection
from alight.runtime.web_exchange import Exchange
from alight.wire import web
from alight.wire.errors import ExecutionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Set

    from alight.runtime.link import Arrival
    from alight.runtime.serve import Service
    from alight.runtime.web_exchange import Request

_BACKLOG = 512
_LONGEST_PATH = 100  # of a socket's name, nearly
#: Of the grace that a leaving container has, what is kept for shutting down after the requests.
_FOR_THE_END, _MOST_FOR_THE_END = 0.25, 5.0
_TO_BE_CANCELLED = 1.0
_CROSSING = 0.05
_TO_LEAVE = 1.0  # what was said to the gateway
_ASYNC = 0x80 | 0x200  # inspect's CO_COROUTINE and CO_ASYNC_GENERATOR


def new_loop() -> Any:
    """uvloop's where the image has it: requests cost half."""
    try:
        return __import__("uvloop").new_event_loop()
    except ImportError:
        return asyncio.new_event_loop()


def kinds_of(function: Dict[str, Any]) -> Dict[str, Dict[str, Any]]:
    """What the decorators said, by the method's name; a function has none. Empty where nothing is for the web."""
    said = function.get("web") or {}
    return said if function.get("class_name") else {"": said} if said else {}


def preload() -> None:
    """In every template: its forks would each load uvloop for themselves, which takes longer than all else that a fork
    does before it serves."""
    try:
        __import__("uvloop")
    except Exception:  # noqa: BLE001, S110  it is not there, or broken, which concerns only who serves the web
        pass


def prepare(function: Dict[str, Any]) -> None:
    """In a template of a web function: likewise, once the user's module is there. Forks make their applications."""
    is_endpoint = any(said["kind"] == "fastapi_endpoint" for said in kinds_of(function).values())
    if is_endpoint or "fastapi" in sys.modules:
        from alight.runtime import endpoints  # noqa: PLC0415  only where it is used

        endpoints.load()
        endpoints.rehearse()
    elif "anyio" in sys.modules:
        __import__("anyio._backends._asyncio")  # which it loads with the first use


class Site:
    """The applications of this container, by endpoint, and the connections of the gateway."""

    def __init__(self, function: Dict[str, Any], calls: Dict[str, Callable[..., Any]], spool: str) -> None:
        self._most = max(1, function.get("autoscaling", {}).get("max_concurrent_inputs", 1))
        self._what = function["name"].partition(".*")[0]
        self._is_class = bool(function.get("class_name"))
        self._path = os.path.join(spool, web.SOCKET)
        self._kinds = kinds_of(function)
        self._calls = calls
        self._loop: Any = None
        self._server: Any = None
        self.applications: Dict[str, Any] = {}
        self.connections: Set[Connection] = set()
        self.going = False

    def open(self, loop: Any) -> None:
        """Make the applications, start them, and listen. Raises what user code raises."""
        self._loop = loop
        for name, said in self._kinds.items():
            # Hooks of a server class have started its server: it has nothing to call.
            one = self.applications[name] = self._made(said, self._calls.get(name, _nothing), name)
            if said["kind"] == "web_server":
                one.launch()
        try:
            loop.run_until_complete(self._start())
        except BaseException as error:  # noqa: BLE001  raised on, as user code raised it
            raise error.with_traceback(_beyond_ours(error.__traceback__))  # noqa: B904  it is the same

    def begin(self, connection: Connection, stream: int, request: Request, body: bytes) -> Exchange:
        """A request has come. Its exchange is over already if it cannot be served."""
        applications = self.applications
        one = applications.get(request.endpoint)
        if one is None or hasattr(one, "launch"):
            refused = Exchange(connection, stream, request)
            refused.answer(404, f"{self._what} has no web function {request.endpoint!r} in this container")
            return refused
        made: Exchange = one.begin(connection, stream, request, body)
        return made

    def servers(self) -> List[Any]:
        """Applications that may end by themselves."""
        return [one for one in self.applications.values() if hasattr(one, "watch")]

    def go(self) -> None:
        """Take no new requests."""
        self.going = True
        for connection in self.connections:
            connection.say(web.GOING, 0)

    def running(self) -> List[Exchange]:
        return [one for application in self.applications.values() for one in application.running()]

    async def close(self) -> None:
        """Shut the applications down, let what was said leave, and do not listen any more."""
        for one in self.applications.values():
            await one.stop()
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.close()
        await _within(_TO_LEAVE, lambda: not self.connections)

    def _made(self, said: Dict[str, Any], call: Callable[..., Any], name: str) -> Any:
        kind = said["kind"]
        what = f"{self._what}.{name}()" if name else self._what if self._is_class else f"{self._what}()"
        if kind == "web_server":
            from alight.runtime import webserver  # noqa: PLC0415  each kind pays for its own

            return webserver.WebServer(call, said, what)
        if kind == "wsgi_app":
            from alight.runtime import wsgi  # noqa: PLC0415

            return wsgi.Wsgi(checked(call(), what, kind), self._most)
        from alight.runtime import asgi  # noqa: PLC0415

        if kind == "asgi_app":
            return asgi.Asgi(checked(call(), what, kind), what)
        if kind == "fastapi_endpoint":
            from alight.runtime import endpoints  # noqa: PLC0415

            return asgi.Asgi(endpoints.application(call, said, self._most), what)
        raise ExecutionError(f"{what} is a web function of the kind {kind!r}, which this version does not know")

    async def _start(self) -> None:
        for one in self.applications.values():
            await one.start()
        if len(self.servers()) < len(self.applications):
            loop = self._loop
            self._server = await loop.create_unix_server(lambda: Connection(self, loop), sock=self._listener())

    def _listener(self) -> socket.socket:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        directory = -1
        path = self._path
        try:
            if len(path) > _LONGEST_PATH:
                directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
                path = f"/proc/self/fd/{directory}/{web.SOCKET}"
            if os.path.exists(path):
                os.unlink(path)
            found.bind(path)
            found.listen(_BACKLOG)
        finally:
            if directory >= 0:
                os.close(directory)
        return found


class Web(tasks.Tasks):
    """The way of web functions. Everything of ``Tasks`` holds; blocking methods run in threads always, because the
    loop has requests to serve."""

    def __init__(self, service: Service, site: Site) -> None:
        super().__init__(service)
        self._site = site
        self._watches: List[Any] = []
        self._busy_at = 0.0  # seen to be, while leaving

    async def _serve(self) -> None:
        self._watches = [self._loop.create_task(self._watch(one)) for one in self._site.servers()]
        await super()._serve()
        began, grace = time.monotonic(), self._service.grace
        enough = grace - min(grace * _FOR_THE_END, _MOST_FOR_THE_END)
        await self._finish(enough)
        for server in self._site.servers():
            await server.finish(enough - (time.monotonic() - began))
        for task in self._watches:
            task.cancel()
        await self._site.close()
        self._service.grace = max(1.0, grace - (time.monotonic() - began))

    def _arrived(self, arrival: Arrival) -> None:
        super()._arrived(arrival)
        if self._ending and not self._site.going:
            self._busy_at = time.monotonic()
            self._site.go()

    async def _finish(self, seconds: float) -> None:
        """Let requests end; after so long, end them."""
        await _within(seconds, self._is_quiet)
        left = self._site.running()
        if left:
            print(f"alight: {len(left)} requests did not end within {seconds:g} s, and are cancelled", file=sys.stderr)
        for one in left:
            one.abandon()
        if left:
            await _within(_TO_BE_CANCELLED, lambda: not self._site.running())

    def _is_quiet(self) -> bool:
        """Nothing runs, and nothing can have been sent to us before the gateway heard that we go."""
        now = time.monotonic()
        if self._site.running():
            self._busy_at = now
            return False
        return now - self._busy_at > _CROSSING

    async def _watch(self, server: Any) -> None:
        sentence = await server.watch()
        print(f"alight: {sentence}. This container ends.", file=sys.stderr)
        self._service.leave_by_itself()

    async def _blocking(self, target: Any, given: Any, index: int, args: Any, kwargs: Any) -> Any:
        return await self._in_thread(lambda: target.call(*args, **kwargs))


def _beyond_ours(step: Any) -> Any:
    """A traceback from where user code begins, without the loop that ran it."""
    found, here = step, os.path.dirname(__file__)
    while step is not None:
        if step.tb_frame.f_code.co_filename.startswith(here):
            found = step.tb_next
        step = step.tb_next
    return found


def _nothing() -> None: ...


async def _within(seconds: float, is_done: Callable[[], bool]) -> None:
    """Wait for it, at most so long. Only leaving containers wait so: nobody has to tell them."""
    deadline, pause = time.monotonic() + seconds, 0.001
    while not is_done() and time.monotonic() < deadline:
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.02)


def checked(found: Any, what: str, kind: str) -> Any:
    """The application that a factory returned. ExecutionError for what is none, or one of the other kind."""
    if hasattr(found, "__await__"):
        getattr(found, "close", lambda: None)()
        raise ExecutionError(
            f"{what} returned a coroutine, and @{kind}() is for a plain function that returns the application",
            hint="leave `async` out",
        )
    if not callable(found):
        raise ExecutionError(
            f"{what} returned {'nothing' if found is None else f'a {type(found).__name__}'}, which is no application",
            hint="return the application that it makes",
        )
    other = {"asgi_app": "wsgi_app", "wsgi_app": "asgi_app"}[kind]
    if _is_asgi(found) != (kind == "asgi_app") and (_is_asgi(found) or hasattr(found, "wsgi_app")):
        name = type(found).__name__
        raise ExecutionError(f"{what} returned a {name}, which is for @{other}()", hint=f"use @{other}()")
    return found


def _is_asgi(application: Any) -> bool:
    """Whether calling it makes a coroutine, as far as its code tells."""
    for one in (application, type(application).__call__):
        code = getattr(getattr(one, "__func__", one), "__code__", None)
        if code is not None and code.co_flags & _ASYNC:
            return True
    return False
