"""What the runtime fills and the SDK reads: am I in a container, which input is this.

Two islands meet here without importing each other. Nothing here does anything.
"""

from __future__ import annotations

from _contextvars import ContextVar

from alight.wire.record import dataclass

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    from typing import Any, Callable, Optional


@dataclass(frozen=True)
class Container:
    """The container that this process is the runtime of."""

    container_id: str
    app_id: str
    app_name: str
    environment: str
    function_id: str
    function_name: str
    image_id: str
    cluster: Optional[dict] = None  # type: ignore[type-arg]  # a ``commands.Cluster`` in plain words


#: None on a laptop and in child processes; set once by the runtime before any user code.
container: Optional[Container] = None

#: The raw function that the runtime is importing or running is found by the SDK's decorators; while a module is
#: imported by the runtime this is True, so that `app.run()` at import time can be refused with a sentence.
importing: bool = False

current_input_id: ContextVar[Optional[str]] = ContextVar("alight_input_id", default=None)
current_call_id: ContextVar[Optional[str]] = ContextVar("alight_call_id", default=None)

#: Told when the runtime's process begins and ends waiting for another function's result, so that the machine can
#: lend this container's CPU to the child. Set by the runtime; None elsewhere.
on_waiting: Optional[Callable[[bool], Any]] = None

#: Ends this container after the inputs that it has begun; the others go elsewhere. Set by the runtime.
stop_fetching_inputs: Optional[Callable[[], None]] = None

#: How many inputs this container runs at once. A number sets it first: at least 1, at most what was declared. Set by
#: the runtime.
input_concurrency: Optional[Callable[[Optional[int]], int]] = None

#: The user's terminal, while `interact()` has connected it to this process: a ``Terminal`` of the SDK, which fills it.
#: The runtime calls ``interrupt()`` for SIGINT, and ``leave()`` after an input, before its value leaves.
terminal: Optional[Any] = None


def is_local() -> bool:
    """False only inside the process that runs a function in a container."""
    return container is None
