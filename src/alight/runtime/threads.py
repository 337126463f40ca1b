"""The way of blocking functions that take several inputs at once: a thread for each, made when it is needed and kept.

A thread cannot be interrupted. When one of several running inputs is cancelled, the container itself ends: the others
are returned and run elsewhere.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from queue import SimpleQueue

from alight.runtime import generators
from alight.wire import ambient
from alight.wire.codec import Kind
from alight.wire.errors import InputCancellation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Deque, Optional, Set, Tuple

    from alight.runtime.inputs import Given
    from alight.runtime.link import Arrival
    from alight.runtime.serve import Service

    One = Tuple[Given, int]


class Threads:
    """``_lock`` guards what waits and what runs. The link's helper reads; the main thread waits for the end."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._runner = service.runner
        self._link = service.link
        self._lock = threading.Lock()
        self._waiting: Deque[Given] = deque()
        self._active: Set[One] = set()
        self._wanted: SimpleQueue[None] = SimpleQueue()  # one for each thread that should look for inputs
        self._working = 0
        self._threads = 0
        self._control: SimpleQueue[str] = SimpleQueue()
        self._ending = False

    def serve(self) -> None:
        """In the main thread, until told to leave and nothing runs any more, or a cancelled thread has to end."""
        for arrival in self._link.redirect(self._arrived):
            self._arrived(arrival)
        word = self._control.get()
        while word == "done" and self._working:
            word = self._control.get()
        self._link.deliver = lambda _arrival: None
        if word == "cancelled":
            self._abandon()

    def cancelled(self) -> None:
        """In the link's thread: inputs were marked as cancelled."""
        with self._lock:
            hit = any(given.is_cancelled(index) for given, index in self._active)
        if hit:
            self._control.put("cancelled")

    def leave(self) -> None:
        """In a signal handler: the container was told to end, and cannot end what runs."""
        self._control.put("left")

    def changed(self) -> None:
        """In user code: another number of inputs may run at a time."""
        self._wake()

    def _arrived(self, arrival: Arrival) -> None:
        kind, head, _ = arrival
        if kind == Kind.LINK_INPUT:
            with self._lock:
                self._waiting.append(head)
            self._wake()
        elif self._service.ends(kind, head):
            with self._lock:
                self._ending = True
            self._control.put("done")

    def _wake(self) -> None:
        """Let as many threads look for inputs as may run."""
        with self._lock:
            waits = sum(given.waits for given in self._waiting)
            for _ in range(min(waits, self._service.limit - self._working)):
                self._working += 1
                if self._working > self._threads:
                    self._threads += 1
                    threading.Thread(target=self._work, name=f"alight-input-{self._threads}", daemon=True).start()
                self._wanted.put(None)

    def _work(self) -> None:
        while True:
            self._wanted.get()
            one = self._take()
            while one is not None:
                self._run(*one)
                one = self._take(one)

    def _take(self, after: Optional[One] = None) -> Optional[One]:
        """The next input to begin; None: the thread is not needed any more."""
        outputs, ended = self._link.outputs, False
        with self._lock:
            if after is not None:
                self._active.discard(after)
                given, _ = after
                if not given.waits and not any(other is given for other, _ in self._active):
                    given.let_go()
            one = self._next() if self._working <= self._service.limit else None
            if one is None:
                self._working -= 1
                ended = self._ending and not self._working
            else:
                self._active.add(one)
        if one is None:
            outputs.flush()
            if ended:
                self._control.put("done")
        return one

    def _next(self) -> Optional[One]:
        waiting = self._waiting
        while waiting:
            index = next(waiting[0].line, None)
            if index is not None:
                return waiting[0], index
            waiting.popleft()
        return None

    def _run(self, given: Given, index: int) -> None:
        runner, started = self._runner, time.monotonic()
        target = runner.target(given)
        ambient.current_call_id.set(given.call_id)
        ambient.current_input_id.set(given.input_id(index))
        if target.streams:
            generators.run_one(runner, given, index, target, lambda _on: None, started)
            return
        try:
            if given.is_cancelled(index):
                raise InputCancellation
            args, kwargs = runner.arguments(target, given, index)
            value: Any = target.call(*args, **kwargs)
            body = runner.packed(target, value)
        except BaseException as error:  # noqa: BLE001  whatever user code raises is its output
            runner.fail(target, given, index, error, started)
            return
        if type(body) is bytes:
            now = time.monotonic()
            runner.outputs.add(given, index, body, now - started, now)
        else:
            runner.leave_file(target, given, index, body, started)

    def _abandon(self) -> None:
        """Answer what was cancelled, return the others, and let the container end."""
        with self._lock:
            hit = [(given, index) for given, index in self._active if given.is_cancelled(index)]
            self._working = self._service.most + 1  # no thread takes another input
        print(
            "alight: an input that runs in a thread was cancelled. A thread cannot be interrupted, so this container "
            "ends; its other inputs run again elsewhere.",
            file=sys.stderr,
        )
        for given, index in hit:
            target = self._runner.target(given)
            self._runner.fail(target, given, index, InputCancellation(), time.monotonic())
        self._link.outputs.close()
        self._link.give_back(for_good=True, begun=True)
