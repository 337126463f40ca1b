"""Images of this node: found in a moment when they are here, built once when they are not.

Joins the builder (which knows recipes and layers) with the engine (which runs steps) and the server's blobs (which hold
the files that a recipe copies).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from alight.builder import Builder, BuildEvent, BuiltImage, HostConfig
from alight.link.peer import Stream
from alight.node import image_files, image_work, imageless
from alight.node.runtime_files import RuntimeFiles
from alight.node.steprunner import StepRunner
from alight.node.trees import Trees
from alight.wire import errors
from alight.wire.built import BuiltImageInfo, ImageWork, ImageWorked, Installed
from alight.wire.commands import BuildImage, ImageBuilt
from alight.wire.messages import AppEvent
from alight.wire.spec import ImageSpec

_FILES = frozenset({"export", "missing", "import"})
#: Seconds between two marks that an image is used: well below ``image_work._JUST_USED``.
_USED_EVERY = 3.0
OnEvent = Callable[[BuildEvent], None]
Secrets = Mapping[str, Mapping[str, str]]


class Images:
    """All that this node knows of images."""

    def __init__(
        self, home: Path, runner: StepRunner, trees: Trees, runtime: RuntimeFiles, *, isolates: bool = True
    ) -> None:
        self._home = home
        self._isolates = isolates
        self._runner = runner
        self._trees = trees
        self._runtime = runtime
        self._found: dict[str, BuiltImage] = {}
        self._used_at: dict[str, float] = {}
        self._builder: Builder | None = None

    def sweep(self) -> int:
        """Remove what killed builds left; how many."""
        return self._builder_now().sweep()

    def cached(self, spec: ImageSpec) -> BuiltImage | None:
        """The image if nothing has to be made for it. Steps that are forced count as made once they were.

        Touches a directory per layer, no container.
        """
        known = self._found.get(spec.digest)
        if known is None:
            known = self._builder_now().cached(_unforced(spec))
            if known is not None:
                self._found[spec.digest] = known
        elif not all(Path(layer).is_dir() for layer in known.layers):
            del self._found[spec.digest]
            return None
        return known

    async def ready(self, spec: ImageSpec, python_version: str, secrets: Secrets | None = None) -> BuiltImage:
        """The image, built if need be, for a container that starts now. Nobody watches the build's log here."""
        spec = with_python(spec, python_version)
        image = self.cached(spec)
        if image is None:
            image = await self.build(_unforced(spec), secrets or {}, lambda _: None)
            self._found[spec.digest] = image
        await self._say_used(image)
        if not image.python_path:
            raise errors.InvalidError(
                "the image has no Python, and functions need one",
                hint="Image.from_registry() finds the one of its image, or adds one; from_scratch() has nothing to run",
            )
        return image

    async def _say_used(self, image: BuiltImage) -> None:
        """For who clears images up. A container that starts waits for it once in a while only."""
        now = time.monotonic()
        if now - self._used_at.get(image.digest, -_USED_EVERY) >= _USED_EVERY:
            self._used_at[image.digest] = now
            await asyncio.to_thread(self._builder_now().inventory.used, image.digest)

    async def build(self, spec: ImageSpec, secrets: Secrets, on_event: OnEvent, owner: str = "default") -> BuiltImage:
        """Make what is missing. Raises ImageBuildError, InvalidError."""
        image = await self._builder_now(fresh=True).build(spec, secrets, on_event, owner)
        # Now, so that the first container need not compile the runtime for this Python.
        if image.python_path:
            await self._runtime.ready(image)
        if spec != _unforced(spec):
            self._found.clear()  # other recipes may stand on the steps that were renewed
        self._found[spec.digest] = image
        return image

    async def serve_build(self, stream: Stream) -> None:
        """Answer ``node.build``: events as they come, then ImageBuilt."""
        asked = stream.arguments(BuildImage)
        if not self._isolates:
            await imageless.serve_build(stream, asked)
            return
        spec = with_python(asked.image, asked.python_version)
        if asked.force and spec.steps:
            first, *rest = spec.steps
            spec = ImageSpec((({**first, "force": True}), *rest))
        forced = any(step.get("force") or step.get("ignore") for step in spec.steps)
        known = None if forced else self.cached(spec)
        if known is not None:
            self._builder_now().inventory.used(known.digest, asked.image_id)
        if known is not None or asked.only_cached:
            await stream.send(ImageBuilt(asked.image_id if known is not None else ""))
            return
        begun = time.monotonic()
        said = _Saying(stream, asked.image_id)
        build = asyncio.ensure_future(self.build(spec, asked.secrets, said.on_event))
        gone = asyncio.ensure_future(stream.wait_broken())
        try:
            await asyncio.wait({build, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not build.done():
                return  # nobody waits for it any more: a build that nobody watches would go on unseen
            self._builder_now().inventory.used((await build).digest, asked.image_id)
        finally:
            gone.cancel()
            build.cancel()
            await asyncio.gather(build, gone, return_exceptions=True)
            await said.close()
        await stream.send(ImageBuilt(asked.image_id, built=said.built, seconds=time.monotonic() - begun))

    async def serve_work(self, stream: Stream, running: Iterable[tuple[ImageSpec, str]]) -> None:
        """Answer ``node.images``. ``running`` are the recipes of containers that are there."""
        inventory = self._builder_now().inventory
        asked = stream.arguments(ImageWork)
        if asked.verb == "lock":
            await self._describe(stream)
            return
        if asked.verb in _FILES:
            await self._exchange(stream, asked)
            return
        now = [self.cached(with_python(spec, python)) for spec, python in running]
        await image_work.serve(stream, inventory, {one.digest for one in now if one is not None})

    async def _exchange(self, stream: Stream, asked: ImageWork) -> None:
        builder = self._builder_now()
        if not self._isolates:
            raise errors.UnimplementedError("this node runs functions as bare processes, and has no images")
        if asked.verb == "export":
            await image_files.send(stream, builder, asked)
        elif asked.verb == "missing":
            await image_files.missing(stream, builder, asked)
        else:

            def kept(spec: ImageSpec, image_id: str) -> BuiltImageInfo:
                image = builder.cached(spec)
                if image is None:
                    raise errors.InternalError("an image that was just imported is not there")
                builder.inventory.used(image.digest, image_id)
                return builder.inventory.find(image.digest)

            await image_files.receive(stream, builder, asked, kept)

    async def _describe(self, stream: Stream) -> None:
        asked = stream.arguments(ImageWork)
        spec = with_python(asked.recipe or ImageSpec(), asked.python_version)
        found = await self._builder_now(fresh=True).describe(_unforced(spec))
        await stream.send(ImageWorked(installed=tuple(Installed(dict(one)) for one in found)))

    def _builder_now(self, *, fresh: bool = False) -> Builder:
        # The machine's pip, uv and apt settings may have changed since the last build.
        if self._builder is None or fresh:
            self._builder = Builder(self._home, self._runner, HostConfig.read(), self._trees.lay, self._trees.lend)
        return self._builder


class _Saying:
    """Build events on their way to the server, in order, without stopping the build for a slow reader."""

    def __init__(self, stream: Stream, image_id: str) -> None:
        self._stream = stream
        self._image_id = image_id
        self._queue: asyncio.Queue[AppEvent | None] = asyncio.Queue()
        self._task = asyncio.get_running_loop().create_task(self._send())
        self.built = False

    def on_event(self, event: BuildEvent) -> None:
        if event.kind == "finished":
            self.built = True
        state = "" if event.kind in ("log", "waiting") else event.kind
        text = event.line if event.kind == "log" else _headline(event)
        self._queue.put_nowait(AppEvent("build", image_id=self._image_id, state=state, text=text, time=time.time()))

    async def close(self) -> None:
        self._queue.put_nowait(None)
        await self._task

    async def _send(self) -> None:
        try:
            while (event := await self._queue.get()) is not None:
                await self._stream.send(event)
        except errors.Error:
            return  # the build's end is told to whoever still listens


def _headline(event: BuildEvent) -> str:
    step = f"step {event.step}/{event.total}: {event.title}"
    if event.kind == "cached":
        return f"{step} (cached)"
    if event.kind == "finished":
        return f"{step} took {event.seconds:.1f} s"
    if event.kind == "waiting":
        return f"{step} is being made by another build: waiting for it"
    return step


def with_python(spec: ImageSpec, python_version: str) -> ImageSpec:
    """The recipe with the asked Python filled in where it says "the caller's"."""
    minor = ".".join(python_version.split(".")[:2])
    steps: list[dict[str, Any]] = []
    for step in spec.steps:
        filled = dict(step)
        if filled.get("op") == "debian_slim" and not filled.get("python") and minor:
            filled["python"] = minor
        steps.append(filled)
    return replace(spec, steps=tuple(steps))


def _unforced(spec: ImageSpec) -> ImageSpec:
    steps = ({key: value for key, value in step.items() if key not in ("force", "ignore")} for step in spec.steps)
    return replace(spec, steps=tuple(steps))
