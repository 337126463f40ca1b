"""An app that goes on while its source changes: published as a whole into a run that somebody else holds.

Resolve and upload → build every image → publish, all at once: until the last step what was published before answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, List, Set, Tuple

from alight.sdk import progress
from alight.sdk.client import Client
from alight.sdk.resolve import Resolver
from alight.sdk.run import Plan, Run
from alight.sdk.running import RunningApp
from alight.sdk.source import LocalFiles
from alight.wire import messages
from alight.wire.spec import FunctionSpec

if TYPE_CHECKING:
    from alight.sdk.app import App


class Serving(Run):
    """One version of an app's source, for the app of this id."""

    def __init__(self, app: App, client: Client) -> None:
        classes = {made._service.info_name: made._service for made in app._classes.values()}  # noqa: SLF001
        super().__init__(Plan(client), {**app._functions, **classes})  # noqa: SLF001  of this package
        self.sources: List[LocalFiles] = []
        self.shown: Set[str] = set()  # lines about URLs that were said before, and those of this version

    async def publish(self, app_id: str, environment: str) -> Tuple[messages.PublishedFunction, ...]:
        """Put it in the place of what was published before. Raises what keeps it from there: then all is as it was."""
        client = self._plan.client
        self._running = running = RunningApp(client, messages.AppCreated(app_id, environment), detach=False)
        specs = await self._resolve(running)
        await self._build(running, specs)
        message = messages.AppPublish(app_id, tuple(specs.values()), whole=True)
        published = await client.call("app.publish", message, messages.AppPublished)
        self._learn(running, published)
        return published.functions

    def _show_urls(self, one: messages.PublishedFunction) -> None:
        from alight.sdk import web_urls  # noqa: PLC0415  few apps have web functions

        lines = list(web_urls.lines(one.name, one.web))
        if not self.shown.issuperset(lines):
            for line in lines:
                progress.current().note(line)
        self.shown.update(lines)

    async def _resolve(self, running: RunningApp) -> Dict[str, FunctionSpec]:
        resolver = Resolver(self._plan.client, running.app_id)
        self.sources = resolver.sources
        specs = {}
        for name, function in self._functions.items():
            specs[name] = await resolver.function(name, function._raw, function.options, function.traits)  # noqa: SLF001
        await resolver.upload()
        return specs
