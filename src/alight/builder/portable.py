"""Images as they travel between machines: a manifest that names one file a layer. Pure: nothing here touches a disk.

    manifest     canonical JSON; its sha256 names the image
    layers       topmost first; of each: the sha256 and size of its file, and the digest of what is in it (``content``)

A manifest holds no path: where a file lies follows from its digest. It may come from anybody, so all of it is checked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from alight.wire.errors import InvalidError

_FORMAT = 1
#: Bytes that a manifest may have, and layers.
MOST_BYTES = 4 << 20
MOST_LAYERS = 500
_LARGEST_FILE = 1 << 44
_DIGEST = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"(?:\d+\.\d+(?:\.\d+)?)?")
_NAME = re.compile(r"[^=\0]+")


@dataclass(frozen=True)
class Layer:
    """One layer: ``digest`` (sha256) and ``size`` of its file, ``content`` as ``layerfile.content_of`` says it."""

    digest: str
    size: int
    content: str
    title: str = ""


@dataclass(frozen=True)
class Manifest:
    """An image: its layers, topmost first, and how commands and functions run in it."""

    machine: str
    layers: tuple[Layer, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/root"
    shell: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    python: str = ""
    python_version: str = ""
    uv: bool = True

    def encoded(self) -> bytes:
        """The manifest as it is kept and sent."""
        plain = {"alight_image": _FORMAT, **asdict(self)}
        return json.dumps(plain, separators=(",", ":"), sort_keys=True).encode()


def name_of(encoded: bytes) -> str:
    """The digest that names an image."""
    return hashlib.sha256(encoded).hexdigest()


def decode(encoded: bytes, machine: str) -> Manifest:
    """The manifest in these bytes, for a machine of that kind. Raises InvalidError for one that cannot be right."""
    if len(encoded) > MOST_BYTES:
        raise _bad(f"its manifest has {len(encoded)} bytes")
    try:
        raw = json.loads(encoded)
    except ValueError as error:
        raise _bad(f"its manifest cannot be read: {error}") from error
    if not isinstance(raw, dict) or raw.pop("alight_image", None) != _FORMAT:
        raise _bad("its manifest is of no version that this Alight knows")
    if set(raw) - set(Manifest.__dataclass_fields__):
        raise _bad("its manifest holds what no manifest has")
    made_for = raw.get("machine")
    if made_for != machine:
        raise InvalidError(
            f"the image was made for {made_for!r}, and this machine is {machine}", hint="build it here instead"
        )
    layers = raw.get("layers")
    if not isinstance(layers, list) or not 0 < len(layers) <= MOST_LAYERS:
        raise _bad(f"it must have 1 to {MOST_LAYERS} layers")
    return Manifest(
        machine=machine,
        layers=tuple(_layer(one) for one in layers),
        env=_env(raw.get("env", {})),
        workdir=_absolute("workdir", raw.get("workdir", "/root")),
        **{name: _words(name, raw.get(name, [])) for name in ("shell", "entrypoint", "cmd")},
        python=_absolute("python", raw.get("python", "")) if raw.get("python") else "",
        python_version=_text("python_version", raw.get("python_version", ""), _VERSION),
        uv=raw.get("uv") is True,
    )


def _layer(raw: Any) -> Layer:
    if not isinstance(raw, dict) or set(raw) - set(Layer.__dataclass_fields__):
        raise _bad("a layer in its manifest holds what no layer has")
    size = raw.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= _LARGEST_FILE:
        raise _bad(f"a layer in its manifest has the size {size!r}")
    title = raw.get("title", "")
    return Layer(
        _text("digest", raw.get("digest"), _DIGEST),
        size,
        _text("content", raw.get("content"), _DIGEST),
        "".join(one for one in title if one.isprintable())[:200] if isinstance(title, str) else "",
    )


def _env(raw: Any) -> dict[str, str]:
    fits = isinstance(raw, dict) and all(
        isinstance(name, str) and _NAME.fullmatch(name) and isinstance(value, str) and "\0" not in value
        for name, value in raw.items()
    )
    if not fits:
        raise _bad("its environment variables are no names with texts")
    return dict(raw)


def _absolute(name: str, raw: Any) -> str:
    if not isinstance(raw, str) or not raw.startswith("/") or "\0" in raw or ".." in raw.split("/"):
        raise _bad(f"its {name} is {raw!r}, and not an absolute path")
    return raw


def _words(name: str, raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(one, str) and "\0" not in one for one in raw):
        raise _bad(f"its {name} is no list of text")
    return tuple(raw)


def _text(name: str, raw: Any, pattern: re.Pattern[str]) -> str:
    if not isinstance(raw, str) or not pattern.fullmatch(raw):
        raise _bad(f"its manifest has {raw!r} for a {name}")
    return raw


def _bad(what: str) -> InvalidError:
    return InvalidError(f"the image cannot be imported: {what}")
