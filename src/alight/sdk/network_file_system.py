"""The predecessor of volumes, deprecated. Declared so that old scripts import; never to work."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, AsyncIterator, BinaryIO, List, Optional, Union

from alight.sdk.client import Client
from alight.sdk.object import Object
from alight.sdk.surface import unimplemented
from alight.sdk.sync import dual, dual_context_function, dual_function, dual_gen
from alight.wire.errors import DeprecationError, UnimplementedError
from alight.wire.ids import check_name

if TYPE_CHECKING:
    from alight.sdk.types import FileEntry

_INSTEAD = "network file systems have gone out of use; use a Volume"


class NetworkFileSystem(Object):
    """Deprecated: use Volume."""

    def __init__(self) -> None:
        super().__init__()
        self._name: Optional[str] = None

    @staticmethod
    def from_name(
        name: str,
        *,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
        client: Optional[Client] = None,
    ) -> NetworkFileSystem:
        """Deprecated: ``Volume.from_name``."""
        del environment_name, create_if_missing
        warnings.warn("NetworkFileSystem has gone out of use: use Volume", DeprecationError, stacklevel=2)
        made = NetworkFileSystem()
        made._name = check_name(name, "network file system")
        made._client = client
        return made

    @staticmethod
    @dual_context_function
    @unimplemented(f"NetworkFileSystem.ephemeral would make one for a block; {_INSTEAD}.ephemeral()")
    async def ephemeral(
        client: Optional[Client] = None, environment_name: Optional[str] = None, _heartbeat_sleep: float = 300
    ) -> AsyncIterator[NetworkFileSystem]:
        """Deprecated: ``Volume.ephemeral``."""
        yield NetworkFileSystem()

    @staticmethod
    @dual_function
    @unimplemented(f"NetworkFileSystem.create_deployed would make one; {_INSTEAD}")
    async def create_deployed(
        deployment_name: str, client: Optional[Client] = None, environment_name: Optional[str] = None
    ) -> str:
        """Deprecated: ``Volume.objects.create``."""

    @staticmethod
    @dual_function
    @unimplemented(f"NetworkFileSystem.delete would delete one; {_INSTEAD}")
    async def delete(name: str, client: Optional[Client] = None, environment_name: Optional[str] = None) -> None:
        """Deprecated: ``Volume.objects.delete``."""

    @dual
    @unimplemented(f"NetworkFileSystem.write_file would write a file; {_INSTEAD}")
    async def write_file(self, remote_path: str, fp: BinaryIO, progress_cb: Any = None) -> int:
        """Deprecated: ``Volume.batch_upload``."""

    @dual_gen
    @unimplemented(f"NetworkFileSystem.read_file would read a file; {_INSTEAD}")
    async def read_file(self, path: str) -> AsyncIterator[bytes]:
        """Deprecated: ``Volume.read_file``."""
        yield b""

    @dual_gen
    @unimplemented(f"NetworkFileSystem.iterdir would list a directory; {_INSTEAD}")
    async def iterdir(self, path: str) -> AsyncIterator[FileEntry]:
        """Deprecated: ``Volume.iterdir``."""
        yield  # type: ignore[misc]

    @dual
    @unimplemented(f"NetworkFileSystem.listdir would list a directory; {_INSTEAD}")
    async def listdir(self, path: str) -> List[FileEntry]:
        """Deprecated: ``Volume.listdir``."""

    @dual
    @unimplemented(f"NetworkFileSystem.remove_file would remove a file; {_INSTEAD}")
    async def remove_file(self, path: str, recursive: bool = False) -> None:
        """Deprecated: ``Volume.remove_file``."""

    @dual
    @unimplemented(f"NetworkFileSystem.add_local_file would upload a file; {_INSTEAD}")
    async def add_local_file(
        self, local_path: Union[Path, str], remote_path: Optional[str] = None, progress_cb: Any = None
    ) -> None:
        """Deprecated: ``Volume.batch_upload``."""

    @dual
    @unimplemented(f"NetworkFileSystem.add_local_dir would upload a directory; {_INSTEAD}")
    async def add_local_dir(
        self, local_path: Union[Path, str], remote_path: Optional[str] = None, progress_cb: Any = None
    ) -> None:
        """Deprecated: ``Volume.batch_upload``."""

    async def _load(self, client: Client) -> str:
        raise UnimplementedError(f"the NetworkFileSystem {self._name!r} cannot be used: {_INSTEAD}")
