"""Decorators that put a function on a URL. They only declare; the gateway serves."""

from __future__ import annotations

import re
import warnings
from typing import Any, Callable, Dict, Iterable, Optional

from alight.sdk.shaping import Shaped, add, needs_parentheses, raw_of
from alight.wire.errors import DeprecationError, InvalidError

_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def fastapi_endpoint(
    _given: Any = None,
    /,
    *,
    method: str = "GET",
    label: Optional[str] = None,
    custom_domains: Optional[Iterable[str]] = None,
    docs: bool = False,
    requires_proxy_auth: bool = False,
) -> Callable[[Any], Shaped]:
    """One route, made with FastAPI from the function's parameters. FastAPI must be in the image."""
    needs_parentheses("fastapi_endpoint", _given)
    if str(method).upper() not in _METHODS:
        raise InvalidError(f"@fastapi_endpoint(): {method!r} is not an HTTP method")
    values = _common("fastapi_endpoint", label, custom_domains, requires_proxy_auth)
    values.update(method=method.upper(), docs=bool(docs))
    return lambda thing: add(thing, "fastapi_endpoint", web=values)


def asgi_app(
    _given: Any = None,
    /,
    *,
    label: Optional[str] = None,
    custom_domains: Optional[Iterable[str]] = None,
    requires_proxy_auth: bool = False,
) -> Callable[[Any], Shaped]:
    """Serve the ASGI application that the function returns. Called once in each container, without arguments."""
    needs_parentheses("asgi_app", _given)
    values = _common("asgi_app", label, custom_domains, requires_proxy_auth)
    return lambda thing: add(_factory(thing, "asgi_app"), "asgi_app", web=values)


def wsgi_app(
    _given: Any = None,
    /,
    *,
    label: Optional[str] = None,
    custom_domains: Optional[Iterable[str]] = None,
    requires_proxy_auth: bool = False,
) -> Callable[[Any], Shaped]:
    """Serve the WSGI application that the function returns. Called once in each container, without arguments."""
    needs_parentheses("wsgi_app", _given)
    values = _common("wsgi_app", label, custom_domains, requires_proxy_auth)
    return lambda thing: add(_factory(thing, "wsgi_app"), "wsgi_app", web=values)


def web_server(
    port: int,
    *,
    startup_timeout: float = 5.0,
    label: Optional[str] = None,
    custom_domains: Optional[Iterable[str]] = None,
    requires_proxy_auth: bool = False,
) -> Callable[[Any], Shaped]:
    """Pass requests on to a server that the function starts on ``port`` within ``startup_timeout`` seconds.

    The function must return; a server that it leaves running in a thread or a process serves.
    """
    if isinstance(port, bool) or not isinstance(port, int):
        raise InvalidError("@web_server() needs a port", hint="for example @web_server(8000)")
    if not 1 <= port <= 65535:
        raise InvalidError(f"@web_server(): a port is from 1 to 65535, not {port}")
    if startup_timeout <= 0:
        raise InvalidError(f"@web_server(): startup_timeout must be above 0 seconds, not {startup_timeout}")
    values = _common("web_server", label, custom_domains, requires_proxy_auth)
    values.update(port=port, startup_timeout=float(startup_timeout))
    return lambda thing: add(thing, "web_server", web=values)


def web_endpoint(*args: Any, **kwargs: Any) -> Callable[[Any], Shaped]:
    """The old name of ``fastapi_endpoint``. Deprecated."""
    warnings.warn("web_endpoint has a new name: fastapi_endpoint", DeprecationError, stacklevel=2)
    return fastapi_endpoint(*args, **kwargs)


def _common(word: str, label: Optional[str], domains: Optional[Iterable[str]], auth: bool) -> Dict[str, Any]:
    if label is not None and not _LABEL.fullmatch(str(label)):
        raise InvalidError(
            f"@{word}(): {label!r} cannot be part of a host name",
            hint="a label has 1 to 63 lower-case letters, digits and hyphens",
        )
    if isinstance(domains, str):
        raise InvalidError(f"@{word}(): custom_domains takes a list", hint=f"custom_domains=[{domains!r}]")
    return {"kind": word, "label": label, "custom_domains": list(domains or ()), "requires_proxy_auth": bool(auth)}


def _factory(thing: Any, word: str) -> Any:
    """A function that makes an application: plain, without parameters that lack a default."""
    code = getattr(raw_of(thing), "__code__", None)
    if code is not None and code.co_flags & 0x80:
        raise InvalidError(f"@{word}() is for a plain function that returns the application, not for `async def`")
    return thing
