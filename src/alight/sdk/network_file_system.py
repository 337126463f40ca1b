"""The predecessor of volumes, deprecated: an old name over a Volume of the same name, so that old scripts run."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, AsyncIterator, BinaryIO, Callable, Dict, List, Mapping, Optional, Union

from alight.sdk.client import Client
from alight.sdk.object import Object
from alight.sdk.sync import dual, dual_context_function, dual_function, dual_gen
from alight.sdk.volume import Volume
from alight.wire.errors import DeprecationError, InvalidError

if TYPE_CHECKING:
    from alight.sdk.types import FileEntry

_INSTEAD = "network file systems have gone out of use: use a Volume"


class NetworkFileSystem(Object):
    """Deprecated: use Volume. Its files are those of the volume of the same name."""

    def __init__(self) -> None:
        super().__init__()
        self._volume = Volume()

    @staticmethod
    def from_name(
        name: str,
        *,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
        client: Optional[Client] = None,
    ) -> NetworkFileSystem:
        """Deprecated: ``Volume.from_name``."""
        _warn("from_name")
        return _over(
            Volume.from_name(
                name, environment_name=environment_name, create_if_missing=create_if_missing, client=client
            )
        )

    @staticmethod
    @dual_context_function
    async def ephemeral(
        client: Optional[Client] = None, environment_name: Optional[str] = None, _heartbeat_sleep: float = 300
    ) -> AsyncIterator[NetworkFileSystem]:
        """Deprecated: ``Volume.ephemeral``."""
        _warn("ephemeral")
        made = Volume.ephemeral.raw(client, environment_name, None, None, _heartbeat_sleep)
        volume = await made.__anext__()
        try:
            yield _over(volume)
        finally:
            await made.aclose()

    @staticmethod
    @dual_function
    async def create_deployed(
        deployment_name: str, client: Optional[Client] = None, environment_name: Optional[str] = None
    ) -> str:
        """Deprecated: ``Volume.objects.create``. The id of the volume."""
        _warn("create_deployed")
        volume = Volume.from_name(
            deployment_name, environment_name=environment_name, create_if_missing=True, client=client
        )
        await volume.hydrate.raw()
        return volume.object_id

    @staticmethod
    @dual_function
    async def delete(name: str, client: Optional[Client] = None, environment_name: Optional[str] = None) -> None:
        """Deprecated: ``Volume.objects.delete``."""
        _warn("delete")
        await Volume.objects.delete.raw(name, environment_name=environment_name, client=client)

    @dual
    async def write_file(self, remote_path: str, fp: BinaryIO, progress_cb: Optional[Callable[..., Any]] = None) -> int:
        """Deprecated: ``Volume.batch_upload``. Replaces what is there; returns how many bytes."""
        counted = _Counted(fp, progress_cb)
        async with _uploading(self._volume) as batch:
            batch.put_file(counted, remote_path)
        return counted.size

    @dual_gen
    async def read_file(self, path: str) -> AsyncIterator[bytes]:
        """Deprecated: ``Volume.read_file``."""
        async for piece in self._volume.read_file.raw(path):
            yield piece

    @dual_gen
    async def iterdir(self, path: str) -> AsyncIterator[FileEntry]:
        """Deprecated: ``Volume.iterdir``. The entries right in ``path``."""
        async for entry in self._volume.iterdir.raw(path, recursive=False):
            yield entry

    @dual
    async def listdir(self, path: str) -> List[FileEntry]:
        """Deprecated: ``Volume.listdir``."""
        return await self._volume.listdir.raw(path)

    @dual
    async def remove_file(self, path: str, recursive: bool = False) -> None:
        """Deprecated: ``Volume.remove_file``."""
        await self._volume.remove_file.raw(path, recursive)

    @dual
    async def add_local_file(
        self,
        local_path: Union[Path, str],
        remote_path: Optional[str] = None,
        progress_cb: Optional[Callable[..., Any]] = None,
    ) -> None:
        """Deprecated: ``Volume.batch_upload``. Its path there is ``remote_path``, or its name."""
        del progress_cb
        async with _uploading(self._volume) as batch:
            batch.put_file(local_path, remote_path or Path(local_path).name)

    @dual
    async def add_local_dir(
        self,
        local_path: Union[Path, str],
        remote_path: Optional[str] = None,
        progress_cb: Optional[Callable[..., Any]] = None,
    ) -> None:
        """Deprecated: ``Volume.batch_upload``. Its path there is ``remote_path``, or its name."""
        del progress_cb
        async with _uploading(self._volume) as batch:
            batch.put_directory(local_path, remote_path or Path(local_path).resolve().name)

    async def _load(self, client: Client) -> str:
        return await self._volume._resolve(client)  # noqa: SLF001  one object with two names


def volumes_of(network_file_systems: Mapping[Any, Any], where: str) -> Dict[Any, Volume]:
    """The volumes behind ``network_file_systems=`` of a function."""
    found = {}
    for path, one in network_file_systems.items():
        if not isinstance(one, NetworkFileSystem):
            raise InvalidError(f"{where} mounts {type(one).__name__} at {path} by network_file_systems=")
        found[path] = one._volume  # noqa: SLF001  of this file
    return found


class _uploading:  # noqa: N801  reads as a statement
    """``batch_upload(force=True)`` within a verb."""

    def __init__(self, volume: Volume) -> None:
        self._steps = volume.batch_upload.raw(force=True)

    async def __aenter__(self) -> Any:
        return await self._steps.__anext__()

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is None:
            async for _ in self._steps:
                pass
        else:
            await self._steps.aclose()


class _Counted:
    """An open file that is read once, and tells how far it is."""

    def __init__(self, file: BinaryIO, progress_cb: Optional[Callable[..., Any]]) -> None:
        self._file = file
        self._progress_cb = progress_cb
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self.size += len(piece)
        if self._progress_cb is not None:
            self._progress_cb(advance=len(piece))
        return piece


def _over(volume: Volume) -> NetworkFileSystem:
    made = NetworkFileSystem()
    made._volume = volume  # noqa: SLF001  the same
    made._object_id, made._client = volume._object_id, volume._client  # noqa: SLF001  one object with two names
    return made


def _warn(verb: str) -> None:
    warnings.warn(f"NetworkFileSystem.{verb}(): {_INSTEAD}", DeprecationError, stacklevel=4)
