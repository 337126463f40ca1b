"""What every handle has in common: it is declared without a word to the server, and looked up at its first use.

A handle pickles as its declaration and, once known, its id; the client is never part of it, so a handle that arrives
in a container uses the container's own way to the server.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Generic, Optional, TypeVar

from alight.sdk import config
from alight.sdk.client import Client, default_client
from alight.sdk.surface import unimplemented
from alight.sdk.sync import dual
from alight.wire.errors import InvalidError
from alight.wire.ids import check_name

T = TypeVar("T")


class Object:
    """A handle of something that lives on the server. Subclasses say how it is found (``_load``)."""

    _kind = "object"

    def __init__(self) -> None:
        self._object_id: Optional[str] = None
        self._client: Optional[Client] = None

    @property
    def object_id(self) -> str:
        """The id; AttributeError before the first use or ``hydrate()``."""
        if self._object_id is None:
            raise AttributeError(f"{self!r} has no object_id before its first use: call .hydrate() first")
        return self._object_id

    @property
    def client(self) -> Optional[Client]:
        """The client that found it; None before the first use."""
        return self._client

    @property
    def is_hydrated(self) -> bool:
        """Whether its id is known."""
        return self._object_id is not None

    @dual
    async def hydrate(self, client: Optional[Client] = None) -> Any:
        """Look it up now. Raises NotFoundError when there is none."""
        await self._resolve(client)
        return self

    @dual
    @unimplemented("get_dashboard_url would link to the object's page; there is no dashboard yet")
    async def get_dashboard_url(self) -> str: ...

    async def _resolve(self, client: Optional[Client] = None) -> str:
        """The id, after looking it up when it is not known yet."""
        if self._object_id is None:
            found = client or self._client or default_client()
            self._object_id = await self._load(found)
            self._client = found
        return self._object_id

    async def _load(self, client: Client) -> str:
        raise NotImplementedError

    async def _via(self) -> Client:
        """The client, after looking the object up."""
        await self._resolve()
        if self._client is None:
            self._client = default_client()
        return self._client

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_client": None}


class classproperty(Generic[T]):  # noqa: N801  a decorator
    """A read-only property of the class itself: ``Volume.objects``."""

    def __init__(self, getter: Callable[[Any], T]) -> None:
        self._getter = getter
        self.__doc__ = getter.__doc__

    def __get__(self, instance: Any, owner: Any) -> T:
        return self._getter(owner)


def environment_or_default(environment_name: Optional[str]) -> str:
    """The environment to ask in; empty lets the server choose (a container's own, else the default one)."""
    if environment_name:
        return environment_name
    return "" if config.in_container() else config.load().environment


def checked_name(name: Any, what: str) -> str:
    """A name as users gave it. Raises InvalidError for one that cannot be."""
    if not isinstance(name, str):
        raise InvalidError(f"the name of a {what} is text, not {type(name).__name__}")
    return check_name(name, what)
