"""A server that has calls and no machines: runs plain functions on the spot, keeps what it was given, and can be
killed at any step. A fake.
"""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, List, Optional, Set

from alight.wire import calling, chunk, errors, payload
from alight.wire.codec import from_plain
from alight.wire.failure import Failure


class Call:
    """What the server has of one call; it survives lost connections."""

    def __init__(self, start: calling.CallStart) -> None:
        self.start = start
        self.inputs: List[Any] = []  # payloads, by position
        self.outputs: Dict[int, Any] = {}  # position → (update or None, bytes, flags)
        self.runs: Dict[int, int] = {}  # position → how often it ran
        self.total: Optional[int] = None
        self.cancelled = False


class CallServer:
    """``function`` is run for each input of calls with many. ``die_at``: the steps at which the connection breaks."""

    def __init__(self, far: Any, function: Callable[..., Any]) -> None:
        self.function = function
        self.calls: Dict[str, Call] = {}
        self.chunks: List[chunk.Inputs] = []
        self.die_at: Set[int] = set()
        self.forget = 0  # so many of the last inputs are not on disk when it dies
        self.steps = 0
        self.answers = True  # whether inputs are answered as they come
        self.order: Callable[[List[int]], List[List[int]]] = lambda positions: [positions]
        self.lock = threading.RLock()
        far.answers.update({"call.start": self._start, "call.cancel": self._cancel, "call.result": self._result})
        far.at_data["call.start"] = self._data
        far.at_end["call.start"] = self._end
        far.answers["call.show"] = lambda asked: asked.answer(self._shown(self.calls[asked.args["call_id"]]))

    @property
    def call(self) -> Call:
        """The only one."""
        (found,) = self.calls.values()
        return found

    def _dies(self, asked: Any) -> bool:
        self.steps += 1
        if self.steps not in self.die_at:
            return False
        for call in self.calls.values():
            keep = max(0, len(call.inputs) - self.forget)
            del call.inputs[keep:]
            for position in [position for position in call.outputs if position >= keep]:
                del call.outputs[position]
        asked.break_off()
        return True

    def _start(self, asked: Any) -> None:
        with self.lock:
            start = from_plain(calling.CallStart, asked.args)
            assert start.many, "calls with one input are answered by the test"
            call = self.calls.setdefault(start.call_id, Call(start))
            asked.call = call
            asked.said = {position for begin, stop in start.have for position in range(begin, stop)}
            if self._dies(asked) or not start.resend:
                return
            asked.say(calling.CallUpdate(start.call_id, "accepted", accepted=len(call.inputs)))
            if self._dies(asked) or not start.wait:
                return
            for position in range(len(call.inputs)):
                if position not in call.outputs:
                    self.run(call, position)
            self._say(asked, call, sorted(set(call.outputs) - asked.said))

    def _data(self, asked: Any, head: bytes, body: bytes) -> None:
        with self.lock:
            inputs, call = chunk.Inputs.decode(head), asked.call
            self.chunks.append(inputs)
            if self._dies(asked):
                return
            assert inputs.start == len(call.inputs), "positions have no gaps"
            for piece in chunk.cut(inputs.sizes, body):
                call.inputs.append((bytes(piece), inputs.flags))
            if self._dies(asked) or not self.answers:
                return
            if call.start.wait:
                positions = list(range(inputs.start, inputs.stop))
                for position in positions:
                    self.run(call, position)
                for some in self.order(positions):
                    self._say(asked, call, some)
                    if self._dies(asked):
                        return

    def run(self, call: Call, position: int) -> None:
        """Run one input."""
        data, flags = call.inputs[position]
        try:
            args, kwargs = ((data,), {}) if flags & chunk.REFERENCE else payload.loads(data)
            call.runs[position] = call.runs.get(position, 0) + 1
            value = self.function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  the caller gets it, as from a container
            failure = Failure(f"builtins.{type(error).__name__}", str(error), pickled=True)
            update = calling.CallUpdate(
                call.start.call_id, "done", position=position, status="exception", failure=failure
            )
            call.outputs[position] = (update, payload.dumps_bytes(error), 0)
        else:
            call.outputs[position] = (None, payload.dumps_bytes(value), 0)

    def _say(self, asked: Any, call: Call, positions: List[int]) -> None:
        plain = [position for position in positions if call.outputs[position][0] is None]
        if plain:
            whole = range(plain[0], plain[-1] + 1)
            listed: Any = whole if plain == list(whole) else tuple(plain)
            bodies = [call.outputs[position][1] for position in plain]
            asked.say_chunk(chunk.Outputs(call.start.call_id, listed, list(map(len, bodies))), b"".join(bodies))
        for position in positions:
            update, body, _ = call.outputs[position]
            if update is not None:
                asked.say(update, body)
        asked.said |= set(positions)
        self._end_if_all_is_said(asked, call)

    def _end_if_all_is_said(self, asked: Any, call: Call) -> None:
        if asked.method == "call.start" and call.total is not None and len(asked.said) >= call.total:
            asked.end()

    def _end(self, asked: Any) -> None:
        with self.lock:
            call = getattr(asked, "call", None)
            if call is None or self._dies(asked):
                return
            call.total = len(call.inputs)
            if not call.start.wait:
                asked.answer(calling.CallUpdate(call.start.call_id, "accepted", accepted=call.total))
            else:
                self._end_if_all_is_said(asked, call)

    def _cancel(self, asked: Any) -> None:
        with self.lock:
            if asked.args["call_id"] in self.calls:
                self.calls[asked.args["call_id"]].cancelled = True
            asked.answer()

    def _result(self, asked: Any) -> None:
        with self.lock:
            result = from_plain(calling.CallResult, asked.args)
            call = self.calls[result.call_id]
            for position in range(len(call.inputs)):
                if position not in call.outputs:
                    self.run(call, position)
            if self._dies(asked):
                return
            if result.index >= 0:
                if result.index >= len(call.inputs):
                    asked.fail(errors.NotFoundError(f"there is no input {result.index}"))
                    return
                positions = [result.index]
            else:
                stop = len(call.inputs) if result.stop is None else min(result.stop, len(call.inputs))
                had = {position for begin, end in result.have for position in range(begin, end)}
                positions = [position for position in range(result.start, stop) if position not in had]
            asked.said = set()
            for some in self.order(positions):
                if some:
                    self._say(asked, call, some)
                if self._dies(asked):
                    return
            asked.end()

    def _shown(self, call: Call) -> calling.CallDetails:
        summary = calling.CallSummary(
            call.start.call_id, "f", call.start.function_id, "ap-1", "app", call.start.verb, "running", 0.0,
            accepted=len(call.inputs), total=call.total,
        )  # fmt: skip
        return calling.CallDetails(summary)
