"""Who has volumes mounted, from what the server recorded of the containers that it started."""

from __future__ import annotations

from alight.server.services.apps import Apps
from alight.server.services.containers import Containers


class VolumeUsers:
    """Asked when volumes are listed and deleted."""

    def __init__(self, containers: Containers, apps: Apps) -> None:
        self._containers = containers
        self._apps = apps

    def functions(self) -> dict[str, tuple[str, ...]]:
        """For each volume that is mounted: its functions as "app.function", sorted."""
        found: dict[str, set[str]] = {}
        for volume_id, name, _ in self._mounts():
            found.setdefault(volume_id, set()).add(name)
        return {volume_id: tuple(sorted(names)) for volume_id, names in found.items()}

    def of(self, volume_id: str) -> str:
        """Those of one volume in words: "app.function (container co-…)" and more; "" when nobody has it."""
        users = sorted(
            f"{name} (container {container})" for found, name, container in self._mounts() if found == volume_id
        )
        more = f" and {len(users) - 3} more" if len(users) > 3 else ""
        return ", ".join(users[:3]) + more

    def _mounts(self) -> list[tuple[str, str, str]]:
        mounts = []
        for container_id, record in self._containers.alive.items():
            function = self._containers.functions.by_id.get(record.function_id)
            if function is None:
                continue
            app = self._apps.alive.get(record.app_id)
            name = f"{(app.name or app.description) if app is not None else record.app_id}.{function.spec.name}"
            mounts += [(mount.volume_id, name, container_id) for mount in function.spec.volumes]
        return mounts
