"""One call: arguments to bytes, there, and back; the same for callers that wait and for those that come back later.

The ids of a call are made here, so that it can be sent again after a lost connection and is never run twice for it.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Dict, List, Optional, Tuple

from alight.sdk import config, progress
from alight.sdk.client import Client
from alight.sdk.large import get_blob, put_blob
from alight.sdk.lost import LostError
from alight.sdk.object import Object
from alight.sdk.running import RunningApp
from alight.sdk.surface import unimplemented
from alight.sdk.sync import dual, dual_function, dual_gen
from alight.wire import ambient, errors, messages, payload
from alight.wire.codec import MAX_INLINE, Buffer, loads_head
from alight.wire.ids import CALL, INPUT, is_id, new_id
from alight.wire.record import dataclass, replace
from alight.wire.states import ResultStatus

if TYPE_CHECKING:
    from alight.sdk.carrier import Stream


@dataclass(frozen=True)
class Callee:
    """What is called: by which client, under which id; ``running`` when this process runs its app."""

    client: Client
    function_id: str
    name: str
    raw: Optional[Callable[..., Any]] = None
    running: Optional[RunningApp] = None
    method: str = ""


async def call_and_wait(callee: Callee, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """Call and return the value, or raise what the function raised."""
    message, body = await _prepare(callee, args, kwargs, wait=True)
    return await _wait(callee, "call.start", message, body)


async def spawn(callee: Callee, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> FunctionCall:
    """Call and return once the server has it on disk."""
    message, body = await _prepare(callee, args, kwargs, wait=False)
    await callee.client.call("call.start", message, messages.CallUpdate, body)
    return FunctionCall._started(message.call_id, callee)  # noqa: SLF001  of this file


class FunctionCallLogs:
    """``FunctionCall.logs``."""

    @unimplemented("FunctionCall.logs.fetch() would return the call's output; see `alight app logs`")
    def fetch(self, *, since: Any = None, until: Any = None, source: Any = None, search_text: str = "") -> Any: ...

    @unimplemented("FunctionCall.logs.tail() would return the end of the call's output; see `alight app logs`")
    def tail(self, entries: int = 100, *, source: Any = None) -> Any: ...

    @unimplemented("FunctionCall.logs.stream() would follow the call's output; see `alight app logs -f`")
    def stream(self, timeout: Optional[float] = None) -> Any: ...


class FunctionCall(Object):
    """A call that somebody started and whose result can be had later, by anybody who knows its id."""

    def __init__(self) -> None:
        super().__init__()
        self._callee: Optional[Callee] = None

    @property
    def logs(self) -> FunctionCallLogs:
        """The call's output."""
        return FunctionCallLogs()

    @staticmethod
    @dual_function
    async def from_id(function_call_id: str, client: Optional[Client] = None) -> FunctionCall:
        """The call of this id. Whether there is one shows at its first use."""
        if not is_id(function_call_id, CALL):
            raise errors.InvalidError(f"{function_call_id!r} is not the id of a call", hint="they look like fc-…")
        call = FunctionCall()
        call._object_id, call._client = function_call_id, client
        return call

    @dual
    async def get(self, timeout: Optional[float] = None, *, index: int = 0) -> Any:
        """The result, waiting ``timeout`` seconds at most (None: for ever; 0: not at all).

        Raises the builtin TimeoutError when it is not there yet, OutputExpiredError when it was kept for its time and
        is gone, and what the function raised.
        """
        client = await self._via()
        callee = self._callee or Callee(client, "", "the function")
        message = messages.CallResult(self.object_id, timeout=timeout, index=index)
        return await _wait(callee, "call.result", message, b"", timeout=timeout)

    @dual
    async def cancel(self, terminate_containers: bool = False) -> None:
        """Cancel what waits and runs; with ``terminate_containers`` end its containers too."""
        client = await self._via()
        await client.do("call.cancel", messages.CallCancel(self.object_id, terminate_containers))

    @dual_gen
    @unimplemented("FunctionCall.iter() would return the outputs of a call with many inputs; calls have one here yet")
    async def iter(self, *, start: int = 0, end: Optional[int] = None) -> AsyncIterator[Any]:
        yield None

    @dual
    @unimplemented("FunctionCall.num_inputs() would count the inputs of a call with many; calls have one here yet")
    async def num_inputs(self) -> int: ...

    @dual
    @unimplemented(
        "FunctionCall.get_call_graph() would return which calls started which; this version doesn't record it"
    )
    async def get_call_graph(self) -> List[Any]: ...

    @staticmethod
    @dual_function
    async def gather(*function_calls: FunctionCall) -> List[Any]:
        """The results of several calls, in order. The first failure among them is raised."""
        return [await call.get.raw() for call in function_calls]

    @staticmethod
    def _started(call_id: str, callee: Callee) -> FunctionCall:
        call = FunctionCall()
        call._object_id, call._client, call._callee = call_id, callee.client, callee
        return call

    def __getstate__(self) -> Dict[str, Any]:
        return {**super().__getstate__(), "_callee": None}

    def __repr__(self) -> str:
        return f"FunctionCall({self._object_id!r})"


