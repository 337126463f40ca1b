"""The machine's own description of its GPUs for containers (CDI), as NVIDIA's toolkit writes it; YAML or JSON.

Its hooks are programs for root on the host: they make links and refresh the linker's cache in the container. They are
not run. Instead each library is shown under all the names that its links on the host have, in a directory that the
loader searches, so that ``libcuda.so.1`` is found and files of images stay as they are.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alight.node.engine.base import Bind

log = logging.getLogger(__name__)

KIND = "nvidia.com/gpu"
_FOLDERS = ("etc/cdi", "var/run/cdi")
_LIBRARY = re.compile(r"lib[^/]*\.so(\.[^/]*)?")
#: What only the host's kernel and its screens use.
_UNUSED = ("/firmware/", "/xorg/")


@dataclass(frozen=True)
class Edits:
    """What a description says about some GPUs. Devices as they are named; ``binds`` with the libraries' other names."""

    devices: tuple[str, ...] = ()
    binds: tuple[Bind, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


def specs(root: Path = Path("/")) -> list[Mapping[str, Any]]:
    """The descriptions of NVIDIA's GPUs that there are and can be read. ``root`` is for tests."""
    found: list[Mapping[str, Any]] = []
    for folder in _FOLDERS:
        for path in sorted((root / folder).glob("*")):
            if path.suffix not in {".json", ".yaml", ".yml"}:
                continue
            try:
                text = path.read_text(encoding="utf-8")
                spec = json.loads(text) if path.suffix == ".json" else read_yaml(text)
            except (OSError, ValueError) as error:
                log.warning("%s is not read, and the driver's files are looked for: %s", path, error)
                continue
            if isinstance(spec, dict) and spec.get("kind") == KIND:
                found.append(spec)
    return found


def edits(
    described: Iterable[Mapping[str, Any]], names: Sequence[tuple[str, ...]], folder: str, root: Path = Path("/")
) -> Edits | None:
    """What descriptions say about GPUs, each by any of its names; None where none knows them all, or what one says is
    not there any more (of a driver that was replaced since). ``folder`` is where libraries are shown."""
    for spec in described:
        known = {str(device.get("name")): device for device in spec.get("devices") or ()}
        chosen = [next((known[name] for name in one if name in known), None) for one in names]
        if not chosen or any(one is None for one in chosen):
            continue
        parts = [spec.get("containerEdits") or {}, *(one.get("containerEdits") or {} for one in chosen if one)]
        mounts = [
            mount
            for part in parts
            for mount in part.get("mounts") or ()
            if not any(word in mount["containerPath"] for word in _UNUSED)
        ]
        gone = [mount["hostPath"] for mount in mounts if not _at(root, mount["hostPath"]).exists()]
        libraries = [path for path in gone if _LIBRARY.fullmatch(Path(path).name)]
        if libraries:
            log.warning(
                "the CDI description of this machine's GPUs is of another driver, and is not followed: %s is not there "
                "(nvidia-ctk cdi generate writes it anew)", libraries[0],
            )  # fmt: skip
            continue
        devices = [node.get("hostPath") or node["path"] for part in parts for node in part.get("deviceNodes") or ()]
        env = dict(pair.split("=", 1) for part in parts for pair in part.get("env") or () if "=" in pair)
        binds = _binds([mount for mount in mounts if mount["hostPath"] not in gone], folder, root)
        return Edits(tuple(dict.fromkeys(devices)), binds, env)
    return None


def stale(root: Path = Path("/")) -> str:
    """A library that a description names and that is not there: it was written for another driver. "" if all are."""
    for spec in specs(root):
        for mount in (spec.get("containerEdits") or {}).get("mounts") or ():
            path = str(mount.get("hostPath"))
            if _LIBRARY.fullmatch(Path(path).name) and not _at(root, path).exists():
                return path
    return ""


def _binds(mounts: Iterable[Mapping[str, Any]], folder: str, root: Path) -> tuple[Bind, ...]:
    found: dict[str, Bind] = {}
    links: dict[Path, dict[Path, list[str]]] = {}
    for mount in mounts:
        source, target = mount["hostPath"], mount["containerPath"]
        name = Path(target).name
        if not _LIBRARY.fullmatch(name) or not name.startswith(("libcuda", "libnv", "libGL", "libEGL")):
            found.setdefault(target, Bind(source, target, "rw" not in (mount.get("options") or ())))
            continue
        place = _at(root, source)
        beside = links.setdefault(place.parent, _links(place.parent) if place.parent not in links else {})
        for one in (name, *beside.get(place.resolve(), ())):
            found.setdefault(f"{folder}/{one}", Bind(source, f"{folder}/{one}"))
    return tuple(found.values())


def _links(folder: Path) -> dict[Path, list[str]]:
    """The names of links in a directory of libraries, by the file that each leads to."""
    found: dict[Path, list[str]] = {}
    for path in sorted(folder.glob("lib*.so*")):
        if path.is_symlink():
            found.setdefault(path.resolve(), []).append(path.name)
    return found


def _at(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


# YAML, as far as the toolkit writes it: maps and lists by indentation, one plain or quoted word each. Whatever else
# there may be in a file raises ValueError; the driver's files are found without it, too.

_KEY = re.compile(r'("(?:[^"\\]|\\.)*"|[A-Za-z0-9_./-]+):(?: +(.*))?')
_Lines = list[tuple[int, str]]


def read_yaml(text: str) -> Any:
    """Raises ValueError for what the toolkit does not write."""
    lines: _Lines = []
    for line in text.splitlines():
        bare = line.strip()
        if not bare or bare.startswith("#") or bare == "---":
            continue
        if "\t" in line[: len(line) - len(line.lstrip())]:
            raise ValueError(f"a tab at the beginning of {line!r}")
        lines.append((len(line) - len(line.lstrip(" ")), bare))
    found, left = _block(lines, 0)
    if left < len(lines):
        raise ValueError(f"{lines[left][1]!r} is not indented as what is before it")
    return found


def _block(lines: _Lines, at: int) -> tuple[Any, int]:
    """What begins at a line, and the line after its end."""
    if at >= len(lines):
        return None, at
    depth, first = lines[at]
    if first == "-" or first.startswith("- "):
        found = []
        while at < len(lines) and lines[at][0] == depth and (lines[at][1] == "-" or lines[at][1].startswith("- ")):
            rest = lines[at][1][1:].lstrip()
            inner = depth + len(lines[at][1]) - len(rest)
            if rest and not _KEY.fullmatch(rest):
                found.append(_scalar(rest))
                at += 1
            elif rest:  # a map whose first key is behind the dash
                lines[at] = (inner, rest)
                one, at = _block(lines, at)
                found.append(one)
            else:
                one, at = _block(lines, at + 1)
                found.append(one)
        return found, at
    known: dict[str, Any] = {}
    while at < len(lines) and lines[at][0] == depth and not lines[at][1].startswith("- "):
        pair = _KEY.fullmatch(lines[at][1])
        if pair is None:
            raise ValueError(f"{lines[at][1]!r} is no key with a value")
        key = str(_scalar(pair[1]))
        if pair[2]:
            known[key] = _scalar(pair[2])
            at += 1
            continue
        at += 1
        # A list may stand as far left as its key.
        below = at < len(lines) and (lines[at][0] > depth or (lines[at][0] == depth and lines[at][1].startswith("-")))
        known[key], at = _block(lines, at) if below else (None, at)
    return known, at


def _scalar(text: str) -> Any:
    if text.startswith('"'):
        return json.loads(text)
    if text.startswith("'") and text.endswith("'") and len(text) > 1:
        return text[1:-1].replace("''", "'")
    if text in {"[]", "{}"}:
        return [] if text == "[]" else {}
    if text[0] in "&*!|>%@`{[" or " #" in text:
        raise ValueError(f"{text!r} is more of YAML than is read here")
    return {"null": None, "~": None, "true": True, "false": False}.get(text, text)
