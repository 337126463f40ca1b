"""Where web functions answer: asking the server, and what people read of it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, List, Optional, Sequence

from alight.wire import errors
from alight.wire.urls import FunctionUrls, WebUrl

_NSSWITCH = "/etc/nsswitch.conf"
_RESOLVED = "/run/systemd/resolve/io.systemd.Resolve"

if TYPE_CHECKING:
    from alight.sdk.callee import Callee


async def url_of(callee: Callee, method: str = "") -> Optional[str]:
    """The URL that works where this is called: in a container its name for the gateway. None for what has none.

    Raises ServiceError for a web function of a server that listens nowhere for requests.
    """
    found = await callee.client.call("function.urls", FunctionUrls(callee.function_id), FunctionUrls)
    one = next((one for one in found.urls if one.method == method), None)
    if one is None:
        return None
    url = one.inside if found.is_inside else one.url if _resolves(one.url) else one.path_url
    if not url:
        raise errors.ServiceError(
            f"{callee.name} is a web function, and the server listens nowhere for its requests",
            hint="start the server without ALIGHT_WEB_LISTEN=none",
        )
    return url


def _resolves(url: str) -> bool:
    """Whether the host of a URL can be looked up here. Names below localhost are known to browsers and curl, but to the
    C library only where a module of systemd is among what it asks; asking the network for them would be slow, and in
    vain.
    """
    host = url.partition("//")[2].partition("/")[0].rpartition(":")[0]
    if not host.endswith(".localhost"):
        return bool(url)
    return sys.platform == "linux" and knows_localhost(_read(_NSSWITCH), os.path.exists(_RESOLVED))


def knows_localhost(nsswitch: str, resolved: bool) -> bool:
    """Whether names below localhost resolve, by the text of nsswitch.conf and whether systemd-resolved runs."""
    for line in nsswitch.splitlines():
        words = line.partition("#")[0].split()
        if words[:1] == ["hosts:"]:
            return "myhostname" in words or ("resolve" in words and resolved)
    return False


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def lines(function: str, urls: Sequence[WebUrl]) -> List[str]:
    """What people read of a published web function: each URL in a line of its own."""
    said: List[str] = []
    for one in urls:
        name = function.removesuffix(".*")
        name = f"{name}.{one.method}" if one.method else name
        if not one.url:
            said.append(f"{name}: the server listens nowhere for web requests")
            continue
        said.append(f"{name} => {one.url}{'  (needs a token)' if one.requires_proxy_auth else ''}")
        if one.path_url != one.url:
            said.append(f"{' ' * len(name)}    {one.path_url}")
        said += [f"{' ' * len(name)}    https://{domain}" for domain in one.custom_domains]
        if one.note:
            said.append(f"{' ' * len(name)}    {one.note}")
    return said
