"""HTTP for registries: TLS with this machine's certificates, its proxies, redirects, retries. Blocking, for threads.

Credentials are headers of one request; a redirect to another host never gets them.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import http.client
import random
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote, urljoin, urlsplit

from alight.builder.registry.settings import Way
from alight.wire.errors import ImageBuildError
from alight.wire.version import __version__

#: Seconds without a byte.
TIMEOUT = 30.0
#: How often something is tried, with about 0.5, 1, 2 and 4 seconds in between.
ATTEMPTS = 5
_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
_REDIRECTS = 6

T = TypeVar("T")


class Trouble(Exception):
    """What a registry did instead of giving. Not of Alight's tree of errors: who asked decides what it means."""

    def __init__(self, sentence: str, hint: str | None = None) -> None:
        super().__init__(sentence)
        self.hint = hint

    def error(self) -> ImageBuildError:
        """The same for the user."""
        return ImageBuildError(str(self), hint=self.hint)


class Unreachable(Trouble):
    """A host gave no answer, however often it was asked. The message says why."""


class PlainHttp(Trouble):
    """A registry speaks HTTP where HTTPS was asked for."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} answers without TLS")
        self.host = host


class Stopped(Exception):
    """The build was cancelled."""


class Retry(Exception):
    """What went wrong may go right the next time. ``after``: seconds that the other side asks for."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


@dataclass
class Response:
    """An answer whose body is still to be read. ``url`` is where it came from in the end."""

    status: int
    headers: http.client.HTTPMessage
    url: str
    raw: http.client.HTTPResponse

    def body(self, limit: int) -> bytes:
        """All of it. Raises ImageBuildError when it is longer than ``limit``."""
        content = self.raw.read(limit + 1)
        if len(content) > limit:
            raise ImageBuildError(f"{self.url} answers with more than {limit >> 10} KiB, which cannot be right")
        return content


