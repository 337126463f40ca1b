"""``breakpoint()`` in a container: the user's terminal is connected first, then Python's debugger takes over."""

from __future__ import annotations

import os
import sys
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Dict, Tuple


def stop(frame: FrameType, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """Do what ``breakpoint(*args, **kwargs)`` means in ``frame``. PYTHONBREAKPOINT counts as it does elsewhere.

    Raises InvalidError where the app was run without a terminal.
    """
    chosen = os.environ.get("PYTHONBREAKPOINT", "")
    if chosen == "0":
        return None
    import alight  # noqa: PLC0415  the SDK, which the runtime itself knows only by its public face

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a debugger blocks an event loop, and is meant to
        alight.interact()
    if chosen not in {"", "pdb.set_trace"} or args or kwargs:
        return sys.__breakpointhook__(*args, **kwargs)  # noqa: T100  the user asked for it
    from pdb import Pdb  # noqa: PLC0415  only where user code wants it

    # What the default hook does, but with the user's frame: its own caller would be this function.
    return Pdb().set_trace(frame)
