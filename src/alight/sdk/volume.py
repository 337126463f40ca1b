"""Volumes: named directories that outlive containers and that many of them share.

In a container a volume is an ordinary directory; here are the ways to it from outside (listing, reading, uploading),
and ``commit`` and ``reload`` from inside. Paths are absolute within the volume; a leading slash may be left out.
"""

from __future__ import annotations

import copy
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, AsyncIterator, BinaryIO, Callable, List, Optional, Sequence, Union

from alight.sdk import config
from alight.sdk.client import Client, default_client
from alight.sdk.object import Object, checked_name, classproperty, environment_or_default
from alight.sdk.secret import is_before, moment
from alight.sdk.sync import dual, dual_context, dual_context_function, dual_function, dual_gen
from alight.sdk.types import FileEntry, FileEntryType, VolumeInfo
from alight.wire import errors, stored
from alight.wire.ids import VOLUME, is_id

if TYPE_CHECKING:
    from alight.sdk.volume_items import VolumeUpload

_KINDS = {"file": FileEntryType.FILE, "directory": FileEntryType.DIRECTORY, "symlink": FileEntryType.SYMLINK}


class VolumeManager:
    """``Volume.objects``: making, listing and deleting named volumes."""

    @dual
    async def create(
        self,
        name: str,
        *,
        version: Optional[int] = None,
        allow_existing: bool = False,
        environment_name: Optional[str] = None,
        client: Optional[Client] = None,
        experimental_options: Any = None,
    ) -> None:
        """Make a named volume. AlreadyExistsError when there is one, unless ``allow_existing``."""
        del experimental_options  # of the hosted service
        message = stored.VolumeEnsure(
            name=checked_name(name, "volume"),
            environment=environment_or_default(environment_name),
            create=True,
            exclusive=not allow_existing,
            version=_checked_version(version),
        )
        await (client or default_client()).call("volume.ensure", message, stored.VolumeInfo)

    @dual
    async def list(
        self,
        *,
        max_objects: Optional[int] = None,
        created_before: Optional[Union[datetime, str]] = None,
        environment_name: str = "",
        client: Optional[Client] = None,
    ) -> List[Volume]:
        """The named volumes of the environment, newest first."""
        via = client or default_client()
        limit = 0 if created_before is not None else max_objects or 0
        message = stored.NamedList(environment=environment_or_default(environment_name), limit=limit)
        listed = (await via.call("volume.list", message, stored.VolumeListed)).volumes
        listed = tuple(info for info in listed if is_before(info.created_at, created_before))
        return [Volume._of(info, via) for info in listed[: max_objects or None]]  # noqa: SLF001  of this file

    @dual
    async def delete(
        self,
        name: str,
        *,
        allow_missing: bool = False,
        environment_name: Optional[str] = None,
        client: Optional[Client] = None,
    ) -> None:
        """Delete a named volume and every file in it."""
        message = stored.VolumeDelete(
            name=checked_name(name, "volume"),
            environment=environment_or_default(environment_name),
            allow_missing=allow_missing,
        )
        await (client or default_client()).do("volume.delete", message)


