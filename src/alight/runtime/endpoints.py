"""`@fastapi_endpoint`: a FastAPI application of one route around a function."""

from __future__ import annotations

import sys

from alight.runtime.web_exchange import internal_error
from alight.wire import ambient
from alight.wire.errors import ExecutionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict

#: Of the image: FastAPI brings them all.
_MODULES = ("fastapi", "fastapi.middleware.cors", "fastapi.responses", "anyio.to_thread")


def load() -> None:
    """Import what an application is made of; a template does it before its forks. Raises ExecutionError where the image
    lacks it."""
    try:
        for name in _MODULES:
            __import__(name)
    except ModuleNotFoundError as error:
        if error.name not in {"fastapi", "starlette", "anyio"}:
            raise
        raise ExecutionError(
            f"@fastapi_endpoint() needs FastAPI in the function's image, and {error.name} is not there",
            hint='add it: Image.debian_slim().pip_install("fastapi[standard]")',
        ) from None


def rehearse() -> None:
    """In a template: serve one request of an endpoint of ours, so that forks find imported what FastAPI, pydantic and
    anyio load with the first (a third of a second)."""
    import asyncio  # noqa: PLC0415  here already

    from alight.runtime.asgi import Lifespan  # noqa: PLC0415  here already

    async def nothing(number: int = 0) -> Dict[str, int]:
        return {"number": number}

    nothing.__annotations__ = {"number": int}  # typing is not there for the names above
    made = application(nothing, {}, 1)

    async def serve() -> None:
        lifespan = Lifespan(made, "a rehearsal")
        await lifespan.start()
        await made(_REHEARSED, _no_body, _nobody)
        await lifespan.stop()

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(serve())
    finally:
        loop.close()


async def _no_body() -> Dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _nobody(_message: Dict[str, Any]) -> None:
    """Hears the answer."""


_REHEARSED: Any = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "http_version": "1.1",
    "scheme": "http",
    "method": "GET",
    "path": "/",
    "raw_path": b"/",
    "query_string": b"number=1",
    "root_path": "",
    "headers": [(b"host", b"localhost"), (b"origin", b"http://localhost")],
    "client": ("127.0.0.1", 1),
    "server": ("localhost", 80),
    "state": {},
}


def application(call: Callable[..., Any], said: Dict[str, Any], most: int) -> Any:
    """``said`` is the decorator's (``FunctionSpec.web``). Blocking functions get ``most`` threads."""
    load()
    fastapi, cors = sys.modules["fastapi"], sys.modules["fastapi.middleware.cors"]
    docs = said.get("docs", False)
    made = fastapi.FastAPI(
        title=getattr(call, "__name__", "endpoint"),
        openapi_url="/openapi.json" if docs else None,
        docs_url="/docs" if docs else None,
        redoc_url="/redoc" if docs else None,
        lifespan=lambda _app: _Threads(most),
    )
    made.add_middleware(
        cors.CORSMiddleware,
        allow_origins=["*"],
        allow_credentials=True,
        allow_methods=["*"],
        allow_headers=["*"],
    )
    made.add_exception_handler(Exception, _said)
    made.add_api_route("/", call, methods=[said.get("method", "GET")])
    return made


def _said(_request: Any, _error: Exception) -> Any:
    """What a client hears of an exception. It is raised on, and logged."""
    response = sys.modules["fastapi.responses"].PlainTextResponse
    return response(internal_error(ambient.current_input_id.get() or "unknown") + "\n", status_code=500)


class _Threads:
    """Lifespan of an endpoint: blocking functions run in anyio's threads, of which there are to be enough."""

    def __init__(self, most: int) -> None:
        self._most = most

    async def __aenter__(self) -> None:
        limiter = sys.modules["anyio.to_thread"].current_default_thread_limiter()
        limiter.total_tokens = max(limiter.total_tokens, self._most)

    async def __aexit__(self, *_error: object) -> None:
        return None
