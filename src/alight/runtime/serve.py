"""The container's life: hello, start, import, ready; then inputs until told to stop; exit hooks; the end.

One of the four places that may catch everything: an exception here is our fault, is printed, and ends the container.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from _thread import get_ident, start_new_thread

from alight.runtime import context, load, stdio
from alight.runtime.link import Link
from alight.runtime.runner import Runner, Target
from alight.runtime.stages import Stages
from alight.runtime.waits import Waits
from alight.wire import ambient
from alight.wire.codec import Kind
from alight.wire.errors import ConnectionError as NodeGone
from alight.wire.errors import Error, InputCancellation

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    import signal
    from typing import Any, Callable, Dict, List, Optional, Tuple

    from alight.runtime.link import Arrival
    from alight.runtime.snapshot import Snapshot
else:
    import _signal as signal  # without the enumerations, which take longer than all of this

LINK_PATH = "/run/alight/link.sock"
_GRACE = 30.0


def main(library: str, home: str, snapshot: Optional[Snapshot] = None, link: int = -1) -> int:
    """Serve until told to stop. Returns the exit code of the process.

    ``library`` is where this package lies, ``home`` the container's home directory ("" outside of one), ``snapshot``
    what a fork has from its template, ``link`` the descriptor of a connection to the node that it was given.
    """
    if snapshot is None:
        stdio.setup()
        faulthandler.enable(2)
    try:
        code = Service(os.environ.get("ALIGHT_LINK", LINK_PATH), (home, library), snapshot, link).run()
    except Exception:  # noqa: BLE001  one of the four loops: our own fault, said in the container's log
        import traceback  # noqa: PLC0415  our own faults are rare

        traceback.print_exc()
        code = 70
    stdio.flush()
    return code


class Service:
    """What lives as long as the container, for all ways of running inputs (``Way``). Belongs to the main thread, save
    where it says otherwise."""

    def __init__(self, path: str, places: Tuple[str, str], snapshot: Optional[Snapshot], link: int) -> None:
        self._places = places
        self._snapshot = snapshot
        self._stages = Stages()
        self.link = Link(path, self._cancel, link)
        self.runner: Any = None  # a Runner, when the user's code is imported
        self.told_to_leave = 0  # the signal that said so
        self.most = 1  # inputs at a time, as declared
        self.limit = 1  # and as user code wants it now
        self.batch: Tuple[int, float] = (0, 0.0)
        self._way: Any = None
        self._loop: Any = None
        self._instance: Any = None
        self._main_thread = get_ident()
        self._is_web = False
        self.grace = _GRACE  # seconds from being told to leave to the end

    def run(self) -> int:
        try:
            self.link.open()
        except NodeGone as error:
            print(f"alight: {error}", file=sys.stderr)
            return 69
        start, body, code = hear_start(self.link)
        if start is None:
            return code
        self._own_signals()
        if not self._start(start, body):
            return 1
        self._way.serve()
        return self._leave()

    def _start(self, start: Dict[str, Any], serialized: bytes) -> bool:
        """Import the user's code; say ready, or what it raised."""
        name = start["function"]["name"]
        self._is_web = bool(start["function"].get("web"))
        self.link.begin()
        try:
            waits = Waits(self.link.waiting)
            self._enter(start, lambda begins: self._unbroken(lambda: waits.changed(begins)))
            ambient.stop_fetching_inputs = self._stop_fetching
            ambient.input_concurrency = self._concurrency
            targets = self._targets(start["function"], serialized)
            site = self._site(start, targets)
        except BaseException as error:  # noqa: BLE001  a module may raise anything while it is imported
            if self.told_to_leave:
                return False
            from alight.runtime import failures  # noqa: PLC0415  paid by failures only

            if self._is_web:  # no caller gets it: the log is where its author looks
                failures.print_local(error)
                if isinstance(error, Error) and error.hint:
                    print(f"hint: {error.hint}", file=sys.stderr)
            failure, body = failures.in_words(error, f"importing the code of {name}")
            self.link.ready({**failure, **self._stages.told()}, (body,), ok=False)
            stdio.flush()
            return False
        self.runner = Runner(targets, self.link.outputs, start.get("spool", ""))
        if start.get("cluster"):
            self.runner.join(start["cluster"])
        self._way = self._choose(start["function"].get("autoscaling", {}), site)
        stdio.flush()
        self.link.ready(self._stages.told(), ok=True)
        return True

    def _enter(self, start: Dict[str, Any], on_waiting: Callable[[bool], None]) -> None:
        if self._snapshot is None:
            context.enter(start, self._places, on_waiting)
        else:
            self._snapshot.enter(start, on_waiting)

    def _find(self, function: Dict[str, Any], serialized: bytes) -> Any:
        """The user's function or class, imported now unless the template has done it."""
        if self._snapshot is not None and self._snapshot.level > 1:
            return self._snapshot.find(function)
        with self._stages.importing():
            return load.find(function, serialized)

    def _targets(self, function: Dict[str, Any], serialized: bytes) -> Dict[str, Target]:
        """What inputs may run, by the method that they name; a function has none."""
        if not function.get("class_name"):
            raw = load.checked(self._find(function, serialized), function)
            return {"": Target(raw, function["name"], streams=function.get("is_generator", False))}
        from alight.runtime import instance  # noqa: PLC0415  only for classes

        found = self._find(function, serialized)
        with self._stages.measured("enter"):
            one = self._snapshot.instance() if self._snapshot is not None else None
            if one is None:
                one = instance.Instance(function, found)
                one.enter_before_snapshot(self.loop)
            self._instance = one
            one.enter(self.loop)
        targets: Dict[str, Target] = self._instance.targets()
        return targets

    def _site(self, start: Dict[str, Any], targets: Dict[str, Target]) -> Any:
        """What answers requests of the world, ready to: None where nothing does."""
        if not self._is_web:
            return None
        with self._stages.measured("enter"):  # with asyncio, which most of it is where nobody has imported that yet
            from alight.runtime import web  # noqa: PLC0415  only for web functions

            calls = {name: target.call for name, target in targets.items()}
            site = web.Site(start["function"], calls, start.get("spool", ""))
            site.open(self.loop())
        return site

    def _choose(self, scaling: Dict[str, Any], site: Any) -> Any:
        """The way in which inputs are run."""
        self.most = self.limit = max(1, scaling.get("max_concurrent_inputs", 1))
        self.batch = (scaling.get("batch_size", 0), scaling.get("batch_wait", 0.0))
        if site is not None:
            from alight.runtime import web  # noqa: PLC0415  here already

            return web.Web(self, site)
        is_async = any(target.is_async for target in self.runner.targets.values())
        if self.batch[0]:
            from alight.runtime import batches  # noqa: PLC0415  only for @batched

            return batches.AsyncBatches(self) if is_async else batches.Batches(self)
        if is_async:
            from alight.runtime import tasks  # noqa: PLC0415  only where the user's code is async

            return tasks.Tasks(self)
        if self.most > 1:
            from alight.runtime import threads  # noqa: PLC0415  only for @concurrent

            return threads.Threads(self)
        return OneByOne(self)

    def loop(self) -> Any:
        """The one event loop of the container."""
        if self._loop is None:
            import asyncio  # noqa: PLC0415  only where the user's code is async

            if self._is_web:
                from alight.runtime import web  # noqa: PLC0415  only for web functions

                self._loop = web.new_loop()
            else:
                self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop

    def ends(self, kind: int, head: Any) -> bool:
        """Whether this arrival is the last that counts."""
        if kind == Kind.LINK_STOP:
            self.grace = float(head.get("grace", self.grace))
        return kind in {Kind.LINK_STOP, Kind.END}

    def _leave(self) -> int:
        """Run exit hooks, let user threads and exit functions end within the grace; the node ends what is left."""
        grace = max(0.1, self.grace - 0.5)
        code = 128 + self.told_to_leave if self.told_to_leave else 0

        def cut_short() -> None:
            time.sleep(grace)
            self.link.outputs.flush()
            stdio.flush()
            os._exit(code)

        start_new_thread(cut_short, ())
        if self._instance is not None or self._loop is not None:
            self._mask_signals()
        self.link.begin()
        if self.told_to_leave:
            self.link.give_back(for_good=True)
        self.link.outputs.flush()
        if self._instance is not None:
            self._instance.exit(self.loop)
        if self._loop is not None:
            from alight.runtime import tasks  # noqa: PLC0415  it is there already

            tasks.close_loop(self._loop)
        stdio.flush()
        if not self.told_to_leave:
            self.link.outputs.wait_acknowledged(min(grace, 2.0))
        return code

    def _cancel(self) -> None:
        """In the link's thread: inputs were marked; interrupt those that run."""
        if self._way is not None:
            self._way.cancelled()

    def interrupt_main(self) -> None:
        """In any thread: interrupt what runs in the main thread, when that is marked as cancelled."""
        runner = self.runner
        given, armed = runner.given, runner.armed
        if armed is not None and given is not None and given.is_cancelled(armed):
            signal.pthread_kill(self._main_thread, signal.SIGUSR1)

    def _unbroken(self, work: Callable[[], None]) -> None:
        """In user code: do something of ours, and let a cancellation wait for its end."""
        runner = self.runner
        if runner is None or runner.armed is None or get_ident() != self._main_thread:
            work()
            return
        armed, runner.armed = runner.armed, None
        work()
        runner.armed = armed
        if runner.given.is_cancelled(armed):
            runner.armed = None
            raise InputCancellation("this input was cancelled")

    def _stop_fetching(self) -> None:
        """In user code: return what was not begun, and end after what was."""
        self._unbroken(lambda: self.link.give_back(for_good=True))
        self.link.deliver((Kind.LINK_STOP, {}, b""))

    def leave_by_itself(self) -> None:
        """Nothing more can be done here: end as if told to."""
        self._stop_fetching()

    def _concurrency(self, limit: Optional[int]) -> int:
        """In user code: how many inputs run at a time, after setting it."""
        if limit is not None:
            self.limit = max(1, min(limit, self.most))
            if self._way is not None:
                self._way.changed()
        return self.limit

    def _own_signals(self) -> None:
        for number, handler in self._handlers():
            # In a plain container this is before any user code; in a fork it may have set one already.
            if self._snapshot is None or signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}:
                signal.signal(number, handler)
        os.register_at_fork(after_in_child=self._disown_signals)

    def _handlers(self) -> List[Tuple[int, Callable[[int, Any], None]]]:
        return [
            (signal.SIGUSR1, self._on_cancel_signal),
            (signal.SIGTERM, self._on_leave_signal),
            (signal.SIGINT, self._on_leave_signal),
        ]

    def _mask_signals(self) -> None:
        """Exit hooks are not interrupted. Programs that they start get signals as ever."""
        for number, _ in self._handlers():
            signal.signal(number, _do_nothing)

    def _disown_signals(self) -> None:
        """In a forked child (multiprocessing): signals mean there what they mean in any program."""
        for number, handler in self._handlers():
            if signal.getsignal(number) in {handler, _do_nothing}:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def _on_cancel_signal(self, _number: int, _frame: Any) -> None:
        runner = self.runner
        if runner is not None and runner.armed is not None and runner.given.is_cancelled(runner.armed):
            runner.armed = None
            raise InputCancellation("this input was cancelled")

    def _on_leave_signal(self, number: int, _frame: Any) -> None:
        if number == signal.SIGINT and ambient.terminal is not None:
            ambient.terminal.interrupt()  # Ctrl-C of the user whose terminal it is; machines send SIGTERM
            return
        self.told_to_leave = number
        stop: Arrival = (Kind.LINK_STOP, {}, b"")  # with the grace that is known
        runner = self.runner
        if runner is None:
            sys.exit(128 + number)
        runner.leaving = "SIGINT" if number == signal.SIGINT else "SIGTERM"
        self.link.held.close_lines()
        self.link.deliver(stop)
        self._way.leave()
        self.link.interrupt()
        if runner.armed is not None:
            runner.armed = None
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(128 + number)


