"""``alight shell``: a shell in a container of a function, of an image or of plain Debian, or in one that runs."""

from __future__ import annotations

import os
import sys
from typing import Any, Dict, List, Optional, Tuple

import click

from alight.cli import options, warn
from alight.cli.errors import Interrupted, UsageError
from alight.wire import ids

#: bash where the image has it; else what it has.
_SHELL = 'if command -v bash >/dev/null 2>&1; then exec bash "$@"; else exec sh "$@"; fi'


@click.command(short_help="Open a shell in a function's container, in an image, or in a container that runs.")
@click.option("-c", "--cmd", metavar="COMMAND", help="Run this with the shell instead, and end with its status.")
@click.option("--image", metavar="TAG", help="Without REF: a registry image instead of Debian with Python.")
@click.option("--add-python", metavar="VERSION", help="With --image: put this Python into it.")
@click.option("--volume", "volumes", metavar="NAME", multiple=True, help="Mount this volume at /mnt/NAME.")
@click.option("--add-local", "local", metavar="PATH", multiple=True, help="Put this file or directory into /mnt.")
@click.option("--secret", "secrets", metavar="NAME", multiple=True, help="Give it this secret.")
@click.option("--cpu", type=float, metavar="CORES", help="Reserve so many cores.")
@click.option("--memory", type=int, metavar="MIB", help="Reserve so much memory.")
@click.option("--gpu", metavar="TYPE", help="Give it a GPU.")
@click.option("--pty/--no-pty", "pty", default=None, help="A terminal there; the default: when there is one here.")
@click.option("-m", "module", is_flag=True, help="REF names a module: pkg.mod[::NAME].")
@options.environment
@click.argument("reference", metavar="[REF]", required=False)
def shell(reference: Optional[str], cmd: Optional[str], pty: Optional[bool], **given: Any) -> int:
    """Open a shell in a function's container, in an image, or in a container that runs.

    REF is script.py::NAME (a function, class or method: its image, files, volumes, secrets and GPU; its code is not
    run), the id of an image (im-…), or the id of a running container (ta-…). Without REF it is Debian with Python.
    The container ends with the shell.
    """
    from alight.cli import exec_session  # noqa: PLC0415  start-up weight

    argv = ("/bin/sh", "-c", _SHELL, "sh", *(("-c", cmd) if cmd is not None else ()))
    with_terminal = exec_session.has_terminal() if pty is None else pty
    if reference is not None and ids.is_id(reference, ids.CONTAINER):
        _refuse(given, "a running container", allowed=("environment",))
        return exec_session.run(reference, argv, pty=with_terminal)
    warn.show_plainly()
    name, function = _function(reference, given)
    return _in_a_new_one(name, function, argv, pty=with_terminal, environment=given["environment"])


def _in_a_new_one(name: str, function: Any, argv: Tuple[str, ...], *, pty: bool, environment: Optional[str]) -> int:
    from alight.cli import exec_session, interrupts, render  # noqa: PLC0415  start-up weight
    from alight.sdk import progress  # noqa: PLC0415  start-up weight
    from alight.sdk.client import default_client  # noqa: PLC0415  start-up weight
    from alight.sdk.object import environment_or_default  # noqa: PLC0415  start-up weight
    from alight.sdk.run import Plan  # noqa: PLC0415  start-up weight
    from alight.sdk.shell import Shell  # noqa: PLC0415  start-up weight

    plan = Plan(
        default_client(),
        description=f"shell {name}",
        environment=environment_or_default(environment),
        needed={name},
    )
    with interrupts.handled(), progress.showing(render.make_renderer()) as drawing:
        inside = Shell(plan, name, function)
        try:
            drawing.phase("Starting the container")
            container = inside.enter()
            drawing.phase("")
            if pty:
                drawing.note(f"{name} in container {container}; it ends with this shell")
            progress.connected(is_on=True)
            try:
                status = exec_session.run(container, argv, pty=pty)
            finally:
                progress.connected(is_on=False)
        except KeyboardInterrupt as error:
            inside.leave(error)
            raise Interrupted(str(error) or "Interrupted: the container was ended") from None
        except BaseException as error:
            inside.leave(error)
            raise
        inside.leave(None)
    return status


