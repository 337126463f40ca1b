"""What is called, as every way of calling takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional

from alight.wire.record import dataclass

if TYPE_CHECKING:
    from alight.sdk.client import Client
    from alight.sdk.running import RunningApp


@dataclass(frozen=True)
class Callee:
    """What is called: by which client, under which id; ``running`` when this process runs its app."""

    client: Client
    function_id: str
    name: str
    raw: Optional[Callable[..., Any]] = None
    running: Optional[RunningApp] = None
    method: str = ""
