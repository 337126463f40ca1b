"""TLS for a carrier, over memory buffers, so that one thread may read while another writes.

Only TCP clients import this. A pinned fingerprint replaces the authorities: the certificate must be that one and no
other.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from typing import Tuple

from alight.sdk.carrier import Cipher
from alight.wire import errors
from alight.wire.codec import Buffer

_READ = 64 << 10


class TlsCipher(Cipher):
    """A finished handshake, then encryption. Raises AuthError for a wrong certificate.

    ``fingerprint`` is the SHA-256 of the certificate in hex; "any" takes what comes, for set-up, where people compare a
    code that the shown ``fingerprint`` is part of.
    """

    def __init__(self, sock: socket.socket, host: str, fingerprint: str = "") -> None:
        context = ssl.create_default_context()
        if fingerprint:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._lock = threading.Lock()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=host)
        try:
            self._shake_hands(sock)
        except ssl.SSLCertVerificationError as error:
            raise errors.AuthError(
                f"the certificate of {host} is not one that this machine trusts: {error.verify_message}",
                hint="run `alight setup` for this server: it pins the certificate once you have compared a code",
            ) from error
        except (ssl.SSLError, OSError) as error:
            raise errors.ConnectionError(f"{host} does not speak TLS with us: {error}") from error
        shown = hashlib.sha256(self._tls.getpeercert(binary_form=True) or b"").hexdigest()
        if fingerprint not in {"", "any", shown}:
            raise errors.AuthError(
                f"the server at {host} shows a different certificate than the one that was pinned",
                hint="if it was renewed on purpose, run `alight setup` again; if not, somebody is in between",
            )
        self.fingerprint = shown

    def encrypt(self, data: Buffer) -> bytes:
        with self._lock:
            self._tls.write(data)
            return self._out.read()

    def decrypt(self, data: bytes) -> Tuple[bytes, bytes]:
        plain = []
        with self._lock:
            self._in.write(data)
            while True:
                try:
                    piece = self._tls.read(_READ)
                except ssl.SSLWantReadError:
                    break
                except ssl.SSLZeroReturnError:
                    break
                if not piece:
                    break
                plain.append(piece)
            return b"".join(plain), self._out.read()

    def _shake_hands(self, sock: socket.socket) -> None:
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(self._out.read())
                data = sock.recv(_READ)
                if not data:
                    raise OSError("the other side closed the connection") from None
                self._in.write(data)
        rest = self._out.read()
        if rest:
            sock.sendall(rest)
