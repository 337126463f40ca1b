"""What is installed in layers: Python packages, Debian packages and conda's, read from the files that installers leave.

No container is started. The files are a user's: nothing here follows a link, and what cannot be read is not there.

    layers/<layer>.installed    what one layer changed, since layers never change
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SITES = frozenset({"site-packages", "dist-packages"})
_DIST_INFO = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._]*)-(?P<version>[^-/]+)\.(?:dist|egg)-info$")
_CONDA = re.compile(r"^(?P<name>.+)-(?P<version>[^-]+)-(?P<build>[^-]+)\.json$")
#: Directories of large images that hold no packages, and mount points.
_PASSED = frozenset({"proc", "sys", "dev", "__pycache__", ".git", "share", "include", "doc"})
_MOST = 1 << 20  # bytes of a file that says where a package came from
_STATUS_MOST = 64 << 20
_DEEPEST = 12


@dataclass(frozen=True)
class Change:
    """What one layer changes: ``found`` by kind ("pip", "apt", "conda") and key, ``gone`` keys of pip and conda.

    A key of pip and conda is the path of the file that says so; the value a line that installs the same again, after
    the package's name: ("six", "six==1.16.0"). ``apt`` holds all packages of the layers so far, when any changed.
    """

    pip: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    conda: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    apt: Mapping[str, str] | None = None
    gone: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    """What is installed after some layers. ``pip`` and ``conda`` by path, ``apt`` versions by name."""

    pip: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    conda: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    apt: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> dict[str, list[str]]:
        """By kind, what installs the same again, in order."""
        return {
            "pip": sorted({line for _, line in self.pip.values()}, key=str.lower),
            "apt": [f"{name}={version}" for name, version in sorted(self.apt.items())],
            "conda": sorted({line for _, line in self.conda.values()}),
        }


def packages(layers: Iterable[Path]) -> dict[str, list[str]]:
    """What is installed in an image of these layers, topmost first, by kind."""
    return after(reversed(tuple(layers))).lines()


def after(layers: Iterable[Path]) -> State:
    """What is installed once all of ``layers``, the lowest first, lie on each other."""
    now = State()
    for layer in layers:
        now = applied(now, change(layer))
    return now


def applied(before: State, one: Change) -> State:
    """The state with a layer on top."""

    def without(found: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
        return {
            path: what
            for path, what in found.items()
            if not any(path == gone or path.startswith(f"{gone}/") for gone in one.gone)
        }

    return State(
        {**without(before.pip), **one.pip},
        {**without(before.conda), **one.conda},
        before.apt if one.apt is None else one.apt,
    )


def added(before: State, now: State) -> dict[str, list[str]]:
    """By kind, what ``now`` has and ``before`` had not, or had in another version."""
    known = before.lines()
    return {kind: [line for line in lines if line not in set(known[kind])] for kind, lines in now.lines().items()}


def change(layer: Path) -> Change:
    """What a layer changes; kept beside it, where that can be written."""
    kept = layer.with_name(f"{layer.name}.installed")
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        raw = json.loads(kept.read_bytes())
        pairs = {kind: {path: (one[0], one[1]) for path, one in raw[kind].items()} for kind in ("pip", "conda")}
        return Change(pairs["pip"], pairs["conda"], raw["apt"], tuple(raw["gone"]))
    found = look(layer)
    with contextlib.suppress(OSError):
        said = {"pip": found.pip, "conda": found.conda, "apt": found.apt, "gone": found.gone}
        kept.write_text(json.dumps(said, default=dict))
    return found


def look(layer: Path) -> Change:
    """What a layer changes, from its files."""
    pip: dict[str, tuple[str, str]] = {}
    conda: dict[str, tuple[str, str]] = {}
    gone: list[str] = []
    root = os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder, inside, descriptor in _folders(root):
            if _opaque(descriptor):
                gone.append(inside)
            for entry in folder:
                path = f"{inside}/{entry.name}" if inside else entry.name
                if _is_whiteout(entry):
                    gone.append(path)
                    continue
                place = inside.rpartition("/")[2]
                if place in _SITES and (found := _DIST_INFO.match(entry.name)):
                    pip[path] = _requirement(found, descriptor, entry)
                elif place == "conda-meta" and (named := _CONDA.match(entry.name)):
                    conda[path] = _conda(named, descriptor, entry)
        status = _text(root, "var/lib/dpkg/status", _STATUS_MOST)
    finally:
        os.close(root)
    return Change(pip, conda, None if status is None else debian(status), tuple(gone))


def debian(status: str) -> dict[str, str]:
    """Versions by name, from dpkg's status file. Removed packages of which settings are left are not there."""
    found: dict[str, str] = {}
    for block in status.split("\n\n"):
        facts = dict(line.partition(": ")[::2] for line in block.splitlines() if line[:1].strip())
        if facts.get("Status", "").endswith(" installed") and facts.get("Package"):
            found[facts["Package"]] = facts.get("Version", "")
    return found


