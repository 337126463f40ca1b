"""Several containers that work on one input together, as the code in one of them sees it."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from alight.sdk.client import Client
from alight.sdk.object import Object
from alight.sdk.sync import dual
from alight.wire import ambient
from alight.wire.errors import InvalidError, NotFoundError, UnimplementedError
from alight.wire.ids import CLUSTER, is_id


def here(word: str) -> Dict[str, Any]:
    """What this container knows of its cluster. InvalidError where there is none."""
    found = ambient.container.cluster if ambient.container is not None else None
    if not found:
        raise InvalidError(
            f"{word} is for containers of @clustered functions, and this is none",
            hint="put @alight.clustered(size=…) below @app.function()",
        )
    return found


class Cluster(Object):
    """The containers of one input of a ``@clustered`` function, by rank. What is known of one is known in it alone."""

    _kind = "cluster"

    @staticmethod
    def from_context() -> Cluster:
        """The cluster that this container is part of. InvalidError where there is none."""
        return Cluster.from_id(here("Cluster.from_context()")["cluster_id"])

    @staticmethod
    def from_id(cluster_id: str, *, client: Optional[Client] = None) -> Cluster:
        """The cluster with this id."""
        if not is_id(cluster_id, CLUSTER):
            raise InvalidError(f"{cluster_id!r} is not the id of a cluster", hint="they look like cu-…")
        made = Cluster()
        made._object_id, made._client = cluster_id, client
        return made

    @dual
    async def container_rank(self, container_id: Optional[str] = None) -> int:
        """The rank of a container (this one by default); 0 leads. NotFoundError for one of another cluster."""
        known = self._known()
        if container_id is None:
            return int(known["rank"])
        if container_id not in known["container_ids"]:
            raise NotFoundError(f"{container_id} is not one of the containers of {known['cluster_id']}")
        return int(known["container_ids"].index(container_id))

    @dual
    async def container_ips(self, family: str = "ipv6") -> List[str]:
        """Addresses by rank. Containers have IPv4 addresses: for "ipv6" they come in that form (::ffff:10.89.0.2)."""
        if family not in {"ipv4", "ipv6"}:
            raise InvalidError(f'container_ips(): family is "ipv4" or "ipv6", not {family!r}')
        prefix = "::ffff:" if family == "ipv6" else ""
        return [f"{prefix}{address}" for address in self._known()["addresses"]]

    @dual
    async def container_ids(self) -> List[str]:
        """Ids by rank."""
        return list(self._known()["container_ids"])

    def _known(self) -> Dict[str, Any]:
        found = ambient.container.cluster if ambient.container is not None else None
        if not found or found["cluster_id"] != self._object_id:
            raise UnimplementedError(
                f"what {self._object_id} is made of is known in its own containers alone; "
                "`alight container list` shows all containers"
            )
        return found

    async def _load(self, client: Client) -> str:
        raise UnimplementedError("a Cluster has no name: Cluster.from_context() is the one that this container is in")
