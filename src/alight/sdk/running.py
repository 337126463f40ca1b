"""An app while it runs: its ids on the server, and the watch that holds it there and brings its output and news.

The watch is a stream that stays open; the server stops an app whose holder is gone. What comes on it goes to the
renderer in force. After a lost connection it is taken up again where it was, without a line twice.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Dict, Optional, Tuple

from alight.sdk import progress
from alight.sdk.client import Client
from alight.sdk.lost import LostError
from alight.sdk.sync import Future, call_blocking
from alight.wire import errors, messages
from alight.wire.codec import loads_head

if TYPE_CHECKING:
    from alight.sdk.conversation import Stream

_OUTPUT_SECONDS = 1.0  # how long a result waits for the output that belongs before it
_END_SECONDS = 10.0  # how long an app's last output is waited for


class RunningApp:
    """What ``app.run()`` holds. ``function_ids`` and ``problems`` are by function name."""

    def __init__(self, client: Client, created: messages.AppCreated, *, detach: bool) -> None:
        self.client = client
        self.app_id = created.app_id
        self.environment = created.environment
        self.detach = detach
        self.function_ids: Dict[str, str] = {}
        self.problems: Dict[str, errors.Error] = {}
        self.stopped: Optional[str] = None
        self.own_gpus = True  # functions get those that they ask for, and not what the run says
        self._ended = Future()
        self._lock = threading.Lock()
        self._seen: Dict[str, int] = {}
        self._awaited: Dict[Tuple[str, int], Future] = {}
        self._last_time = 0.0
        self._heard = 0.0
        self._leaving = False
        self._stream: Optional[Stream] = None

    async def watch(self) -> None:
        """Hold the app and listen. Returns once the server has been asked."""
        self._stream = await self.client.open("app.watch", self._message(since=0.0))
        self._stream.listen(self._on_message)

    async def output_until(self, container: str, offset: int) -> None:
        """Wait until this container's output has been seen up to ``offset``, a second at most."""
        if not container or offset <= 0 or not progress.is_shown():
            return
        key = (container, offset)
        with self._lock:
            if self._seen.get(container, 0) >= offset:
                return
            future = self._awaited.setdefault(key, _arrival(self._stream))
        await future.within(_OUTPUT_SECONDS)
        with self._lock:
            self._awaited.pop(key, None)

    def quiet_for(self) -> float:
        """Seconds since a container's output came."""
        return time.monotonic() - self._heard

    async def stop(self, reason: str) -> None:
        """Stop the app on the server and wait for its last words."""
        self._leaving = True
        await self.client.do("app.stop", messages.AppStop(self.app_id, reason, wait=_END_SECONDS))
        await self._ended.within(_END_SECONDS)
        self.leave()

    def leave(self) -> None:
        """Stop listening."""
        self._leaving = True
        stream, self._stream = self._stream, None
        if stream is not None and not self._ended.done():
            stream.leave()

    def _message(self, since: float) -> messages.AppWatch:
        return messages.AppWatch(self.app_id, hold=True, logs=progress.is_shown(), since=since)

    def _on_message(self, message: Optional[Tuple[bytes, bytes]], error: Optional[errors.Error]) -> None:
        """Called by the thread that read it."""
        if message is not None:
            self._on_event(loads_head(messages.AppEvent, message[0]), message[1])
        elif isinstance(error, LostError):
            if not self._leaving:
                threading.Thread(target=self._rewatch, args=(error,), daemon=True, name="alight-watch").start()
            else:
                self._ended.set()
        else:
            if error is not None and self.stopped is None:
                self.stopped = str(error)
            self._ended.set()

    def _on_event(self, event: messages.AppEvent, body: bytes) -> None:
        renderer = progress.current()
        if event.kind == "output":
            with self._lock:
                if event.offset and event.offset <= self._seen.get(event.container, 0):
                    return  # replayed after a reconnect
                self._last_time = max(self._last_time, event.time)
            self._heard = time.monotonic()
            renderer.output(event.container, event.function, event.fd, body)
            self._saw(event.container, event.offset)
        elif event.kind == "build":
            if event.text:
                renderer.build_line(event.image_id, (event.text + "\n").encode())
        elif event.kind == "system":
            renderer.note(event.text)
        elif event.kind == "stopped":
            self.stopped = event.text or "it was stopped"
            self._ended.set()

    def _saw(self, container: str, offset: int) -> None:
        with self._lock:
            self._seen[container] = max(offset, self._seen.get(container, 0))
            ready = [key for key in self._awaited if key[0] == container and key[1] <= offset]
            futures = [self._awaited.pop(key) for key in ready]
        for future in futures:
            future.set()

    def _rewatch(self, lost: LostError) -> None:
        try:
            call_blocking(self._rewatch_until(lost))
        except errors.Error as error:
            if self.stopped is None:
                self.stopped = str(error)
            self._ended.set()

    async def _rewatch_until(self, lost: LostError) -> None:
        # The time of the last line, and a little before: lines of the same moment are told apart by their offsets.
        since = max(0.0, (self._last_time or time.time()) - 1.0)
        await self.client.after_loss(lost)
        self._stream = await self.client.open("app.watch", self._message(since=since))
        self._stream.listen(self._on_message)


def _arrival(stream: Optional[Stream]) -> Future:
    """A future for something that comes on the watch: who waits for it may read it itself."""
    return Future() if stream is None else stream.arrival()
