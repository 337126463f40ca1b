"""Beginnings of images that others made: from registries, or nothing at all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence

from alight.sdk.image_parts import How, Steps, word_list
from alight.wire.errors import InvalidError

if TYPE_CHECKING:
    from alight.sdk.image import Image

_PYTHON = re.compile(r"^3\.\d{1,2}(\.\d{1,3})?$")
_TAG = re.compile(r"^[A-Za-z0-9\[][A-Za-z0-9._:/@\[\]-]*$")


class RegistryBases(Steps):
    """A part of ``Image``."""

    @classmethod
    def from_registry(
        cls,
        tag: str,
        secret: Any = None,
        *,
        setup_dockerfile_commands: Sequence[str] = (),
        force_build: bool = False,
        add_python: Optional[str] = None,
        **kwargs: Any,
    ) -> Image:
        """Start from an image of a registry, "name:tag" or "host/name@sha256:…".

        ``secret`` has REGISTRY_USERNAME and REGISTRY_PASSWORD for one that is not for everybody. Without ``add_python``
        the image's own Python is used; ``setup_dockerfile_commands`` are run before it is looked for. A tag is looked
        up when the image is built first, and again with ``force_build``.
        """
        _nothing_else("from_registry", kwargs)
        return _from(cls, tag, secret, "", setup_dockerfile_commands, force_build, add_python)

    @classmethod
    def from_aws_ecr(
        cls,
        tag: str,
        secret: Any = None,
        *,
        setup_dockerfile_commands: Sequence[str] = (),
        force_build: bool = False,
        add_python: Optional[str] = None,
        **kwargs: Any,
    ) -> Image:
        """As ``from_registry``, from AWS ECR: ``secret`` has AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."""
        _nothing_else("from_aws_ecr", kwargs)
        _needs("from_aws_ecr", secret, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        return _from(cls, tag, secret, "aws", setup_dockerfile_commands, force_build, add_python)

    @classmethod
    def from_gcp_artifact_registry(
        cls,
        tag: str,
        secret: Any = None,
        *,
        setup_dockerfile_commands: Sequence[str] = (),
        force_build: bool = False,
        add_python: Optional[str] = None,
        **kwargs: Any,
    ) -> Image:
        """As ``from_registry``, from Google's Artifact Registry: ``secret`` has SERVICE_ACCOUNT_JSON."""
        _nothing_else("from_gcp_artifact_registry", kwargs)
        _needs("from_gcp_artifact_registry", secret, "SERVICE_ACCOUNT_JSON")
        return _from(cls, tag, secret, "gcp", setup_dockerfile_commands, force_build, add_python)

    @classmethod
    def from_scratch(cls, force_build: bool = False) -> Image:
        """Start from nothing. It has no shell and no Python: files and settings are all that can be added."""
        return cls()._with({"op": "scratch"}, How(force_build))  # noqa: SLF001  of its kind


def _from(  # noqa: PLR0913, PLR0917  the public form
    cls: Any,
    tag: Any,
    secret: Any,
    auth: str,
    setup: Sequence[str],
    force_build: bool,
    add_python: Any,
) -> Image:
    if not isinstance(tag, str) or not _TAG.match(tag) or "//" in tag:
        raise InvalidError(
            f"{tag!r} is not the name of an image in a registry",
            hint='for example "python:3.12-slim" or "ghcr.io/owner/name:tag", without https://',
        )
    if isinstance(add_python, float):
        raise TypeError(f'add_python={add_python} is a number, which loses zeros: write "{add_python}"')
    if add_python is not None and not (isinstance(add_python, str) and _PYTHON.match(add_python)):
        raise InvalidError(f"add_python={add_python!r} is not a Python version", hint='write "3.12"')
    op: Dict[str, Any] = {"op": "registry", "tag": tag}
    if auth:
        op["auth"] = auth
    image: Image = cls()._with(op, How(force_build, secrets=(secret,) if secret is not None else ()))  # noqa: SLF001
    commands = word_list(list(setup), "from_registry(setup_dockerfile_commands=…)")
    if commands:
        image = image.dockerfile_commands(commands)
    return image._with({"op": "python", **({"version": add_python} if add_python else {})})  # noqa: SLF001  of its kind


def _nothing_else(where: str, given: Dict[str, Any]) -> None:
    if given:
        raise TypeError(f"Image.{where}() has no parameter {next(iter(given))!r}")


def _needs(where: str, secret: Any, keys: str) -> None:
    if secret is None:
        raise InvalidError(
            f"Image.{where}() needs a secret with {keys}", hint="Image.from_registry() takes public images"
        )
