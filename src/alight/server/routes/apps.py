"""Requests about apps, their functions and what they write."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Iterator

from alight.link.peer import Stream
from alight.server.log_segments import Record
from alight.server.logs import Logs
from alight.server.request import Request, Routes
from alight.server.services.apps import Apps, may_touch
from alight.server.services.containers import Containers
from alight.server.services.functions import Functions
from alight.server.services.hub import Hub, Watcher
from alight.server.services.reloading import reload
from alight.store.base import Store
from alight.wire import errors
from alight.wire.messages import AppCreate, AppDetach, AppEvent, AppList, AppPublish, AppPublished, AppStop, AppWatch
from alight.wire.states import AppState

_STOP_WAIT = 60.0


def routes(apps: Apps, functions: Functions, containers: Containers, watching: Watching) -> Routes:
    async def create(request: Request) -> None:
        asked = request.arguments(AppCreate)
        await request.stream.send(await apps.create(asked, request.environment(asked.environment), request.who))

    async def publish(request: Request) -> None:
        asked = request.arguments(AppPublish)
        app = apps.get(asked.app_id, request.who)
        deployed = app.state == AppState.DEPLOYED
        if asked.whole:
            if deployed:
                raise errors.InvalidError("a deployed app gets its functions by `alight deploy`")
            done = await reload(functions, watching.store, app, asked.functions)
            await request.stream.send(AppPublished(done))
            return
        done = await functions.publish(app.app_id, app.environment, app.owner, asked.functions, deployed=deployed)
        await request.stream.send(AppPublished(done))

    async def stop(request: Request) -> None:
        asked = request.arguments(AppStop)
        app = apps.alive.get(asked.app_id)
        if app is not None and not may_touch(request.who, app):
            apps.get(asked.app_id, request.who)  # says that there is none
        await apps.stop(asked.app_id, asked.reason or "its client ended", request.who.owner)
        await containers.wait_gone(asked.app_id, min(asked.wait, _STOP_WAIT))
        await request.stream.send({})

    async def detach(request: Request) -> None:
        await apps.detach(request.arguments(AppDetach).app_id, request.who)
        await request.stream.send({})

    async def list_apps(request: Request) -> None:
        asked = request.arguments(AppList)
        await request.stream.send(await apps.list(asked, asked.environment, request.who))

    async def watch(request: Request) -> None:
        asked = request.arguments(AppWatch)
        owner = await apps.owner_of(asked.app_id)
        if owner is None or not (request.who.kind == "owner" or request.who.owner == owner[0]):
            apps.get(asked.app_id, request.who)  # says that there is none
        app = apps.alive.get(asked.app_id)
        held = asked.hold and app is not None and app.state == AppState.RUNNING
        if held:
            apps.leases.hold(asked.app_id)
        try:
            await watching.serve(request.stream, asked, alive=app is not None)
        finally:
            if held:
                apps.leases.let_go(asked.app_id)

    return {
        "app.create": create,
        "app.publish": publish,
        "app.stop": stop,
        "app.detach": detach,
        "app.list": list_apps,
        "app.watch": watch,
    }


class Watching:
    """Serves ``app.watch``: kept output in order of time, then what comes, at the reader's pace."""

    def __init__(self, store: Store, hub: Hub, logs: Logs, containers: Containers) -> None:
        self.store = store
        self._hub = hub
        self._logs = logs
        self._containers = containers

    async def serve(self, stream: Stream, asked: AppWatch, *, alive: bool) -> None:
        """Send events until the app ends, the reader leaves, or (without ``follow``) what is kept is sent."""
        watcher = self._hub.watch(asked.app_id, logs=asked.logs)
        # Who watches has nothing more to say: its half is over from the start, and tells nothing of its end.
        leaving = asyncio.get_running_loop().create_task(stream.wait_broken())
        leaving.add_done_callback(lambda _: watcher.news.set())
        try:
            places: dict[str, int] = {}
            if asked.logs:
                await self._replay(stream, asked, places)
            if not alive:
                await stream.send(AppEvent("stopped", text="the app has ended"))
                return
            if asked.follow and asked.container:
                await self._follow_one(stream, asked.container, watcher, places)
            elif asked.follow:
                await self._follow(stream, watcher, places)
        finally:
            leaving.cancel()
            self._hub.leave(watcher)

    async def _replay(self, stream: Stream, asked: AppWatch, places: dict[str, int]) -> None:
        rows = await self.store.read("containers_of_app", app_id=asked.app_id)
        names = list(dict.fromkeys([row["container_id"] for row in rows] + self._living(asked.app_id)))
        if asked.container:
            names = [name for name in names if name == asked.container]
        merged = heapq.merge(*[self._kept(name, places) for name in names], key=lambda pair: pair[1].at)
        wanted: Iterator[tuple[str, Record]] = (pair for pair in merged if pair[1].at >= asked.since)
        if asked.tail >= 0:
            wanted = iter(list(wanted)[-asked.tail :] if asked.tail else [])
            for name in names:
                places[name] = self._logs.end(name)
        for name, record in wanted:
            await _send(stream, name, record)

    def _kept(self, name: str, places: dict[str, int]) -> Iterator[tuple[str, Record]]:
        while True:
            records = self._logs.read(name, places.get(name, 0))
            if not records:
                return
            for record in records:
                places[name] = record.end
                yield name, record

    async def _follow(self, stream: Stream, watcher: Watcher, places: dict[str, int]) -> None:
        while not stream.broken:
            watcher.news.clear()
            events = watcher.take_events()
            for event in events:
                if event.kind != "container" or event.state != "ended":
                    await stream.send(event)
            grown, watcher.grown = watcher.grown, {}
            for name in grown:
                await self._send_more(stream, name, places)
            for event in events:
                if event.kind == "container" and event.state == "ended":
                    await stream.send(event)
            if watcher.stopped is not None and not watcher.grown:
                await self._last_words(stream, watcher, places)
                await stream.send(watcher.stopped)
                return
            if not watcher.news.is_set():
                await watcher.news.wait()

    async def _follow_one(self, stream: Stream, name: str, watcher: Watcher, places: dict[str, int]) -> None:
        """The output of one container until it ends."""
        while not stream.broken and name in self._living(watcher.app_id):
            watcher.news.clear()
            watcher.take_events()
            if name in watcher.grown:
                await self._send_more(stream, name, places)
            watcher.grown = {}
            if not watcher.news.is_set() and name in self._living(watcher.app_id):
                await watcher.news.wait()
        await self._send_more(stream, name, places)
        await stream.send(AppEvent("stopped", text="the container has ended"))

    async def _last_words(self, stream: Stream, watcher: Watcher, places: dict[str, int]) -> None:
        """Containers of a stopped app may still speak while they end; a moment is theirs."""
        until = time.monotonic() + 10.0
        while time.monotonic() < until and not stream.broken:
            for event in watcher.take_events():
                await stream.send(event)
            grown, watcher.grown = watcher.grown, {}
            for name in grown:
                await self._send_more(stream, name, places)
            if not self._living(watcher.app_id):
                return
            watcher.news.clear()
            try:
                await asyncio.wait_for(watcher.news.wait(), 0.25)
            except asyncio.TimeoutError:
                continue

    async def _send_more(self, stream: Stream, name: str, places: dict[str, int]) -> None:
        while True:
            records = self._logs.read(name, places.get(name, 0))
            if not records:
                return
            for record in records:
                await _send(stream, name, record)
                places[name] = record.end

    def _living(self, app_id: str) -> list[str]:
        return [one.container_id for one in self._containers.alive.values() if one.app_id == app_id]


async def _send(stream: Stream, name: str, record: Record) -> None:
    await stream.send(AppEvent("output", container=name, fd=record.fd, time=record.at, offset=record.end), record.data)
