"""``alight image lock``: write down what the images of a script hold, so that they are built the same again."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import click

from alight.cli import session
from alight.cli.errors import UsageError
from alight.wire.built import ImageWork, ImageWorked

_NOT_HELD = {
    "uv_sync": "uv.lock is its lock",
    "poetry_install": "poetry.lock is its lock",
    "dockerfile": "its lines are run as they are",
    "from_dockerfile": "the digests of its bases are, its lines are run as they are",
}


@click.command("lock")
@click.argument("reference", metavar="SCRIPT[::FUNCTION]")
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write it. Default: SCRIPT.image-lock.json beside the script, where runs find it.",
)  # fmt: skip
@click.option("--check", is_flag=True, help="Write nothing; fail if the lock that is there does not fit the script.")
def lock(reference: str, output: Optional[Path], check: bool) -> None:
    """Write down which packages the images of a script hold, and build them the same from then on.

    The images are built if they are not there. Without ::FUNCTION it is all images of the script. A run uses the file
    beside its script; ALIGHT_IMAGE_LOCK names another one, or is none. With ALIGHT_FORCE_BUILD=1 everything is
    resolved anew first.
    """
    from alight import compat  # noqa: PLC0415  start-up weight
    from alight.cli import loading, references, warn  # noqa: PLC0415  loads the SDK
    from alight.sdk import image_lock  # noqa: PLC0415

    warn.show_plainly()
    compat.install()
    parsed = loading.parse(reference, module=False)
    target = output or image_lock.beside(parsed.place)
    sys.argv = [parsed.place]
    module = loading.load(parsed)
    named = references.find(module, parsed).target if parsed.thing else None
    apps = list(references.find_apps(module).values())
    images = images_of(apps, named)
    if not images:
        raise UsageError(f"{reference} has no function whose image could be locked")
    if check:
        os.environ[image_lock.VARIABLE] = str(target)
        for _, image in images:
            image_lock.locked(_steps(image))
        print(f"{target} fits {parsed.place}", file=sys.stderr)
        return
    os.environ[image_lock.VARIABLE] = image_lock.OFF
    rows = [(names, _steps(image), _brought(image)) for names, image in images]
    text = image_lock.written(rows, parsed.thing == "")
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)
    count = sum(len(one.get("pip", ())) + len(one.get("conda", ())) for _, _, found in rows for one in found)
    debian = sum(len(one.get("apt", ())) for _, _, found in rows for one in found)
    for op in sorted({step.op["op"] for _, steps, _ in rows for step in steps} & set(_NOT_HELD)):
        print(f"not held by the lock: .{op}(): {_NOT_HELD[op]}", file=sys.stderr)
    images_held = "1 image" if len(rows) == 1 else f"{len(rows)} images"
    print(f"Wrote {target}: {images_held}, {count} packages, {debian} of Debian's", file=sys.stderr)


def images_of(apps: List[Any], named: Any) -> List[Tuple[List[str], Any]]:
    """Each image that functions have, once, with their names. An image by its id is what it is."""
    from alight.sdk.image import Image  # noqa: PLC0415  loads the SDK
    from alight.sdk.image_parts import FROM_ID  # noqa: PLC0415

    found: Dict[int, Tuple[List[str], Any]] = {}
    plain = Image.debian_slim()
    for app in apps:
        for name, target in {**app._functions, **app._classes}.items():  # noqa: SLF001  as `alight run` looks at them
            if named is not None and target is not named:
                continue
            image = target.options.image or plain
            if image.steps and image.steps[0].op["op"] == FROM_ID:
                print(f"{name}: an image by its id or name is what it is: left out", file=sys.stderr)
                continue
            found.setdefault(id(image), ([], image))[0].append(name)
    return list(found.values())


def _steps(image: Any) -> Any:
    from alight.sdk.image_substitutes import stood_in  # noqa: PLC0415  loads the SDK

    return stood_in(image.steps)


def _brought(image: Any) -> List[Mapping[str, Any]]:
    image.build()
    found = session.ask("image.work", ImageWork("lock", image.object_id), ImageWorked).installed
    return [one.what for one in found]
