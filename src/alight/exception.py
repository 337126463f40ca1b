"""Every error that Alight raises, and the warnings that it gives: `alight.exception`."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import warnings

from alight.wire.errors import (
    AlreadyExistsError,
    AsyncUsageWarning,
    AuthError,
    ClientClosed,
    ConflictError,
    ConnectionError,  # noqa: A004  the public name
    DataLossError,
    DeprecationError,
    DeserializationError,
    Error,
    ExecTimeoutError,
    ExecutionError,
    FunctionTimeoutError,
    ImageBuildError,
    InputCancellation,
    InteractiveTimeoutError,
    InternalAPIWarning,
    InternalError,
    InternalFailure,
    InvalidError,
    LogsFetchError,
    ModuleNotMountable,
    MountUploadTimeoutError,
    NotFoundError,
    OutputExpiredError,
    PermissionDeniedError,
    RemoteError,
    RequestSizeError,
    ResourceExhaustedError,
    SandboxFilesystemDirectoryNotEmptyError,
    SandboxFilesystemError,
    SandboxFilesystemFileTooLargeError,
    SandboxFilesystemIsADirectoryError,
    SandboxFilesystemNotADirectoryError,
    SandboxFilesystemNotFoundError,
    SandboxFilesystemPathAlreadyExistsError,
    SandboxFilesystemPermissionError,
    SandboxTerminatedError,
    SandboxTimeoutError,
    SerializationError,
    ServerWarning,
    ServiceError,
    SnapshotCreationError,
    TimeoutError,  # noqa: A004  the public name
    UnimplementedError,
    VersionError,
    VolumeUploadTimeoutError,
    WorkspaceManagementError,
)


def simulate_preemption(wait_seconds: float, jitter_seconds: float = 0) -> None:
    """Interrupt this process after ``wait_seconds`` (and up to ``jitter_seconds`` more), as a lost machine would.

    For testing what a function does about it. Returns at once; the interrupt is a SIGINT, KeyboardInterrupt in Python.
    """
    if wait_seconds < 0 or jitter_seconds < 0:
        raise InvalidError("simulate_preemption() takes seconds, which are not negative")
    delay = wait_seconds + random.random() * jitter_seconds

    def interrupt() -> None:
        time.sleep(delay)
        warnings.warn(f"simulated preemption after {delay:.1f} s", ServerWarning, stacklevel=1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, name="alight-preemption", daemon=True).start()


__all__ = [
    "AlreadyExistsError",
    "AsyncUsageWarning",
    "AuthError",
    "ClientClosed",
    "ConflictError",
    "ConnectionError",
    "DataLossError",
    "DeprecationError",
    "DeserializationError",
    "Error",
    "ExecTimeoutError",
    "ExecutionError",
    "FunctionTimeoutError",
    "ImageBuildError",
    "InputCancellation",
    "InteractiveTimeoutError",
    "InternalAPIWarning",
    "InternalError",
    "InternalFailure",
    "InvalidError",
    "LogsFetchError",
    "ModuleNotMountable",
    "MountUploadTimeoutError",
    "NotFoundError",
    "OutputExpiredError",
    "PermissionDeniedError",
    "RemoteError",
    "RequestSizeError",
    "ResourceExhaustedError",
    "SandboxFilesystemDirectoryNotEmptyError",
    "SandboxFilesystemError",
    "SandboxFilesystemFileTooLargeError",
    "SandboxFilesystemIsADirectoryError",
    "SandboxFilesystemNotADirectoryError",
    "SandboxFilesystemNotFoundError",
    "SandboxFilesystemPathAlreadyExistsError",
    "SandboxFilesystemPermissionError",
    "SandboxTerminatedError",
    "SandboxTimeoutError",
    "SerializationError",
    "ServerWarning",
    "ServiceError",
    "SnapshotCreationError",
    "TimeoutError",
    "UnimplementedError",
    "VersionError",
    "VolumeUploadTimeoutError",
    "WorkspaceManagementError",
    "simulate_preemption",
]
