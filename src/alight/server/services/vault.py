"""Secrets at rest: AES-GCM under a key that is made at the first start and never leaves its file (0600)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Dict

from alight.server.tls import write_private
from alight.wire import errors

_NONCE = 12


class Vault:
    """Seals and opens the values of secrets. The secret's id is bound in, so that rows cannot be swapped."""

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file

    def seal(self, secret_id: str, values: Dict[str, str]) -> bytes:
        nonce = os.urandom(_NONCE)
        plain = json.dumps(values, sort_keys=True).encode()
        sealed: bytes = self._cipher(create=True).encrypt(nonce, plain, secret_id.encode())
        return nonce + sealed

    def open(self, secret_id: str, sealed: bytes) -> Dict[str, str]:
        """Raises DataLossError when the key is not the one that sealed it, or the row was changed."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415  a server without secrets never pays it

        try:
            plain = self._cipher(create=False).decrypt(sealed[:_NONCE], sealed[_NONCE:], secret_id.encode())
        except InvalidTag:
            raise errors.DataLossError(
                f"the values of secret {secret_id} cannot be read: {self._key_file} is not the key that sealed them",
                hint="restore the key from a backup, or create the secret again with --force",
            ) from None
        values: Dict[str, str] = json.loads(plain)
        return values

    def _cipher(self, *, create: bool):  # type: ignore[no-untyped-def]  # noqa: ANN202  cryptography is imported late
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        try:
            key = self._key_file.read_bytes()
        except FileNotFoundError:
            if not create:
                raise errors.DataLossError(
                    f"the key of the secrets is gone: {self._key_file} does not exist", hint="restore it from a backup"
                ) from None
            key = os.urandom(32)
            write_private(self._key_file, key)
        return AESGCM(key)
