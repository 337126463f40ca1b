"""From declarations to ids and specs: volumes and secrets looked up, files hashed and uploaded, recipes written.

Everything is asked once per run, however many functions share it. Decides nothing about machines; that is the server's.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from alight.sdk import config
from alight.sdk.client import Client
from alight.sdk.image import Image
from alight.sdk.image_parts import FROM_ID, Files, Step
from alight.sdk.image_substitutes import substituted
from alight.sdk.options import Options
from alight.sdk.resources import gpus
from alight.sdk.secret import Secret
from alight.sdk.source import Definition, Hashes, LocalFiles, collect, definition_of, name_main
from alight.sdk.upload import Content, Upload
from alight.sdk.variants import buckets_of, is_bucket, mounts_of
from alight.wire import errors, messages, payload
from alight.wire.record import replace
from alight.wire.spec import FileEntry, FilesAt, FunctionSpec, ImageSpec, VolumeMount, digest_of, encode_tree

_SERIALIZED_MOST = 16 << 20

_OF_A_BUILD = frozenset({"secrets", "force", "ignore"})


class Resolver:
    """Makes specs for one run of one app."""

    def __init__(self, client: Client, app_id: str, *, gpu: Optional[str] = None) -> None:
        self._client = client
        self._app_id = app_id
        self._gpu = gpu
        self._hashes = Hashes()
        self._contents: Dict[str, Content] = {}
        self._images: Dict[int, Tuple[Image, ImageSpec, Tuple[FilesAt, ...]]] = {}
        self._trees: Dict[Any, Tuple[LocalFiles, FilesAt]] = {}
        self._secrets: Dict[int, Tuple[Secret, str]] = {}
        self.sources: List[LocalFiles] = []  # all that was looked at on this machine
        self._minor = f"{sys.version_info[0]}.{sys.version_info[1]}"

    async def function(self, name: str, raw: Any, options: Options, traits: Mapping[str, Any]) -> FunctionSpec:
        """The spec of one function. ``traits`` are fields that follow from its code (is_async, is_generator)."""
        what = f"the class {name[:-2]}" if name.endswith(".*") else f"the function {name}"
        serialized = ""
        if options.serialized:
            serialized = self._serialize(raw, what)
            definition = Definition("serialized", module=raw.__module__ or "", qualname=raw.__qualname__)
        else:
            definition = definition_of(raw, include_source=options.include_source is not False, what=what)
            if raw.__module__ == "__main__" and definition.definition == "file":
                name_main(definition.module)
        image, added = await self._image(options.image or Image.debian_slim())
        if options.serialized:
            self._check_python(image, what)
        files = added + tuple(self._tree(one) for one in definition.files)
        return FunctionSpec(
            name=name,
            definition=definition.definition,
            module=definition.module,
            qualname=definition.qualname,
            source_path=definition.source_path,
            serialized=serialized,
            python_version=self._minor,
            image=image,
            files=files,
            resources=self._resources(options),
            secrets=tuple([await self._secret(secret) for secret in self._given(options)]),
            volumes=await self._volumes(options.volumes),
            buckets=await buckets_of(options.volumes, self._secret),
            timeout=options.timeout,
            startup_timeout=options.startup_timeout,
            retries=options.retries,
            autoscaling=options.autoscaling,
            block_network=options.block_network,
            restrict_access=options.restrict_access,
            enable_memory_snapshot=options.enable_memory_snapshot,
            schedule=options.schedule.to_plain() if options.schedule is not None else {},
            hosted_only=options.hosted_only,
            cluster=options.cluster,
            **traits,
        )

    @property
    def minor(self) -> str:
        """The Python of this side, for images that leave theirs open."""
        return self._minor

    async def image(self, image: Image) -> ImageSpec:
        """The recipe of an image alone."""
        spec, _ = await self._image(image)
        return spec

    async def upload(self) -> int:
        """Send what the server does not hold yet; returns how many bytes that was."""
        self._hashes.save()
        return await Upload(self._client, self._contents).run()

    # parts of a spec

    def _serialize(self, raw: Any, what: str) -> str:
        if isinstance(raw, type):
            from alight.sdk.cls import Carried  # noqa: PLC0415  whoever declared the class has loaded it

            raw = Carried(raw)
        data = payload.dumps_bytes(raw, what, by_value=True)
        if len(data) > _SERIALIZED_MOST:
            raise errors.InvalidError(
                f"{what} is {len(data) >> 20} MiB when it is serialized; {_SERIALIZED_MOST >> 20} MiB is the most",
                hint="load large data inside the function, or pass it as an argument",
            )
        digest = digest_of(data)
        self._contents[digest] = data
        return digest

    def _check_python(self, image: ImageSpec, what: str) -> None:
        """Said before anything is built, where the recipe tells: what this Python serialized no other can load."""
        keys = {"debian_slim": "python", "micromamba": "python", "python": "version"}
        asked = [str(step[keys[op]]) for step in image.steps if (op := step.get("op")) in keys and step.get(keys[op])]
        if asked and ".".join(asked[-1].split(".")[:2]) != self._minor:
            raise errors.InvalidError(
                f"{what} is serialized by Python {self._minor} and its image has Python {asked[-1]}",
                hint=f"Image.debian_slim(python_version={self._minor!r}), or without serialized=True",
            )

    def _resources(self, options: Options) -> Any:
        if self._gpu is None:
            return options.resources
        return replace(options.resources, gpus=_override(self._gpu))

    async def _image(self, image: Image) -> Tuple[ImageSpec, Tuple[FilesAt, ...]]:
        known = self._images.get(id(image))
        if known is None:
            steps: Tuple[Dict[str, Any], ...] = ()
            for step in substituted(image.steps):
                steps += await self._recipe(step) if step.op["op"] == FROM_ID else (await self._step(step),)
            added = tuple(self._tree(files()) for files in image.added)
            known = self._images[id(image)] = (image, ImageSpec(steps), added)
        return known[1], known[2]

    async def _recipe(self, step: Step) -> Tuple[Dict[str, Any], ...]:
        """The steps of an image that is known by its id."""
        message = messages.ImageGet(step.op["image_id"])
        found = (await self._client.call("image.get", message, messages.ImageRecipe)).image.steps
        # Secrets were of the app that it was built for, and what is built needs none.
        return tuple({key: value for key, value in step.items() if key not in _OF_A_BUILD} for step in found)

    async def _step(self, step: Step) -> Dict[str, Any]:
        op = dict(step.op)
        if op["op"] == "later":
            raise errors.UnimplementedError(op["sentence"])
        if step.files is not None:
            at = self._tree(step.files())
            op.update(tree=at.tree, to=at.path)
        if step.requirements:
            self.sources += [LocalFiles(file, "") for file in step.requirements]
            op["requirements"] = [_requirements(file, op.get("pyproject_groups")) for file in step.requirements]
            op.pop("pyproject_groups", None)
        if step.late is not None:
            op.update(step.late())
        for name, files in (("context", step.context), ("lent", step.lent)):
            if files is not None:
                op[name] = self._files(files())
        if step.volumes:
            bucket = next((path for path, volume in step.volumes.items() if is_bucket(volume)), None)
            if bucket is not None:
                raise errors.InvalidError(
                    f"a step of an image would mount a bucket at {bucket}: steps mount volumes, and no buckets",
                    hint="fetch what the step needs with a program, or mount the bucket in the function",
                )
            mounts = await self._volumes(step.volumes)
            rows = [[one.volume_id, one.path, one.read_only, one.sub_path or ""] for one in mounts]
            op["needs"] = {**op.get("needs", {}), "volumes": rows}
        if step.secrets:
            op["secrets"] = [await self._secret(secret) for secret in step.secrets]
        settings = config.load()
        if settings["force_build"]:
            op["force"] = True
        if settings["ignore_cache"]:
            op["ignore"] = True
        return op

    def _tree(self, files: LocalFiles) -> FilesAt:
        key = (files.local, files.remote, id(files.ignore), files.hidden)
        known = self._trees.get(key)
        if known is None:
            tree = collect(files, self._hashes)
            self.sources.append(files)
            manifest = encode_tree(list(tree.entries))
            digest = digest_of(manifest)
            self._contents[digest] = manifest
            self._contents.update(tree.contents)
            known = self._trees[key] = (files, FilesAt(tree=digest, path=tree.remote))
        return known[1]

    def _files(self, files: Files) -> str:
        """A tree of the given files, by the name that each has there; returns its digest."""
        entries: Dict[str, FileEntry] = {}
        for name, content in files.items():
            if isinstance(content, bytes):
                digest = digest_of(content)
                self._contents[digest] = content
                entries[name] = FileEntry(name, size=len(content), digest=digest)
                continue
            given = content if isinstance(content, LocalFiles) else LocalFiles(content, f"/{name}")
            tree = collect(given, self._hashes)
            self.sources.append(given)
            self._contents.update(tree.contents)
            below = name if given.local.is_dir() else name.rpartition("/")[0]
            for entry in tree.entries:
                path = f"{below}/{entry.path}" if below else entry.path
                entries[path] = replace(entry, path=path)
        manifest = encode_tree(list(entries.values()))
        digest = digest_of(manifest)
        self._contents[digest] = manifest
        return digest

    @staticmethod
    def _given(options: Options) -> Sequence[Secret]:
        """``env`` is kept as secrets are, sealed and out of specs: keys stand in it as often. It wins."""
        return [*options.secrets, Secret.from_dict(options.env)] if options.env else options.secrets

    async def _secret(self, secret: Secret) -> str:
        known = self._secrets.get(id(secret))
        if known is None:
            known = self._secrets[id(secret)] = (secret, await secret.for_app(self._client, self._app_id))
        return known[1]

    async def _volumes(self, volumes: Mapping[str, Any]) -> Tuple[VolumeMount, ...]:
        return tuple(await mounts_of(volumes, self._client))


def _override(gpu: str) -> Tuple[str, ...]:

    return () if gpu.strip().lower() == "none" else gpus(gpu)


def _requirements(file: Path, groups: Optional[Sequence[str]]) -> Dict[str, str]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise errors.InvalidError(f"{file} could not be read: {error.strerror}") from error
    return {"name": file.name, "text": text if groups is None else "\n".join(_of_pyproject(file, text, groups)) + "\n"}


def _of_pyproject(file: Path, text: str, groups: Sequence[str]) -> List[str]:
    if sys.version_info < (3, 11):
        raise errors.InvalidError(
            "pip_install_from_pyproject() needs Python 3.11 or newer on this side", hint="use pip_install()"
        )
    import tomllib  # noqa: PLC0415  only this step needs it

    try:
        project = tomllib.loads(text).get("project", {})
    except tomllib.TOMLDecodeError as error:
        raise errors.InvalidError(f"{file} is not valid TOML: {error}") from error
    if not isinstance(project, dict) or "dependencies" not in project:
        raise errors.InvalidError(f"{file} has no dependencies under [project]")
    wanted = list(project["dependencies"])
    optional = project.get("optional-dependencies", {})
    for group in groups:
        if group not in optional:
            raise errors.InvalidError(
                f"{file} has no optional dependencies {group!r}", hint=f"it has: {', '.join(optional) or 'none'}"
            )
        wanted += optional[group]
    return [str(one) for one in wanted]
