"""Images to and from other machines: packed into a manifest and a file a layer, and taken in from those.

This is where a cluster will join: one machine's ``packing`` is another's ``taking``, whatever carries the files.

What was imported is known by what it is (the digest of its manifest, the contents of its layers), never by the recipe
that it was built from: a file from elsewhere cannot pass itself off as a step that this machine would build.
Blocking, for threads.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alight.builder import bases, digest, layerfile, portable
from alight.builder.inventory import Inventory
from alight.builder.layers import LayerStore, Record, Workspace
from alight.builder.portable import Layer, Manifest
from alight.wire.errors import ImageBuildError, InvalidError
from alight.wire.spec import ImageSpec


@dataclass(frozen=True)
class Packed:
    """An image ready to leave: its manifest, and the file of each layer in the manifest's order."""

    manifest: bytes
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Arriving:
    """Where the file of a layer is to be written."""

    file: Path
    space: Workspace


class Exchange:
    """Images of the machine whose builder this is."""

    def __init__(self, home: Path, store: LayerStore, inventory: Inventory) -> None:
        self._home = home
        self._store = store
        self._inventory = inventory

    @contextlib.contextmanager
    def packing(self, name: str) -> Iterator[Packing]:
        """A place to put the image of that digest into files, which are gone afterwards. Raises NotFoundError."""
        said = self._inventory.description(name)
        with self._inventory.building(), self._store.workspace() as space:
            yield Packing(said, self._store, space.scratch)

    def missing(self, contents: Iterable[str]) -> tuple[str, ...]:
        """Those of the contents of layers that are not on this machine."""
        return tuple(one for one in contents if not self._store.path(_layer_name(one)).is_dir())

    @contextlib.contextmanager
    def taking(self, name: str, manifest: bytes) -> Iterator[Taking]:
        """Take in the image of this manifest, whose digest is ``name``.

        Raises InvalidError for a manifest that is another one, or cannot be right, or is for other machines.
        """
        if portable.name_of(manifest) != name:
            raise InvalidError(f"the image's manifest is not the one of {name[:12]}")
        content = portable.decode(manifest, bases.machine())
        with self._inventory.building():
            yield Taking(name, content, self._store)


class Packing:
    """An image on its way out."""

    def __init__(self, said: Mapping[str, Any], store: LayerStore, place: Path) -> None:
        self._said = said
        self._store = store
        self._place = place

    def make(self) -> Packed:
        """Pack all of it. Raises ImageBuildError."""
        said = self._said
        titles = {step["layers"][0]: step["title"] for step in said.get("steps", ()) if step["layers"]}
        layers: list[Layer] = []
        files: list[Path] = []
        for number, layer in enumerate(said["layers"]):
            file = self._place / f"{number}.erofs"
            made = layerfile.pack(self._store.path(layer), file)
            files.append(file)
            layers.append(Layer(made.digest, made.size, made.content, titles.get(layer, "")))
        manifest = Manifest(
            bases.machine(),
            tuple(layers),
            said["env"],
            said["workdir"],
            tuple(said.get("shell") or ("/bin/sh", "-c")),
            tuple(said.get("entrypoint") or ()),
            tuple(said.get("cmd") or ()),
            said.get("python") or "",
            said.get("python_version") or "",
            bool(said.get("uv", True)),
        )
        return Packed(manifest.encoded(), tuple(files))


class Taking:
    """An image on its way in: ``arriving`` and ``lay_out`` for each layer that is missing, then ``finish``.

    Layers that came before a failure stay, for the next try.
    """

    def __init__(self, name: str, manifest: Manifest, store: LayerStore) -> None:
        self.manifest = manifest
        self._name = name
        self._store = store

    @contextlib.contextmanager
    def arriving(self) -> Iterator[Arriving]:
        """A place for one layer."""
        with self._store.workspace() as space:
            yield Arriving(space.scratch / "layer.erofs", space)

    def lay_out(self, one: Layer, arrived: Arriving) -> None:
        """Check the file of a layer that arrived, and keep the layer. Raises InvalidError when it is another one."""
        name = _layer_name(one.content)
        if self._store.path(name).is_dir():
            return
        mount_point = arrived.space.scratch / "mounted"
        mount_point.mkdir()
        expected = layerfile.Packed(one.digest, one.size, one.content)
        layerfile.unpack(arrived.file, expected, mount_point, arrived.space.upper)
        try:
            self._store.keep_layer(arrived.space, name)
        except OSError:
            if not self._store.path(name).is_dir():  # or somebody else brought the same meanwhile
                raise

    def finish(self) -> ImageSpec:
        """The image is here; returns its recipe. Raises InvalidError when a layer did not come."""
        names = tuple(_layer_name(one.content) for one in self.manifest.layers)
        absent = [one.title or one.digest for one in self.manifest.layers if not self._there(one)]
        if absent:
            raise InvalidError(f"the image cannot be imported: {len(absent)} of its layers did not come")
        said = self.manifest
        config = {name: getattr(said, name) for name in ("env", "workdir", "shell", "entrypoint", "cmd")}
        facts = {
            "config": json.dumps(config),
            "tag": "",
            "digest": f"sha256:{self._name}",
            "python": said.python,
            "python_version": said.python_version,
            "uv": "1" if said.uv else "",
            **({} if said.python else {"bare": "1"}),
        }
        what = {"op": "imported", "digest": self._name}
        key = digest.step_key(digest.ROOT, what)
        title = f"image imported as {self._name[:12]}"
        self._store.keep_record(key, Record(key, title, names, facts, made_at=time.time()))
        return ImageSpec((what,))

    def _there(self, one: Layer) -> bool:
        return self._store.path(_layer_name(one.content)).is_dir()


def not_here(name: str) -> ImageBuildError:
    """The error of a machine that lost an imported image: there is no recipe to make it by."""
    return ImageBuildError(
        f"the image {name[:12]} was imported, and is not on this machine", hint="`alight image import` it again"
    )


def _layer_name(content: str) -> str:
    return digest.step_key(digest.ROOT, {"content": content})
