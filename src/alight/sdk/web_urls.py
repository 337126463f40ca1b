"""Where web functions answer: asking the server, and what people read of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, List, Optional, Sequence

from alight.wire import errors
from alight.wire.urls import FunctionUrls, WebUrl

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
    url = one.inside if found.is_inside else one.url or one.path_url
    if not url:
        raise errors.ServiceError(
            f"{callee.name} is a web function, and the server listens nowhere for its requests",
            hint="start the server without ALIGHT_WEB_LISTEN=none",
        )
    return url


def lines(function: str, urls: Sequence[WebUrl]) -> List[str]:
    """What people read of a published web function: each URL in a line of its own."""
    said: List[str] = []
    for one in urls:
        name = f"{function[:-2]}.{one.method}" if one.method else function
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
