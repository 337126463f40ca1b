"""Requests that look at calls: which there are, how one is doing, which called which."""

from __future__ import annotations

from alight.server.request import Routes
from alight.server.services.apps import Apps
from alight.server.services.call_views import CallViews


def routes(views: CallViews, apps: Apps) -> Routes:
    return {}
