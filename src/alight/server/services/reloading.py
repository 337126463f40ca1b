"""The functions of an app that runs, all at once: its source has changed, and it goes on under the same id."""

from __future__ import annotations

from alight.server.services.apps import App
from alight.server.services.functions import Functions
from alight.store.base import Store
from alight.wire.messages import PublishedFunction
from alight.wire.spec import FunctionSpec


async def reload(
    functions: Functions, store: Store, app: App, specs: tuple[FunctionSpec, ...]
) -> tuple[PublishedFunction, ...]:
    """Have these functions and no others. Containers of what is different end at once, what they were at begins anew.

    What is the same keeps its containers. Raises InvalidError for a spec that cannot be: then all is as it was.
    """
    async with functions.changing:
        gone = "%s is not in the script any more"
        change = functions.plan(app.app_id, app.environment, app.owner, specs, gone=gone)
        if change.statements:
            await store.write(change.statements)
        functions.carry_out(change, recreate=True)
    return tuple(functions.answer(one) for one in change.named)
