"""What clients and the server say to each other about URLs of web functions, and about the tokens that open them.

See ``messages`` for the notation.
"""

from __future__ import annotations

from typing import Optional, Tuple

from alight.wire.record import dataclass

#: The name that the gateway has inside containers; labels stand before it.
INSIDE = "alight.internal"
INSIDE_PORT = 9080


@dataclass(frozen=True)
class WebUrl:
    """Where one web function, or one web method of a class, answers.

    ``url`` has a host name of its own, ``path_url`` needs no resolver, ``inside`` works in containers that have a
    network. None ends with "/"; ``url`` and ``inside`` are the path forms too where the label went to another
    app. ``note`` is a sentence for people: that the label was shortened, or who took it.
    """

    url: str
    path_url: str
    inside: str
    method: str = ""  # of a class
    requires_proxy_auth: bool = False
    custom_domains: Tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class FunctionUrls:
    """function.urls {function_id} → FunctionUrls: of a class those of all its web methods.

    ``is_inside``: whoever asks is a container that reaches the gateway by the name ``INSIDE``.
    """

    function_id: str = ""
    urls: Tuple[WebUrl, ...] = ()
    is_inside: bool = False


@dataclass(frozen=True)
class SessionStart:
    """web.session_start → SessionStarted: requests that show its token go to one container of the server. InvalidError
    for what has no sessions. ``idle_timeout``: seconds without a request after which it is over.
    """

    function_id: str
    idle_timeout: float = 600.0


@dataclass(frozen=True)
class SessionStarted:
    session_id: str
    token: str


@dataclass(frozen=True)
class SessionEnd:
    """web.session_end → {}: NotFoundError for one that is over."""

    function_id: str
    token: str


@dataclass(frozen=True)
class ProxyTokenCreate:
    """proxy_token.create → admission.TokenCreated, the only time that the secret is seen.

    ``scope`` "": it opens protected web functions. "call:APP": it calls functions of the app APP of ``environment``
    over HTTP, and does nothing else.

    proxy_token.lend → TokenCreated: for protected web functions, good until this stream ends or its connection is lost.
    """

    name: str = ""
    scope: str = ""
    environment: str = ""


@dataclass(frozen=True)
class ProxyTokenName:
    """proxy_token.delete → {}: NotFoundError. proxy_token.update → {}: another name for it."""

    token_id: str
    name: str = ""


@dataclass(frozen=True)
class ProxyTokenInfo:
    token_id: str
    name: str
    created_at: float
    created_by: str = ""
    last_used_at: Optional[float] = None
    scope: str = ""
    environment: str = ""


@dataclass(frozen=True)
class ProxyTokenListed:
    """proxy_token.list {} → ProxyTokenListed, newest first."""

    tokens: Tuple[ProxyTokenInfo, ...] = ()
