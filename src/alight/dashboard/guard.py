"""What a browser is made to do and what it is not let do: header fields of answers, and looks at requests. Pure.

Requests come with the session's cookie whoever had the browser send them. So what changes something must say that it
comes from a page of ours in three ways: the Origin that the browser states, what it says of the site that sent it, and
a word that only our pages can read (``csrf``). Reading needs the first two: other pages could not read the answer, but
need not even be answered.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from alight.wire import errors

CSRF = "x-alight-csrf"
_SAFE = {"GET", "HEAD"}

#: Pages: scripts, styles and data from our own host and nowhere else, nothing inline, in nobody's frame.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
#: Everything that is not ours to read as a page: data, and files that users made.
DATA_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
_ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


def fields(kind: str, policy: str = DATA_POLICY, *, cached: bool = False, **more: str) -> dict[str, str]:
    """The header fields of an answer. ``cached``: it may be kept, and asked for again only when it has changed."""
    control = "no-cache" if cached else "no-store"
    said = {"content-type": kind, "content-security-policy": policy, "cache-control": control, **_ALWAYS}
    said.update({name.replace("_", "-"): value for name, value in more.items()})
    return said


def check_origin(method: str, headers: Mapping[str, str], *, secure: bool, by_cookie: bool) -> None:
    """Raise PermissionDeniedError for a request that a page of another origin has sent.

    Programs state no origin. A browser always does when a request could change something, and when it wants a
    WebSocket. ``by_cookie``: nothing but the cookie says who asks.
    """
    origin = headers.get("origin", "")
    if origin and not _is_ours(origin, headers.get("host", ""), secure=secure):
        raise errors.PermissionDeniedError(f"a page of another origin ({_short(origin)}) asks, which it may not")
    site = headers.get("sec-fetch-site", "same-origin")
    if site not in {"same-origin", "none"} and headers.get("sec-fetch-mode") != "navigate":
        raise errors.PermissionDeniedError("a page of another site asks, which it may not")
    changes = method not in _SAFE or headers.get("upgrade", "") == "websocket"
    if by_cookie and changes and not origin:
        raise errors.PermissionDeniedError("a change has to come from a page of the dashboard: no Origin was stated")


def check_csrf(headers: Mapping[str, str], session: bytes) -> None:
    """Raise PermissionDeniedError for a change without the word that only our pages can read."""
    if not hmac.compare_digest(headers.get(CSRF, "").encode("latin-1"), csrf_of(session).encode()):
        raise errors.PermissionDeniedError(
            "this change did not come from a page of the dashboard, or from one of an earlier session",
            hint="load the page again",
        )


def csrf_of(session: bytes) -> str:
    """The word of a session. ``session`` is its hash, which no browser knows."""
    return hmac.new(session, b"alight csrf", hashlib.sha256).hexdigest()[:32]


def cookie_name(host: str, *, secure: bool) -> str:
    """Browsers send the cookies of a host to all its ports: several servers of a machine need several names.

    By TLS the name has a prefix for which browsers take it from this very host only.
    """
    port = host.rpartition(":")[2]
    return "__Host-alight" if secure else (f"alight_{port}" if port.isdigit() else "alight")


def set_cookie(name: str, value: str, seconds: int, *, secure: bool) -> str:
    """The field that gives a browser its session, or with 0 seconds takes it away."""
    return f"{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"


def cookies(lines: Iterable[str], name: str) -> list[str]:
    """All values of this name: another host may have added one of its own, which must not hide ours."""
    pairs = (pair.strip().partition("=") for line in lines for pair in line.split(";"))
    return [value for found, _, value in pairs if found == name][:8]


def local_path(text: str) -> str:
    """Where to go after logging in: a path of this host, whatever was asked for."""
    bad = (
        not text.startswith("/")
        or text.startswith(("//", "/\\"))
        or any(ord(one) < 33 or one in '"<>\\' for one in text)
    )
    return "/" if bad else text


def attachment(name: str) -> str:
    """Content-Disposition for a file of any name."""
    from urllib.parse import quote  # noqa: PLC0415  only downloads

    plain = "".join(one if (one.isalnum() and one.isascii()) or one in "._-" else "_" for one in name)[:128] or "file"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _is_ours(origin: str, host: str, *, secure: bool) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme == ("https" if secure else "http") and parts.netloc.lower() == host.lower() and bool(host)


def _short(text: str) -> str:
    return "".join(one for one in text[:80] if one.isprintable())
