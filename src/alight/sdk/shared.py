"""What Dict and Queue have in common: how they are found, made and listed, and requests that are carried out once.

A request that changes something has an id of its own. When the connection is lost it is sent again under that id, and
the server answers as it did before. Answers that have arrived are named in later requests, so that it may forget them.
"""

from __future__ import annotations

import os
import weakref
from _thread import allocate_lock
from datetime import datetime
from typing import Any, List, Optional, Tuple, Type, TypeVar, Union

from alight.sdk.client import Client, default_client
from alight.sdk.lost import LostError
from alight.sdk.object import Object, checked_name, environment_or_default
from alight.sdk.secret import is_before
from alight.wire import errors
from alight.wire.codec import Buffer
from alight.wire.ids import is_id
from alight.wire.shared import SharedEnsure, SharedInfo, SharedList, SharedListed, SharedNamed

S = TypeVar("S", bound="Shared")
_SETTLED_AT_ONCE = 1_000


class Shared(Object):
    """A handle of a dict or a queue. Subclasses say which (``_kind``, ``_prefix``)."""

    _kind = ""
    _prefix = ""

    def __init__(self) -> None:
        super().__init__()
        self._name: Optional[str] = None
        self._environment: Optional[str] = None
        self._create_if_missing = False

    @classmethod
    def _named(
        cls: Type[S], name: str, environment_name: Optional[str], create_if_missing: bool, client: Optional[Client]
    ) -> S:
        made = cls()
        made._name = checked_name(name, cls._kind)
        made._environment = environment_name
        made._create_if_missing = create_if_missing
        made._client = client
        return made

    @classmethod
    def _with_id(cls: Type[S], object_id: Any, client: Optional[Client]) -> S:
        if not isinstance(object_id, str) or not is_id(object_id, cls._prefix):
            hint = f"they look like {cls._prefix}-…"
            raise errors.InvalidError(f"{object_id!r} is not the id of a {cls._kind}", hint=hint)
        made = cls()
        made._object_id, made._client = object_id, client
        return made

    @classmethod
    def _found(cls: Type[S], info: SharedInfo, client: Client) -> S:
        made = cls()
        made._object_id, made._client = info.object_id, client
        made._name, made._environment = info.name or None, info.environment
        return made

    async def _info(self) -> SharedInfo:
        client = await self._via()
        return await client.call(f"{self._kind}.find", SharedNamed(object_id=self.object_id), SharedInfo)

    async def _load(self, client: Client) -> str:
        asked = SharedEnsure(
            name=self._name or "",
            environment=environment_or_default(self._environment),
            create=self._create_if_missing,
        )
        return (await client.call(f"{self._kind}.ensure", asked, SharedInfo)).object_id

    def __repr__(self) -> str:
        what = repr(self._name) if self._name else self._object_id or "…"
        return f"{type(self).__name__}({what})"


async def new_nameless(kind: str, client: Client, environment_name: Optional[str]) -> SharedInfo:
    """Make a nameless one, which lives while somebody says that it is wanted."""
    asked = SharedEnsure(environment=environment_or_default(environment_name), ephemeral=True)
    return await client.call(f"{kind}.ensure", asked, SharedInfo)


async def create(
    kind: str, name: str, allow_existing: bool, environment_name: Optional[str], client: Optional[Client]
) -> None:
    """Make a named one. Raises AlreadyExistsError unless ``allow_existing``."""
    asked = SharedEnsure(
        name=checked_name(name, kind),
        environment=environment_or_default(environment_name),
        create=True,
        exclusive=not allow_existing,
    )
    await (client or default_client()).call(f"{kind}.ensure", asked, SharedInfo)


async def listed(
    made: Type[S],
    max_objects: Optional[int],
    created_before: Optional[Union[datetime, str]],
    environment_name: str,
    client: Optional[Client],
) -> List[S]:
    """The named ones of an environment, newest first."""
    if max_objects is not None and max_objects < 0:
        raise errors.InvalidError(f"max_objects is 0 or more, not {max_objects}")
    if max_objects == 0:
        return []
    via = client or default_client()
    limit = 0 if created_before is not None else max_objects or 0
    asked = SharedList(environment=environment_or_default(environment_name), limit=limit)
    found = (await via.call(f"{made._kind}.list", asked, SharedListed)).objects  # noqa: SLF001  of this file
    kept = [info for info in found if is_before(info.created_at, created_before)]
    return [made._found(info, via) for info in kept[:max_objects]]  # noqa: SLF001  of this file


async def delete(
    kind: str, name: str, allow_missing: bool, environment_name: Optional[str], client: Optional[Client]
) -> None:
    """Delete a named one with all it holds. Raises NotFoundError unless ``allow_missing``."""
    asked = SharedNamed(
        name=checked_name(name, kind),
        environment=environment_or_default(environment_name),
        allow_missing=allow_missing,
    )
    await (client or default_client()).do(f"{kind}.delete", asked)


def new_request(letter: str) -> str:
    """An id for a request; the letter says what kind it is of."""
    return letter + os.urandom(16).hex()


def arrived(client: Client, request: str) -> None:
    """The answer of a request is here."""
    with _lock:
        _arrived.setdefault(client, []).append(request)


def take_arrived(client: Client) -> Tuple[str, ...]:
    """Requests whose answers have arrived, for the next request to name."""
    with _lock:
        have = _arrived.get(client)
        if not have:
            return ()
        some = tuple(have[:_SETTLED_AT_ONCE])
        del have[:_SETTLED_AT_ONCE]
        return some


async def ask(client: Client, method: str, asked: Any, body: Buffer = b"") -> Tuple[bytes, bytes]:
    """A request with one answer that has a body. Sent again, as it was, when the connection is lost."""
    head = client.encode(method, asked)
    while True:
        stream = await client.open_head(head, body)
        try:
            answer = await stream.recv()
        except LostError as lost:
            await client.after_loss(lost)
            continue
        except errors.Error:
            raise
        except BaseException:  # the caller was interrupted
            stream.leave()
            raise
        if answer is None:
            raise errors.InternalError(f"the server ended {method} without an answer")
        return answer


_lock = allocate_lock()
_arrived: weakref.WeakKeyDictionary[Client, List[str]] = weakref.WeakKeyDictionary()


def _after_fork() -> None:
    global _lock  # noqa: PLW0603  the parent may have held it
    _lock = allocate_lock()
    _arrived.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
