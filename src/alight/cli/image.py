"""``alight image``: which images the machines hold, what they are made of, what their builds said, and clearing up."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from typing import List, Optional

import click

from alight.cli import image_build, image_files, image_lock, options, session, tables, terminal
from alight.cli.errors import UsageError
from alight.wire.built import BuiltImageInfo, ImageWork, ImageWorked
from alight.wire.codec import to_plain

_SIZES = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_KINDS = {"pip": "Python packages", "apt": "packages of Debian", "conda": "conda packages"}
_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@click.group(short_help="What functions run in: list, look, clear up.")
def image() -> None:
    """What functions run in. Images are built when an app runs, or by `build`; most commands look at what is there."""


@image.command("list")
@options.as_json
def list_(as_json: bool) -> None:
    """List images, the last used first. `Own` is what would be free without the image: the rest is shared."""
    found = _work(ImageWork("list")).images
    rows = [
        (_name(one), one.title, one.python_version, tables.size(one.bytes), tables.size(one.own_bytes),
         tables.when(one.used_at), "yes" if one.in_use else "")
        for one in found
    ]  # fmt: skip
    columns = ("Image ID", "Last step", "Python", "Size", "Own", "Last used", "In use")
    if as_json:
        print(json.dumps([to_plain(one) for one in found], indent=2))
        return
    tables.show(columns, rows, as_json=False, empty="No images yet. `alight run` builds what a function needs.")


@image.command()
@click.argument("image_id")
@options.as_json
def show(image_id: str, as_json: bool) -> None:
    """Show what an image is, and what is installed in it. IMAGE_ID is an id (im-…) or the beginning of a digest."""
    worked = _work(ImageWork("show", image_id))
    found = worked.images
    installed = worked.installed[0].what if worked.installed else {}
    if as_json:
        print(json.dumps([{**to_plain(one), "installed": installed} for one in found], indent=2))
        return
    for one in found:
        facts = (
            ("image", ", ".join(one.ids) or "-"),
            ("digest", one.digest),
            ("machine", one.node),
            ("python", one.python_version or "none"),
            ("base", one.base or "-"),
            ("built", tables.when(one.made_at)),
            ("last used", f"{tables.when(one.used_at)}{' (in use)' if one.in_use else ''}"),
            ("size", f"{tables.size(one.bytes)} in {len(one.layers)} layers, {tables.size(one.own_bytes)} its own"),
        )
        for name, value in facts:
            print(f"{name + ':':<11}{terminal.clean(str(value))}")
        _layers(one)
    for kind, title in _KINDS.items():
        if installed.get(kind):
            print(f"\n{len(installed[kind])} {title}:")
            text = terminal.clean("  ".join(map(str, installed[kind])))
            print(textwrap.fill(text, 118, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False))


@image.command()
@click.argument("image_id")
@options.as_json
def history(image_id: str, as_json: bool) -> None:
    """Show the layers of an image, the first at the top.

    What made each, its size, how many other images share it.
    """
    (one, *_) = _work(ImageWork("show", image_id)).images
    if as_json:
        print(json.dumps([to_plain(layer) for layer in reversed(one.layers)], indent=2))
        return
    _layers(one)


image.add_command(image_build.build)
image.add_command(image_build.pull)
image.add_command(image_lock.lock)
image.add_command(image_files.export)
image.add_command(image_files.import_)


@image.command()
@click.argument("image_id")
@click.option(
    "--layers", type=click.IntRange(1), metavar="N", default=1, show_default=True, help="How many steps, the last ones."
)
@click.option("--all", "everything", is_flag=True, help="All steps.")
def logs(image_id: str, layers: int, everything: bool) -> None:
    """What the last steps of an image said when they were built."""
    lines = _work(ImageWork("log", image_id)).log
    begins = [number for number, line in enumerate(lines) if line.startswith("── ")]
    first = 0 if everything or layers >= len(begins) else begins[-layers]
    for line in lines[first:]:
        print(terminal.clean(line))


@image.group(short_help="Names that images have: list, delete.")
def names() -> None:
    """Names that Image.publish() gave to images."""


@names.command("list")
@click.option("--prefix", default="", help="Names that begin so.")
@options.as_json
def list_names(prefix: str, as_json: bool) -> None:
    """List the names of images, the last given first."""
    found = [one for one in _work(ImageWork("names")).names if one.name.startswith(prefix)]
    rows = [(f"{one.name}:{one.tag}", one.environment, one.image_id, tables.when(one.named_at)) for one in found]
    columns = ("Name", "Environment", "Image ID", "Named at")
    tables.show(columns, rows, as_json=as_json, empty="No names yet. `Image.publish(name)` gives one.")


@names.command("delete")
@click.argument("name")
@options.environment
@options.yes
def delete_name(name: str, environment: Optional[str], yes: bool) -> None:
    """Take a name away, NAME:TAG. The image stays until it is removed."""
    if ":" not in name:
        raise UsageError(f"{name!r} has no tag", hint=f"the whole name is wanted: {name}:latest")
    options.confirm(f"Take the name {name} away?", yes=yes)
    _work(ImageWork("unname", f"{session.environment(environment)}/{name}"))


@image.command()
@click.argument("image_ids", nargs=-1, required=True)
@options.yes
def rm(image_ids: List[str], yes: bool) -> None:
    """Remove images. One that a container or an app uses stays; layers that other images share stay, too."""
    options.confirm(f"Remove {', '.join(image_ids)}? They are built again when they are needed.", yes=yes)
    freed = sum(_work(ImageWork("remove", one)).freed for one in image_ids)
    print(
        f"Removed {len(image_ids)} image{'s' if len(image_ids) != 1 else ''}: {tables.size(freed)} freed",
        file=sys.stderr,
    )


@image.command()
@click.option("--older-than", metavar="TIME", help="Remove what was not used for that long: 12h, 30d. Default: 7d.")
@click.option("--keep", metavar="SIZE", help="Remove the least recently used until that much is left: 50G.")
@click.option(
    "--caches", is_flag=True, help="Remove package caches and Dockerfile layers that only speed up builds, too."
)
@click.option("--dry-run", is_flag=True, help="Say what would go.")
@options.yes
def prune(older_than: Optional[str], keep: Optional[str], caches: bool, dry_run: bool, yes: bool) -> None:
    """Remove images by age and total size, never one that a container or an app uses."""
    age = None if older_than is None else _amount(older_than, _TIMES, "--older-than", "30d")
    most = None if keep is None else int(_amount(keep, _SIZES, "--keep", "50G"))
    work = ImageWork(
        "prune", older_than=604800.0 if age is None and most is None else age, most_bytes=most, dry_run=True
    )
    would = _work(work)
    for one in would.images:
        print(f"{_name(one)}  {tables.size(one.own_bytes):>10}  last used {tables.when(one.used_at)}  {one.title}")
    if dry_run:
        print(f"{len(would.images)} images and {tables.size(would.freed)} would go", file=sys.stderr)
        return
    if not would.images and not would.freed and not caches:
        print("Nothing to remove", file=sys.stderr)
        return
    options.confirm(f"Remove {len(would.images)} images ({tables.size(would.freed)})?", yes=yes)
    done = _work(ImageWork("prune", older_than=work.older_than, most_bytes=most, caches=caches))
    print(f"Removed {len(done.images)} images: {tables.size(done.freed)} freed", file=sys.stderr)


def _work(asked: ImageWork) -> ImageWorked:
    return session.ask("image.work", asked, ImageWorked)


def _name(one: BuiltImageInfo) -> str:
    return one.ids[-1] if one.ids else one.digest[:12]


def _layers(one: BuiltImageInfo) -> None:
    rows = [
        (layer.layer[:12], tables.size(layer.bytes), f"{layer.seconds:.1f} s" if layer.seconds else "",
         tables.when(layer.made_at), f"{layer.shared} more" if layer.shared else "", layer.title)
        for layer in reversed(one.layers)
    ]  # fmt: skip
    tables.show(("Layer", "Size", "Took", "Made", "Shared by", "Step"), rows, as_json=False)


def _amount(text: str, units: dict[str, int], option: str, example: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]?)(?:i?B)?", text.strip())
    unit = "" if found is None else found[2] if found[2] in units else found[2].upper()
    if found is None or unit not in units:
        raise UsageError(f"{option} {text!r} is not an amount", hint=f"for example {example}")
    return float(found[1]) * units[unit]
