"""Requests about volumes. File work is relayed to a machine; names and versions are answered here."""

from __future__ import annotations

from alight.server.auth import CONTAINER
from alight.server.request import Request, Route, Routes
from alight.server.services.containers import Containers
from alight.server.services.volumes import Volumes
from alight.wire import errors
from alight.wire.stored import NamedList, VolumeDelete, VolumeEnsure, VolumeInfo, VolumePath

#: What from outside of containers changes a volume, and what its history calls that.
_CHANGES = {"upload": "upload", "write": "upload", "remove": "remove", "copy": "copy"}


def routes(volumes: Volumes, containers: Containers) -> Routes:
    async def ensure(request: Request) -> None:
        asked = request.arguments(VolumeEnsure)
        environment = request.environment(asked.environment)
        await request.stream.send(await volumes.ensure(asked, environment, request.who.owner))

    async def list_volumes(request: Request) -> None:
        asked = request.arguments(NamedList)
        environment = request.environment(asked.environment)
        await request.stream.send(await volumes.list(environment, asked.limit, details=asked.details))

    async def delete(request: Request) -> None:
        asked = request.arguments(VolumeDelete)
        found = await volumes.named(asked, request.environment(asked.environment))
        if found is not None:
            _check_environment(request, found)
            await volumes.delete(found)
        await request.stream.send({})

    async def info(request: Request) -> None:
        found = await volumes.find(request.arguments(VolumePath).volume_id)
        _check_environment(request, found)
        await request.stream.send(found)

    async def rename(request: Request) -> None:
        asked = request.arguments(VolumeDelete)
        found = await volumes.named(asked, request.environment(asked.environment))
        if found is not None:
            await volumes.rename(found, asked.new_name)
        await request.stream.send({})

    async def commit(request: Request) -> None:
        found = await volumes.find(request.arguments(VolumePath).volume_id)
        _check_environment(request, found)
        _check_mounted(request, found, writes=True)
        who = request.who
        await request.stream.send(await volumes.commit(found.volume_id, who.owner, who.container_id))

    async def reload(request: Request) -> None:
        # On one machine all containers see the same files; other machines' commits come with the cluster.
        found = await volumes.find(request.arguments(VolumePath).volume_id)
        _check_environment(request, found)
        _check_mounted(request, found, writes=False)
        await request.stream.send(found)

    def relay(verb: str) -> Route:
        async def work(request: Request) -> None:
            asked = request.arguments(VolumePath)
            _check_environment(request, await volumes.find(asked.volume_id))
            try:
                await volumes.work(verb, asked, request.stream)
            finally:
                if verb in _CHANGES:  # a client that is gone with its last answer has changed it, too
                    who = request.who
                    volumes.versions.changed(asked.volume_id, who.owner, who.container_id, _CHANGES[verb])

        return work

    def _check_mounted(request: Request, found: VolumeInfo, *, writes: bool) -> None:
        if request.who.kind != CONTAINER:
            return
        function = containers.function_of(request.who.container_id)
        mounts = function.spec.volumes if function is not None else ()
        mine = [mount for mount in mounts if mount.volume_id == found.volume_id]
        if not mine or (writes and all(mount.read_only for mount in mine)):
            verb = "committed" if writes else "reloaded"
            how = "mounts it read-only" if mine else "does not mount it"
            raise errors.PermissionDeniedError(
                f"the volume {found.name!r} cannot be {verb} here: this function {how}",
                hint="mount it: @app.function(volumes={path: volume})",
            )

    verbs = {f"volume.{verb}": relay(verb) for verb in ("files", "read", "write", "upload", "fetch", "remove", "copy")}
    return {
        "volume.ensure": ensure,
        "volume.list": list_volumes,
        "volume.info": info,
        "volume.delete": delete,
        "volume.rename": rename,
        "volume.commit": commit,
        "volume.reload": reload,
        **verbs,
    }


def _check_environment(request: Request, found: VolumeInfo) -> None:
    if request.who.kind == CONTAINER and found.environment != request.who.environment:
        raise errors.PermissionDeniedError(
            f"code in environment {request.who.environment!r} may not use a volume of another environment"
        )
