"""A call with one input, from arguments to value. The way of ``remote()``: every microsecond here is in each call.

The id of a call is made here, so that it can be sent again after a lost connection and is never run twice for it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple

from alight.sdk import outcomes, progress, values
from alight.sdk.client import encode_open, encode_start
from alight.sdk.large import put_blob
from alight.sdk.lost import LostError
from alight.sdk.waits import Waiting
from alight.wire import ambient, calling, chunk, errors, payload
from alight.wire.codec import MAX_INLINE, Buffer, loads_head
from alight.wire.ids import CALL, new_id
from alight.wire.record import replace

if TYPE_CHECKING:
    from alight.sdk.callee import Callee
    from alight.sdk.conversation import Message, Stream

_GRACE = 0.5  # seconds for the server's own "not ready" to arrive


async def call_and_wait(callee: Callee, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """Call and return the value, or raise what the function raised."""
    call_id, message, body = await _prepare(callee, args, kwargs)
    return await wait(callee, "call.start", call_id, message, body)


async def start(callee: Callee, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> str:
    """Call and return the call's id once the server has it on disk."""
    call_id, message, body = await _prepare(callee, args, kwargs, keep=True)
    begun = replace(message or _plain(callee, call_id), verb="spawn", wait=False)
    while True:
        try:
            stream = await callee.client.open("call.start", begun, body)
            if await stream.recv() is None:
                raise errors.InternalError("the server ended call.start without an answer")
        except LostError as lost:
            await callee.client.after_loss(lost)
            begun = replace(begun, resend=True)
            continue
        return call_id


async def wait(
    callee: Callee, method: str, call_id: str, message: Any, body: Buffer = b"", timeout: Optional[float] = None
) -> Any:
    """Follow a call to its one answer, sending it again after a lost connection. ``message`` None: a plain start."""
    client = callee.client
    deadline = None if timeout is None else time.monotonic() + timeout
    if message is None:
        head = encode_start(callee.function_id, call_id, callee.method, ambient.current_input_id.get() or "")
    else:
        head = encode_open(method, message)
    on_waiting = ambient.on_waiting
    if on_waiting is not None:
        on_waiting(True)
    client.held_calls.add(call_id)
    told = Waiting(call_id)
    stream: Optional[Stream] = None
    try:
        stream = await client.open_head(head, body)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) + _GRACE
            try:
                answer = await stream.recv_within(told.sooner(left))
            except errors.BuiltinTimeoutError:
                if not told.say():
                    raise
                continue
            except LostError as lost:
                await client.after_loss(lost)
                if method == "call.start":
                    message = replace(message or _plain(callee, call_id), resend=True)
                stream = await client.open(method, message, body)
                continue
            if answer is None:
                raise errors.InternalError(f"the server ended {method} without a result")  # noqa: TRY301  not caught here
            update = update_of(answer)
            if update is None or update.state == "done":
                break
            told.because(update.why)
        stream = None
    except errors.TimeoutError as error:
        # "not ready yet" is the builtin TimeoutError; time that ran out over there is the result itself.
        if method == "call.result" and type(error) is errors.TimeoutError:
            raise errors.BuiltinTimeoutError(str(error)) from None
        raise
    except (Exception, GeneratorExit):
        raise
    except BaseException:  # Ctrl-C, or the caller's task was cancelled
        if method == "call.start" and (callee.running is None or not callee.running.detach):
            cancel_and_forget(callee, call_id)
        raise
    finally:
        client.held_calls.discard(call_id)
        if stream is not None:
            stream.leave()
        told.over()
        if on_waiting is not None:
            on_waiting(False)
    return await result_of(callee, answer, update)


def cancel_and_forget(callee: Callee, call_id: str) -> None:
    """The caller leaves: its call is cancelled, without waiting for the server to say so."""
    carrier = callee.client.carrier
    if carrier is None:
        return
    try:
        carrier.open(encode_open("call.cancel", calling.CallCancel(call_id)))
    except errors.Error:
        return  # it is cancelled with its app, or when the server notices that we are gone


def update_of(answer: Message) -> Optional[calling.CallUpdate]:
    """The word that came; None for a value."""
    return None if chunk.is_chunk(answer[0]) else loads_head(calling.CallUpdate, answer[0])


async def result_of(callee: Callee, answer: Message, update: Optional[calling.CallUpdate]) -> Any:
    """What the last answer of a call with one input means; ``update`` as ``update_of`` reads it."""
    head, body = answer
    shown = callee.running is not None and progress.is_shown()
    if update is None:
        if shown and callee.running is not None and chunk.log_offset_of(head):
            outputs = chunk.Outputs.decode(head)
            await callee.running.output_until(outputs.container, outputs.log_offset)
        if head[1] & chunk.REFERENCE:
            return await outcomes.large_value(callee, chunk.read_reference(body))
        return values.value(body, f"the result of {callee.name}()")
    if shown and callee.running is not None:
        await callee.running.output_until(update.container, update.log_offset)
    raise await outcomes.exception_of(callee, update, body)


async def _prepare(
    callee: Callee, args: Tuple[Any, ...], kwargs: Dict[str, Any], *, keep: bool = False
) -> Tuple[str, Optional[calling.CallStart], Buffer]:
    """The call's id, its start where there is more to say than the plain one has, and the body."""
    call_id = new_id(CALL)
    small = values.quick(args, kwargs)
    if small is not None:
        return call_id, None, small
    parts = values.of_arguments(callee, args, kwargs)
    size = payload.size_of(parts)
    if size <= MAX_INLINE:
        return call_id, None, parts[0] if len(parts) == 1 else b"".join(parts)
    where = calling.Payload(blob=await put_blob(callee.client, parts, keep=keep), size=size)
    return call_id, replace(_plain(callee, call_id), payload=where), b""


def _plain(callee: Callee, call_id: str) -> calling.CallStart:
    """What ``encode_start`` says, as a message."""
    return calling.CallStart(
        call_id=call_id,
        function_id=callee.function_id,
        method=callee.method,
        parent_input=ambient.current_input_id.get() or "",
    )