class Volume(Object):
    """A named directory that outlives containers."""

    def __init__(self) -> None:
        super().__init__()
        self._name: Optional[str] = None
        self._environment: Optional[str] = None
        self._create = False
        self._version = 2
        self.mount_read_only = False
        self.mount_sub_path: Optional[str] = None

    @classproperty
    def objects(cls) -> VolumeManager:  # noqa: N805  of the class
        """Making, listing and deleting named volumes."""
        return VolumeManager()

    @staticmethod
    def from_name(
        name: str,
        *,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
        version: Optional[int] = None,
        create_options: Any = None,
        client: Optional[Client] = None,
    ) -> Volume:
        """The volume of this name, found (or made) at its first use. Its old versions 1 and 2 are one here."""
        del create_options  # of the hosted service
        volume = Volume()
        volume._name = checked_name(name, "volume")
        volume._environment = environment_name
        volume._create = create_if_missing
        volume._version = _checked_version(version)
        volume._client = client
        return volume

    @staticmethod
    def from_id(volume_id: str, client: Optional[Client] = None) -> Volume:
        """The volume of this id."""
        if not is_id(volume_id, VOLUME):
            raise errors.InvalidError(f"{volume_id!r} is not the id of a volume", hint="they look like vo-…")
        volume = Volume()
        volume._object_id = volume_id
        volume._client = client
        return volume

    @staticmethod
    @dual_context_function
    async def ephemeral(
        client: Optional[Client] = None,
        environment_name: Optional[str] = None,
        version: Optional[int] = None,
        create_options: Any = None,
        _heartbeat_sleep: float = 300,
    ) -> AsyncIterator[Volume]:
        """A nameless volume that lives as long as the block, and its files with it."""
        from alight.sdk.ephemeral import Keeper  # noqa: PLC0415  few programs need it

        del create_options  # of the hosted service
        via = client or default_client()
        environment = environment_or_default(environment_name)
        message = stored.VolumeEnsure("", environment, create=True, version=_checked_version(version), ephemeral=True)
        info = await via.call("volume.ensure", message, stored.VolumeInfo)
        keeper = Keeper(via, info.volume_id, _heartbeat_sleep)
        try:
            yield Volume._of(info, via)
        finally:
            try:
                await keeper.end()
            except errors.ConflictError:
                pass  # a container has it still; the server deletes it soon after nobody asks for it any more

    @staticmethod
    @dual_function
    async def rename(
        old_name: str,
        new_name: str,
        *,
        client: Optional[Client] = None,
        environment_name: Optional[str] = None,
    ) -> None:
        """Give a volume another name. Running containers keep it."""
        message = stored.VolumeDelete(
            name=checked_name(old_name, "volume"),
            environment=environment_or_default(environment_name),
            new_name=checked_name(new_name, "volume"),
        )
        await (client or default_client()).do("volume.rename", message)

    @property
    def name(self) -> Optional[str]:
        """None for one that was found by its id."""
        return self._name

    @dual
    async def info(self) -> VolumeInfo:
        """Its name, and when and by whom it was made."""
        if self._name is None:
            client = await self._via()
            found = await client.call("volume.info", stored.VolumePath(self.object_id), stored.VolumeInfo)
        else:
            found = await self._ensure(self._client or default_client())
        made_by = found.created_by or None
        return VolumeInfo(name=found.name or None, created_at=moment(found.created_at), created_by=made_by)

    # within containers

    @dual
    async def commit(self) -> None:
        """Make what was written durable and visible to containers elsewhere. Within containers only."""
        await self._in_container("volume.commit")

    @dual
    async def reload(self) -> None:
        """See what others have committed. Within containers only; open files stay as they are."""
        await self._in_container("volume.reload")

    # from anywhere

    @dual_gen
    async def iterdir(self, path: str, *, recursive: bool = True) -> AsyncIterator[FileEntry]:
        """The entries below ``path``; with ``recursive=False`` those right in it."""
        from alight.sdk import volume_fetch  # noqa: PLC0415  who only mounts volumes does without
        from alight.sdk.volume_errors import file_errors  # noqa: PLC0415  the same

        client = await self._via()
        with file_errors():
            async for file in volume_fetch.entries(client, self.object_id, path, recursive=recursive):
                kind = _KINDS.get(file.kind, FileEntryType.UNSPECIFIED)
                yield FileEntry(path=file.path, type=kind, mtime=int(file.mtime), size=file.size)

    @dual
    async def listdir(self, path: str, *, recursive: bool = False) -> List[FileEntry]:
        """The entries in ``path``, of a file its own."""
        return [entry async for entry in self.iterdir.raw(path, recursive=recursive)]

    @dual_gen
    async def read_file(self, path: str) -> AsyncIterator[bytes]:
        """The file's bytes, piece by piece. FileNotFoundError (the builtin one) when there is none."""
        from alight.sdk import volume_fetch  # noqa: PLC0415  who only mounts volumes does without
        from alight.sdk.volume_errors import file_errors  # noqa: PLC0415  the same

        client = await self._via()
        with file_errors():
            async for piece in volume_fetch.pieces(client, self.object_id, path):
                yield piece

    @dual
    async def read_file_into_fileobj(
        self, path: str, fileobj: BinaryIO, progress_cb: Optional[Callable[..., Any]] = None
    ) -> int:
        """Write the file's bytes into ``fileobj``; returns how many."""
        total = 0
        async for piece in self.read_file.raw(path):
            fileobj.write(piece)
            total += len(piece)
            if progress_cb is not None:
                progress_cb(advance=len(piece))
        return total

    @dual
    async def remove_file(self, path: str, recursive: bool = False) -> None:
        """Delete a file; with ``recursive`` a directory and all below it."""
        await self._change("volume.remove", path, recursive=recursive)

    @dual
    async def copy_files(self, src_paths: Sequence[str], dst_path: str, recursive: bool = False) -> None:
        """Copy within the volume. Several sources, or a destination that is a directory, keep their names."""
        if isinstance(src_paths, (str, bytes)):
            raise errors.InvalidError("src_paths is a list of paths", hint=f"copy_files([{src_paths!r}], …)")
        await self._change("volume.copy", dst_path, recursive=recursive, sources=src_paths)

    @dual_context
    async def batch_upload(self, force: bool = False) -> AsyncIterator[VolumeUpload]:
        """Collect files in a ``with`` block; they are uploaded at its clean end, all of them or none.

        FileExistsError, before anything is sent, for one that the volume has already, unless ``force``.
        """
        from alight.sdk.volume_errors import file_errors  # noqa: PLC0415  who only mounts volumes does without
        from alight.sdk.volume_items import VolumeUpload  # noqa: PLC0415  the same
        from alight.sdk.volume_upload import upload  # noqa: PLC0415  the same

        collected = VolumeUpload()
        yield collected
        client = await self._via()
        with file_errors():
            await upload(client, self.object_id, list(collected.collected.values()), force=force)

    # mounting

    def read_only(self) -> Volume:
        """The same volume, mounted so that containers cannot write."""
        return self.with_mount_options(read_only=True)

    def with_mount_options(self, *, read_only: Optional[bool] = None, sub_path: Optional[str] = None) -> Volume:
        """The same volume, mounted otherwise: read-only, or only the directory ``sub_path`` of it."""
        derived = copy.copy(self)
        if read_only is not None:
            derived.mount_read_only = read_only
        if sub_path is not None:
            parts = PurePosixPath(sub_path.strip("/")).parts
            if not parts or ".." in parts:
                raise errors.InvalidError(f"sub_path={sub_path!r} is not a directory within the volume")
            derived.mount_sub_path = "/".join(parts)
        return derived

    async def _load(self, client: Client) -> str:
        return (await self._ensure(client)).volume_id

    async def _ensure(self, client: Client) -> stored.VolumeInfo:
        message = stored.VolumeEnsure(
            name=self._name or "",
            environment=environment_or_default(self._environment),
            create=self._create,
            version=self._version,
        )
        try:
            return await client.call("volume.ensure", message, stored.VolumeInfo)
        except errors.NotFoundError as error:
            if error.hint is None:
                error.hint = (
                    f"alight volume create {self._name}, or Volume.from_name({self._name!r}, create_if_missing=True)"
                )
            raise

    async def _in_container(self, method: str) -> None:
        if not config.in_container():
            verb = method.rpartition(".")[2]
            raise errors.ExecutionError(
                f"Volume.{verb}() works inside containers, where the volume is mounted",
                hint="from outside, batch_upload() and read_file() see the volume as it is",
            )
        client = await self._via()
        await client.call(method, stored.VolumePath(volume_id=self.object_id), stored.VolumeInfo)

    async def _change(self, method: str, path: str, *, recursive: bool, sources: Sequence[str] = ()) -> None:
        from alight.sdk.volume_errors import file_errors  # noqa: PLC0415  who only mounts volumes does without
        from alight.wire.transfers import name_out  # noqa: PLC0415  the same

        client = await self._via()
        names = tuple(name_out(one) for one in sources)
        at = stored.VolumePath(self.object_id, name_out(path), recursive=recursive, sources=names)
        with file_errors():
            await client.do(method, at)

    @staticmethod
    def _of(info: stored.VolumeInfo, client: Client) -> Volume:
        volume = Volume()
        volume._name, volume._environment = info.name or None, info.environment
        volume._object_id, volume._client = info.volume_id, client
        return volume

    def __repr__(self) -> str:
        return f"Volume({self._name or self._object_id!r})"


def _checked_version(version: Optional[int]) -> int:
    if version not in {None, 1, 2}:
        raise errors.InvalidError(f"version={version!r} is not a version of volumes", hint="leave it out")
    return version or 2
