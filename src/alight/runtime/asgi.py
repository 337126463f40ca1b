"""ASGI applications: what each request is told, and lifespan events."""

from __future__ import annotations

import asyncio

from alight.runtime import failures
from alight.runtime.asgi_http import Http
from alight.runtime.asgi_websocket import WebSocket
from alight.wire import web
from alight.wire.errors import ExecutionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

    from alight.runtime.asgi_http import Asked
    from alight.runtime.web_connection import Connection
    from alight.runtime.web_exchange import Exchange, Request

_VERSION = {"version": "3.0", "spec_version": "2.4"}
_LIFESPAN_VERSION = {"version": "3.0", "spec_version": "2.0"}


class Asgi:
    """One application. ``start`` and ``stop`` run its lifespan, where it has one; ``begin`` a request."""

    def __init__(self, application: Any, what: str) -> None:
        self._application = application
        self._lifespan = Lifespan(application, what)
        self._tasks: Dict[Any, Asked] = {}
        self._loop: Any = None

    async def start(self) -> None:
        """Raises what the application raises."""
        self._loop = asyncio.get_running_loop()
        await self._lifespan.start()

    async def stop(self) -> None:
        await self._lifespan.stop()

    def running(self) -> List[Exchange]:
        """Those whose user code has not ended."""
        return list(self._tasks.values())

    def begin(self, connection: Connection, stream: int, request: Request, body: bytes) -> Exchange:
        scope = _scope(request, self._lifespan.state)
        made: Asked
        if request.flags & web.WEBSOCKET:
            asked = [value for name, value in request.headers if name == b"sec-websocket-protocol"]
            scope["type"] = "websocket"
            scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
            scope["subprotocols"] = [
                one.strip() for one in b",".join(asked).decode("latin-1").split(",") if one.strip()
            ]
            scope["extensions"] = {"websocket.http.response": {}}
            made = WebSocket(connection, stream, request)
        else:
            scope["method"] = request.method
            made = Http(connection, stream, request, body)
        task = made.begin(self._loop, self._application, scope)
        self._tasks[task] = made
        task.add_done_callback(self._ended)
        return made

    def _ended(self, task: Any) -> None:
        made = self._tasks.pop(task)
        if not made.over:  # it was cancelled before it began
            made.end(web.CANCEL)


def _scope(request: Request, state: Dict[str, Any]) -> Dict[str, Any]:
    _, _, scheme, version, _, query, _, client, client_port, server, server_port = request.fields[:11]
    return {
        "type": "http",
        "asgi": _VERSION,
        "http_version": version.decode("latin-1"),
        "scheme": scheme.decode("latin-1"),
        "path": decoded(request.full_path),
        "raw_path": request.full_path,
        "query_string": query,
        "root_path": request.root_path,
        "headers": request.headers,
        "client": _address(client, client_port),
        "server": _address(server, server_port),
        "state": state.copy(),
    }


def decoded(path: bytes) -> str:
    """A path without its percent signs."""
    if b"%" in path:
        from urllib.parse import unquote_to_bytes  # noqa: PLC0415  most paths have none

        path = unquote_to_bytes(path)
    return path.decode("utf-8", "replace")


def _address(host: bytes, port: bytes) -> Optional[Tuple[str, int]]:
    return (host.decode("latin-1"), int(port or b"0")) if host else None


class Lifespan:
    """An application that does not know lifespan events raises, which means that it has none."""

    def __init__(self, application: Any, what: str) -> None:
        self.state: Dict[str, Any] = {}
        self._application = application
        self._what = what
        self._task: Any = None
        self._asked: Any = None
        self._answers: Any = None

    async def start(self) -> None:
        """Raises what the application raised while it started, or ExecutionError with what it said."""
        self._asked, self._answers = asyncio.Queue(), asyncio.Queue()
        self._task = asyncio.get_running_loop().create_task(self._run())
        answer = await self._ask("startup")
        if answer is None:
            self._task = None
        elif answer["type"] == "lifespan.startup.failed":
            await asyncio.wait([self._task], timeout=1.0)  # what it raises says more than what it sent
            if self._task.done() and self._task.exception() is not None:
                raise self._task.exception()
            raise ExecutionError(f"{self._what} did not start: {answer.get('message') or 'it gave no reason'}")

    async def stop(self) -> None:
        """What fails is said in the container's log: it ends all the same."""
        if self._task is None:
            return
        answer = await self._ask("shutdown")
        if answer is None and self._task.exception() is not None:
            failures.print_local(self._task.exception())
        self._task.cancel()

    async def _ask(self, event: str) -> Optional[Dict[str, Any]]:
        """What it answers to an event; None when it ended without an answer."""
        self._asked.put_nowait({"type": f"lifespan.{event}"})
        answer = asyncio.ensure_future(self._answers.get())
        await asyncio.wait([answer, self._task], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done() and self._answers.empty():
            answer.cancel()
            self._task.exception()  # looked at: asyncio need not say that nobody did
            return None
        found: Dict[str, Any] = await answer
        return found

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": _LIFESPAN_VERSION, "state": self.state}
        await self._application(scope, self._asked.get, self._answers.put)
