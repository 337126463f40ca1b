"""``alight image build`` and ``pull``: images made without running anything, and given names."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Tuple, TypeVar

import click

from alight.cli import image_lock, options, terminal, warn
from alight.cli.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])
_CREDENTIALS = ("REGISTRY_USERNAME", "REGISTRY_PASSWORD")


def _shared(function: F) -> F:
    """What both commands take."""
    for option in (
        click.option("--force-build", is_flag=True, help="Make all of it again, though it is there."),
        click.option(
            "--registry-secret-from-env", is_flag=True,
            help=f"Log in to the registry with {' and '.join(_CREDENTIALS)} of this shell.",
        ),
        click.option("--registry-secret", metavar="NAME", help="The secret to log in to the registry with."),
        click.option(
            "--substitute-base", "substitutes", metavar="IMAGE=BASE", multiple=True,
            help="Let BASE stand in for a registry image.",
        ),
        options.environment,
    ):  # fmt: skip
        function = option(function)
    return function


@click.command("build", short_help="Build a Dockerfile's image, or those of a script.")
@click.argument("place", metavar="CONTEXT_DIR|SCRIPT[::FUNCTION]")
@click.option("-t", "--name", "names", metavar="NAME[:TAG]", multiple=True, help="A name for the image; may repeat.")
@click.option(
    "-f", "--file", "dockerfile", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The Dockerfile. Default: the one in CONTEXT_DIR.",
)  # fmt: skip
@_shared
def build(place: str, names: Tuple[str, ...], dockerfile: Optional[Path], **how: Any) -> None:
    """Build the image of a Dockerfile in its context, or the images that the functions of a script have.

    Nothing is run. Prints the id of each image, for Image.from_id(); names are for Image.from_name().
    """
    from alight.sdk.image import Image  # noqa: PLC0415  start-up weight

    if Path(place).is_dir():
        file = dockerfile or Path(place) / "Dockerfile"
        if not file.is_file():
            raise UsageError(f"there is no {file}", hint="-f names the Dockerfile")
        secret = _secret(how)
        made = Image.from_dockerfile(
            file, context_dir=place, registry_secret=secret, force_build=how["force_build"]
        )  # fmt: skip
        _make([([], made)], names, how)
        return
    if dockerfile is not None or how["registry_secret"] or how["registry_secret_from_env"]:
        raise UsageError(f"{place} is no directory: -f and --registry-secret are for the context of a Dockerfile")
    images = _of_script(place)
    if names and len(images) > 1:
        raise UsageError(
            f"{place} has {len(images)} images, and a name is for one", hint=f"name one's function: {place}::FUNCTION"
        )
    if how["force_build"]:
        os.environ["ALIGHT_FORCE_BUILD"] = "1"
    _make(images, names, how)


@click.command("pull", short_help="Bring an image of a registry.")
@click.argument("reference", metavar="REF")
@click.option("--name", "names", metavar="NAME[:TAG]", multiple=True, help="A name for the image; may repeat.")
@_shared
def pull(reference: str, names: Tuple[str, ...], **how: Any) -> None:
    """Bring an image of a registry to the machine that builds. REF names its host: docker.io/library/debian:12.

    Prints the image's id, for Image.from_id(); names are for Image.from_name().
    """
    from alight.sdk.image import Image  # noqa: PLC0415  start-up weight

    host = reference.partition("/")[0]
    if "/" not in reference or not ("." in host or ":" in host or host == "localhost"):
        place = "docker.io" if "/" in reference else "docker.io/library"
        raise UsageError(f"{reference!r} does not say which registry", hint=f"for example {place}/{reference}")
    _make([([], Image.from_registry(reference, _secret(how), force_build=how["force_build"]))], names, how)


def _secret(how: Any) -> Any:
    from alight.sdk.secret import Secret  # noqa: PLC0415  start-up weight

    if how["registry_secret"] and how["registry_secret_from_env"]:
        raise UsageError("--registry-secret and --registry-secret-from-env are two ways to say the same")
    if how["registry_secret"]:
        return Secret.from_name(how["registry_secret"], environment_name=how["environment"])
    if not how["registry_secret_from_env"]:
        return None
    lacking = [name for name in _CREDENTIALS if not os.environ.get(name)]
    if lacking:
        raise UsageError(f"--registry-secret-from-env: {' and '.join(lacking)} is not set")
    return Secret.from_dict({name: os.environ[name] for name in _CREDENTIALS})


def _of_script(place: str) -> List[Tuple[List[str], Any]]:
    from alight import compat  # noqa: PLC0415  start-up weight
    from alight.cli import loading, references  # noqa: PLC0415  loads the SDK

    warn.show_plainly()
    compat.install()
    parsed = loading.parse(place, module=False)
    sys.argv = [parsed.place]
    module = loading.load(parsed)
    named = references.find(module, parsed).target if parsed.thing else None
    images = image_lock.images_of(list(references.find_apps(module).values()), named)
    if not images:
        raise UsageError(f"{place} has no function whose image could be built")
    return images


def _make(images: List[Tuple[List[str], Any]], names: Tuple[str, ...], how: Any) -> None:
    if how["substitutes"]:
        from alight.cli.run import substitute  # noqa: PLC0415  only this option needs it

        substitute(how["substitutes"])
    with _shown():
        for functions, image in images:
            if names:
                for name in names:
                    image.publish(name, environment_name=how["environment"])
            else:
                image.build()
            said = f"  {', '.join(functions)}" if functions and len(images) > 1 else ""
            print(f"{image.object_id}{terminal.clean(said)}")


@contextlib.contextmanager
def _shown() -> Iterator[None]:
    from alight.cli import interrupts, render  # noqa: PLC0415  start-up weight
    from alight.sdk import progress  # noqa: PLC0415  loads the SDK

    with interrupts.handled(), progress.showing(render.make_renderer()):
        yield
