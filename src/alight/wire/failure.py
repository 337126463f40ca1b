"""A user's exception on its way home: its text and frames in plain words, and the exception itself, pickled.

The plain part can be shown by anybody (server, dashboard, a client without the exception's class); the pickled part is
opened only by the caller. Chained causes travel too.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple, Type

from alight.wire.record import dataclass, field


@dataclass(frozen=True)
class FailureFrame:
    """One line of a traceback: file as the container names it, line number, function, and the source line."""

    file: str
    line: int
    name: str
    text: str = ""
    user: bool = True  # False for the runtime's own frames, which are hidden unless ALIGHT_TRACEBACK=1


@dataclass(frozen=True)
class Failure:
    """An exception in plain words. ``pickled`` says whether the output's body holds the exception itself."""

    type: str  # qualified: "builtins.ValueError", "mymodule.MyError"
    message: str = ""
    frames: Tuple[FailureFrame, ...] = ()
    cause: Optional[Failure] = None
    context_suppressed: bool = False  # False and no `raise … from`: "during handling of the above …"
    pickled: bool = False
    notes: Tuple[str, ...] = field(default=())


def rebuild(kind: Type[BaseException], args: Tuple[Any, ...], state: Dict[str, Any]) -> BaseException:
    """An exception without calling its ``__init__``, which may want other arguments than ``args``.

    Pickled exceptions refer to this function by name: it may not move.
    """
    error: BaseException = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error
