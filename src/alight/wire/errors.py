"""Every error that Alight raises, in one tree.

    Error
     ├ InvalidError → ConflictError          you asked for something that cannot be
     ├ NotFoundError, AlreadyExistsError     names
     ├ AuthError, PermissionDeniedError      who you are, what you may
     ├ ExecutionError                        used in the wrong place or order
     ├ RemoteError → ImageBuildError         something ended badly over there
     ├ TimeoutError → FunctionTimeoutError … time ran out
     ├ ConnectionError, VersionError         the way to the server
     ├ SerializationError, DeserializationError, RequestSizeError
     ├ ResourceExhaustedError, ServiceError, InternalError, InternalFailure, DataLossError …
     └ UnimplementedError                    a known name that Alight does not do (yet)

An error is a sentence (what happened, where), an optional hint (what to do; rendered in one place, by the CLI), and a
stable ``code``, which is what crosses the wire. Names follow the public API that users' scripts already catch.
"""

from __future__ import annotations

import builtins

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Type


class Error(Exception):
    """Base of everything that Alight raises on purpose."""

    code = "error"

    def __init__(self, message: str = "", *, hint: Optional[str] = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message or (type(self).__doc__ or "").strip().split("\n")[0]
        self.hint = hint
        self.details: Dict[str, Any] = details

    def __str__(self) -> str:
        return self.message


class InvalidError(Error):
    """An argument, name or combination that cannot be."""

    code = "invalid"


class ConflictError(InvalidError):
    """The object is not in a state that allows this."""

    code = "conflict"


class NotFoundError(Error):
    """There is no object of that name or id."""

    code = "not_found"


class AlreadyExistsError(Error):
    """An object of that name exists already."""

    code = "already_exists"


class AuthError(Error):
    """The server does not know who is asking."""

    code = "auth"


class PermissionDeniedError(Error):
    """The one who asks may not do this."""

    code = "permission_denied"


class ExecutionError(Error):
    """Something was used in the wrong place or in the wrong order."""

    code = "execution"


class RemoteError(Error):
    """A container ended badly without an exception of the user's code."""

    code = "remote"


class ImageBuildError(RemoteError):
    """An image could not be built."""

    code = "image_build"

    @property
    def image_id(self) -> Optional[str]:
        value = self.details.get("image_id")
        return value if isinstance(value, str) else None


class TimeoutError(Error):
    """Time ran out. Not the builtin of the same name."""

    code = "timeout"


class FunctionTimeoutError(TimeoutError):
    """A function ran longer than its timeout."""

    code = "function_timeout"


class SandboxTimeoutError(TimeoutError):
    """A sandbox reached its lifetime."""

    code = "sandbox_timeout"


class ExecTimeoutError(TimeoutError):
    """A command in a sandbox ran too long."""

    code = "exec_timeout"


class MountUploadTimeoutError(TimeoutError):
    """Uploading local files took too long."""

    code = "mount_upload_timeout"


class VolumeUploadTimeoutError(TimeoutError):
    """Uploading to a volume took too long."""

    code = "volume_upload_timeout"


class InteractiveTimeoutError(TimeoutError):
    """An interactive session was not opened in time."""

    code = "interactive_timeout"


class OutputExpiredError(TimeoutError):
    """The result was kept for its time and is gone."""

    code = "output_expired"


class ConnectionError(Error):
    """The server could not be reached. Not the builtin of the same name."""

    code = "connection"


class VersionError(Error):
    """Two sides are too far apart in version."""

    code = "version"


class SerializationError(Error):
    """A value could not be pickled."""

    code = "serialization"


class DeserializationError(Error):
    """A value could not be unpickled."""

    code = "deserialization"


class RequestSizeError(Error):
    """A value is larger than this operation takes."""

    code = "request_size"


class ResourceExhaustedError(Error):
    """There is no more of something: disk, memory, inputs in flight."""

    code = "resource_exhausted"


class ServiceError(Error):
    """The server could not do it just now."""

    code = "service"


class InternalError(Error):
    """A fault of Alight's own."""

    code = "internal"


class InternalFailure(Error):
    """A fault of the infrastructure; the call is tried again without touching the user's retries."""

    code = "internal_failure"


class DataLossError(Error):
    """Stored data is damaged or gone."""

    code = "data_loss"


class UnimplementedError(Error):
    """A known name that Alight does not do (yet)."""

    code = "unimplemented"


class WorkspaceManagementError(Error):
    """An operation on the workspace failed."""

    code = "workspace_management"


class ClientClosed(Error):
    """The client or handle was closed before this use."""

    code = "client_closed"


class LogsFetchError(Error):
    """Logs could not be read."""

    code = "logs_fetch"


class SandboxTerminatedError(Error):
    """The sandbox was terminated."""

    code = "sandbox_terminated"


class SnapshotCreationError(Error):
    """A snapshot could not be made."""

    code = "snapshot_creation"


class SandboxFilesystemError(Error):
    """An operation on a sandbox's files failed."""

    code = "sandbox_filesystem"


class SandboxFilesystemNotFoundError(SandboxFilesystemError):
    """No such file in the sandbox."""

    code = "sandbox_filesystem_not_found"


class SandboxFilesystemDirectoryNotEmptyError(SandboxFilesystemError):
    """The directory in the sandbox is not empty."""

    code = "sandbox_filesystem_directory_not_empty"


class SandboxFilesystemIsADirectoryError(SandboxFilesystemError):
    """The path in the sandbox is a directory."""

    code = "sandbox_filesystem_is_a_directory"


class SandboxFilesystemNotADirectoryError(SandboxFilesystemError):
    """The path in the sandbox is not a directory."""

    code = "sandbox_filesystem_not_a_directory"


class SandboxFilesystemPermissionError(SandboxFilesystemError):
    """The sandbox's file may not be used so."""

    code = "sandbox_filesystem_permission"


class SandboxFilesystemFileTooLargeError(SandboxFilesystemError):
    """The sandbox's file is too large for this operation."""

    code = "sandbox_filesystem_file_too_large"


class SandboxFilesystemPathAlreadyExistsError(SandboxFilesystemError):
    """The path in the sandbox exists already."""

    code = "sandbox_filesystem_path_already_exists"


class DeprecationError(UserWarning):
    """An old name. Warned for names that still work; raised for those that are gone."""


class ServerWarning(UserWarning):
    """Something that the server wants the user to know."""


class AsyncUsageWarning(UserWarning):
    """A blocking call was made inside a running event loop."""


class InternalAPIWarning(UserWarning):
    """A name that is not part of the public API was used."""


class InputCancellation(BaseException):
    """Raised inside the user's code when its input is cancelled."""


class ModuleNotMountable(Exception):
    """A module has no source files that could be taken along."""


def to_wire(error: BaseException) -> Dict[str, Any]:
    """The plain form of an error for a frame's head. Foreign exceptions become ``internal`` without their details."""
    if isinstance(error, Error):
        plain: Dict[str, Any] = {"code": error.code, "message": str(error)}
        if error.hint:
            plain["hint"] = error.hint
        if error.details:
            plain["details"] = error.details
        return plain
    return {"code": InternalError.code, "message": f"{type(error).__name__}: {error}"}


def from_wire(plain: Dict[str, Any]) -> Error:
    """The error that ``to_wire`` described. A code from a newer peer becomes the base class, never a KeyError."""
    kind = _by_code().get(str(plain.get("code")), Error)
    details = plain.get("details")
    message = str(plain.get("message") or "")
    hint = plain.get("hint")
    return kind(message, hint=str(hint) if hint else None, **(details if isinstance(details, dict) else {}))


def _by_code() -> Dict[str, Type[Error]]:
    if not _CODES:
        pending: List[Type[Error]] = [Error]
        while pending:
            kind = pending.pop()
            _CODES[kind.code] = kind
            pending.extend(kind.__subclasses__())
    return _CODES


_CODES: Dict[str, Type[Error]] = {}

BuiltinTimeoutError = builtins.TimeoutError
