"""A fixed address for outgoing connections. Hosted clouds need one; machines of one's own have theirs."""

from __future__ import annotations

from typing import Optional

from alight.sdk.client import Client
from alight.sdk.object import Object
from alight.wire.errors import UnimplementedError
from alight.wire.ids import check_name


class Proxy(Object):
    """Accepted in declarations, without effect: outgoing connections have the machine's own address."""

    def __init__(self) -> None:
        super().__init__()
        self._name: Optional[str] = None
        self._environment: Optional[str] = None

    @staticmethod
    def from_name(name: str, *, environment_name: Optional[str] = None, client: Optional[Client] = None) -> Proxy:
        """The proxy of this name."""
        made = Proxy()
        made._name = check_name(name, "proxy")
        made._environment, made._client = environment_name, client
        return made

    async def _load(self, client: Client) -> str:
        raise UnimplementedError(
            f"the Proxy {self._name!r} cannot be looked up: proxies belong to hosted clouds, and there are none here"
        )
