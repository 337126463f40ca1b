"""The measuring part of a server, put together: what it hears, what it answers, and the page for Prometheus."""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alight.server import auth
from alight.server.prometheus import CONTENT_TYPE, Page
from alight.server.request import Routes
from alight.server.routes import gpus as gpus_routes
from alight.server.routes import measures as measures_routes
from alight.server.series import Series
from alight.server.services.container_views import ContainerViews
from alight.server.services.declared import Declared
from alight.server.services.machine_views import MachineViews
from alight.server.services.measure_views import MeasureViews
from alight.server.services.measures import Measures
from alight.server.services.published import shown_name
from alight.server.tally import BOUNDS, OUTCOMES, Minute, cumulative
from alight.wire import errors
from alight.wire.gpus import grant
from alight.wire.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from alight.server.parts import Parts
    from alight.server.settings import Settings
    from alight.wire.messages import FunctionStats

Answer = tuple[int, str, str]
"""Status, type, text."""


@dataclass(frozen=True)
class Asker:
    """Who wants the page: over the local socket the kernel says who, over TCP the address is known."""

    headers: Mapping[str, str]
    uid: int | None
    host: str


class Measuring:
    """Made once for a server. ``now_of`` counts what a function does at this moment."""

    def __init__(self, parts: Parts, settings: Settings, now_of: Callable[[str], FunctionStats]) -> None:
        self._parts = parts
        self._settings = settings
        self._now_of = now_of
        tally = parts.calls.outcomes.tally
        self.measures = Measures(parts.store, parts.nodes, Series(settings.state / "series"), tally)

    def open(self) -> None:
        """Begin to listen."""
        self.measures.open()
        self._parts.web.gateway.on_answer = self.measures.web.answered

    def close(self) -> None:
        """Stop."""
        self.measures.close()

    def routes(self, containers: ContainerViews) -> Routes:
        """What is answered."""
        parts = self._parts
        views = MeasureViews(parts.store, self.measures, parts.functions, self._now_of)
        machines = MachineViews(parts.store, parts.nodes, parts.containers, self.measures.look)
        declared = Declared(parts.store, parts.functions, self._now_of)
        measured = measures_routes.routes(views, containers, machines, declared)
        return {**measured, **gpus_routes.routes(parts.nodes)}

    async def page(self, asker: Asker) -> Answer:
        """``/metrics``: for the server's owner, and with ALIGHT_METRICS_OPEN=1 for everybody on this machine."""
        try:
            await self._check(asker)
        except errors.Error as error:
            status = 401 if error.code == "auth" else 403
            hint = f"\n{error.hint}" if error.hint else ""
            return status, "text/plain", f"{error}{hint}\n"
        return 200, CONTENT_TYPE, self.text()

    def text(self) -> str:
        """What Prometheus reads."""
        page = Page()
        self._of_functions(page)
        self._of_machines(page)
        self._of_server(page)
        return page.text()

    async def _check(self, asker: Asker) -> None:
        if asker.uid is not None:
            who = auth.by_uid(asker.uid)
        elif self._settings.metrics_open and _is_loopback(asker.host):
            return
        else:
            scheme, _, given = asker.headers.get("authorization", "").partition(" ")
            token_id, _, secret = given.strip().partition(":")
            if scheme.lower() != "bearer" or not token_id:
                raise errors.AuthError(
                    "this needs a token of the server's owner",
                    hint="send `Authorization: Bearer TOKEN_ID:TOKEN_SECRET`, or start the server with "
                    "ALIGHT_METRICS_OPEN=1 to let everybody on this machine read it",
                )
            who = auth.by_secret(await self._parts.tokens.find(token_id, time.time()), token_id, secret)
        if who.kind != auth.OWNER:
            raise errors.PermissionDeniedError("only the owner of this server may read what all of its users do")

    def _of_functions(self, page: Page) -> None:
        parts = self._parts
        states = Counter((record.function_id, str(record.state)) for record in parts.containers.alive.values())
        page.gauge(
            "alight_containers",
            "Containers by state.",
            [({**self._names(name), "state": state}, count) for (name, state), count in sorted(states.items())],
        )
        now = {name: self._now_of(name) for name in parts.functions.by_id}
        waiting, running = self._sums(now, "backlog"), self._sums(now, "running")
        page.gauge("alight_inputs_waiting", "Inputs that wait for a container.", waiting)
        page.gauge("alight_inputs_running", "Inputs that run.", running)
        ended = self._ended()
        page.counter(
            "alight_inputs_total",
            "Inputs that have ended, by outcome.",
            [
                ({**dict(labels), "outcome": outcome}, getattr(one, outcome))
                for labels, one in ended
                for outcome in OUTCOMES
            ],
        )
        page.histogram(
            "alight_input_queue_seconds",
            "From a call to its beginning, of calls with one input.",
            BOUNDS,
            [(dict(at), cumulative(one.queue), sum(one.queue.values()), one.queue_seconds) for at, one in ended],
        )
        page.histogram(
            "alight_input_run_seconds",
            "How long inputs ran.",
            BOUNDS,
            [(dict(at), cumulative(one.run), sum(one.run.values()), one.run_seconds) for at, one in ended],
        )

    def _sums(self, now: Mapping[str, FunctionStats], field: str) -> list[tuple[dict[str, str], float]]:
        sums: Counter[tuple[tuple[str, str], ...]] = Counter()
        for name, stats in now.items():
            sums[tuple(self._names(name).items())] += getattr(stats, field)
        return [(dict(labels), value) for labels, value in sorted(sums.items())]

    def _ended(self) -> list[tuple[tuple[tuple[str, str], ...], Minute]]:
        """By app and function: variants, and apps of one name, count together."""
        found: dict[tuple[tuple[str, str], ...], Minute] = {}
        for name, one in self.measures.tally.since_start().items():
            found.setdefault(tuple(self._names(name).items()), Minute()).add(one)
        return sorted(found.items())

    def _names(self, function_id: str) -> dict[str, str]:
        parts = self._parts
        function = parts.functions.by_id.get(function_id)
        if function is None:
            return {"app": "", "function": function_id, "environment": ""}
        app = parts.apps.alive.get(function.app_id)
        name = (app.name or app.description) if app is not None else function.app_id
        shown = shown_name(function.spec.name, "").removesuffix(".*")
        return {"app": name, "function": shown, "environment": function.environment}

    def _of_machines(self, page: Page) -> None:
        sessions = sorted(self._parts.nodes.sessions.values(), key=lambda one: one.hello.node_id)
        page.gauge("alight_machines", "Machines that are connected.", [({}, len(sessions))])
        for metric, key, help_ in (
            ("alight_machine_cpu_cores", "cpu", "Busy cores of a machine, whatever uses them."),
            ("alight_machine_memory_bytes", "memory_bytes", "Memory of a machine that is in use."),
        ):
            page.gauge(
                metric,
                help_,
                [({"machine": one.hello.hostname}, one.machine[key]) for one in sessions if key in one.machine],
            )
        held = Counter(grant(text).uuid for one in self._parts.containers.alive.values() for text in one.gpus)
        gpus = [(one, gpu, one.gpus.get(gpu.uuid)) for one in sessions for gpu in one.hello.gpus]

        def named(session: Any, gpu: Any) -> dict[str, str]:
            return {
                "machine": session.hello.hostname,
                "gpu": gpu.uuid,
                "name": gpu.name,
                "fake": "true" if gpu.fake else "false",
            }

        page.gauge(
            "alight_gpu_holders", "Containers that hold a GPU, or a part of it.",
            [(named(session, gpu), held[gpu.uuid]) for session, gpu, _ in gpus],
        )  # fmt: skip
        page.gauge(
            "alight_gpu_healthy", "1 for a GPU that is in service, 0 for one that nobody gets.",
            [(named(session, gpu), 0 if gpu.fault else 1) for session, gpu, _ in gpus],
        )  # fmt: skip
        for metric, field, help_ in (
            ("alight_gpu_utilization_ratio", "utilization", "How busy a GPU is, from 0 to 1."),
            ("alight_gpu_memory_bytes", "memory", "Memory of a GPU that is in use."),
            ("alight_gpu_power_watts", "power", "Power that a GPU draws."),
            ("alight_gpu_temperature_celsius", "temperature", "Temperature of a GPU."),
        ):
            page.gauge(
                metric,
                help_,
                [
                    (named(session, gpu), getattr(use, field))
                    for session, gpu, use in gpus
                    if use is not None and getattr(use, field) is not None
                ],
            )

    def _of_server(self, page: Page) -> None:
        parts = self._parts
        store = parts.store
        page.counter(
            "alight_web_requests_total",
            "Answers of the web gateway, by status.",
            [({"status": str(status)}, count) for status, count in sorted(parts.web.gateway.statuses.items())],
        )
        counts = list(store.commit_counts)
        at_most = [sum(counts[: number + 1]) for number in range(len(store.commit_bounds))]
        page.histogram(
            "alight_store_commit_seconds",
            "How long commits of the store took, the disk included.",
            store.commit_bounds,
            [({}, at_most, sum(counts), store.commit_seconds)],
        )
        page.counter("alight_store_lost_writes_total", "Writes that the store refused.", [({}, store.lost_writes)])
        page.gauge("alight_series_bytes", "Disk that measurements take.", [({}, self.measures.series.size())])
        page.gauge("alight_info", "The version of the server.", [({"version": __version__}, 1)])
        for name, help_, value in _process():
            page.gauge(name, help_, [({}, value)])
        page.counter("process_cpu_seconds_total", "CPU time of the server.", [({}, time.process_time())])


def _process() -> Iterator[tuple[str, str, float]]:
    """This process, by the names that Prometheus' own libraries use."""
    words = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    yield "process_resident_memory_bytes", "Memory of the server.", float(int(words["VmRSS"].split()[0]) << 10)
    yield "process_open_fds", "Open files of the server.", float(sum(1 for _ in Path("/proc/self/fd").iterdir()))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
