"""Containers for arbitrary commands. Declared here in full; nothing of it works yet, and each verb says so.

``Sandbox.create`` and the handles that it would return, with their streams and their files.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import (
    TYPE_CHECKING,
    Any,
    AsyncIterator,
    Dict,
    Generic,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
)

from alight.sdk.client import Client
from alight.sdk.object import Object
from alight.sdk.surface import unimplemented
from alight.sdk.sync import dual, dual_function, dual_gen
from alight.wire.errors import UnimplementedError

if TYPE_CHECKING:
    from alight.sdk.app import App
    from alight.sdk.image import Image
    from alight.sdk.probe import Probe
    from alight.sdk.proxy import Proxy
    from alight.sdk.reports import FileInfo, FileWatchEvent, FileWatchEventType, LogEntry, SandboxConnectCredentials
    from alight.sdk.secret import Secret
    from alight.sdk.tunnel import Tunnel

T = TypeVar("T", str, bytes)

_NOT_YET = "sandboxes are not there yet; a function runs commands with subprocess"


class StreamType(enum.Enum):
    """Where the output of a command goes."""

    DEVNULL = -3
    PIPE = -1
    STDOUT = -2


PIPE = StreamType.PIPE


class StreamReader(Generic[T]):
    """The output of a command."""

    @property
    @unimplemented(f"StreamReader.file_descriptor would say which stream this is; {_NOT_YET}")
    def file_descriptor(self) -> int:
        """1 for stdout, 2 for stderr."""

    @dual
    @unimplemented(f"StreamReader.read would return everything up to the end; {_NOT_YET}")
    async def read(self) -> T:
        """Everything up to the end."""

    @unimplemented(f"a StreamReader would be iterated by lines; {_NOT_YET}")
    def __iter__(self) -> Any:
        """By lines."""

    @unimplemented(f"a StreamReader would be iterated by lines; {_NOT_YET}")
    def __aiter__(self) -> Any:
        """By lines."""

    @unimplemented(f"StreamReader.aclose would stop reading; {_NOT_YET}")
    async def aclose(self) -> None:
        """Stop reading."""


class StreamWriter:
    """The input of a command."""

    @unimplemented(f"StreamWriter.write would send input to a command; {_NOT_YET}")
    def write(self, data: Union[bytes, bytearray, memoryview, str]) -> None:
        """Keep data to be sent by ``drain``."""

    @unimplemented(f"StreamWriter.write_eof would end the input of a command; {_NOT_YET}")
    def write_eof(self) -> None:
        """End the input, at the next ``drain``."""

    @dual
    @unimplemented(f"StreamWriter.drain would send what was written; {_NOT_YET}")
    async def drain(self) -> None:
        """Send what was written."""


class ContainerProcess(Generic[T]):
    """A command that runs in a sandbox."""

    @property
    @unimplemented(f"ContainerProcess.returncode would be the exit code; {_NOT_YET}")
    def returncode(self) -> int:
        """The exit code; InvalidError before ``wait``."""

    @property
    def stdout(self) -> StreamReader[T]:
        return StreamReader()

    @property
    def stderr(self) -> StreamReader[T]:
        return StreamReader()

    @property
    def stdin(self) -> StreamWriter:
        return StreamWriter()

    @dual
    @unimplemented(f"ContainerProcess.wait would wait for a command; {_NOT_YET}")
    async def wait(self) -> int:
        """Wait for the end. 128 + n when a signal ended it, -1 when its time ran out."""

    @dual
    @unimplemented(f"ContainerProcess.poll would look whether a command has ended; {_NOT_YET}")
    async def poll(self) -> Optional[int]:
        """The exit code, or None while it runs."""

    @dual
    @unimplemented(f"ContainerProcess.attach would connect your terminal; {_NOT_YET}")
    async def attach(self) -> None:
        """Connect this terminal."""


class SandboxLogs:
    """``sandbox.logs``."""

    @dual_gen
    @unimplemented(f"Sandbox.logs.fetch would return output of the past; {_NOT_YET}")
    async def fetch(
        self,
        *,
        since: datetime,
        until: Optional[datetime] = None,
        source: Optional[str] = None,
        search_text: str = "",
    ) -> AsyncIterator[LogEntry]:
        """Output between two moments."""
        yield  # type: ignore[misc]

    @dual_gen
    @unimplemented(f"Sandbox.logs.tail would return the last output; {_NOT_YET}")
    async def tail(self, entries: int = 100, *, source: Optional[str] = None) -> AsyncIterator[LogEntry]:
        """The last entries."""
        yield  # type: ignore[misc]


class SandboxFilesystem:
    """``sandbox.filesystem``: paths are absolute; writing makes the directories that lack."""

    @dual
    @unimplemented(f"Sandbox.filesystem.read_text would read a file; {_NOT_YET}")
    async def read_text(self, remote_path: str) -> str:
        """A file as UTF-8 text."""

    @dual
    @unimplemented(f"Sandbox.filesystem.read_bytes would read a file; {_NOT_YET}")
    async def read_bytes(self, remote_path: str) -> bytes:
        """A file."""

    @dual
    @unimplemented(f"Sandbox.filesystem.write_text would write a file; {_NOT_YET}")
    async def write_text(self, data: str, remote_path: str) -> None:
        """Write a file."""

    @dual
    @unimplemented(f"Sandbox.filesystem.write_bytes would write a file; {_NOT_YET}")
    async def write_bytes(self, data: Union[bytes, bytearray, memoryview], remote_path: str) -> None:
        """Write a file."""

    @dual
    @unimplemented(f"Sandbox.filesystem.copy_from_local would copy a file into the sandbox; {_NOT_YET}")
    async def copy_from_local(self, local_path: str, remote_path: str) -> None:
        """Copy a file in."""

    @dual
    @unimplemented(f"Sandbox.filesystem.copy_to_local would copy a file out of the sandbox; {_NOT_YET}")
    async def copy_to_local(self, remote_path: str, local_path: str) -> None:
        """Copy a file out."""

    @dual
    @unimplemented(f"Sandbox.filesystem.list_files would list a directory; {_NOT_YET}")
    async def list_files(self, remote_path: str) -> List[FileInfo]:
        """What is in a directory."""

    @dual
    @unimplemented(f"Sandbox.filesystem.make_directory would make a directory; {_NOT_YET}")
    async def make_directory(self, remote_path: str, *, create_parents: bool = True) -> None:
        """Make a directory."""

    @dual
    @unimplemented(f"Sandbox.filesystem.remove would remove a path; {_NOT_YET}")
    async def remove(self, remote_path: str, *, recursive: bool = False) -> None:
        """Remove a path."""

    @dual
    @unimplemented(f"Sandbox.filesystem.stat would describe a path; {_NOT_YET}")
    async def stat(self, remote_path: str) -> FileInfo:
        """What a path is."""

    @dual_gen
    @unimplemented(f"Sandbox.filesystem.watch would tell of changes; {_NOT_YET}")
    async def watch(
        self,
        remote_path: str,
        *,
        filter: Optional[List[FileWatchEventType]] = None,  # noqa: A002  the public word
        recursive: bool = False,
        timeout: Optional[int] = None,
    ) -> AsyncIterator[FileWatchEvent]:
        """Changes as they happen."""
        yield  # type: ignore[misc]


class Sandbox(Object):
    """A container that runs commands, with its own lifetime."""

    @staticmethod
    @dual_function
    @unimplemented(f"Sandbox.create would start a container for arbitrary commands; {_NOT_YET}")
    async def create(  # noqa: PLR0913  the public form
        *args: str,
        app: Optional[App] = None,
        name: Optional[str] = None,
        tags: Optional[Dict[str, str]] = None,
        image: Optional[Image] = None,
        env: Optional[Mapping[str, Optional[str]]] = None,
        secrets: Optional[Sequence[Secret]] = None,
        network_file_systems: Mapping[Any, Any] = {},
        timeout: int = 300,
        idle_timeout: Optional[int] = None,
        workdir: Optional[str] = None,
        gpu: Optional[str] = None,
        cloud: Optional[str] = None,
        region: Union[str, Sequence[str], None] = None,
        cpu: Union[float, Tuple[float, float], None] = None,
        memory: Union[int, Tuple[int, int], None] = None,
        runtime: Optional[str] = None,
        block_network: bool = False,
        outbound_cidr_allowlist: Optional[Sequence[str]] = None,
        outbound_domain_allowlist: Optional[Sequence[str]] = None,
        _experimental_outbound_policy: Any = None,
        inbound_cidr_allowlist: Optional[Sequence[str]] = None,
        volumes: Mapping[Any, Any] = {},
        pty: bool = False,
        encrypted_ports: Sequence[int] = [],
        h2_ports: Sequence[int] = [],
        unencrypted_ports: Sequence[int] = [],
        custom_domain: Optional[str] = None,
        proxy: Optional[Proxy] = None,
        include_oidc_identity_token: bool = False,
        readiness_probe: Optional[Probe] = None,
        verbose: bool = False,
        experimental_options: Optional[Dict[str, Any]] = None,
        _experimental_enable_snapshot: bool = False,
        _experimental_persistent: bool = False,
        client: Optional[Client] = None,
        environment_name: Optional[str] = None,
        pty_info: Any = None,
        cidr_allowlist: Optional[Sequence[str]] = None,
    ) -> Sandbox:
        """Start a container that runs ``args``, or waits for ``exec``, for at most ``timeout`` seconds."""

    @staticmethod
    @dual_function
    async def from_id(sandbox_id: str, client: Optional[Client] = None) -> Sandbox:
        """The sandbox with this id."""
        made = Sandbox()
        made._object_id, made._client = sandbox_id, client
        return made

    @staticmethod
    @dual_function
    @unimplemented(f"Sandbox.from_name would find a running sandbox; {_NOT_YET}")
    async def from_name(
        app_name: str,
        name: str,
        *,
        environment_name: Optional[str] = None,
        include_terminated: bool = False,
        client: Optional[Client] = None,
    ) -> Sandbox:
        """The running sandbox of this name."""

    @staticmethod
    @dual_function
    @unimplemented(f"Sandbox.list would list running sandboxes; {_NOT_YET}")
    async def list(
        *, app_id: Optional[str] = None, tags: Optional[Dict[str, str]] = None, client: Optional[Client] = None
    ) -> Any:
        """The running ones."""

    @dual
    @unimplemented(f"Sandbox.exec would run a command in a sandbox; {_NOT_YET}")
    async def exec(  # noqa: PLR0913  the public form
        self,
        *args: str,
        stdout: StreamType = PIPE,
        stderr: StreamType = PIPE,
        timeout: Optional[int] = None,
        workdir: Optional[str] = None,
        env: Optional[Mapping[str, Optional[str]]] = None,
        secrets: Optional[Sequence[Secret]] = None,
        text: bool = True,
        bufsize: int = -1,
        pty: bool = False,
        _pty_info: Any = None,
        pty_info: Any = None,
    ) -> ContainerProcess[Any]:
        """Run a command."""

    @property
    def stdout(self) -> StreamReader[str]:
        """The output of the sandbox's own command."""
        return StreamReader()

    @property
    def stderr(self) -> StreamReader[str]:
        """The errors of the sandbox's own command."""
        return StreamReader()

    @property
    def stdin(self) -> StreamWriter:
        """The input of the sandbox's own command."""
        return StreamWriter()

    @property
    def filesystem(self) -> SandboxFilesystem:
        """Its files."""
        return SandboxFilesystem()

    @property
    def logs(self) -> SandboxLogs:
        """Its output so far."""
        return SandboxLogs()

    @property
    @unimplemented(f"Sandbox.returncode would be the exit code; {_NOT_YET}")
    def returncode(self) -> Optional[int]:
        """The exit code: 124 when its time ran out, 137 when it was terminated."""

    @dual
    @unimplemented(f"Sandbox.wait would wait for a sandbox; {_NOT_YET}")
    async def wait(self, raise_on_termination: bool = True) -> None:
        """Wait for its end."""

    @dual
    @unimplemented(f"Sandbox.poll would look whether a sandbox has ended; {_NOT_YET}")
    async def poll(self) -> Optional[int]:
        """The exit code, or None while it runs."""

    @dual
    @unimplemented(f"Sandbox.terminate would end a sandbox; {_NOT_YET}")
    async def terminate(self, *, wait: bool = False) -> Optional[int]:
        """End it."""

    @dual
    @unimplemented(f"Sandbox.wait_until_ready would wait for the probe; {_NOT_YET}")
    async def wait_until_ready(self, *, timeout: int = 300) -> None:
        """Wait until its probe succeeds."""

    @dual
    @unimplemented(f"Sandbox.detach would let go of a sandbox; {_NOT_YET}")
    async def detach(self) -> None:
        """Let go of it; it runs on."""

    @dual
    @unimplemented(f"Sandbox.tunnels would say where its ports can be reached; {_NOT_YET}")
    async def tunnels(self, timeout: int = 50) -> Dict[int, Tunnel]:
        """Where its ports can be reached."""

    @dual
    @unimplemented(f"Sandbox.create_connect_token would give access to its web server; {_NOT_YET}")
    async def create_connect_token(
        self, user_metadata: Union[str, Dict[str, Any], None] = None, port: int = 8080
    ) -> SandboxConnectCredentials:
        """A URL and a token for its web server."""

    @dual
    @unimplemented(f"Sandbox.snapshot_filesystem would make an image of its files; {_NOT_YET}")
    async def snapshot_filesystem(self, timeout: int = 55, *, ttl: Optional[int] = 2_592_000) -> Image:
        """An image of its files."""

    @dual
    @unimplemented(f"Sandbox.snapshot_directory would make an image of a directory; {_NOT_YET}")
    async def snapshot_directory(
        self,
        path: str,
        *,
        timeout: int = 55,
        ttl: Optional[int] = 2_592_000,
        _experimental_encryption_key: Any = None,
    ) -> Image:
        """An image of one directory."""

    @dual
    @unimplemented(f"Sandbox.mount_image would show an image's files at a path; {_NOT_YET}")
    async def mount_image(self, path: str, image: Image, *, _experimental_encryption_key: Any = None) -> None:
        """Show an image's files at a path."""

    @dual
    @unimplemented(f"Sandbox.unmount_image would take a mounted image away; {_NOT_YET}")
    async def unmount_image(self, path: str) -> None:
        """Take a mounted image away."""

    @dual
    @unimplemented(f"Sandbox.reload_volumes would show others' commits; {_NOT_YET}")
    async def reload_volumes(self, *, timeout: int = 55) -> None:
        """Show what others committed to its volumes."""

    @dual
    @unimplemented(f"Sandbox.set_tags would set its tags; {_NOT_YET}")
    async def set_tags(self, tags: Dict[str, str], *, client: Optional[Client] = None) -> None:
        """Set its tags, all of them."""

    @dual
    @unimplemented(f"Sandbox.get_tags would return its tags; {_NOT_YET}")
    async def get_tags(self) -> Dict[str, str]:
        """Its tags."""

    async def _load(self, client: Client) -> str:
        raise UnimplementedError(f"a Sandbox cannot be looked up: {_NOT_YET}")

    def __getattr__(self, name: str) -> Any:
        instead = _GONE.get(name)
        if instead is not None:
            raise UnimplementedError(f"Sandbox.{name} is gone", hint=f"use sandbox.filesystem.{instead}")
        raise AttributeError(f"a Sandbox has no {name!r}")


_GONE: Mapping[str, str] = {
    "ls": "list_files()",
    "mkdir": "make_directory()",
    "open": "read_text() or write_text()",
    "rm": "remove()",
    "watch": "watch()",
}


class SandboxSnapshot(Object):
    """A sandbox with its memory, kept to be started again."""

    @staticmethod
    @dual_function
    async def from_id(sandbox_snapshot_id: str, client: Optional[Client] = None) -> SandboxSnapshot:
        """The snapshot with this id."""
        made = SandboxSnapshot()
        made._object_id, made._client = sandbox_snapshot_id, client
        return made

    async def _load(self, client: Client) -> str:
        raise UnimplementedError(f"a SandboxSnapshot cannot be looked up: {_NOT_YET}")