def hear_start(link: Link) -> Tuple[Optional[Dict[str, Any]], bytes, int]:
    """What the node wants of us, in plain words, and its body; without it, the exit code."""
    kind, start, body = link.next()
    while kind not in {Kind.LINK_START, Kind.LINK_STOP, Kind.ERROR, Kind.END}:
        kind, start, body = link.next()
    if kind == Kind.LINK_START:
        return start, body, 0
    if kind == Kind.ERROR:
        from alight.wire.errors import from_wire  # noqa: PLC0415  a node refuses its own container rarely

        print(f"alight: {from_wire(start)}", file=sys.stderr)
    return None, b"", 0 if kind == Kind.LINK_STOP else 69


class OneByOne:
    """The way of blocking functions: one input at a time, in the main thread."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def serve(self) -> None:
        """In the main thread, until told to leave."""
        service, link, run = self._service, self._service.link, self._service.runner.run
        while not service.told_to_leave:
            kind, head, _ = link.next()
            if kind == Kind.LINK_INPUT:
                link.begin()
                run(head)
                del head
            elif service.ends(kind, head):
                return

    def cancelled(self) -> None:
        """In the link's thread: inputs were marked as cancelled."""
        self._service.interrupt_main()

    def leave(self) -> None:
        """In a signal handler: the container was told to end."""

    def changed(self) -> None:
        """In user code: another number of inputs may run at a time."""


def _do_nothing(_number: int, _frame: Any) -> None:
    return None
