"""The way of @batched functions: inputs wait for company, run as one call with lists, and are answered one by one.

A batch begins when it is full, or so long after its first input came. Until then its inputs count as not begun.
"""

from __future__ import annotations

import inspect
import time
from collections import deque

from alight.wire import ambient
from alight.wire.codec import Kind
from alight.wire.errors import InputCancellation, InvalidError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Deque, Dict, List, Optional, Tuple

    from alight.runtime.inputs import Given
    from alight.runtime.link import Arrival
    from alight.runtime.runner import Runner, Target
    from alight.runtime.serve import Service

    One = Tuple[Given, int]


class Batch:
    """Inputs that run together. Stands in the runner for what runs: it is cancelled when all of them are."""

    def __init__(self, runner: Runner, target: Target, members: List[One]) -> None:
        self._runner = runner
        self._target = target
        self._started = time.monotonic()
        self._members = members
        self.arguments: Dict[str, List[Any]] = {}
        self._open()

    def is_cancelled(self, _index: int) -> bool:
        return all(given.is_cancelled(index) for given, index in self._members)

    def __bool__(self) -> bool:
        """Whether anything of it is left to run."""
        return bool(self._members)

    @property
    def first(self) -> One:
        return self._members[0]

    def ended(self, values: Any) -> None:
        """The function returned: a value for each, in order."""
        try:
            values = self._checked(values)
        except InvalidError as error:
            self.failed(error)
            return
        runner, now = self._runner, time.monotonic()
        for (given, index), value in zip(self._members, values):
            if given.is_cancelled(index):
                runner.fail(self._target, given, index, InputCancellation(), self._started)
                continue
            try:
                body = runner.packed(self._target, value)
            except Exception as error:  # noqa: BLE001  a value that cannot be pickled fails its own input
                runner.fail(self._target, given, index, error, self._started)
                continue
            if type(body) is bytes:
                runner.outputs.add(given, index, body, (now - self._started) / len(self._members), now)
            else:
                runner.leave_file(self._target, given, index, body, self._started)

    def failed(self, error: BaseException) -> None:
        """One exception is the output of all."""
        for given, index in self._members:
            self._runner.fail(self._target, given, index, error, self._started)

    def _open(self) -> None:
        """Take each input's arguments and turn them into a list for each parameter. One that cannot be read, or does
        not fit the function, fails alone."""
        signature = inspect.signature(self._target.call)
        members, self._members = self._members, []
        for given, index in members:
            try:
                if given.is_cancelled(index):
                    raise InputCancellation
                args, kwargs = self._runner.arguments(self._target, given, index)
                bound = signature.bind(*args, **kwargs).arguments
            except BaseException as error:  # noqa: BLE001  unpickling runs the user's code
                self._runner.fail(self._target, given, index, error, self._started)
                continue
            self._members.append((given, index))
            for name, value in bound.items():
                self.arguments.setdefault(name, []).append(value)
        for given, _ in members:
            if not given.waits:
                given.let_go()

    def _checked(self, values: Any) -> List[Any]:
        name, count = self._target.name, len(self._members)
        if not isinstance(values, list):
            raise InvalidError(f"{name}() is @batched and returned a {type(values).__name__}, not a list")
        if len(values) != count:
            raise InvalidError(f"{name}() got a batch of {count} inputs and returned a list of {len(values)}")
        return values


