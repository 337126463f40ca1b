"""``alight dashboard``: a page of the dashboard in a browser, logged in; its address for another browser."""

from __future__ import annotations

import html
import os
import sys
from typing import Optional

import click

from alight.cli import session
from alight.wire.dashboard import DashboardLink, DashboardUrl
from alight.wire.errors import ConflictError, Error

browser_option = click.option(
    "--browser/--no-browser", "browser", default=None, help="Open a browser, or only print. [default: if there is one]"
)


@click.command(short_help="Open the dashboard in a browser.")
@click.argument("object_id", metavar="[OBJECT_ID]", required=False, default="")
@browser_option
def dashboard(object_id: str, browser: Optional[bool]) -> None:
    """Open the dashboard in a browser, at the page of OBJECT_ID if one is given (an app, a function, a call, a
    container, a volume, an image).

    The address that is printed logs its first visitor in. It is good for one visit within a minute.
    """
    show(object_id, browser=browser)


def show(object_id: str, *, browser: Optional[bool] = None) -> None:
    """Open a page, or print where it is."""
    found = session.ask("dashboard.link", DashboardLink(object_id, login=True), DashboardUrl)
    if not found.login:
        raise ConflictError(
            "this server has no dashboard: it does not listen for web requests",
            hint="start it without ALIGHT_WEB_LISTEN=none",
        )
    print(found.login)
    if browser is None:
        browser = sys.stdout.isatty() and _has_browser()
    if browser and _open(found.login):
        sys.stderr.write("opened in a browser; the address logs in once, within a minute\n")
    elif sys.stdout.isatty():
        sys.stderr.write("open this address in a browser; it logs in once, within a minute\n")


def line_of(object_id: str, before: str) -> str:
    """A line that says where an object's page is; "" where there is none, for whatever reason: it is an extra."""
    try:
        found = session.ask("dashboard.link", DashboardLink(object_id), DashboardUrl)
    except Error:
        return ""
    return f"{before} {found.url}" if found.url else ""


def _has_browser() -> bool:
    if sys.platform in {"darwin", "win32"}:
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.environ.get("BROWSER"))


def _open(url: str) -> bool:
    """Show a file that leads on to the address: on a command line everybody of this machine could read it."""
    import webbrowser  # noqa: PLC0415  start-up weight

    from alight.sdk import config  # noqa: PLC0415  loads the SDK

    folder = config.cache_directory()
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "dashboard.html"
    page.unlink(missing_ok=True)
    descriptor = os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        address = html.escape(url, quote=True)
        file.write(f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={address}">\n')
        file.write(f'<a href="{address}">The dashboard</a>\n')
    return webbrowser.open(page.as_uri())
