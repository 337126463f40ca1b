"""What URLs the web functions of living apps have, for whoever asks: publishers, handles and the gateway."""

from __future__ import annotations

from collections.abc import Mapping

from alight.server.services import urls
from alight.server.services.functions import Functions
from alight.server.services.published import Published
from alight.wire.spec import FunctionSpec
from alight.wire.urls import WebUrl


class WebNames:
    """Keeps nothing: all follows from ``functions`` and ``apps``. ``base`` is set once the gateway listens."""

    def __init__(self, functions: Functions, apps: Mapping[str, urls.AppLike]) -> None:
        self._functions = functions
        self._apps = apps
        self.base = urls.Base()

    def endpoints(self) -> list[urls.Endpoint]:
        """Everything that answers requests."""
        return urls.endpoints(self._functions.by_id.values(), self._apps)

    def of(self, function: Published) -> tuple[WebUrl, ...]:
        """The URLs of a function, or of the web methods of a class; of a variant those of what it is a variant of."""
        if not function.spec.web:
            return ()
        found = self.endpoints()
        function_id = function.base or function.function_id
        return tuple(urls.url_of(one, self.base, found) for one in found if one.function_id == function_id)

    def check(self, app_id: str, specs: tuple[FunctionSpec, ...], *, deployed: bool) -> None:
        """Raise what keeps an app from publishing these: two with one label, or one that another app has."""
        app = self._apps.get(app_id)
        if app is None or not any(spec.web for spec in specs):
            return
        wanted = [one for spec in specs for one in urls.of_spec(spec, app, "", deployed=deployed)]
        urls.check(wanted, [one for one in self.endpoints() if one.app_id != app_id])
