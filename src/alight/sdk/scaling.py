"""How many containers a function has, read and changed while it runs: ``Function.autoscaler``."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Dict, Optional

from alight.sdk import resources
from alight.sdk.sync import dual
from alight.wire import messages
from alight.wire.errors import DeprecationError, InvalidError

if TYPE_CHECKING:
    from alight.sdk.handle import Handle
    from alight.sdk.reports import FunctionAutoscalerSettings

_KEEP = -1


class FunctionAutoscaler:
    """``Function.autoscaler``: of the function itself, or of one instance of a class."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    @dual
    async def settings(self) -> FunctionAutoscalerSettings:
        """The settings in force: what was declared, and over it what ``update()`` changed."""
        from alight.sdk.reports import FunctionAutoscalerSettings  # noqa: PLC0415  declaring needs none of it

        found = await self._ask({})
        return FunctionAutoscalerSettings(
            min_containers=found.min_containers,
            max_containers=found.max_containers,
            scaledown_window=found.scaledown_window,
            buffer_containers=found.buffer_containers,
        )

    @dual
    async def update(
        self,
        *,
        min_containers: Optional[int] = _KEEP,
        max_containers: Optional[int] = _KEEP,
        buffer_containers: Optional[int] = _KEEP,
        scaledown_window: Optional[int] = _KEEP,
    ) -> None:
        """Change settings until the app is published anew: -1 keeps one, None goes back to what was declared.

        ``scaledown_window`` in seconds. Raises InvalidError for what cannot be.
        """
        given = {
            "min_containers": min_containers,
            "max_containers": max_containers,
            "buffer_containers": buffer_containers,
            "scaledown_window": scaledown_window,
        }
        changes = {name: value for name, value in given.items() if value != _KEEP}
        resources.autoscaling(changes)  # refuses what cannot be
        if changes:
            await self._ask(changes)

    async def _ask(self, changes: Dict[str, Any]) -> messages.FunctionScaling:
        callee = await self._handle._callee()  # noqa: SLF001  of this package
        if callee.method:
            class_name, _, method = callee.name.rpartition(".")
            raise InvalidError(
                f"{callee.name} shares its containers with the other methods: scaling is the instance's",
                hint=f"{class_name}(…).autoscaler, not {class_name}(…).{method}.autoscaler",
            )
        message = messages.FunctionScale(callee.function_id, changes)
        return await callee.client.call("function.scale", message, messages.FunctionScaling)


async def update_as_before(autoscaler: FunctionAutoscaler, given: Dict[str, Optional[int]]) -> None:
    """The old ``update_autoscaler()``, for which None meant to keep a setting."""
    warnings.warn("update_autoscaler() is now autoscaler.update()", DeprecationError, stacklevel=6)
    await autoscaler.update.raw(**{name: value for name, value in given.items() if value is not None})
