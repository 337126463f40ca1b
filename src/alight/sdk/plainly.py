"""Errors on their way to the user's code, without the lines of this package on top of them."""

from __future__ import annotations

import os
from typing import Set

from alight.wire.errors import BuiltinTimeoutError, Error

#: Identities of remote exceptions between being made and being raised out of a verb.
_PLAIN: Set[int] = set()
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def plainly(error: BaseException) -> BaseException:
    """An error on its way to the user's code, without the lines of this package on top of it."""
    ours = isinstance(error, (Error, KeyboardInterrupt, BuiltinTimeoutError)) or id(error) in _PLAIN
    if not ours or _full_tracebacks():
        return error
    _PLAIN.discard(id(error))
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        step = step.tb_next
    return error.with_traceback(step)


def _full_tracebacks() -> bool:
    return any(os.environ.get(name, "0") not in {"0", ""} for name in ("ALIGHT_TRACEBACK", "MODAL_TRACEBACK"))


def show_plainly(error: BaseException) -> None:
    """Remember that an exception is the user's own (from a container), so that our lines don't stand in its
    traceback.
    """
    _PLAIN.add(id(error))