class Waiting:
    """Inputs that wait for company."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._size, self._patience = service.batch
        self._chunks: Deque[Given] = deque()
        self._since: Optional[float] = None

    def add(self, given: Given) -> None:
        self._chunks.append(given)

    def patience(self) -> Optional[float]:
        """For how long the next batch waits: None while there is no input, 0 when it should begin."""
        count = sum(given.waits for given in self._chunks)
        if not count:
            self._since = None
            return None
        if count >= self._size:
            return 0.0
        now = time.monotonic()
        if self._since is None:
            self._since = now
        return max(0.0, self._since + self._patience - now)

    def take(self) -> Tuple[Target, List[One]]:
        """The next batch: of one method, and as many as there are and fit."""
        self._since = None
        target: Any = None
        method = ""
        members: List[One] = []
        while self._chunks and len(members) < self._size:
            given = self._chunks[0]
            if members and given.method != method:
                break
            method, target = given.method, self._service.runner.target(given)
            index = next(given.line, None)
            if index is None:
                self._chunks.popleft()
            else:
                members.append((given, index))
        return target, members


class Batches:
    """For blocking functions, in the main thread."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._runner = service.runner
        self._link = service.link
        self._waiting = Waiting(service)

    def serve(self) -> None:
        """In the main thread, until told to leave."""
        service, link = self._service, self._link
        link.redirect()
        while not service.told_to_leave:
            patience = self._waiting.patience()
            if patience == 0:
                self._run(*self._waiting.take())
                continue
            link.outputs.flush()
            arrival = link.next_within(patience)
            if arrival is None:
                continue
            kind, head, _ = arrival
            if kind == Kind.LINK_INPUT:
                self._waiting.add(head)
            elif service.ends(kind, head):
                return

    def cancelled(self) -> None:
        """In the link's thread: inputs were marked as cancelled."""
        self._service.interrupt_main()

    def leave(self) -> None:
        """In a signal handler: the container was told to end."""

    def changed(self) -> None:
        """In user code: another number of inputs may run at a time."""

    def _run(self, target: Target, members: List[One]) -> None:
        if not members:
            return
        runner = self._runner
        batch: Any = Batch(runner, target, members)
        if not batch:
            return
        _announce(batch)
        failure: Any = None
        values: Any = None
        runner.given = batch
        try:
            try:
                runner.armed = 0
                if batch.is_cancelled(0):
                    raise InputCancellation
                values = target.call(**batch.arguments)
                runner.armed = None
            except BaseException as error:  # noqa: BLE001  whatever user code raises is its output
                runner.armed = None
                failure = error
        except BaseException as error:  # noqa: BLE001  a signal came while another exception was on its way
            failure = error
        if failure is None:
            batch.ended(values)
        else:
            batch.failed(failure)
        runner.given = None


class AsyncBatches:
    """For coroutine functions, on the loop of the container."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._runner = service.runner
        self._link = service.link
        self._loop = service.loop()
        self._waiting = Waiting(service)
        self._batch: Any = None
        self._task: Any = None
        self._news: Any = None
        self._ending = False

    def serve(self) -> None:
        """In the main thread, until told to leave."""
        self._loop.run_until_complete(self._serve())
        self._link.deliver = lambda _arrival: None

    def cancelled(self) -> None:
        """In the link's thread: inputs were marked as cancelled."""
        self._loop.call_soon_threadsafe(self._cancel_marked)

    def leave(self) -> None:
        """In a signal handler: the container was told to end."""
        self._loop.call_soon_threadsafe(self._cancel)

    def changed(self) -> None:
        """In user code: another number of inputs may run at a time."""

    async def _serve(self) -> None:
        import asyncio  # noqa: PLC0415  it is there already

        loop = self._loop
        self._news = asyncio.Event()
        for arrival in self._link.redirect(lambda arrival: loop.call_soon_threadsafe(self._arrived, arrival)):
            self._arrived(arrival)
        while True:
            patience = self._waiting.patience()
            if patience == 0:
                target, members = self._waiting.take()
                batch = Batch(self._runner, target, members) if members else None
                if batch:
                    self._batch = batch
                    self._task = loop.create_task(self._run(target, batch))
                    await asyncio.wait([self._task])
                    self._batch = self._task = None
                continue
            if self._ending:
                return
            self._link.outputs.flush()
            self._news.clear()
            alarm = loop.call_later(patience, self._news.set) if patience is not None else None
            await self._news.wait()
            if alarm is not None:
                alarm.cancel()

    async def _run(self, target: Target, batch: Batch) -> None:
        _announce(batch)
        try:
            values = await target.call(**batch.arguments)
        except BaseException as error:  # noqa: BLE001  whatever user code raises is its output
            batch.failed(error)
        else:
            batch.ended(values)

    def _arrived(self, arrival: Arrival) -> None:
        kind, head, _ = arrival
        if kind == Kind.LINK_INPUT:
            self._waiting.add(head)
        elif self._service.ends(kind, head):
            self._ending = True
        self._news.set()

    def _cancel_marked(self) -> None:
        if self._batch is not None and self._batch.is_cancelled(0):
            self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _announce(batch: Batch) -> None:
    """The input that user code finds is the first of its batch."""
    given, index = batch.first
    ambient.current_call_id.set(given.call_id)
    ambient.current_input_id.set(given.input_id(index))
