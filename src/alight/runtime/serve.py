"""The container's loop: hello, start, import, ready; then inputs, one at a time, until told to stop.

One of the four places that may catch everything: an exception here is our fault, is printed, and ends the container.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from _thread import get_ident, start_new_thread

from alight.runtime import context, failures, load, stdio
from alight.runtime.link import Link
from alight.runtime.runner import Runner
from alight.wire.codec import Kind
from alight.wire.errors import ConnectionError as NodeGone
from alight.wire.errors import Error, InputCancellation, RemoteError, from_wire, to_wire

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    import signal
    from typing import Any, Callable, Dict, List, Tuple

    from alight.runtime.link import Arrival
else:
    import _signal as signal  # without the enumerations, which take longer than all of this

LINK_PATH = "/run/alight/link.sock"
_GRACE = 30.0


def main(library: str, home: str) -> int:
    """Serve until told to stop. Returns the exit code of the process.

    ``library`` is where this package lies, ``home`` the container's home directory ("" outside of one).
    """
    stdio.setup()
    faulthandler.enable(2)
    try:
        code = Service(os.environ.get("ALIGHT_LINK", LINK_PATH), library, home).run()
    except Exception:  # noqa: BLE001  one of the four loops: our own fault, said in the container's log
        import traceback  # noqa: PLC0415  our own faults are rare

        traceback.print_exc()
        code = 70
    stdio.flush()
    return code


class Service:
    """The state of the loop. ``run`` belongs to the main thread, ``_cancel`` to the link's."""

    def __init__(self, path: str, library: str, home: str) -> None:
        self._library = library
        self._home = home
        self._link = Link(path, self._cancel)
        self._runner: Any = None
        self._loop: Any = None
        self._main_thread = get_ident()
        self._pid = os.getpid()
        self._told_to_leave = 0  # the signal that said so
        self._grace = _GRACE

    def run(self) -> int:
        try:
            self._link.open()
        except NodeGone as error:
            print(f"alight: {error}", file=sys.stderr)
            return 69
        kind, start, body = self._link.next()
        while kind not in {Kind.LINK_START, Kind.LINK_STOP, Kind.ERROR, Kind.END}:
            kind, start, body = self._link.next()
        if kind != Kind.LINK_START:
            if kind == Kind.ERROR:
                print(f"alight: {from_wire(start)}", file=sys.stderr)
            return 0 if kind == Kind.LINK_STOP else 69
        self._own_signals()
        if not self._start(start, body):
            return 1
        if self._runner.is_async:
            self._serve_async()
        else:
            self._serve()
        return self._leave()

    def _start(self, start: Dict[str, Any], serialized: bytes) -> bool:
        """Import the user's code; say ready, or what it raised."""
        name = start["function"]["name"]
        self._link.begin()
        try:
            context.enter(start, (self._home, self._library), self._link.waiting)
            function = load.load(start["function"], serialized)
        except BaseException as error:  # noqa: BLE001  a module may raise anything while it is imported
            if self._told_to_leave:
                return False
            self._link.ready(*_init_failure(error, name))
            stdio.flush()
            return False
        self._runner = Runner(function, name, start.get("spool", ""))
        stdio.flush()
        self._link.ready({})
        return True

    def _serve(self) -> None:
        link, run = self._link, self._runner.run
        while not self._told_to_leave:
            kind, head, body = link.next()
            if kind == Kind.LINK_INPUT:
                link.begin()
                link.output(*run(head, body))
                del head, body
            elif self._ends(kind, head):
                return

    def _serve_async(self) -> None:
        """The same on an event loop that lives as long as the container, so that background tasks go on."""
        import asyncio  # noqa: PLC0415  only where the user's function is async

        self._loop = loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        arrivals: asyncio.Queue[Arrival] = asyncio.Queue()

        async def serve() -> None:
            early = self._link.redirect(lambda arrival: loop.call_soon_threadsafe(arrivals.put_nowait, arrival))
            for arrival in early:
                arrivals.put_nowait(arrival)
            while not self._told_to_leave:
                kind, head, body = await arrivals.get()
                if kind == Kind.LINK_INPUT:
                    self._link.output(*await self._runner.run_async(head, body))
                    del head, body
                elif self._ends(kind, head):
                    return

        try:
            loop.run_until_complete(serve())
        finally:
            self._link.deliver = lambda _arrival: None
            _close_loop(loop)
            self._loop = None

    def _ends(self, kind: int, head: Dict[str, Any]) -> bool:
        if kind == Kind.LINK_STOP:
            self._grace = float(head.get("grace", _GRACE))
        return kind in {Kind.LINK_STOP, Kind.END}

    def _leave(self) -> int:
        """Let user threads and exit functions end within the grace; the node ends what is left."""
        grace = max(0.1, self._grace - 0.5)
        code = 128 + self._told_to_leave if self._told_to_leave else 0

        def cut_short() -> None:
            time.sleep(grace)
            stdio.flush()
            os._exit(code)

        start_new_thread(cut_short, ())
        stdio.flush()
        if not self._told_to_leave:
            self._link.wait_acknowledged(min(grace, 2.0))
        return code

    def _cancel(self, input_id: str) -> None:
        """In the link's thread: begin to cancel an input, running or still in the inbox."""
        runner = self._runner
        if runner is None or not self._link.holds(input_id):
            return
        runner.cancelled.add(input_id)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cancel_task, input_id)
        elif runner.armed == input_id:
            signal.pthread_kill(self._main_thread, signal.SIGUSR1)

    def _cancel_task(self, input_id: str) -> None:
        if self._runner.armed == input_id and self._runner.task is not None:
            self._runner.task.cancel()

    def _own_signals(self) -> None:
        for number, handler in self._handlers():
            signal.signal(number, handler)
        os.register_at_fork(after_in_child=self._disown_signals)

    def _handlers(self) -> List[Tuple[int, Callable[[int, Any], None]]]:
        return [
            (signal.SIGUSR1, self._on_cancel_signal),
            (signal.SIGTERM, self._on_leave_signal),
            (signal.SIGINT, self._on_leave_signal),
        ]

    def _disown_signals(self) -> None:
        """In a forked child (multiprocessing): signals mean there what they mean in any program."""
        for number, handler in self._handlers():
            if signal.getsignal(number) == handler:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def _on_cancel_signal(self, _number: int, _frame: Any) -> None:
        runner = self._runner
        if runner is not None and runner.armed is not None and runner.armed in runner.cancelled:
            runner.armed = None
            raise InputCancellation("this input was cancelled")

    def _on_leave_signal(self, number: int, _frame: Any) -> None:
        self._told_to_leave = number
        stop: Arrival = (Kind.LINK_STOP, {"grace": self._grace}, b"")
        runner = self._runner
        if runner is None:
            sys.exit(128 + number)
        runner.leaving = "SIGINT" if number == signal.SIGINT else "SIGTERM"
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cancel_task, runner.armed)
        self._link.deliver(stop)
        self._link.interrupt()
        if self._loop is None and runner.armed is not None:
            runner.armed = None
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(128 + number)


def _init_failure(error: BaseException, name: str) -> Tuple[Dict[str, Any], List[Any]]:
    sentence = failures.exit_sentence(error, f"importing the code of {name}")
    if sentence is not None:
        trace = error.__traceback__
        error = RemoteError(sentence)
        error.__traceback__ = trace
    failure, parts = failures.describe(error)
    head: Dict[str, Any] = {"failure": failure}
    if isinstance(error, Error):
        head["error"] = to_wire(error)
    return head, parts


def _close_loop(loop: Any) -> None:
    """What asyncio.run does at its end: cancel what is left, let it finish, close generators and threads."""
    import asyncio  # noqa: PLC0415  only where the user's function is async

    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    loop.close()
