"""What a registry says of an image: indexes, manifests and configurations. Nothing here talks to anybody."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alight.wire.errors import ImageBuildError

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
ACCEPT = ", ".join((*_MANIFESTS, *_INDEXES))

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Descriptor:
    """A blob by digest ("sha256:…"), with its size in bytes."""

    digest: str
    size: int
    media_type: str = ""


@dataclass(frozen=True)
class Manifest:
    """``layers``: the bottom one first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True)
class Config:
    """What of an image's configuration means something here. ``user`` is kept to show: functions run as root."""

    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    user: str = ""
    diff_ids: tuple[str, ...] = ()


def architecture(machine: str) -> str:
    """A processor's name as registries write it: "x86_64" is "amd64"."""
    return _ARCHITECTURES.get(machine, machine)


def choose(body: bytes, machine: str, name: str) -> str | Manifest:
    """The manifest in ``body``, or the digest of the one for this machine when ``body`` is an index.

    Raises: ImageBuildError for what is no image, or none for this machine.
    """
    content = _json(body, name)
    kind = str(content.get("mediaType") or "")
    if kind in _INDEXES or (not kind and "manifests" in content):
        return _from_index(content, machine, name)
    if kind not in ("", *_MANIFESTS) or "layers" not in content:
        what = f"a manifest of type {kind or content.get('schemaVersion')!r}"
        raise ImageBuildError(
            f"{name} is not an image that can be unpacked: the registry has {what}",
            hint="push it again with a current tool, which writes an OCI or a Docker version 2 manifest",
        )
    layers = tuple(_descriptor(one, name) for one in _list(content, "layers"))
    foreign = [one.media_type for one in layers if "foreign" in one.media_type or "windows" in one.media_type]
    config = _descriptor(content.get("config"), name)
    if foreign or not ("image.config" in config.media_type or "container.image" in config.media_type):
        raise ImageBuildError(
            f"{name} is not an image of Linux: the registry has {foreign[0] if foreign else config.media_type!r} there"
        )
    return Manifest(config, layers)


def read_config(body: bytes, machine: str, name: str) -> Config:
    """Raises ImageBuildError when the configuration is of another architecture, or is none."""
    content = _json(body, name)
    built_for = str(content.get("architecture") or architecture(machine))
    if built_for != architecture(machine) or str(content.get("os") or "linux") != "linux":
        raise _wrong_machine(name, machine, [f"{content.get('os', 'linux')}/{built_for}"])
    inner = content.get("config") or {}
    rootfs = content.get("rootfs") or {}
    if not isinstance(inner, dict) or not isinstance(rootfs, dict):
        raise _unreadable(name)
    env = dict(str(one).partition("=")[::2] for one in _list(inner, "Env"))
    return Config(
        env={key: value for key, value in env.items() if key and "\0" not in key + value},
        workdir=str(inner.get("WorkingDir") or ""),
        entrypoint=tuple(map(str, _list(inner, "Entrypoint"))),
        cmd=tuple(map(str, _list(inner, "Cmd"))),
        shell=tuple(map(str, _list(inner, "Shell"))),
        user=str(inner.get("User") or ""),
        diff_ids=tuple(map(str, _list(rootfs, "diff_ids"))),
    )


def _from_index(content: Mapping[str, Any], machine: str, name: str) -> str:
    wanted = architecture(machine)
    offered = []
    for one in _list(content, "manifests"):
        if not isinstance(one, dict):
            raise _unreadable(name)
        platform = one.get("platform") or {}
        system, processor = str(platform.get("os") or ""), str(platform.get("architecture") or "")
        variant = str(platform.get("variant") or "")
        if (system, processor) == ("linux", wanted) and variant in ("", "v8", "v1"):
            return _descriptor(one, name).digest
        if system != "unknown":  # attestations have such a platform
            offered.append("/".join(part for part in (system, processor, variant) if part))
    raise _wrong_machine(name, machine, offered)


def _wrong_machine(name: str, machine: str, offered: Sequence[str]) -> ImageBuildError:
    return ImageBuildError(
        f"{name} has nothing for this machine (linux/{architecture(machine)}): "
        f"there is {', '.join(dict.fromkeys(offered)) or 'nothing'}",
        hint="choose a tag that has this architecture, or run the function on a machine of another one",
    )


def _descriptor(raw: Any, name: str) -> Descriptor:
    if not isinstance(raw, dict) or not isinstance(raw.get("size"), int) or raw["size"] < 0:
        raise _unreadable(name)
    digest = str(raw.get("digest"))
    if not _DIGEST.fullmatch(digest):
        raise ImageBuildError(f"{name} names a part by {digest[:80]!r}, which is not a sha256 digest")
    return Descriptor(digest, raw["size"], str(raw.get("mediaType") or ""))


def _json(body: bytes, name: str) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise _unreadable(name) from None
    if not isinstance(content, dict):
        raise _unreadable(name)
    return content


def _list(content: Mapping[str, Any], key: str) -> list[Any]:
    value = content.get(key)
    return value if isinstance(value, list) else []


def _unreadable(name: str) -> ImageBuildError:
    return ImageBuildError(f"what the registry says of {name} cannot be understood")
