"""``alight serve``: an app that runs until Ctrl-C and follows its source: what is saved is published.

This process holds the app and shows its output. Each version of the source is loaded by a process of its own
(``reloader.py``); one waits ahead with Python and Alight loaded, so that a change is published in a moment. A version
that cannot be loaded prints why, and the one before goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

import click

from alight.cli import warn
from alight.cli.watching import Watcher

_END_SECONDS = 5.0  # that a reloader has to end by itself

Event = Tuple[Any, Dict[str, Any]]


@click.command(short_help="Run an app until Ctrl-C and reload it on change.")
@click.option("-n", "--name", metavar="NAME", help="What to call the app. [default: its own name]")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="End after so long.")
@click.option("--timestamps", is_flag=True, help="Put the time before each line of output.")
@click.option("-m", "module", is_flag=True, help="REF names a module: pkg.mod[::APP].")
@click.option("-e", "--env", "environment", metavar="NAME", help="The environment to run in.")
@click.argument("reference", metavar="APP_REF")
def serve(
    reference: str,
    name: Optional[str],
    timeout: Optional[float],
    timestamps: bool,
    module: bool,
    environment: Optional[str],
) -> int:
    """Run an app until Ctrl-C. When a file that goes along changes, the app is published anew, under the same id.

    Containers of functions that are different end at once, and what they were at begins anew. A script that cannot be
    loaded prints its error, and the version before goes on. APP_REF is as for `alight deploy`.
    """
    from alight.cli import interrupts, render  # noqa: PLC0415  start-up weight
    from alight.sdk import progress  # noqa: PLC0415  loads the SDK

    warn.show_plainly()
    asked = {"reference": reference, "module": module, "name": name, "environment": environment}
    with contextlib.ExitStack() as stack:
        stack.enter_context(interrupts.handled())
        drawing = render.make_renderer(timestamps=timestamps)
        stack.enter_context(progress.showing(drawing))
        serving = stack.enter_context(_ended(_Serving(asked, drawing)))
        try:
            return serving.go_on(time.monotonic() + timeout if timeout is not None else None)
        except KeyboardInterrupt:
            drawing.end_line()
            return 0


class _Reloader:
    """A process that loads one version. What it says goes into the queue, with itself; None when it has ended."""

    def __init__(self, events: queue.Queue[Event]) -> None:
        from alight.cli import reloader  # noqa: PLC0415  loads the SDK

        reading, writing = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", reloader.COMMAND.format(descriptor=writing)],
            stdin=subprocess.PIPE,
            pass_fds=(writing,),
            start_new_session=True,  # Ctrl-C is for the command, which ends this
            text=True,
        )
        os.close(writing)
        self.started = time.monotonic()
        self.published = False
        self.failed = False
        threading.Thread(target=self._read, args=(reading, events), daemon=True, name="alight-reloader").start()

    def tell(self, **message: Any) -> None:
        """A line for it. Nothing, when it has ended."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            print(json.dumps(message), file=self._process.stdin, flush=True)

    def end(self) -> None:
        """It is not needed any more."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def wait(self) -> int:
        """Its exit code."""
        return self._process.wait(_END_SECONDS)

    def _read(self, reading: int, events: queue.Queue[Event]) -> None:
        with os.fdopen(reading, "r") as lines:
            for line in lines:
                events.put((self, json.loads(line)))
        events.put((self, {"kind": "ended"}))


class _Serving:
    """The app on the server, the version that is loaded now, and the process for the next one."""

    def __init__(self, asked: Dict[str, Any], drawing: Any) -> None:
        self._asked = asked
        self._drawing = drawing
        self._events: queue.Queue[Event] = queue.Queue()
        self._watcher = Watcher(lambda paths: self._events.put((None, {"kind": "changed", "paths": sorted(paths)})))
        self._spare: Optional[_Reloader] = None
        self._current: Optional[_Reloader] = None
        self._running: Any = None
        self._versions = 0
        self._shown_urls: List[str] = []  # what was said of URLs: it is not said again

    def go_on(self, until: Optional[float]) -> int:
        """Follow the source until then, or for ever. Returns the exit code of the command."""
        self._load()
        while True:
            wait = 1.0 if until is None else min(1.0, until - time.monotonic())
            if wait <= 0:
                return 0
            try:
                source, message = self._events.get(timeout=wait)
            except queue.Empty:
                if self._running is not None and self._running.stopped is not None:
                    self._drawing.warn(f"the app has ended: {self._running.stopped}")
                    return 1
                continue
            if message["kind"] == "changed":
                self._drawing.note(f"{_shown(message['paths'])} changed")
                self._load()
            elif source is self._current and source is not None:
                code = self._on_message(source, message)
                if code is not None:
                    return code

    def end(self) -> None:
        """Stop the app, and what loads its versions."""
        from alight.sdk.sync import run  # noqa: PLC0415  loads the SDK
        from alight.wire import errors  # noqa: PLC0415  start-up weight

        self._watcher.close()
        for one in (self._current, self._spare):
            if one is not None:
                one.end()
        if self._running is not None and self._running.stopped is None:
            with contextlib.suppress(errors.ConnectionError):  # the server stops it soon, since nobody holds it
                run(self._running.stop("`alight serve` ended"))

    def _load(self) -> None:
        """Load what the files are now; a version that is still being loaded is an old one."""
        if self._current is not None:
            self._current.end()
        self._current, self._spare = self._spare or _Reloader(self._events), None
        self._current.started = time.monotonic()
        self._current.tell(**self._asked)

    def _on_message(self, reloader: _Reloader, message: Dict[str, Any]) -> Optional[int]:
        """Something was said by the version that is loaded now. A number ends the command."""
        kind = message["kind"]
        if kind == "loaded":
            if self._running is None:
                self._begin(message)
            place = self._running
            reloader.tell(app_id=place.app_id, environment=place.environment, shown=self._shown_urls)
        elif kind == "watched":
            self._watcher.watch(set(message["files"]), set(message["folders"]), anew=reloader.published)
        elif kind == "published":
            reloader.published = True
            self._published(message, time.monotonic() - reloader.started)
        elif kind == "ended":
            code = reloader.wait()
            if not reloader.published and not self._versions:
                return code or 1
            if not reloader.published:
                self._drawing.warn("this version cannot be served: the one before goes on")
            if self._spare is None:
                self._spare = _Reloader(self._events)
        return None

    def _begin(self, message: Dict[str, Any]) -> None:
        """Have the app on the server, and hold it there."""
        from alight.cli import session  # noqa: PLC0415  loads the SDK
        from alight.sdk import client as sdk_client  # noqa: PLC0415  loads the SDK
        from alight.sdk.running import RunningApp  # noqa: PLC0415  loads the SDK
        from alight.sdk.sync import run  # noqa: PLC0415  loads the SDK
        from alight.wire.messages import AppCreate, AppCreated  # noqa: PLC0415  start-up weight

        environment = session.environment(self._asked["environment"])
        place = self._asked["reference"].partition("::")[0]
        name = message["name"]
        create = AppCreate(name, name or os.path.basename(place), environment, tags=message["tags"])
        created = session.ask("app.create", create, AppCreated)
        self._running = RunningApp(sdk_client.default_client(), created, detach=False)
        run(self._running.watch())

    def _published(self, message: Dict[str, Any], seconds: float) -> None:
        self._versions += 1
        self._shown_urls = message["shown"]
        if self._versions > 1:
            self._drawing.done(f"Reloaded in {seconds:.2f} s")
            return
        functions: List[str] = message["functions"]
        shown = ", ".join(one[:-2] + " (class)" if one.endswith(".*") else one for one in functions)
        self._drawing.done(f"Serving {self._running.app_id}: {shown}")
        for one in message["scheduled"]:
            self._drawing.note(f"{one} has a schedule: it runs by itself once it is deployed")
        self._drawing.note("Ctrl-C ends it; what is saved is published")


@contextlib.contextmanager
def _ended(serving: _Serving) -> Iterator[_Serving]:
    try:
        yield serving
    finally:
        serving.end()


def _shown(paths: List[str]) -> str:
    here = os.getcwd() + os.sep
    names = [path.removeprefix(here) for path in paths]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
