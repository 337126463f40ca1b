"""``alight deploy``: an app that stays, callable from anywhere by its name.

What a deploy does is the SDK's (``sdk/deploying.py``) and the server's; this finds the app and says what came of it.
"""

from __future__ import annotations

import sys
import time
from types import ModuleType
from typing import Any, List, Optional, Sequence

import click

from alight.cli import schedule_words, warn
from alight.cli.errors import UsageError


@click.command(short_help="Keep an app callable from anywhere, until it is stopped.")
@click.option("-n", "--name", metavar="NAME", help="What to call the app. [default: its own name]")
@click.option("--tag", metavar="TEXT", default="", help="A note for `alight app history`, at most 50 characters.")
@click.option(
    "--strategy",
    type=click.Choice(["rolling", "recreate"]),
    default="rolling",
    show_default=True,
    help="rolling: old containers finish what they have begun. recreate: they end at once.",
)
@click.option("--staged", is_flag=True, help="Only see that it comes up: it serves once `alight app promote` says so.")
@click.option("--stream-logs", is_flag=True, help="Follow the app's output afterwards, until Ctrl-C.")
@click.option("--timestamps", is_flag=True, help="Put the time before each line of output.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.option("-m", "module", is_flag=True, help="REF names a module: pkg.mod[::APP].")
@click.option("-e", "--env", "environment", metavar="NAME", help="The environment to deploy to.")
@click.argument("reference", metavar="APP_REF")
def deploy(
    reference: str,
    name: Optional[str],
    module: bool,
    stream_logs: bool,
    timestamps: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Publish an app as its next version, callable from anywhere by its name until it is stopped.

    APP_REF is script.py or script.py::APP, where APP is the name of a variable; with -m it is a module. The old version
    serves until the new one does, and goes on if the new one cannot be built or does not come up.
    """
    from alight import compat  # noqa: PLC0415  start-up weight
    from alight.cli import loading  # noqa: PLC0415  start-up weight

    warn.show_plainly()
    compat.install()
    if options["staged"] and stream_logs:
        raise UsageError("--staged excludes --stream-logs: nothing of the new version runs afterwards")
    parsed = loading.parse(reference, module=module)
    if parsed.place == "-":
        raise UsageError("a script on standard input cannot be deployed: its source would be nowhere")
    sys.argv = [parsed.place]
    app = find_app(loading.load(parsed), parsed.thing, parsed.place)
    app_name = name or app.name
    if not app_name:
        raise UsageError(
            "an app needs a name to be deployed", hint='write App("name") in the script, or --name NAME here'
        )
    deployed, seconds = _deploy(app, app_name, quiet=quiet, timestamps=timestamps, **options)
    for line in said(deployed, seconds):
        print(line)
    if deployed.done.changed and not deployed.done.staged:
        for line in schedule_words.of_app(app):
            print(f"  {line}")
    line = _page(deployed.app_id)
    if line:
        print(f"  {line}")
    if stream_logs:
        from alight.cli import app as commands  # noqa: PLC0415  this option alone

        commands.follow(deployed.app_id, timestamps=timestamps)


def _page(app_id: str) -> str:
    from alight.cli import dashboard  # noqa: PLC0415  start-up weight

    return dashboard.line_of(app_id, "view:")


def find_app(module: ModuleType, thing: str, place: str) -> Any:
    """The app that is meant: the named variable, else the one called ``app``, else the only one. Raises UsageError."""
    from alight.cli import references  # noqa: PLC0415  loads the SDK
    from alight.sdk.app import App  # noqa: PLC0415  loads the SDK

    apps = references.find_apps(module)
    if thing:
        found = vars(module).get(thing)
        if isinstance(found, App):
            return found
        what = f"{thing!r} in {place} is not an app" if found is not None else f"there is no {thing!r} in {place}"
        raise UsageError(what, hint=_list(apps, place))
    if isinstance(vars(module).get("app"), App):
        return module.app
    if len(apps) == 1:
        return next(iter(apps.values()))
    if not apps:
        raise UsageError(f"there is no app in {place}", hint='make one at the top: `app = alight.App("name")`')
    raise UsageError(f"{place} has {len(apps)} apps, and none was named", hint=_list(apps, place))


def said(deployed: Any, seconds: float) -> List[str]:
    """What to print of a deploy."""
    done, name = deployed.done, deployed.name
    if not done.changed:
        return [f"Nothing has changed: {name} stays at v{done.version}"]
    where = f" to the environment {deployed.environment}" if deployed.environment not in {"", "main"} else ""
    if done.staged:
        option = f" -e {deployed.environment}" if where else ""
        return [
            f"Staged {name} v{done.version}{where} in {seconds:.1f} s: it comes up, and serves nothing yet",
            f"  promote: alight app promote {name} v{done.version}{option}",
        ]
    lines = [f"Deployed {name} v{done.version}{where} in {seconds:.1f} s"]
    functions = sorted(one.name for one in done.functions)
    if functions:
        shown = ", ".join(one[:-2] + " (class)" if one.endswith(".*") else one for one in functions)
        lines.append(f"  functions: {shown}")
    for one in done.functions:
        if one.web:
            from alight.sdk import web_urls  # noqa: PLC0415  few apps have web functions

            lines += [f"  {line}" for line in web_urls.lines(one.name, one.web)]
    if done.gone:
        lines.append(f"  gone: {', '.join(one.removesuffix('.*') for one in done.gone)}")
    called = [one.name for one in done.functions if not one.web]
    if called:
        lines.append(f"  call: {call_of(name, sorted(called), deployed.environment)}")
    return lines


def call_of(name: str, functions: Sequence[str], environment: str) -> str:
    """The line of Python that calls one of these functions from another program."""
    place = f'"{name}"'
    elsewhere = f', environment_name="{environment}"' if environment not in {"", "main"} else ""
    plain = next((one for one in functions if not one.endswith(".*")), None)
    if plain is not None:
        return f'alight.Function.from_name({place}, "{plain}"{elsewhere}).remote(…)'
    return f'alight.Cls.from_name({place}, "{functions[0][:-2]}"{elsewhere})().METHOD.remote(…)'


def _deploy(
    app: Any,
    name: str,
    *,
    quiet: bool,
    timestamps: bool,
    environment: Optional[str],
    **options: Any,
) -> Any:
    import contextlib  # noqa: PLC0415  start-up weight

    from alight.cli import interrupts, render  # noqa: PLC0415  start-up weight
    from alight.sdk import progress  # noqa: PLC0415  loads the SDK

    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.enter_context(interrupts.handled())
        drawing = None if quiet else render.make_renderer(timestamps=timestamps)
        if drawing is not None:
            stack.enter_context(progress.showing(drawing))
        app.deploy(name=name, environment_name=environment, **options)
        if drawing is not None:
            drawing.phase("")
    return app._deployed, time.monotonic() - started  # noqa: SLF001  the CLI is the SDK's face


def _list(apps: Any, place: str) -> str:
    return f"write {place}::APP, where APP is one of: {', '.join(apps)}" if apps else "it has no app"
