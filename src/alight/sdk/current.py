"""Where am I, and which input is this: what user code asks about itself."""

from __future__ import annotations

from typing import Optional

from alight.wire import ambient


def is_local() -> bool:
    """False only inside the process that runs a function in a container; child processes and laptops are local."""
    return ambient.is_local()


def current_input_id() -> Optional[str]:
    """The id of the input that this context works on; None outside of one, and in threads of the user's own."""
    return ambient.current_input_id.get()


def current_function_call_id() -> Optional[str]:
    """The id of the call that the input belongs to; None as above."""
    return ambient.current_call_id.get()


__all__ = ["current_function_call_id", "current_input_id", "is_local"]
