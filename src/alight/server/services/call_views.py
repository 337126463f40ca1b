"""Calls as people look at them: the store's rows together with what the scheduler knows of them just now."""

from __future__ import annotations

from alight.scheduler.state import State
from alight.server.services.calls import Calls
from alight.store.base import Store


class CallViews:
    """Looks at calls and changes nothing."""

    def __init__(self, store: Store, calls: Calls, state: State) -> None:
        self._store = store
        self._calls = calls
        self._state = state