async def _prepare(
    callee: Callee, args: Tuple[Any, ...], kwargs: Dict[str, Any], *, wait: bool
) -> Tuple[messages.CallStart, Buffer]:
    parts = pickle_arguments(callee, args, kwargs)
    size = payload.size_of(parts)
    where = messages.Payload()
    body: Buffer = b""
    if size > MAX_INLINE:
        where = messages.Payload(blob=await put_blob(callee.client, parts), size=size)
    else:
        body = parts[0] if len(parts) == 1 else b"".join(parts)
    call_id = new_id(CALL)
    message = messages.CallStart(
        call_id=call_id,
        input_id=INPUT + call_id[len(CALL) :],  # one input, so one number serves both
        function_id=callee.function_id,
        payload=where,
        wait=wait,
        method=callee.method,
        parent_input=ambient.current_input_id.get() or "",
    )
    return message, body


async def _wait(callee: Callee, method: str, message: Any, body: Buffer, *, timeout: Optional[float] = None) -> Any:
    """Follow a call to its end, sending it again after a lost connection."""
    client = callee.client
    deadline = None if timeout is None else time.monotonic() + timeout
    on_waiting = ambient.on_waiting
    if on_waiting is not None:
        on_waiting(True)
    client.held_calls.add(message.call_id)
    told = _Waiting(message.call_id)
    stream: Optional[Stream] = None
    try:
        stream = await client.open(method, message, body)
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
                if isinstance(message, messages.CallStart):
                    message = replace(message, resend=True)
                stream = await client.open(method, message, body)
                continue
            if answer is None:
                raise errors.InternalError(f"the server ended {method} without a result")  # noqa: TRY301  not caught here
            update = _update(answer[0])
            if update.state == "done":
                stream = None
                break
            told.because(update.why)
    except errors.TimeoutError as error:
        # "not ready yet" is the builtin TimeoutError; time that ran out over there is the result itself.
        if method == "call.result" and type(error) is errors.TimeoutError:
            raise errors.BuiltinTimeoutError(str(error)) from None
        raise
    except (Exception, GeneratorExit):
        raise
    except BaseException:  # Ctrl-C, or the caller's task was cancelled
        await _give_up(callee, message.call_id, method)
        raise
    finally:
        client.held_calls.discard(message.call_id)
        if stream is not None:
            stream.leave()
        told.over()
        if on_waiting is not None:
            on_waiting(False)
    if callee.running is not None and update.log_offset:
        await callee.running.output_until(update.container, update.log_offset)
    return await _outcome(callee, update, answer[1])


def _update(head: bytes) -> messages.CallUpdate:
    """``loads_head``, quicker for what nearly every answer is: plain words alone. Its share of a warm call counts."""
    plain = _decode(head.decode())
    if plain.keys() <= _PLAIN_WORDS:
        return messages.CallUpdate(**plain)
    return loads_head(messages.CallUpdate, head)


