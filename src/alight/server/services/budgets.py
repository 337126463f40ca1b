"""Budgets: of apps and users by month, of runs over their life. One that is used up holds the inputs of its apps.

What is spent is kept in memory as it is accounted for, from the rows of the month on: looking costs what there are
budgets. A month begins at midnight of its first day where the server is.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alight.scheduler.events import AppsHeld
from alight.server import costs, metering
from alight.server.auth import OWNER, Principal
from alight.server.costs import Prices
from alight.server.events import Inbox
from alight.server.metering import GPU, Key
from alight.server.services.apps import App, Apps
from alight.server.services.hub import Hub
from alight.server.services.usage import EVERY, Usage
from alight.store.base import Store
from alight.wire import errors
from alight.wire.billing import Budget, Budgets, BudgetSet
from alight.wire.messages import AppEvent
from alight.wire.states import AppState

log = logging.getLogger(__name__)
APP, USER, RUN = "app", "user", "run"
_OFTEN = 1.0  # seconds between looks while there is a budget


@dataclass(frozen=True)
class Limit:
    """One budget as it was set. None: no limit of this kind."""

    kind: str
    environment: str
    name: str
    cost: float | None
    gpu_seconds: float | None
    stop: bool
    set_by: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kind, self.environment, self.name


@dataclass
class Sums:
    """Amounts by resource, of the month or of a run's life."""

    apps: dict[str, dict[str, float]] = field(default_factory=dict)  # by id
    users: dict[str, dict[str, float]] = field(default_factory=dict)
    names: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # apps' environments, names and owners


def used_up(limit: Limit, amounts: Mapping[str, float], prices: Prices) -> str:
    """Which limit is reached, as a person says it; "" for none."""
    spent = costs.cost_of(amounts, prices).total
    if limit.cost is not None and spent >= limit.cost:
        return f"{_exact(limit.cost, 2)} {prices.currency}"
    seconds = gpu_seconds(amounts)
    if limit.gpu_seconds is not None and seconds >= limit.gpu_seconds:
        return f"{_exact(limit.gpu_seconds, 0)} GPU-seconds"
    return ""


def _exact(limit: float, digits: int) -> str:
    """As it was set: "100.00", and "0.0001" for what that many digits do not show."""
    text = f"{limit:,.{digits}f}"
    return text if float(text.replace(",", "")) == limit else f"{limit:,.12f}".rstrip("0")


def sentence(limit: Limit, what: str) -> str:
    """What somebody reads whose inputs wait for a budget."""
    option = "--gpu-seconds" if what.endswith("GPU-seconds") else "--cost" if limit.kind == RUN else "--month"
    command = f"alight billing budget --user {limit.name}" if limit.kind == USER else f"alight app budget {limit.name}"
    whose = "this run" if limit.kind == RUN else f"{limit.name} for this month"
    return f"held: the budget of {whose} ({what}) is used up; raise it with `{command} {option} …`"


def gpu_seconds(amounts: Mapping[str, float]) -> float:
    """Of all types together."""
    return sum(amount for resource, amount in amounts.items() if resource.startswith(GPU))


def month_of(now: float) -> float:
    """When this month began, here."""
    local = time.localtime(now)
    return time.mktime((local.tm_year, local.tm_mon, 1, 0, 0, 0, 0, 0, -1))


