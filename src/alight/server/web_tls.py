"""Certificates of the web port: given by the operator, chosen by the name that a client asks for, and read again when
their files change. A changed file that is no certificate leaves the one before in use, and the log says so.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alight.wire import errors

log = logging.getLogger(__name__)
_LOOK_SECONDS = 2.0  # between two looks at the files
_ALPN = ["http/1.1"]
_DAY = 86400.0

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Pair:
    """The files of one certificate (with its chain) and of its key."""

    cert: Path
    key: Path


@dataclass
class _Loaded:
    context: ssl.SSLContext
    names: tuple[str, ...]
    expires: float  # unix seconds


class Certificates:
    """``context`` is what to listen with. ``domain``: the base domain that the first certificate should be for."""

    def __init__(self, pairs: Sequence[Pair], domain: str = "") -> None:
        """Raises InvalidError for files that cannot be used."""
        self._pairs = list(pairs)
        self._stamps = [_stamp(one) for one in pairs]
        self._failing: dict[int, _Stamp] = {}  # what was seen at the last look and could not be used
        self._loaded = [_load(one) for one in pairs]
        self._timer: asyncio.TimerHandle | None = None
        self.context = _context()
        self.context.sni_callback = self._choose
        self.context.load_cert_chain(pairs[0].cert, pairs[0].key, password=_no_password)  # OpenSSL wants one here, too
        for pair, one in zip(self._pairs, self._loaded):
            _note_dates(pair, one)
        if domain and not any(_covers(one.names, f"any.{domain}") for one in self._loaded):
            log.warning(
                "no certificate of ALIGHT_WEB_CERT is for *.%s (they are for %s): browsers will refuse web functions",
                domain,
                ", ".join(name for one in self._loaded for name in one.names) or "no names",
            )

    def watch(self) -> None:
        """Look at the files from now on, until ``close``."""
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._again)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self) -> None:
        """Take up what has changed. Certificate and key are two files: a pair that does not fit may be half written, so
        it is complained about only when it is still so at the next look.
        """
        for index, pair in enumerate(self._pairs):
            stamp = _stamp(pair)
            if stamp == self._stamps[index]:
                continue
            try:
                self._loaded[index] = loaded = _load(pair)
            except errors.Error as error:
                if self._failing.get(index) == stamp:
                    self._stamps[index] = stamp
                    log.warning("the web port keeps the certificate that it has: %s", error)
                self._failing[index] = stamp
                continue
            self._stamps[index] = stamp
            self._failing.pop(index, None)
            log.info("the web port uses the new certificate in %s", pair.cert)
            _note_dates(pair, loaded)

    def _again(self) -> None:
        try:
            self.look()
        finally:
            self.watch()

    def _choose(self, asking: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        host = (name or "").lower()
        found = next((one for one in self._loaded if _covers(one.names, host)), self._loaded[0])
        asking.context = found.context


def pairs(certs: str, keys: str) -> tuple[Pair, ...]:
    """What ALIGHT_WEB_CERT and ALIGHT_WEB_KEY name: as many keys as certificates, separated by ":"."""
    found = [text.split(":") if text else [] for text in (certs, keys)]
    if len(found[0]) != len(found[1]) or not all(map(all, found)):
        raise errors.InvalidError(
            f"ALIGHT_WEB_CERT names {len(found[0])} files and ALIGHT_WEB_KEY {len(found[1])}",
            hint='each certificate needs its key; several are separated by ":"',
        )
    return tuple(Pair(Path(cert), Path(key)) for cert, key in zip(*found))


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(_ALPN)
    return context


def _load(pair: Pair) -> _Loaded:
    # Servers without a certificate of their own for the web do not pay for this import.
    from cryptography import x509  # noqa: PLC0415

    context = _context()
    try:
        context.load_cert_chain(pair.cert, pair.key, password=_no_password)
        found = x509.load_pem_x509_certificates(pair.cert.read_bytes())[0]
    except ssl.SSLError as error:
        said = f"{pair.cert} and {pair.key} are no certificate with its key in PEM: {error.reason or error}"
        raise errors.InvalidError(said, hint="ALIGHT_WEB_CERT and ALIGHT_WEB_KEY name them") from error
    except OSError as error:
        raise errors.InvalidError(
            f"the certificate of the web port cannot be read: {error.strerror}: {error.filename or pair.cert}",
            hint=f"ALIGHT_WEB_CERT={pair.cert} and ALIGHT_WEB_KEY={pair.key} name it and its key",
        ) from error
    except ValueError as error:
        raise errors.InvalidError(f"{pair.cert} is no certificate in PEM: {error}") from error
    try:
        stated = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(one.lower() for one in stated.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        names = ()
    return _Loaded(context, names, found.not_valid_after_utc.timestamp())


def _no_password() -> bytes:
    raise errors.InvalidError(
        "the key in ALIGHT_WEB_KEY has a password", hint="give one without, readable by root only"
    )


def _stamp(pair: Pair) -> _Stamp:
    """What changes when a file is written or another takes its place. Missing files have one, too."""
    found = []
    for path in (pair.cert, pair.key):
        try:
            seen = path.stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((seen.st_mtime_ns, seen.st_size, seen.st_ino))
    return tuple(found)


def _covers(names: Sequence[str], host: str) -> bool:
    """Whether a certificate is for a host; a wildcard stands for one part of a name."""
    return host in names or "*." + host.partition(".")[2] in names


def _note_dates(pair: Pair, loaded: _Loaded) -> None:
    days = (loaded.expires - time.time()) / _DAY
    if days < 0:
        log.warning("the certificate in %s has expired: browsers will refuse web functions", pair.cert)
    elif days < 14:
        log.warning("the certificate in %s expires in %d days", pair.cert, days)