_decode = json.JSONDecoder().decode  # json.loads guesses the encoding of bytes each time
_PLAIN_WORDS = frozenset({"call_id", "state", "input_id", "status", "attempt", "container", "log_offset", "why"})


class _Waiting:
    """Why a call waits, told to whoever draws, once it has waited long enough to wonder."""

    def __init__(self, call_id: str) -> None:
        self._call_id = call_id
        self._why = ""
        self._told = ""
        self._since = 0.0

    def because(self, why: str) -> None:
        if why and not self._why:
            self._since = time.monotonic()
        self._why = why
        if self._told and why != self._told:
            self._tell()

    def sooner(self, left: Optional[float]) -> Optional[float]:
        """How long to listen before something has to be told."""
        if not self._why or self._told:
            return left
        until = max(0.0, self._since + _WONDER - time.monotonic())
        return until if left is None else min(left, until)

    def say(self) -> bool:
        """Tell it when it is time. False when there was nothing to tell."""
        if not self._why or self._told or time.monotonic() < self._since + _WONDER:
            return False
        self._tell()
        return True

    def over(self) -> None:
        if self._told:
            self._why = ""
            self._tell()

    def _tell(self) -> None:
        self._told = self._why
        progress.current().waiting(self._call_id, self._why)


_WONDER = 1.0  # seconds
_GRACE = 0.5  # seconds for the server's own "not ready" to arrive


async def _give_up(callee: Callee, call_id: str, method: str) -> None:
    """The caller leaves: its call is cancelled, unless it was only being looked at or its app lives on without us."""
    if method != "call.start" or (callee.running is not None and callee.running.detach):
        return
    carrier = callee.client.carrier
    if carrier is None:
        return
    try:
        carrier.open(callee.client.encode("call.cancel", messages.CallCancel(call_id)))
    except errors.Error:
        return  # it is cancelled with its app, or when the server notices that we are gone


async def _outcome(callee: Callee, update: messages.CallUpdate, body: bytes) -> Any:
    data: Buffer = body
    if update.payload.blob:
        data = await get_blob(callee.client, update.payload)
    if update.status == ResultStatus.SUCCESS:
        return payload.loads(data, f"the result of {callee.name}()")
    if update.failure is not None:
        from alight.sdk import failures  # noqa: PLC0415  only failed calls need it

        raise failures.to_exception(update.failure, bytes(data), update.container, show_all=_show_all())
    if update.error is not None:
        raise errors.from_wire(update.error)
    if update.status == ResultStatus.CANCELLED:
        raise errors.RemoteError(f"the call of {callee.name}() was cancelled")
    raise errors.RemoteError(f"the call of {callee.name}() ended as {update.status or 'unknown'}")


def _show_all() -> bool:
    return bool(config.load()["traceback"])


def pickle_arguments(callee: Callee, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> List[Any]:
    """The parts of (args, kwargs). An argument that cannot be pickled is named."""
    try:
        return payload.dumps((args, kwargs), f"the arguments of {callee.name}()")
    except errors.SerializationError as whole:
        for name, value in _named(callee.raw, args, kwargs):
            try:
                payload.dumps(value, f"the argument {name} of {callee.name}()")
            except errors.SerializationError as one:
                raise one from whole.__cause__
        raise


def _named(raw: Optional[Callable[..., Any]], args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> List[Tuple[str, Any]]:
    names: List[str] = []
    if raw is not None:
        try:
            import inspect  # noqa: PLC0415  paid by failures only

            names = [repr(name) for name in inspect.signature(raw).parameters]
        except (TypeError, ValueError):
            names = []
    positional = [(names[index] if index < len(names) else f"{index + 1}", value) for index, value in enumerate(args)]
    return positional + [(repr(name), value) for name, value in kwargs.items()]
