"""The distribution protocol: manifests and blobs of one registry, with its ways to log in. Blocking, for threads.

Everything that comes is checked against its digest. Our own, and small: the libraries for it bring an HTTP stack with
them, and none resumes a download.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from alight.builder.registry.manifest import ACCEPT, Descriptor
from alight.builder.registry.settings import Place
from alight.builder.registry.transport import Response, Retry, Transport, Trouble
from alight.wire.errors import ImageBuildError

#: Manifests and configurations longer than this are none.
_SMALL = 8 << 20
_PIECE = 1 << 20
_CHALLENGE = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')


class NotFound(Trouble):
    """The registry does not have it (or does not show it)."""


class Denied(Trouble):
    """The registry wants other credentials, or some."""


@dataclass(frozen=True)
class Credentials:
    """A user of a registry."""

    username: str
    password: str

    @property
    def header(self) -> str:
        pair = f"{self.username}:{self.password}"
        return "Basic " + base64.b64encode(pair.encode()).decode()


class Client:
    """One repository of one registry. Any number of threads may use it."""

    def __init__(self, transport: Transport, place: Place, credentials: Credentials | None) -> None:
        self._transport = transport
        self._place = place
        self._credentials = credentials
        self._base = f"{'http' if place.insecure else 'https'}://{place.host}/v2/{place.repository}"
        self._authorization = ""
        self._lock = threading.Lock()

    @property
    def host(self) -> str:
        return self._place.host

    def manifest(self, wanted: str) -> tuple[bytes, str]:
        """The manifest of a tag or a digest, with its digest. Raises NotFound, Denied, Unreachable, ImageBuildError."""

        def attempt() -> bytes:
            with self._get(f"/manifests/{wanted}", {"Accept": ACCEPT}) as response:
                return response.body(_SMALL)

        body = self._transport.repeat(self.host, attempt)
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        if wanted.startswith("sha256:") and wanted != digest:
            raise ImageBuildError(f"{self.host} gives something else than was asked for: {digest} for {wanted}")
        return body, digest

    def small(self, blob: Descriptor) -> bytes:
        """A configuration, checked."""

        def attempt() -> bytes:
            with self._get(f"/blobs/{blob.digest}", {}) as response:
                return response.body(_SMALL)

        body = self._transport.repeat(self.host, attempt)
        if "sha256:" + hashlib.sha256(body).hexdigest() != blob.digest:
            raise ImageBuildError(f"{self.host} gives something else than {blob.digest}")
        return body

    def download(self, blob: Descriptor, into: Path, on_bytes: Callable[[int], None]) -> None:
        """A layer into a file, resumed after every break as long as some of it comes, checked in the end."""
        digest = hashlib.sha256()
        have = 0
        restarted = False
        with into.open("wb", buffering=0) as file:

            def attempt() -> None:
                nonlocal have
                headers = {"Range": f"bytes={have}-"} if have else {}
                with self._get(f"/blobs/{blob.digest}", headers) as response:
                    if have and (response.status != 206 or not _goes_on(response, have)):
                        start_again()
                    length = response.headers.get("Content-Length", "")
                    if length.isdigit() and int(length) > blob.size - have:
                        raise ImageBuildError(f"{self.host} sends more of {blob.digest} than its {blob.size} bytes")
                    # As much as is there, so that a break costs nothing that had come.
                    while have < blob.size and (piece := response.raw.read1(min(_PIECE, blob.size - have))):
                        _write(file.fileno(), piece)
                        digest.update(piece)
                        have += len(piece)
                        on_bytes(len(piece))
                        self._transport.check()

            def start_again() -> None:
                nonlocal digest, have
                on_bytes(-have)
                digest, have = hashlib.sha256(), 0
                file.seek(0)
                file.truncate()

            while True:
                self._transport.repeat(self.host, lambda: _with_progress(attempt, lambda: have, blob.size))
                if have < blob.size:
                    continue  # it broke, and some of it had come
                if "sha256:" + digest.hexdigest() == blob.digest:
                    return
                if restarted:
                    raise ImageBuildError(
                        f"what {self.host} sends for {blob.digest} is something else (tried twice)",
                        hint="the registry or a proxy before it is broken; a mirror may be whole",
                    )
                restarted = True
                start_again()

    @contextlib.contextmanager
    def _get(self, path: str, headers: dict[str, str]) -> Iterator[Response]:
        """An answer with content. Logs in when the registry asks for it, once, or again when a token has run out."""
        for attempt in (1, 2):
            with self._lock:
                used = self._authorization
            sent = {**headers, **({"Authorization": used} if used else {})}
            with self._transport.request(
                "GET", self._base + path, sent, certificates=self._place.certificates
            ) as response:
                if response.status in (200, 206):
                    yield response
                    return
                if response.status != 401 or attempt == 2:
                    self._raise_for(response, path)
                challenges = response.headers.get_all("WWW-Authenticate") or []
            self._log_in(challenges, used)
        raise AssertionError  # the second attempt answered or raised

    def _log_in(self, challenges: list[str], used: str) -> None:
        with self._lock:
            if self._authorization != used:
                return  # another thread has been here
            kinds = {one.split(None, 1)[0].lower(): one for one in challenges if one.strip()}
            if "bearer" in kinds:
                self._authorization = "Bearer " + self._token(kinds["bearer"])
            elif "basic" in kinds and self._credentials is not None:
                self._authorization = self._credentials.header
            else:
                raise self._denied("it wants a user and a password")

    def _token(self, challenge: str) -> str:
        values = {name.lower(): quoted or plain for name, quoted, plain in _CHALLENGE.findall(challenge)}
        realm = values.get("realm", "")
        scheme = urlsplit(realm).scheme
        if scheme != "https" and not (scheme == "http" and self._place.insecure):
            raise ImageBuildError(f"{self.host} sends to {realm[:200]!r} for a token, which is not a secure address")
        asked = {"service": values.get("service", ""), "scope": values.get("scope", "")}
        if not asked["scope"]:
            asked["scope"] = f"repository:{self._place.repository}:pull"
        url = realm + ("&" if urlsplit(realm).query else "?") + urlencode({k: v for k, v in asked.items() if v})
        headers = {"Authorization": self._credentials.header} if self._credentials else {}

        def attempt() -> bytes:
            with self._transport.request("GET", url, headers, certificates=self._place.certificates) as response:
                if response.status in (401, 403):
                    raise self._denied(f"{urlsplit(realm).netloc} gives no token for these credentials")
                if response.status != 200:
                    raise ImageBuildError(f"{urlsplit(realm).netloc} answers {response.status} instead of a token")
                return response.body(_SMALL)

        body = self._transport.repeat(urlsplit(realm).netloc, attempt)
        try:
            answer = json.loads(body)
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise ImageBuildError(f"{urlsplit(realm).netloc} answers without a token")
        return token

    def _raise_for(self, response: Response, path: str) -> None:
        said = _said(response)
        if response.status in (401, 403):
            raise self._denied(said)
        if response.status == 404:
            kind, _, name = path[1:].partition("/")
            what = f"image {self._place.repository}" if kind == "manifests" else f"part of {self._place.repository}"
            raise NotFound(
                f"{self.host} has no {what}{'@' if name.startswith('sha256:') else ':'}{name}{_after(said)}",
                "check the spelling of the name and the tag; some registries say this of what is private, too",
            )
        raise ImageBuildError(f"{self.host} answers {response.status} for {self._place.repository}{path}{_after(said)}")

    def _denied(self, said: str) -> Denied:
        who = f"the user {self._credentials.username!r}" if self._credentials else "everybody"
        return Denied(
            f"{self.host} does not let {who} have {self._place.repository}{_after(said)}",
            "check the name; a private image needs secret= with the keys REGISTRY_USERNAME and REGISTRY_PASSWORD "
            "(a token stands in the password's place)",
        )


def _with_progress(attempt: Callable[[], None], have: Callable[[], int], size: int) -> None:
    """A break after some bytes came is no failed try: the next one goes on from there."""
    before = have()
    try:
        attempt()
    except Retry:
        if have() > before:
            return
        raise
    if have() == before < size:
        raise Retry("it ends too early")


def _goes_on(response: Response, have: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _write(handle: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(handle, rest) :]


def _said(response: Response) -> str:
    """The registry's own words."""
    try:
        first = json.loads(response.body(_SMALL))["errors"][0]
        return str(first.get("message") or first.get("code") or "")[:300]
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""


def _after(said: str) -> str:
    return f": {said}" if said else ""
