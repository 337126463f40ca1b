"""The images of a machine as people look at them: what each is made of, how large it is, when it was used; and clearing
up. Works on the layer store's files, and never while a build adds to them.

    images/<digest>.used      touched at each use; holds the server's ids of the image
    layers/<layer>.size       bytes on disk of a layer, which never change
    layers/<key>.log          what the step of that name said when it was made
    layers/<key>.what         what it was asked to make, to say later what changed
    layers/gc.lock            shared by builds, exclusive for clearing up
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from alight.builder import explain, gc, installed
from alight.wire.built import BuiltImageInfo, BuiltLayer
from alight.wire.errors import ConflictError, NotFoundError

_LOG_MOST = 2_000  # lines that are kept of a step
_UNFINISHED = 86400.0  # seconds that finished steps of a failed build are kept


class Inventory:
    """Images under ``home`` (the node's directory)."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._images = home / "images"
        self._layers = home / "layers"

    # while building

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Nothing is cleared up meanwhile."""
        with self._locked(fcntl.LOCK_SH):
            yield

    def used(self, digest: str, image_id: str = "") -> None:
        """An image is used now, by the server under that id."""
        path = self._images / f"{digest}.used"
        with contextlib.suppress(FileNotFoundError):
            if not image_id or image_id in path.read_text().split():
                os.utime(path)
                return
        with path.open("a") as file:
            file.write(f"{image_id}\n" if image_id else "")

    def remember(self, parent: str, key: str, what: Mapping[str, Any], lines: list[str]) -> None:
        """What the step of that name was asked and what it said. Neither holds secrets any more."""
        (self._layers / f"{key}.what").write_text(json.dumps({"parent": parent, "what": dict(what)}))
        (self._layers / f"{key}.log").write_text("\n".join(lines[-_LOG_MOST:]) + "\n" if lines else "")

    def explain(self, parent: str, key: str, what: Mapping[str, Any]) -> str:
        """Why the step of that name is made and not found: a line, or ""."""
        earlier, elsewhere = [], False
        for path in self._layers.glob("*.what"):
            with contextlib.suppress(OSError, ValueError):
                content = json.loads(path.read_bytes())
                if content["parent"] == parent and path.stem != key:
                    earlier.append(content["what"])
                elsewhere = elsewhere or (content["parent"] != parent and content["what"] == what)
        return explain.why(what, earlier) or (explain.ELSEWHERE if elsewhere else "")

    # looking

    def look(self, needed: Collection[str] = ()) -> list[BuiltImageInfo]:
        """Every image, the last used first. ``needed``: ids and digests that somebody uses."""
        found = list(self._read())
        shared = Counter(layer for _, content in found for layer in set(content["layers"]))
        sizes = {layer: self._size(layer) for layer in shared}
        images = [self._described(digest, content, shared, sizes, needed) for digest, content in found]
        return sorted(images, key=lambda one: one.used_at, reverse=True)

    def find(self, name: str, needed: Collection[str] = ()) -> BuiltImageInfo:
        """The image of an id or the beginning of a digest. Raises NotFoundError."""
        found = [one for one in self.look(needed) if name in one.ids or one.digest.startswith(name)]
        if name and len({one.digest for one in found}) == 1:
            return found[0]
        raise NotFoundError(
            f"{'several images begin' if found else 'no image on this machine begins'} with {name!r}",
            hint="`alight image list` shows them",
        )

    def description(self, digest: str) -> dict[str, Any]:
        """All that is kept of an image. Raises NotFoundError."""
        content = self._content(digest)
        if not content:
            raise NotFoundError(
                f"no image on this machine begins with {digest!r}", hint="`alight image list` shows them"
            )
        return content

    def log(self, image: BuiltImageInfo) -> list[str]:
        """What the steps of an image said when they were made, in order."""
        lines: list[str] = []
        for step in self._content(image.digest).get("steps", ()):
            lines.append(f"── {step['title']}")
            with contextlib.suppress(OSError):
                lines += (self._layers / f"{step['name']}.log").read_text().splitlines()
        return lines

    def installed(self, image: BuiltImageInfo) -> dict[str, list[str]]:
        """What is installed in an image, by kind: lines as "six==1.16.0"."""
        return installed.packages(self._layers / one.layer for one in image.layers)

    # clearing up

    def clear(
        self,
        *,
        needed: Collection[str],
        named: Collection[str] = (),
        older_than: float | None = None,
        most_bytes: int | None = None,
        dry_run: bool = False,
    ) -> tuple[list[BuiltImageInfo], int]:
        """Remove images as `gc.plan` says; which, and how many bytes. Raises ConflictError while something is built."""
        with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
            images = self.look(needed)
            there = [path.name for path in self._layers.iterdir() if _is_layer(path)]
            sizes = {layer: self._size(layer) for layer in there}
            held = [
                gc.Held(one.digest, frozenset(layer.layer for layer in one.layers), one.used_at, one.in_use)
                for one in images
            ]
            held.append(gc.Held("", self._unfinished(there, held), time.time(), needed=True))
            plan = gc.plan(
                held, sizes, now=time.time(), older_than=older_than, most_bytes=most_bytes, named=frozenset(named)
            )
            if not dry_run:
                self._remove(plan)
        return [one for one in images if one.digest in plan.images], sum(sizes[layer] for layer in plan.layers)

    def clear_caches(self) -> int:
        """Remove package caches and buildah's storage, which only make builds faster; how many bytes that was."""
        with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
            freed = 0
            for folder in (self._home / "cache", self._home / "buildah"):
                freed += _bytes_below(folder)
                shutil.rmtree(folder, ignore_errors=True)
            return freed

    def _unfinished(self, there: Collection[str], held: Collection[gc.Held]) -> frozenset[str]:
        """Layers that no image stands on and that are young: of a build that failed at a later step, and that somebody
        is about to mend.
        """
        orphans = frozenset(there) - frozenset[str]().union(*(one.layers for one in held))
        young: set[str] = set()
        for path in self._layers.glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                if path.stat().st_mtime > time.time() - _UNFINISHED:
                    young |= orphans & set(json.loads(path.read_bytes()).get("layers", ()))
        return frozenset(young)

    def _remove(self, plan: gc.Plan) -> None:
        # Images first, then what finds layers, then layers: a crash in between leaves nothing that names what is gone.
        for digest in plan.images:
            for path in self._images.glob(f"{digest}.*"):
                path.unlink(missing_ok=True)
        for path in self._layers.glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                if plan.layers & set(json.loads(path.read_bytes()).get("layers", ())):
                    path.unlink()
                    for ending in (".log", ".what"):
                        path.with_suffix(ending).unlink(missing_ok=True)
        for layer in plan.layers:
            doomed = self._layers / f"tmp-gone-{layer}"  # a name that the next sweep finishes off
            (self._layers / layer).rename(doomed)
            for ending in ("size", "installed"):
                (self._layers / f"{layer}.{ending}").unlink(missing_ok=True)
            shutil.rmtree(doomed)

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        self._layers.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._layers / "gc.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, how)
            except BlockingIOError:
                raise ConflictError("an image is being built, and nothing is removed meanwhile") from None
            yield
        finally:
            os.close(lock)

    def _read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in self._images.glob("*.json"):
            content = self._content(path.stem)
            if content and all((self._layers / layer).is_dir() for layer in content["layers"]):
                yield path.stem, content

    def _content(self, digest: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self._images / f"{digest}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return content

    def _described(
        self,
        digest: str,
        content: Mapping[str, Any],
        shared: Mapping[str, int],
        sizes: Mapping[str, int],
        needed: Collection[str],
    ) -> BuiltImageInfo:
        steps = {step["layers"][0]: step for step in content.get("steps", ()) if step["layers"]}
        layers = tuple(
            BuiltLayer(
                layer,
                steps.get(layer, {}).get("title", ""),
                sizes[layer],
                steps.get(layer, {}).get("seconds", 0.0),
                steps.get(layer, {}).get("made_at", 0.0),
                shared[layer] - 1,
            )
            for layer in content["layers"]
        )
        made = (self._images / f"{digest}.json").stat().st_mtime
        ids: tuple[str, ...] = ()
        used = made
        with contextlib.suppress(OSError):
            mark = self._images / f"{digest}.used"
            ids, used = tuple(mark.read_text().split()), mark.stat().st_mtime
        titles = [step["title"] for step in content.get("steps", ())]
        return BuiltImageInfo(
            digest=digest,
            ids=ids,
            python_version=content.get("python_version", ""),
            base=(content.get("base") or {}).get("digest", ""),
            title=titles[-1] if titles else "",
            made_at=made,
            used_at=used,
            in_use=digest in needed or any(one in needed for one in ids),
            bytes=sum(sizes[layer] for layer in set(content["layers"])),
            own_bytes=sum(sizes[layer] for layer in set(content["layers"]) if shared[layer] == 1),
            layers=layers,
        )

    def _size(self, layer: str) -> int:
        path = self._layers / f"{layer}.size"
        with contextlib.suppress(OSError, ValueError):
            return int(path.read_text())
        size = _bytes_below(self._layers / layer)
        with contextlib.suppress(OSError):
            path.write_text(str(size))
        return size


def _is_layer(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith("tmp-")


def _bytes_below(root: Path) -> int:
    """Bytes on disk, a file with several names once."""
    seen: set[int] = set()
    total = 0
    for folder, _, files in os.walk(root):
        for name in files:
            with contextlib.suppress(OSError):
                info = os.lstat(os.path.join(folder, name))
                if info.st_ino not in seen:
                    seen.add(info.st_ino)
                    total += info.st_blocks * 512
    return total
