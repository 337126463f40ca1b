"""Requests about versions and snapshots of volumes. The snapshots are on the machines; versions are answered here."""

from __future__ import annotations

from alight.server.request import Request, Route, Routes
from alight.server.services.volume_versions import VolumeVersions
from alight.server.services.volumes import Volumes
from alight.wire.snapshots import SnapshotAsked

#: What clients ask for, and the word of machines for it.
_VERBS = {
    "volume.snapshot": "snapshot",
    "volume.diff": "diff",
    "volume.restore": "restore",
    "volume.snapshot_delete": "unsnapshot",
}


def routes(volumes: Volumes, versions: VolumeVersions) -> Routes:
    async def history(request: Request) -> None:
        asked = request.arguments(SnapshotAsked)
        await volumes.find(asked.volume_id)
        await request.stream.send(await versions.history(asked))

    def relay(verb: str) -> Route:
        async def work(request: Request) -> None:
            asked = request.arguments(SnapshotAsked)
            await volumes.find(asked.volume_id)
            await versions.relay(verb, asked, request.stream)
            if verb == "restore":
                await versions.commit(asked.volume_id, request.who.owner, kind="restore")

        return work

    return {"volume.history": history, **{method: relay(verb) for method, verb in _VERBS.items()}}
