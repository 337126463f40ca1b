"""Requests about schedules: list them, run one now, pause and resume."""

from __future__ import annotations

from alight.server.request import Request, Routes
from alight.server.services.schedules import Schedules
from alight.wire.scheduling import ScheduleList, ScheduleListed, ScheduleNamed


def routes(schedules: Schedules) -> Routes:
    async def list_schedules(request: Request) -> None:
        asked = request.arguments(ScheduleList)
        found = await schedules.listed(asked.app, asked.environment, request.who)
        await request.stream.send(ScheduleListed(tuple(found)))

    async def run(request: Request) -> None:
        asked = request.arguments(ScheduleNamed)
        environment = request.environment(asked.environment)
        await request.stream.send(await schedules.run_now(asked.app, asked.function, environment, request.who))

    async def pause(request: Request) -> None:
        await _set_paused(request, paused=True)

    async def resume(request: Request) -> None:
        await _set_paused(request, paused=False)

    async def _set_paused(request: Request, *, paused: bool) -> None:
        asked = request.arguments(ScheduleNamed)
        environment = request.environment(asked.environment)
        done = await schedules.pause(asked.app, asked.function, environment, request.who, paused=paused)
        await request.stream.send(done)

    return {
        "schedule.list": list_schedules,
        "schedule.run": run,
        "schedule.pause": pause,
        "schedule.resume": resume,
    }
