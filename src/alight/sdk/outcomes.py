"""What an answer means: the value, or the exception that the caller gets for what is no value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Tuple

from alight.sdk import config
from alight.sdk.large import get_blob, get_value
from alight.wire import calling, errors
from alight.wire.states import ResultStatus

if TYPE_CHECKING:
    from alight.sdk.callee import Callee
    from alight.wire.codec import Buffer


async def large_value(callee: Callee, where: Tuple[str, int]) -> Any:
    """The value that came as a reference (name, size). Raises DeserializationError."""
    return await get_value(callee.client, calling.Payload(*where), f"the result of {callee.name}()")


async def exception_of(callee: Callee, update: calling.CallUpdate, body: bytes) -> BaseException:
    """The exception for an input that is done and brought no value."""
    data: Buffer = body
    if update.payload.blob:
        data = await get_blob(callee.client, update.payload)
    if update.failure is not None:
        from alight.sdk import failures  # noqa: PLC0415  only failed calls need it

        return failures.to_exception(
            update.failure, bytes(data), update.container, show_all=bool(config.load()["traceback"])
        )
    if update.error is not None:
        return errors.from_wire(update.error)
    if update.status == ResultStatus.SUCCESS:
        return errors.InvalidError(f"{callee.name} is a generator: it has no one value", hint="use .remote_gen()")
    if update.status == ResultStatus.CANCELLED:
        return errors.RemoteError(f"the call of {callee.name}() was cancelled")
    return errors.RemoteError(f"the call of {callee.name}() ended as {update.status or 'unknown'}")
