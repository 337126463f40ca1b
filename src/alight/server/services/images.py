"""Images: recipes get ids here; machines build them, one at a time each, and tell how it goes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

from alight.link.peer import Stream
from alight.server.request import DEFAULT_ENVIRONMENT
from alight.server.services.node_session import Session
from alight.server.services.nodes import Nodes
from alight.server.services.secrets import Secrets
from alight.store.base import Store
from alight.wire import errors, ids
from alight.wire.built import ImageName, ImageWork, ImageWorked
from alight.wire.codec import from_plain, to_plain
from alight.wire.commands import BuildImage, ImageBuilt
from alight.wire.messages import AppEvent, ImageReady, ImageRecipe
from alight.wire.record import replace
from alight.wire.spec import FunctionSpec, ImageSpec

LATEST = "latest"
Tell = Callable[[AppEvent], Awaitable[None]]


class Images:
    """Verbs on images."""

    def __init__(self, store: Store, nodes: Nodes, secrets: Secrets) -> None:
        self._store = store
        self._nodes = nodes
        self._secrets = secrets
        self._ids: dict[tuple[str, str], str] = {}
        self._built: set[tuple[str, str]] = set()  # (node, image) that were ready when last asked

    async def image_id(self, spec: ImageSpec, python_version: str) -> str:
        """The id of a recipe: the same one for ever."""
        key = (spec.digest, python_version)
        known = self._ids.get(key)
        if known is not None:
            return known
        row = await self._store.one("image_by_digest", digest=key[0], python_version=python_version)
        if row is None:
            fresh = {
                "image_id": ids.new_id(ids.IMAGE),
                "digest": key[0],
                "python_version": python_version,
                "spec": json.dumps(to_plain(spec)),
                "now": time.time(),
            }
            await self._store.write([("image_add", fresh)])
            row = await self._store.one("image_by_digest", digest=key[0], python_version=python_version)
        if row is None:
            raise errors.InternalError("an image that was just recorded is not there")
        self._ids[key] = str(row["image_id"])
        return self._ids[key]

    async def recipe(self, image_id: str) -> ImageRecipe:
        """How the image of this id or name is made. Raises NotFoundError, InvalidError."""
        if not image_id.startswith(f"{ids.IMAGE}-"):
            image_id = await self._named(image_id)
        row = await self._store.one("image_by_id", image_id=image_id)
        if row is None:
            raise errors.NotFoundError(f"there is no image {image_id}", hint="Image.build() gives an image its id")
        return ImageRecipe(from_plain(ImageSpec, json.loads(str(row["spec"]))), str(row["python_version"]))

    def is_built(self, node_id: str, image_id: str) -> bool:
        """Whether this machine had the image when last asked. Its node builds it anew should it be gone."""
        return (node_id, image_id) in self._built

    async def ensure(
        self, session: Session, spec: ImageSpec, python_version: str, whose: tuple[str, str], tell: Tell
    ) -> ImageReady:
        """Build an image on a machine unless it is there. ``whose`` is app and environment, for secrets of steps.

        Raises ImageBuildError with the last lines, or what kept the build from starting.
        """
        image_id = await self.image_id(spec, python_version)
        names = [name for step in spec.steps for name in step.get("secrets", ())]
        values = await self._secrets.values_by_id(names, whose[0], whose[1], time.time()) if names else {}
        begun = time.monotonic()
        stream = await session.peer.open("node.build", BuildImage(image_id, spec, python_version, values), end=True)
        built = None
        try:
            async for head, _body in stream:
                if b'"kind"' in head[:200]:
                    await tell(stream.decode(AppEvent, head))
                else:
                    built = stream.decode(ImageBuilt, head)
        finally:
            if built is None:  # who asked has left: the machine ends the build
                await stream.fail(errors.ServiceError("nobody waits for this image any more"))
        if built is None:
            raise errors.InternalFailure("the machine ended a build without saying how it went")
        self._built.add((session.hello.node_id, image_id))
        self._store.write_soon([("image_used", {"image_id": image_id, "now": time.time()})])
        return ImageReady(image_id, built.built, built.seconds or time.monotonic() - begun)

    async def give_name(self, image_id: str, name: str, environment: str) -> None:
        """Let "name:tag" mean this image in the environment from now on."""
        parts = self.name_parts(f"{environment}/{name}")
        await self._store.write([("image_name_put", {**parts, "image_id": image_id, "now": time.time()})])

    def name_parts(self, text: str) -> dict[str, str]:
        """The parts of "[environment]/name[:tag]". Raises InvalidError."""
        environment, slash, rest = text.rpartition("/")
        name, _, tag = rest.partition(":")
        ids.check_name(name, "image")
        ids.check_name(tag or LATEST, "tag of an image")
        return {
            "environment": (environment if slash else "") or DEFAULT_ENVIRONMENT,
            "name": name,
            "tag": tag or LATEST,
        }

    async def _named(self, text: str) -> str:
        parts = self.name_parts(text)
        row = await self._store.one("image_name_get", **parts)
        if row is None:
            raise errors.NotFoundError(
                f"there is no image {parts['name']}:{parts['tag']} in the environment {parts['environment']}",
                hint="`alight image names list` shows them; Image.publish() gives a name",
            )
        return str(row["image_id"])

    async def _names(self) -> ImageWorked:
        rows = await self._store.read("image_names")
        return ImageWorked(names=tuple(from_plain(ImageName, dict(row)) for row in rows))

    async def _unname(self, text: str) -> ImageWorked:
        (changed,) = await self._store.write([("image_name_drop", self.name_parts(text))])
        if not changed:
            raise errors.NotFoundError(f"no image has the name {text}", hint="`alight image names list` shows them")
        return ImageWorked()

    async def ensure_anywhere(
        self, spec: ImageSpec, python_version: str, whose: tuple[str, str], tell: Tell
    ) -> ImageReady:
        """Build on every connected machine, so that wherever the function goes its image is there."""
        first = self._nodes.any_session()
        sessions = list(self._nodes.sessions.values())
        done = await asyncio.gather(
            *[self.ensure(one, spec, python_version, whose, tell if one is first else _say_nothing) for one in sessions]
        )
        return done[0]

    async def work(self, asked: ImageWork) -> ImageWorked:
        """Let the machines do it, each for its own images. Raises NotFoundError when none knows the image."""
        if asked.verb == "names":
            return await self._names()
        if asked.verb == "unname":
            return await self._unname(asked.image)
        asked = replace(asked, keep=await self._needed())
        if asked.verb == "lock":
            found = await self.recipe(asked.image)
            asked = replace(asked, recipe=found.image, python_version=found.python_version)
        answers: list[ImageWorked] = []
        missing: errors.NotFoundError | None = None
        for session in list(self._nodes.sessions.values()):
            stream = await session.peer.open("node.images", asked, end=True)
            try:
                answer = await stream.recv()
            except errors.NotFoundError as error:
                missing = error
                continue
            if answer is not None:
                answers.append(stream.decode(ImageWorked, answer[0]))
        if missing is not None and not answers:
            raise missing
        if asked.verb in ("remove", "prune") and not asked.dry_run:
            self._built.clear()
        return ImageWorked(
            tuple(image for one in answers for image in one.images),
            tuple(line for one in answers for line in one.log),
            sum(one.freed for one in answers),
            answers[0].installed if answers else (),  # of one machine: whichever has it
        )

    async def export(self, asked: ImageWork, to: Stream) -> None:
        """Hand on the files of an image from a machine that has it. Raises NotFoundError when none has."""
        missing: errors.Error = errors.NotFoundError("no machine is connected that could have images")
        for session in list(self._nodes.sessions.values()):
            stream = await session.peer.open("node.images", asked, end=True)
            try:
                async for head, body in stream:
                    await to.send_raw(head, body)
            except errors.NotFoundError as error:
                missing = error
                continue
            except BaseException as error:
                await stream.fail(errors.ServiceError("nobody waits for this image any more"))
                raise error from None
            return
        raise missing

    async def bring(self, asked: ImageWork, coming: Stream) -> ImageWorked:
        """Hand the files of an image on to every machine, and give it an id."""
        spec = ImageSpec(({"op": "imported", "digest": asked.image},))
        image_id = await self.image_id(spec, "")
        sessions = list(self._nodes.sessions.values())
        if not sessions:
            raise errors.ServiceError("no machine is connected that could take images")
        asked = replace(asked, image_id=image_id)
        streams = [await session.peer.open("node.images", asked) for session in sessions]
        try:
            async for head, body in coming:
                for stream in streams:
                    await stream.send_raw(head, body)
            for stream in streams:
                await stream.end()
            done = [await stream.expect(ImageWorked) for stream in streams]
        except BaseException:
            for stream in streams:
                await stream.fail(errors.ServiceError("the import was given up"))
            raise
        images = (replace(one, ids=(image_id,)) for answer in done for one in answer.images)
        return ImageWorked(tuple(images))

    async def _needed(self) -> tuple[str, ...]:
        """Ids of the images of functions of living apps, of versions that these can go back to, and with names."""
        needed = {str(row["image_id"]) for row in await self._store.read("image_names")}
        for row in await self._store.read("function_specs_alive"):
            spec = from_plain(FunctionSpec, json.loads(row["spec"]))
            needed.add(await self.image_id(spec.image, spec.python_version))
        for row in await self._store.read("deployment_specs_kept"):
            for plain in json.loads(row["specs"]):
                earlier = from_plain(FunctionSpec, plain)
                needed.add(await self.image_id(earlier.image, earlier.python_version))
        return tuple(sorted(needed))


async def _say_nothing(event: AppEvent) -> None:
    del event