class BudgetKeeper:
    """Holds apps and lets them go on."""

    def __init__(self, store: Store, apps: Apps, usage: Usage, inbox: Inbox, hub: Hub) -> None:
        self._store = store
        self._apps = apps
        self._usage = usage
        self._inbox = inbox
        self._hub = hub
        self._limits: dict[tuple[str, str, str], Limit] = {}
        self._sums = Sums()
        self._runs: dict[str, dict[str, float]] = {}
        self._month = 0.0
        self._held: AppsHeld = AppsHeld({})
        usage.on_written = self._add
        usage.on_joined = self.again

    async def load(self) -> None:
        """Take up what was set, and what of it is used."""
        for row in await self._store.read("budgets_all"):
            limit = Limit(
                row["kind"],
                row["environment"],
                row["name"],
                row["cost"],
                row["gpu_seconds"],
                bool(row["stop"]),
                row["set_by"],
            )
            self._limits[limit.key] = limit
            if limit.kind == RUN:
                await self._load_run(limit.name)
        await self._load_month(time.time())
        self.look()

    async def _load_month(self, now: float) -> None:
        self._month = month_of(now)
        self._sums = Sums()
        for row in await self._store.read("usage_since", first=int(self._month // 3600)):
            amounts = {row["resource"]: row["amount"]}
            metering.add(self._sums.apps.setdefault(row["app_id"], {}), amounts)
            metering.add(self._sums.users.setdefault(row["owner"], {}), amounts)
            self._sums.names[row["app_id"]] = (row["environment"], row["app"], row["owner"])

    async def _load_run(self, app_id: str) -> None:
        sums: dict[str, float] = {}
        for row in await self._store.read("usage_of_app", app_id=app_id):
            metering.add(sums, {row["resource"]: row["amount"]})
        self._runs[app_id] = sums

    def _add(self, hours: Mapping[Key, float]) -> None:
        """These amounts are on their way to the store; none come while nothing runs."""
        now = time.time()
        if month_of(now) > self._month:
            self._month, self._sums = month_of(now), Sums()
        first = int(self._month // 3600)
        for key, amount in hours.items():
            if key.app_id in self._runs:
                metering.add(self._runs[key.app_id], {key.resource: amount})
            if key.hour >= first:
                metering.add(self._sums.apps.setdefault(key.app_id, {}), {key.resource: amount})
                metering.add(self._sums.users.setdefault(key.owner, {}), {key.resource: amount})
                self._note(key.app_id)
        self.look()

    def _note(self, app_id: str) -> None:
        app = self._apps.alive.get(app_id)
        if app is not None:
            self._sums.names[app_id] = (app.environment, app.name or app.description, app.owner)

    def look(self) -> None:
        """See which apps are to be held, and tell the scheduler when that has changed."""
        self._usage.every = _OFTEN if self._limits else EVERY
        prices = self._usage.prices()
        why: dict[str, str] = {}
        stop: set[str] = set()
        for limit in self._limits.values():
            what = used_up(limit, self._spent(limit), prices)
            for app in self._apps.alive.values() if what else ():
                if _concerns(limit, app):
                    why.setdefault(app.app_id, sentence(limit, what))
                    if limit.stop:
                        stop.add(app.app_id)
        now = AppsHeld(why, frozenset(stop))
        before, self._held = self._held, now
        if now == before:
            return
        self._inbox.put(now)
        for app_id in [one for one in why if one not in before.why]:
            log.info("%s: %s", app_id, why[app_id])
            self._hub.tell(app_id, AppEvent("system", text=why[app_id]))
        for app_id in [one for one in before.why if one not in why and one in self._apps.alive]:
            self._hub.tell(app_id, AppEvent("system", text="it goes on: its budget is not used up any more"))

    def again(self) -> None:
        """Containers came back whose end may have been asked for by an earlier server process only."""
        if self._held.why:
            self._inbox.put(self._held)

    async def set(self, asked: BudgetSet, environment: str, who: Principal) -> Budgets:
        """Set a budget, or take it away. Raises InvalidError, PermissionDeniedError, NotFoundError."""
        limit = self._checked(asked, environment, who)
        old = self._limits.get(limit.key)
        if asked.stop is not None and limit.cost is None and limit.gpu_seconds is None and old is None:
            raise errors.InvalidError(f"{limit.name} has no budget yet", hint="set what it may cost, too")
        if old is not None and old.set_by != who.owner and who.kind != OWNER:
            who_may = "who" if old.set_by == OWNER else "who with the owner of this server"
            by = "the owner of this server" if old.set_by == OWNER else old.set_by
            raise errors.PermissionDeniedError(
                f"the budget of {limit.name} was set by {by}, {who_may} alone may change it"
            )
        row: dict[str, Any] = {"kind": limit.kind, "environment": limit.environment, "name": limit.name}
        if limit.cost is None and limit.gpu_seconds is None and asked.stop is None:
            await self._store.write([("budget_clear", row)])
            self._limits.pop(limit.key, None)
            self._runs.pop(limit.name, None)
        else:
            if old is not None:
                limit = dataclasses.replace(
                    limit,
                    cost=old.cost if limit.cost is None else limit.cost,
                    gpu_seconds=old.gpu_seconds if limit.gpu_seconds is None else limit.gpu_seconds,
                    stop=old.stop if asked.stop is None else limit.stop,
                )
            row |= {
                "cost": limit.cost,
                "gpu_seconds": limit.gpu_seconds,
                "stop": limit.stop,
                "set_by": limit.set_by,
                "now": time.time(),
            }
            await self._store.write([("budget_set", row)])
            if limit.kind == RUN and limit.name not in self._runs:
                await self._usage.flush()
                await self._load_run(limit.name)
            self._limits[limit.key] = limit
        self.look()
        return self._told([limit] if limit.key in self._limits else [])

    async def listed(self, who: Principal, kind: str = "", name: str = "", environment: str = "") -> Budgets:
        """The budgets that concern somebody. Raises NotFoundError for an app that there is not."""
        await self._usage.flush()
        found = []
        app = self._apps.alive.get(name) if kind == APP else None
        if app is not None and app.state == AppState.DEPLOYED and (who.kind == OWNER or app.owner == who.owner):
            name, environment = app.name or app.description, app.environment
        for limit in self._limits.values():
            mine = who.kind == OWNER or who.owner in {limit.set_by, limit.name if limit.kind == USER else None}
            if not mine and limit.kind != USER:
                mine = any(_concerns(limit, app) and app.owner == who.owner for app in self._apps.alive.values())
            wanted = kind in {"", limit.kind} or (kind == APP and limit.kind == RUN)
            here = not environment or environment == (limit.environment or environment)
            over = limit.kind == RUN and limit.name not in self._apps.alive and not name
            if mine and wanted and here and not over and (not name or name == limit.name):
                found.append(limit)
        if kind == APP and name and not found and app is None and self._named(name, environment, who) is None:
            raise errors.NotFoundError(f"there is no app {name}", hint="`alight app list` shows those there are")
        return self._told(found)

    async def forget(self, now: float) -> None:
        """Drop those of runs that are over."""
        del now
        await self._store.write([("budgets_forget", {})], urgent=False)
        for limit in [one for one in self._limits.values() if one.kind == RUN and one.name not in self._apps.alive]:
            del self._limits[limit.key]
            self._runs.pop(limit.name, None)

    def _spent(self, limit: Limit) -> dict[str, float]:
        if limit.kind == RUN:
            return self._runs.get(limit.name, {})
        if limit.kind == USER:
            return self._sums.users.get(limit.name, {})
        found: dict[str, float] = {}
        for app_id, whose in self._sums.names.items():
            if _means(limit, *whose):
                metering.add(found, self._sums.apps.get(app_id, {}))
        return found

    def _told(self, limits: list[Limit]) -> Budgets:
        prices = self._usage.prices()
        told = []
        for limit in limits:
            amounts = self._spent(limit)
            told.append(
                Budget(
                    limit.kind,
                    limit.name,
                    limit.environment,
                    limit.cost,
                    limit.gpu_seconds,
                    limit.stop,
                    costs.cost_of(amounts, prices).total,
                    gpu_seconds(amounts),
                    bool(used_up(limit, amounts, prices)),
                    0.0 if limit.kind == RUN else self._month,
                    limit.set_by,
                    sum(_concerns(limit, app) for app in self._apps.alive.values()),
                )
            )
        return Budgets(prices.currency, tuple(told))

    def _checked(self, asked: BudgetSet, environment: str, who: Principal) -> Limit:
        for what, value in (("cost", asked.cost), ("GPU seconds", asked.gpu_seconds)):
            if value is not None and not 0 <= value < 1e12:
                raise errors.InvalidError(f"a budget of {value:g} {what} cannot be", hint="give a number of 0 or more")
        kind, name = asked.kind, asked.name
        if kind == USER:
            if who.kind != OWNER:
                raise errors.PermissionDeniedError("only the owner of this server sets budgets of users")
            environment = ""
        elif kind in {APP, RUN}:
            app = self._apps.alive.get(name) or self._named(name, environment, who)
            if app is not None:
                self._apps.get(app.app_id, who)  # says that there is none when it is another's
                # One id is one run; a name is all that ever runs under it.
                kind = RUN if name == app.app_id and app.state != AppState.DEPLOYED else APP
                name, environment = (app.app_id, "") if kind == RUN else (app.name or app.description, app.environment)
            elif kind == RUN or who.kind != OWNER:
                raise errors.NotFoundError(f"there is no app {name}", hint="`alight app list` shows those there are")
        else:
            raise errors.InvalidError(f"there are no budgets of {kind!r}", hint="of apps, users and runs there are")
        if not name:
            raise errors.InvalidError("a budget needs the name of an app or of a user")
        return Limit(kind, environment, name, asked.cost, asked.gpu_seconds, bool(asked.stop), who.owner)

    def _named(self, name: str, environment: str, who: Principal) -> App | None:
        found = [
            app
            for app in self._apps.alive.values()
            if (app.name or app.description) == name
            and environment in {"", app.environment}
            and (who.kind == OWNER or app.owner == who.owner)
        ]
        return found[0] if found else None


def _concerns(limit: Limit, app: App) -> bool:
    if limit.kind == RUN:
        return app.app_id == limit.name
    if limit.kind == USER:
        return app.owner == limit.name
    return _means(limit, app.environment, app.name or app.description, app.owner)


def _means(limit: Limit, environment: str, name: str, owner: str) -> bool:
    """Whether a budget of a name is of this one's: what users set is for what is theirs."""
    return (environment, name) == (limit.environment, limit.name) and limit.set_by in {OWNER, owner}
