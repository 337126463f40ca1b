"""One version of a script, in a process of its own: `alight serve` starts one of these for each change.

What to do comes on stdin, a line of JSON each: first {reference, module, name}, which may be long after the start, so
that Python and Alight are loaded by then; later {app_id, environment, shown}. What came of it goes to another
descriptor in the same form, by ``kind``: loaded {name, tags}, watched {files, folders}, published {functions,
scheduled, shown}. Errors are printed here, as `alight run` prints them, and end it with their exit code. It ends when
its stdin does.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any, Dict, Iterable, Set, Tuple

from alight.cli import errors, render, warn
from alight.cli.deploy import find_app
from alight.cli.errors import UserCodeError
from alight.sdk import client as sdk_client
from alight.sdk import progress, serving, source
from alight.sdk.sync import run
from alight.wire.errors import InvalidError

#: What Python is told, with the descriptor in its place. The user's folder holds nothing that Alight should import.
COMMAND = "import sys; sys.path[:] = filter(None, sys.path); from alight.cli.reloader import end; end({descriptor})"


def end(descriptor: int) -> None:
    """The whole process."""
    code = main(descriptor)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what the script started in the background is not waited for


def main(descriptor: int) -> int:
    """Wait for a script, publish it. Returns the exit code."""
    commands, report = os.fdopen(os.dup(0), "r"), os.fdopen(descriptor, "w")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    client = sdk_client.default_client()
    asked = _next(commands)
    if asked is None:
        return 0

    def tell(kind: str, **more: Any) -> None:
        print(json.dumps({"kind": kind, **more}), file=report, flush=True)

    watched: Tuple[Set[str], Set[str]] = (set(), set())
    drawing = render.make_renderer()
    try:
        with progress.showing(drawing):
            app = _load(asked)
            tell("loaded", name=asked["name"] or app.name or "", tags=dict(app._tags))  # noqa: SLF001
            # Images may take long to build: changes meanwhile count.
            tell("watched", files=sorted(source.local_modules()), folders=[])
            place = _next(commands)
            if place is None:
                return 0
            made = serving.Serving(app, client)
            made.shown = set(place["shown"])
            try:
                functions = run(made.publish(place["app_id"], place["environment"]))
            finally:
                watched = _places(made.sources)
            drawing.phase("")
        scheduled = [name for name, one in app._functions.items() if one.options.schedule is not None]  # noqa: SLF001
        names = sorted(one.name for one in functions)
        tell("published", functions=names, scheduled=scheduled, shown=sorted(made.shown))
    except (Exception, SystemExit) as error:  # noqa: BLE001  every error becomes words here
        watched[0].update(_named_in(error))
        return errors.report(error) or 1
    finally:
        watched[0].update(source.local_modules())
        tell("watched", files=sorted(watched[0]), folders=sorted(watched[1]))
    return 0


def _load(asked: Dict[str, Any]) -> Any:
    from alight import compat  # noqa: PLC0415  once there is a script
    from alight.cli import loading  # noqa: PLC0415  once there is a script

    warn.show_plainly()
    compat.install()
    parsed = loading.parse(asked["reference"], module=asked["module"])
    if parsed.place == "-":
        raise errors.UsageError("a script on standard input cannot be served: nobody could change it")
    sys.argv = [parsed.place]
    app = find_app(loading.load(parsed), parsed.thing, parsed.place)
    if not (app._functions or app._classes):  # noqa: SLF001  the CLI is the SDK's face
        raise InvalidError(f"the app in {parsed.place} has no functions", hint="decorate one with @app.function()")
    return app


def _places(sources: Iterable[source.LocalFiles]) -> Tuple[Set[str], Set[str]]:
    files: Set[str] = set()
    folders: Set[str] = set()
    for one in list(sources):
        try:
            found, directories = source.places(one)
        except (InvalidError, OSError):
            continue  # it was there a moment ago, and its change is what comes next
        files |= found
        folders |= directories
    return files, folders


def _named_in(error: BaseException) -> Set[str]:
    """The files that an exception came through: what has to change may be in none of the modules that were imported."""
    cause: Any = error.error if isinstance(error, UserCodeError) else error
    frames = traceback.extract_tb(cause.__traceback__)
    names = {frame.filename for frame in frames}
    if isinstance(cause, SyntaxError) and cause.filename:
        names.add(cause.filename)
    inside = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    paths = {os.path.realpath(name) for name in names if os.path.exists(name)}
    return {
        path for path in paths if not path.startswith((inside + os.sep, sys.prefix + os.sep, sys.base_prefix + os.sep))
    }


def _next(commands: Any) -> Any:
    line = commands.readline()
    return json.loads(line) if line else None
