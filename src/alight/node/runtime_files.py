"""The library that containers find at /opt/alight/lib: wire, runtime, SDK and cloudpickle, byte-compiled.

One tree per content and Python, read-only in every container. A tree that this process's own Python compiled serves all
images of that Python; for another Python the image's interpreter compiles, in a container, and since an image can be
anybody's making, what it wrote serves that image alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import alight
from alight.builder import BuiltImage, StepRun, StepRunner
from alight.wire import errors

TARGET = "/opt/alight/lib"

#: What a container needs of the package, besides its modules at the root. Everything there runs on Python 3.9.
_PACKAGES = ("compat", "experimental", "runtime", "sdk", "wire")
_COMPILE = (
    "import compileall,py_compile,sys;"
    "ok=compileall.compile_dir(sys.argv[1],quiet=2,"
    "invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,stripdir=sys.argv[1],prependdir=sys.argv[2]);"
    "sys.exit(0 if ok else 1)"
)


class RuntimeFiles:
    """The trees of this node, under ``<home>/runtime``."""

    def __init__(self, home: Path, runner: StepRunner | None) -> None:
        self._home = home / "runtime"
        self._runner = runner
        self._busy = asyncio.Lock()
        self._digest = ""
        self._ready: dict[str, Path] = {}

    async def ready(self, image: BuiltImage) -> Path:
        """The tree for containers of this image; made when it is missing."""
        minor = ".".join(image.python_version.split(".")[:2])
        own = f"{sys.version_info.major}.{sys.version_info.minor}"
        name = minor if minor == own or self._runner is None else f"{minor}-{image.digest[:32]}"
        path = self._ready.get(name)
        if path is not None:
            return path
        async with self._busy:
            if name not in self._ready:
                self._ready[name] = await self._make(name, None if name == minor else image)
        return self._ready[name]

    async def own(self) -> Path:
        """The tree for this process's Python: for containers without an image."""
        own = f"{sys.version_info.major}.{sys.version_info.minor}"
        return await self.ready(BuiltImage("", (), {}, "/root", sys.executable, own))

    async def _make(self, name: str, image: BuiltImage | None) -> Path:
        if not self._digest:
            self._digest = await asyncio.to_thread(_digest)
        path = self._home / self._digest[:32] / name
        if path.is_dir():
            return path
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = path.with_name(f".new-{os.urandom(8).hex()}")
        try:
            await asyncio.to_thread(_copy_to, new)
            if image is None:
                await self._compile_here(new)
            else:
                await self._compile_inside(new, image)
            new.rename(path)
        finally:
            await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)
        return path

    async def _compile_here(self, tree: Path) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", _COMPILE, str(tree), TARGET, stdin=asyncio.subprocess.DEVNULL
        )
        if await process.wait() != 0:
            raise errors.InternalError("Alight's own files could not be compiled")

    async def _compile_inside(self, tree: Path, image: BuiltImage) -> None:
        assert self._runner is not None
        scratch = tree.with_name(tree.name + ".upper")
        said: list[bytes] = []
        try:
            (scratch / "upper").mkdir(parents=True)
            step = StepRun(
                layers=image.layers,
                upper=str(scratch / "upper"),
                argv=(image.python_path, "-I", "-c", _COMPILE, TARGET, TARGET),
                env=dict(image.env),
                cwd="/",
                binds=((str(tree), TARGET, False),),
                network=False,
            )
            status = await self._runner.run(step, said.append)
        finally:
            await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
        if status != 0:
            tail = b"".join(said)[-500:].decode(errors="replace").strip()
            raise errors.ImageBuildError(
                f"the image's Python ({image.python_path}, {image.python_version}) does not run: {tail or status}",
                hint="check that the image's steps leave its Python whole",
            )


def _sources() -> Iterator[tuple[str, Path]]:
    """(path in the tree, file) of all that belongs to it, sorted."""
    package = Path(alight.__file__).parent
    for file in sorted(package.glob("*.py")):
        if file.name != "__main__.py":  # the command line stays outside
            yield f"alight/{file.name}", file
    for name in _PACKAGES:
        for file in sorted((package / name).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                yield f"alight/{file.relative_to(package)}", file
    spec = importlib.util.find_spec("cloudpickle")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent
        for file in sorted(folder.glob("*.py")):
            yield f"cloudpickle/{file.name}", file


def _digest() -> str:
    running = hashlib.sha256(_COMPILE.encode())
    for name, file in _sources():
        running.update(f"\n{name} {file.stat().st_size}\n".encode())
        running.update(file.read_bytes())
    return running.hexdigest()


def _copy_to(tree: Path) -> None:
    for name, file in _sources():
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    for folder, _, _ in os.walk(tree):
        os.chmod(folder, 0o755)