class Transport:
    """Requests, until it is closed; closing breaks those that wait."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._stop = threading.Event()
        self._live: set[socket.socket] = set()
        self._contexts: dict[tuple[str, ...], ssl.SSLContext] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """End whatever is under way. From any thread."""
        self._stop.set()
        with self._lock:
            for one in self._live:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        """Raises Stopped after `close`."""
        if self._stop.is_set():
            raise Stopped

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        body: bytes | None = None,
        certificates: tuple[str, ...] = (),
    ) -> Iterator[Response]:
        """One answer, redirects followed (for GET). Raises Retry, ImageBuildError, Stopped."""
        sent = dict(headers)
        for _ in range(_REDIRECTS):
            with self._once(method, url, sent, body, certificates) as response:
                location = response.headers.get("Location")
                if response.status not in (301, 302, 303, 307, 308) or not location or method != "GET":
                    yield response
                    return
                before, url = urlsplit(url), urljoin(url, location)
                after = urlsplit(url)
                if after.scheme not in ("http", "https") or (before.scheme, after.scheme) == ("https", "http"):
                    raise ImageBuildError(f"{before.netloc} sends to {after.scheme}://{after.netloc}: not followed")
                if (before.scheme, before.netloc) != (after.scheme, after.netloc):
                    sent.pop("Authorization", None)
        raise ImageBuildError(f"{urlsplit(url).netloc} sends from one address to the next without end")

    def repeat(self, host: str, attempt: Callable[[], T]) -> T:
        """``attempt`` until it works. Raises Unreachable when it never does; whatever else it raises passes."""
        delay = _FIRST_DELAY
        for number in range(1, ATTEMPTS + 1):
            self.check()
            try:
                return attempt()
            except Retry as trouble:
                self.check()
                if number == ATTEMPTS:
                    raise Unreachable(f"{host}: {trouble}") from trouble
                wait = min(max(trouble.after, delay * random.uniform(0.7, 1.3)), _LONGEST_DELAY)
                if self._stop.wait(wait):
                    raise Stopped from trouble
                delay *= 2
        raise AssertionError  # the last attempt returned or raised

    @contextlib.contextmanager
    def _once(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, certificates: tuple[str, ...]
    ) -> Iterator[Response]:
        self.check()
        try:
            connection, target, extra = self._connection(url, certificates)
            try:
                connection.connect()
                wire = connection.sock
                with self._lock:
                    self._live.add(wire)
                try:
                    self.check()
                    whole = {"User-Agent": f"alight/{__version__}", **extra, **headers}
                    connection.request(method, target, body, whole)
                    raw = connection.getresponse()
                    _raise_for_busy(raw)
                    yield Response(raw.status, raw.headers, url, raw)
                finally:
                    with self._lock:
                        self._live.discard(wire)
            finally:
                connection.close()
        except ssl.SSLCertVerificationError as error:
            host = urlsplit(url).netloc
            raise ImageBuildError(
                f"the certificate of {host} is not trusted: {error.verify_message}",
                hint=f"set SSL_CERT_FILE on the machine that builds to a bundle with its authority, or put the "
                f"authority's certificate into /etc/containers/certs.d/{host}/ca.crt",
            ) from error
        except ssl.SSLError as error:
            if "WRONG_VERSION_NUMBER" in str(error) or "HTTP_REQUEST" in str(error):
                raise PlainHttp(urlsplit(url).netloc) from error
            raise Retry(f"{error.reason or error}") from error
        except socket.gaierror as error:
            raise Retry(f"its name cannot be resolved ({error.strerror})") from error
        except TimeoutError as error:
            raise Retry(f"no answer within {TIMEOUT:.0f} s") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # of the file that the answer was written to
                raise
            raise Retry(error.strerror or str(error) or type(error).__name__) from error
        except http.client.HTTPException as error:
            raise Retry(f"it ended in the middle ({type(error).__name__})") from error

    def _connection(
        self, url: str, certificates: tuple[str, ...]
    ) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
        parts = urlsplit(url)
        host = parts.hostname or ""
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        proxy = self._proxy(parts.scheme, parts.netloc)
        if parts.scheme == "http":
            if proxy is None:
                return http.client.HTTPConnection(host, parts.port or 80, timeout=TIMEOUT), path, {}
            through = urlsplit(proxy)
            connection = http.client.HTTPConnection(through.hostname or "", through.port or 80, timeout=TIMEOUT)
            return connection, url, {"Host": parts.netloc, **_proxy_headers(proxy)}
        context = self._context(certificates)
        if proxy is None:
            return http.client.HTTPSConnection(host, parts.port or 443, timeout=TIMEOUT, context=context), path, {}
        through = urlsplit(proxy)
        tunnel = http.client.HTTPSConnection(
            through.hostname or "", through.port or 80, timeout=TIMEOUT, context=context
        )
        tunnel.set_tunnel(host, parts.port or 443, _proxy_headers(proxy))
        return tunnel, path, {}

    def _proxy(self, scheme: str, netloc: str) -> str | None:
        proxies = {name.lower().removesuffix("_proxy"): value for name, value in self._way.proxies.items()}
        bypass: bool = urllib.request.proxy_bypass_environment(netloc, {"no": proxies.get("no", "")})  # type: ignore[attr-defined]
        found = proxies.get(scheme) or proxies.get("all")
        if bypass or not found:
            return None
        return found if "://" in found else f"http://{found}"

    def _context(self, certificates: tuple[str, ...]) -> ssl.SSLContext:
        with self._lock:
            context = self._contexts.get(certificates)
            if context is None:
                context = ssl.create_default_context(cafile=self._way.ca_bundle or None)
                for file in certificates:
                    context.load_verify_locations(file)
                if self._way.client_certificate:
                    context.load_cert_chain(self._way.client_certificate)
                self._contexts[certificates] = context
            return context


def _raise_for_busy(raw: http.client.HTTPResponse) -> None:
    if raw.status == 429 or raw.status >= 500:
        after = raw.headers.get("Retry-After", "")
        word = "too many requests" if raw.status == 429 else raw.reason or "an error of its own"
        raise Retry(f"it answers {raw.status} ({word})", float(after) if after.isdigit() else 0.0)


def _proxy_headers(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if not parts.username:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
