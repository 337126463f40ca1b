"""Serves ``logs.query``: lines of many containers in order of time, then what comes, at the reader's pace.

Files are read in a thread, so that a question about a million lines holds up nobody's call.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator

from alight.link.peer import Stream
from alight.server.auth import OWNER, Principal
from alight.server.log_query import Bit, Cursor
from alight.server.logs import Logs
from alight.server.services.containers import Containers
from alight.server.services.hub import Hub, Watcher
from alight.server.services.log_look import Look, Tagged
from alight.server.services.log_running import Running
from alight.server.services.log_scope import Scope, Scopes
from alight.store.base import Store
from alight.wire import errors
from alight.wire.logs import LogPieces, LogQuery

_TAIL_MOST = 100_000
_LAST_WORDS = 10.0  # seconds in which containers of an app that was stopped may still speak
_LOOK = 1.0  # seconds between looks whether it is over


class LogViews:
    """Answers questions about logs."""

    def __init__(self, store: Store, logs: Logs, hub: Hub, containers: Containers, running: Running) -> None:
        self._store = store
        self._logs = logs
        self._hub = hub
        self._containers = containers
        self._running = running
        self._scopes = Scopes(store)

    async def serve(self, stream: Stream, asked: LogQuery, environment: str, who: Principal) -> None:
        """Send what is kept, and with ``follow`` what comes, until it has ended or the reader leaves."""
        if asked.tail > _TAIL_MOST:
            raise errors.InvalidError(f"at most the last {_TAIL_MOST:,} lines", hint="without a number all are shown")
        began = time.time()
        scope = await self._scopes.of(asked, environment, who)
        cursor = Cursor.parse(asked.after) if asked.after else Cursor(scope.since)
        watcher = self._hub.watch(scope.app_id, logs=True, system=True) if asked.follow else None
        look = Look(self._logs, scope, asked, cursor, began)
        leaving = asyncio.get_running_loop().create_task(stream.wait_broken())
        try:
            await self._send(stream, look, look.history(asked.tail if not asked.after else -1), following=False)
            if watcher is not None:
                leaving.add_done_callback(lambda _: watcher.news.set())
                await self._follow(stream, look, watcher)
        finally:
            leaving.cancel()
            look.close()
            if watcher is not None:
                self._hub.leave(watcher)

    async def _send(self, stream: Stream, look: Look, bits: Iterator[Bit], *, following: bool) -> None:
        """Send all of these, some at a time."""
        while not stream.broken:
            alive = [name for name in look.readers if name in self._containers.alive]
            look.running = {name: self._running.now(name) for name in alive}
            for name, reader in look.readers.items():
                # What is printed from here on may be of inputs that ``running`` does not know.
                reader.read_until(self._logs.end(name) if name in look.running else math.inf)
            pieces, body = await asyncio.to_thread(look.take, bits, following=following)
            if not pieces:
                return
            message = LogPieces(tuple(pieces), look.cursor.text(self._is_alive), look.new_names(pieces))
            await stream.send(message, body)

    async def _follow(self, stream: Stream, look: Look, watcher: Watcher) -> None:
        over, looked = "", 0.0
        while not stream.broken:
            watcher.news.clear()
            watcher.take_events()
            grown, watcher.grown = list(watcher.grown), {}
            readers = [reader for name in grown if (reader := await self._reader(look, name)) is not None]
            if readers:
                await self._send(stream, look, look.more(readers), following=True)
            if watcher.grown:
                continue
            if over:
                await stream.send(LogPieces(cursor=look.cursor.text(self._is_alive), ended=over))
                return
            if time.monotonic() - looked >= _LOOK or watcher.stopped is not None:
                over, looked = await self._why_over(look, watcher), time.monotonic()
            if not over and not watcher.news.is_set():
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(watcher.news.wait(), min(_LOOK, max(0.01, look.scope.until - time.time())))

    async def _why_over(self, look: Look, watcher: Watcher) -> str:
        """Why nothing comes any more, but for lines that are on their way; "" while something may."""
        scope = look.scope
        if time.time() > scope.until:
            return "that was the time that was asked for"
        if scope.container:
            return "" if self._is_alive(scope.container) else "the container has ended"
        if watcher.stopped is not None or await self._is_stopped(scope.app_id):
            look.stopped = look.stopped or time.monotonic()
            speaks = any(one.app_id == scope.app_id for one in self._containers.alive.values())
            if speaks and time.monotonic() < look.stopped + _LAST_WORDS:
                return ""
            said = watcher.stopped.text if watcher.stopped is not None else ""
            return f"the app has stopped: {said}" if said else "the app has ended"
        if scope.call and await self._is_done(scope.call):
            return "the call is over"
        return ""

    async def _is_stopped(self, app_id: str) -> bool:
        row = await self._store.one("app_by_id", app_id=app_id)
        return row is None or row["state"] == "stopped"

    async def _is_done(self, call_id: str) -> bool:
        row = await self._store.one("call_by_id", call_id=call_id)
        return row is None or row["done_at"] is not None

    async def _reader(self, look: Look, name: str) -> Tagged | None:
        """The reader of a log that has grown; None when it was not asked for."""
        found = look.readers.get(name)
        if found is not None or name == look.scope.app_id:
            return found
        record = self._containers.alive.get(name)
        if record is None:
            row = await self._store.one("container_by_id", container_id=name)
            function_id = row["function_id"] if row is not None else ""
        else:
            function_id = record.function_id
        if not look.scope.wants(name, function_id):
            return None
        if function_id not in look.scope.functions:
            await self._learn(look.scope)
        return look.open(look.scope.source(name, function_id, 0.0, None))

    async def _learn(self, scope: Scope) -> None:
        """A function that was published since."""
        fresh = await self._scopes.of(LogQuery(app=scope.app_id), "", Principal(OWNER))
        scope.functions.update(fresh.functions)
        scope.together |= fresh.together

    def _is_alive(self, name: str) -> bool:
        return name in self._containers.alive
