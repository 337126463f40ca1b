"""Secrets at rest: AES-GCM under a key that is made at the first start and never leaves its file (0600).

A key is known by an id, a digest of it that tells nothing of it, which stands beside all that it sealed. While a new
key takes over there are two files: ``key`` and ``key.new``. Which of them counts is what the database says: all that is
sealed changes hands in one transaction (``Secrets.rotate``).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Dict, NamedTuple

from alight.server.disk import full_disk
from alight.server.tls import write_private
from alight.wire import errors

_NONCE = 12
KEY_BYTES = 32


class Sealed(NamedTuple):
    """What lies in the database, and the id of the key that opens it."""

    content: bytes
    key_id: str


class Vault:
    """Seals and opens the values of secrets. The secret's id is bound in, so that rows cannot be swapped."""

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file
        self._new_file = key_file.with_name(f"{key_file.name}.new")
        self._before: list[bytes] = []  # keys of this process's earlier days: a row that was read with one still opens

    def seal(self, secret_id: str, values: Dict[str, str], *, new: bool = False) -> Sealed:
        """``new``: with the key that is about to take over."""
        key = self._read(self._new_file) if new else self._current()
        nonce = os.urandom(_NONCE)
        plain = json.dumps(values, sort_keys=True).encode()
        sealed: bytes = _cipher(key).encrypt(nonce, plain, secret_id.encode())
        return Sealed(nonce + sealed, key_id(key))

    def open(self, secret_id: str, sealed: bytes, sealed_by: str = "") -> Dict[str, str]:
        """``sealed_by``: the id of the key, "" for what was sealed before keys had ids.

        Raises DataLossError when that key is not here, or the row was changed.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415  a server without secrets never pays it

        for key in self._keys_for(sealed_by):
            try:
                plain = _cipher(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], secret_id.encode())
            except InvalidTag:
                continue
            values: Dict[str, str] = json.loads(plain)
            return values
        if not self._key_file.exists():
            raise errors.DataLossError(
                f"the key of the secrets is gone: {self._key_file} does not exist", hint="restore it from a backup"
            )
        raise errors.DataLossError(
            f"the values of secret {secret_id} cannot be read: {self._key_file} is not the key that sealed them",
            hint="restore the key from a backup, or create the secret again with --force",
        )

    def key_id(self) -> str:
        """The id of the key that seals; "" while there is none."""
        try:
            return key_id(self._read(self._key_file))
        except FileNotFoundError:
            return ""

    def make_new(self) -> str:
        """A key to take over, beside the present one; its id. Raises ResourceExhaustedError, ServiceError."""
        key = os.urandom(KEY_BYTES)
        try:
            write_private(self._new_file, key)
        except OSError as error:
            raise full_disk(error, self._new_file.parent) from error
        return key_id(key)

    def new_id(self) -> str:
        """The id of a key that was about to take over; "" when there is none."""
        try:
            return key_id(self._read(self._new_file))
        except FileNotFoundError:
            return ""

    def take_new(self) -> None:
        """The new key is the key from now on, and the old one is gone from the disk."""
        with contextlib.suppress(FileNotFoundError):
            self._before.append(self._read(self._key_file))
        try:
            self._new_file.replace(self._key_file)
            sync_folder(self._key_file.parent)
        except OSError as error:
            raise full_disk(error, self._key_file.parent) from error

    def drop_new(self) -> None:
        """The new key does not take over after all."""
        self._new_file.unlink(missing_ok=True)

    def _keys_for(self, wanted: str) -> list[bytes]:
        """Keys that may open what the key of this id sealed."""
        keys = list(self._before)
        for file in (self._key_file, self._new_file):
            with contextlib.suppress(FileNotFoundError):
                keys.append(self._read(file))
        return [key for key in keys if wanted in {"", key_id(key)}]

    def _current(self) -> bytes:
        try:
            return self._read(self._key_file)
        except FileNotFoundError:
            write_private(self._key_file, os.urandom(KEY_BYTES))
            sync_folder(self._key_file.parent)
            return self._read(self._key_file)

    def _read(self, file: Path) -> bytes:
        key = file.read_bytes()
        if len(key) != KEY_BYTES:
            raise errors.DataLossError(
                f"{file} is no key: it has {len(key)} bytes and not {KEY_BYTES}", hint="restore it from a backup"
            )
        return key


def key_id(key: bytes) -> str:
    """What a key is known by: 16 hexadecimal digits that tell nothing of it."""
    return hashlib.sha256(b"the id of an Alight key\n" + key).hexdigest()[:16]


def sync_folder(folder: Path) -> None:
    """Return when the names in a directory are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cipher(key: bytes):  # type: ignore[no-untyped-def]  # noqa: ANN202  cryptography is imported late
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  as above

    return AESGCM(key)
