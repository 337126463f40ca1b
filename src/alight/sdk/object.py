"""What every handle has in common: it is declared without a word to the server, and looked up at its first use.

A handle pickles as its declaration and, once known, its id; the client is never part of it, so a handle that arrives
in a container uses the container's own way to the server.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Generic, Optional, TypeVar

from alight.sdk import config
from alight.sdk.client import Client, default_client
from alight.sdk.sync import dual
from alight.wire.errors import ConflictError, InvalidError
from alight.wire.ids import check_name, is_id

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
    async def get_dashboard_url(self) -> str:
        """The address of its page at the dashboard. Raises ConflictError where the server has none."""
        return await page_of(await self._via(), self.object_id)

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


async def page_of(client: Client, object_id: str) -> str:
    """The address of an object's page at the dashboard, of the first page for one that has none of its own.

    Raises ConflictError where the server has no dashboard.
    """
    from alight.wire.dashboard import DashboardLink, DashboardUrl  # noqa: PLC0415  only who asks

    asked = DashboardLink(object_id if is_id(object_id) else "")
    found = await client.call("dashboard.link", asked, DashboardUrl)
    if not found.url:
        raise ConflictError(
            "this server has no dashboard: it does not listen for web requests",
            hint="start it without ALIGHT_WEB_LISTEN=none",
        )
    return str(found.url)


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
