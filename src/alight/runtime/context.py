"""What the user's code finds around it: environment, paths, argv, `__main__`, who it is.

Everything here is done once, before any user code. Fills `wire.ambient`, which the SDK reads.
"""

from __future__ import annotations

import os
import sys
import time

from alight.wire import ambient

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Tuple

#: The runtime's own `__main__`, which must not be collected while its code runs.
_KEPT: List[Any] = []


def enter(start: Dict[str, Any], places: Tuple[str, str], on_waiting: Callable[[bool], None]) -> None:
    """Become the container that ``start`` (a LinkStart in plain words) describes.

    ``places`` are its home directory ("" without isolation) and the directory that holds Alight.
    """
    surround(start, places)
    become(start, on_waiting)


def surround(start: Dict[str, Any], places: Tuple[str, str]) -> None:
    """What is around user code: environment, paths, argv."""
    os.environ.update(start.get("env", {}))
    if "TZ" in os.environ:
        time.tzset()  # C looked at it before it was set
    _paths(*places)
    _argv(start["function"])


def become(start: Dict[str, Any], on_waiting: Callable[[bool], None]) -> None:
    """What is about this process: who it is, and what only a container can do."""
    identify(start)
    ambient.on_waiting = on_waiting
    sys.breakpointhook = _breakpoint
    os.register_at_fork(after_in_child=_forget)


def identify(start: Dict[str, Any]) -> None:
    """Who it is; for a template, whose forks are somebody else."""
    ambient.container = ambient.Container(
        container_id=start["container_id"],
        app_id=start["app_id"],
        app_name=start["app_name"],
        environment=start["environment"],
        function_id=start["function_id"],
        function_name=start["function"]["name"],
        image_id=start["image_id"],
        cluster=start.get("cluster"),
    )


def _paths(home: str, library: str) -> None:
    """The home directory first, then the working directory, then the image's packages; Alight's own last."""
    front = [home] if home else []
    working = os.getcwd()
    if working not in {home, "/"}:
        front.append(working)
    rest = [entry for entry in sys.path if entry and entry not in {*front, library}]
    # PYTHONPATH may have come over the link, after the interpreter looked.
    added = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry and entry not in rest]
    sys.path[:] = [*front, *added, *rest, library]


def _argv(function: Dict[str, Any]) -> None:
    sys.argv = [function.get("source_path") or function.get("module") or function["name"]]
    # Programs look into __main__ (multiprocessing re-runs its file in children): theirs must not be the runtime's.
    _KEPT.append(sys.modules["__main__"])
    sys.modules["__main__"] = type(sys)("__main__")


def _breakpoint(*args: Any, **kwargs: Any) -> Any:
    from alight.runtime import breakpoints  # noqa: PLC0415  only where user code has one

    return breakpoints.stop(sys._getframe(1), args, kwargs)  # noqa: SLF001  as pdb finds its caller


def _forget() -> None:
    """A forked child is user code's own process, not the function's."""
    ambient.container = None
    ambient.on_waiting = None
    ambient.stop_fetching_inputs = None
    ambient.input_concurrency = None
    ambient.terminal = None
    if sys.breakpointhook is _breakpoint:
        sys.breakpointhook = sys.__breakpointhook__
