"""The builtin errors that scripts catch around files of volumes."""

from __future__ import annotations

from typing import Any

from alight.wire import errors


class file_errors:  # noqa: N801  reads as a statement
    """Turns the server's words about paths into FileNotFoundError and FileExistsError."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if isinstance(error, errors.NotFoundError):
            raise FileNotFoundError(str(error)) from error
        if isinstance(error, errors.AlreadyExistsError):
            raise FileExistsError(_without_option(error)) from error


def _without_option(error: errors.AlreadyExistsError) -> str:
    return str(error).replace("use --force to replace it", "use force=True to replace it")
