"""How many inputs are blocked on results of other functions, so that the machine can lend their CPU."""

from __future__ import annotations

from _thread import allocate_lock

from alight.wire import ambient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Dict, Optional


class Waits:
    """Counts inputs, not waits: one input may wait for many results at once."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._lock = allocate_lock()
        self._inputs: Dict[Optional[str], int] = {}

    def changed(self, begins: bool) -> None:
        """The input of this context begins or ends waiting. Threads of user code count as one input together."""
        input_id = ambient.current_input_id.get()
        with self._lock:
            before = len(self._inputs)
            depth = self._inputs.get(input_id, 0) + (1 if begins else -1)
            if depth > 0:
                self._inputs[input_id] = depth
            else:
                self._inputs.pop(input_id, None)
            count = len(self._inputs)
            if count != before:
                self._tell(count)
