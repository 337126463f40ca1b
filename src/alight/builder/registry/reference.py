"""Names of images in registries: "nvidia/cuda:12.8.1-devel-ubuntu24.04" taken apart by the rules that people know."""

from __future__ import annotations

import re
from dataclasses import dataclass

from alight.wire.errors import InvalidError

DEFAULT_HOST = "docker.io"

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?")
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """``host`` as in the name (docker.io when it has none); ``digest`` wins over ``tag``."""

    host: str
    repository: str
    tag: str = "latest"
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}" + (f"@{self.digest}" if self.digest else f":{self.tag}")

    @property
    def wanted(self) -> str:
        """What the registry is asked for."""
        return self.digest or self.tag


def parse(text: str) -> Reference:
    """Raises InvalidError for what cannot be the name of an image."""
    name, _, digest = text.partition("@")
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        host, path = first, rest
    else:
        host, path = DEFAULT_HOST, name
    if host == "index.docker.io":
        host = DEFAULT_HOST
    repository, _, tag = path.partition(":")
    if host == DEFAULT_HOST and "/" not in repository:
        repository = f"library/{repository}"
    valid = (
        _HOST.fullmatch(host)
        and _REPOSITORY.fullmatch(repository)
        and (_TAG.fullmatch(tag) if ":" in path else True)
        and (_DIGEST.fullmatch(digest) if "@" in text else True)
    )
    if not valid:
        raise InvalidError(
            f"{text!r} is not the name of an image in a registry",
            hint='for example "python:3.12-slim", "ghcr.io/owner/name:tag" or "name@sha256:…" (names are lower case)',
        )
    return Reference(host, repository, tag or "latest", digest)
