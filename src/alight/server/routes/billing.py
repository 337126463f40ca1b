"""Requests about usage, cost and budgets. Users see their own, the owner of the server everybody's."""

from __future__ import annotations

from alight.server.auth import OWNER, Principal
from alight.server.request import Request, Routes
from alight.server.services.apps import Apps
from alight.server.services.billing import Billing
from alight.server.services.budgets import BudgetKeeper
from alight.server.services.call_views import CallViews
from alight.server.services.usage import Usage
from alight.wire import errors
from alight.wire.billing import AppCostAsk, BudgetList, BudgetSet, CallCostAsk, UsageAsk


def routes(usage: Usage, billing: Billing, budgets: BudgetKeeper, apps: Apps, calls: CallViews) -> Routes:
    async def report(request: Request) -> None:
        asked = request.arguments(UsageAsk)
        await request.stream.send(await billing.report(asked, _whose(request.who, asked.owner)))

    async def of_call(request: Request) -> None:
        asked = request.arguments(CallCostAsk)
        row = await calls.row(asked.call_id)
        if request.who.kind != OWNER and row["owner"] != request.who.owner:
            raise errors.PermissionDeniedError("this call belongs to somebody else")
        await request.stream.send(await usage.of_call(asked.call_id))

    async def of_app(request: Request) -> None:
        asked = request.arguments(AppCostAsk)
        found = await apps.owner_of(asked.app_id)
        if found is None or not (request.who.kind == OWNER or request.who.owner == found[0]):
            apps.get(asked.app_id, request.who)  # says that there is none
        await request.stream.send(await usage.of_app(asked.app_id))

    async def rates(request: Request) -> None:
        await request.stream.send(billing.rates())

    async def set_budget(request: Request) -> None:
        asked = request.arguments(BudgetSet)
        await request.stream.send(await budgets.set(asked, request.environment(asked.environment), request.who))

    async def list_budgets(request: Request) -> None:
        asked = request.arguments(BudgetList)
        found = await budgets.listed(request.who, asked.kind, asked.name, asked.environment)
        await request.stream.send(found)

    return {
        "usage.report": report,
        "usage.call": of_call,
        "usage.app": of_app,
        "usage.rates": rates,
        "budget.set": set_budget,
        "budget.list": list_budgets,
    }


def _whose(who: Principal, asked: str) -> str:
    if who.kind == OWNER:
        return asked
    if asked not in {"", who.owner}:
        raise errors.PermissionDeniedError("you see what you used; the owner of the server sees everybody")
    return who.owner
