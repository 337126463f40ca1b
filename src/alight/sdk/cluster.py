"""Several containers that work on one input together, as the code in one of them sees it. Not there yet."""

from __future__ import annotations

from typing import List, Optional

from alight.sdk.client import Client
from alight.sdk.object import Object
from alight.sdk.surface import unimplemented
from alight.sdk.sync import dual
from alight.wire.errors import UnimplementedError

_NOT_YET = "functions on several containers at once are not there yet"


class Cluster(Object):
    """The containers of one input of a ``@clustered`` function, by rank."""

    @staticmethod
    @unimplemented(f"Cluster.from_context would be the cluster that this container is part of; {_NOT_YET}")
    def from_context() -> Cluster:
        """The cluster that this container is part of."""

    @staticmethod
    def from_id(cluster_id: str, *, client: Optional[Client] = None) -> Cluster:
        """The cluster with this id."""
        made = Cluster()
        made._object_id, made._client = cluster_id, client
        return made

    @dual
    @unimplemented(f"Cluster.container_rank would be the rank of a container; {_NOT_YET}")
    async def container_rank(self, container_id: Optional[str] = None) -> int:
        """The rank of a container (this one by default); 0 leads."""

    @dual
    @unimplemented(f"Cluster.container_ips would be the containers' addresses; {_NOT_YET}")
    async def container_ips(self, family: str = "ipv6") -> List[str]:
        """Addresses by rank."""

    @dual
    @unimplemented(f"Cluster.container_ids would be the containers' ids; {_NOT_YET}")
    async def container_ids(self) -> List[str]:
        """Ids by rank."""

    async def _load(self, client: Client) -> str:
        raise UnimplementedError(f"a Cluster cannot be looked up: {_NOT_YET}")