def _function(reference: Optional[str], given: Dict[str, Any]) -> Tuple[str, Any]:
    """The function whose container is wanted, under the name that it is published by."""
    if reference is None:
        if given["add_python"] and not given["image"]:
            raise UsageError("--add-python goes with --image: what is there without it has Python")
        return "shell", _plain(_image(given), given)
    if ids.is_id(reference, ids.IMAGE):
        _refuse({name: given[name] for name in ("image", "add_python", "module")}, "an image by its id")
        from alight.sdk.image import Image  # noqa: PLC0415  start-up weight

        return "shell", _plain(Image.from_id(reference), given)
    _refuse(given, "a function", allowed=("environment", "module"))
    return _of_the_user(reference, module=given["module"])


def _of_the_user(reference: str, *, module: bool) -> Tuple[str, Any]:
    from alight import compat  # noqa: PLC0415  after the options were found to be right
    from alight.cli import loading  # noqa: PLC0415  start-up weight

    compat.install()
    parsed = loading.parse(reference, module=module)
    if parsed.place == "-":
        raise UsageError("standard input is the shell's, and cannot be the script as well")
    sys.argv = [parsed.place]
    loaded = loading.load(parsed)

    from alight.cli import references  # noqa: PLC0415  loads the SDK
    from alight.sdk.cls import Cls  # noqa: PLC0415  start-up weight

    thing = vars(loaded).get(parsed.thing)
    if isinstance(thing, Cls):  # whichever of its methods: one container serves them all
        return _published(thing)
    runnable = references.find(loaded, parsed)
    if runnable.kind != "entrypoint":
        return _published(runnable.target)
    app = runnable.app
    found: List[Any] = [*app._functions.values(), *app._classes.values()]  # noqa: SLF001  the CLI is the SDK's face
    if len(found) == 1 and not parsed.thing:
        return _published(found[0])
    names = ", ".join([*app._functions, *app._classes]) or "none"  # noqa: SLF001
    raise UsageError(
        f"{runnable.name} is a local entrypoint: it runs on this machine and has no container",
        hint=f"name a function or class: {parsed.place}::NAME, where NAME is one of: {names}",
    )


def _published(thing: Any) -> Tuple[str, Any]:
    function = getattr(thing, "_service", thing)
    return str(function.info_name), function


def _plain(image: Any, given: Dict[str, Any]) -> Any:
    from alight.sdk import shell as sdk_shell  # noqa: PLC0415  start-up weight
    from alight.sdk.secret import Secret  # noqa: PLC0415  start-up weight
    from alight.sdk.volume import Volume  # noqa: PLC0415  start-up weight

    for path in given["local"]:
        if not os.path.exists(path):
            raise UsageError(f"there is no file or directory {path}")
        target = f"/mnt/{os.path.basename(os.path.abspath(path))}"
        image = image.add_local_dir(path, target) if os.path.isdir(path) else image.add_local_file(path, target)
    wanted = {
        "image": image,
        "volumes": {f"/mnt/{name}": Volume.from_name(name) for name in given["volumes"]},
        "secrets": [Secret.from_name(name) for name in given["secrets"]],
        **{name: given[name] for name in ("cpu", "memory", "gpu") if given[name] is not None},
    }
    return sdk_shell.plain(wanted)


def _image(given: Dict[str, Any]) -> Any:
    from alight.sdk.image import Image  # noqa: PLC0415  start-up weight

    if not given["image"]:
        return Image.debian_slim()
    return Image.from_registry(given["image"], add_python=given["add_python"])


def _refuse(given: Dict[str, Any], what: str, *, allowed: Tuple[str, ...] = ()) -> None:
    """Raise UsageError for options that mean nothing where the reference says it all."""
    flags = {"volumes": "volume", "secrets": "secret", "local": "add-local", "module": "m", "environment": "env"}
    for name, value in given.items():
        if value and name not in allowed:
            flag = flags.get(name, name.replace("_", "-"))
            raise UsageError(f"{'-' if len(flag) == 1 else '--'}{flag} does not go with {what}, which brings its own")