def _folders(root: int) -> Iterator[tuple[list[os.DirEntry[str]], str, int]]:
    """Directories of a layer with their entries and an open descriptor, none reached through a link. The insides of
    packages are left out.
    """
    waiting: list[tuple[str, int]] = [("", 0)]
    while waiting:
        inside, depth = waiting.pop()
        try:
            descriptor = _open_folder(root, inside)
        except OSError:
            continue
        try:
            with os.scandir(descriptor) as entries:
                found = list(entries)
            deeper = [one.name for one in found if one.name not in _PASSED and one.is_dir(follow_symlinks=False)]
            yield found, inside, descriptor
        except OSError:
            continue
        finally:
            os.close(descriptor)
        if depth < _DEEPEST and inside.rpartition("/")[2] not in _SITES:
            waiting += [(f"{inside}/{name}" if inside else name, depth + 1) for name in deeper]


def _open_folder(root: int, inside: str) -> int:
    folder = os.dup(root)
    for part in filter(None, inside.split("/")):
        try:
            deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)
        folder = deeper
    return folder


def _is_whiteout(entry: os.DirEntry[str]) -> bool:
    """Whether overlayfs says with it that a lower layer's file is gone."""
    if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False) or entry.is_symlink():
        return False
    with contextlib.suppress(OSError):
        info = entry.stat(follow_symlinks=False)
        return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
    return False


def _opaque(descriptor: int) -> bool:
    with contextlib.suppress(OSError, AttributeError):
        return os.getxattr(descriptor, "trusted.overlay.opaque") == b"y"
    return False


def _requirement(found: re.Match[str], folder: int, entry: os.DirEntry[str]) -> tuple[str, str]:
    """The package's name, and the line that installs it again: from where it came if that was no index."""
    name, version = re.sub(r"[-_.]+", "-", found["name"]).lower(), found["version"]
    plain = (name, f"{name}=={version}")
    with contextlib.suppress(OSError, ValueError):
        origin = _json(folder, f"{entry.name}/direct_url.json")
        url = str(origin.get("url", ""))
        commit = (origin.get("vcs_info") or {}).get("commit_id")
        if commit:
            below = f"#subdirectory={origin['subdirectory']}" if origin.get("subdirectory") else ""
            return name, f"{name} @ git+{url}@{commit}{below}"
        if url.startswith(("https://", "http://")):
            return name, f"{name} @ {url}"
    return plain


def _conda(found: re.Match[str], folder: int, entry: os.DirEntry[str]) -> tuple[str, str]:
    with contextlib.suppress(OSError, ValueError):
        said = _json(folder, entry.name)
        if said.get("url"):
            digest = f"#{said['md5']}" if said.get("md5") else ""
            return str(said.get("name") or found["name"]), f"{said['url']}{digest}"
    return found["name"], f"{found['name']}={found['version']}={found['build']}"


def _json(folder: int, path: str) -> Mapping[str, Any]:
    text = _text(folder, path, _MOST)
    raw = json.loads(text or "{}")
    return raw if isinstance(raw, dict) else {}


def _text(folder: int, path: str, most: int) -> str | None:
    """A regular file's text, with no link on the way; None where there is none."""
    try:
        place = _open_folder(folder, path.rpartition("/")[0])
    except OSError:
        return None
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(path.rpartition("/")[2], flags, dir_fd=place)
    except OSError:
        return None
    finally:
        os.close(place)
    with os.fdopen(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            return None
        return opened.read(most).decode("utf-8", errors="replace")
