"""Steps of images that are not ours: a base from a registry, nothing as a base, and a Python in either."""

from __future__ import annotations

import asyncio
import json
import secrets as randomness
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from alight.builder import bases, digest, foreign, pythons, recipe
from alight.builder.chain import PYTHON, STANDARD_ENV, Job, secret_values
from alight.builder.hostconfig import HostConfig
from alight.builder.installs import Command
from alight.builder.layers import LayerStore, Record, Workspace
from alight.builder.registry import reference
from alight.builder.registry.pull import Wanted, pull
from alight.wire.errors import ImageBuildError

_NO_SHELL = ("/bin/sh", "no such file")


class InContainer(Protocol):
    """Runs a command on the layers of a job's chain. ``Builder``'s."""

    async def __call__(
        self, job: Job, space: Workspace, command: Command, binds: tuple[tuple[str, str, bool], ...]
    ) -> None: ...


class ForeignSteps:
    """Makes those steps; the rest is the builder's."""

    def __init__(
        self,
        store: LayerStore,
        host: HostConfig,
        fetch_tree: Callable[[str, Path], Awaitable[None]],
        *,
        in_container: InContainer,
        new_name: Callable[[Job], str],
    ) -> None:
        self._store = store
        self._host = host
        self._fetch_tree = fetch_tree
        self._in_container = in_container
        self._new_name = new_name

    ops = frozenset({"registry", "scratch", "python"})

    async def make(self, job: Job) -> Record:
        """The record of such a step. Raises ImageBuildError."""
        if job.step.op == "registry":
            return await self._pulled(job)
        if job.step.op == "scratch":
            return Record(self._new_name(job), job.step.title, (), {"bare": "1", "python": ""})
        return await (self._own_python(job) if job.step.what.get("version") is None else self._added_python(job))

    async def bare_layer(self, job: Job) -> Record:
        """Files into an image that has nothing to run: laid from outside, where there are no links to follow."""
        step = job.step
        if step.op != "copy":
            raise ImageBuildError(
                f"the image step {step.title} needs a shell, and an image from scratch has none",
                hint="only add_local_*(copy=True), env, workdir, entrypoint and cmd follow Image.from_scratch()",
            )
        name = self._new_name(job)
        with self._store.workspace() as space:
            into = space.upper / recipe.normal_path(step.what["to"]).lstrip("/")
            into.mkdir(mode=0o755, parents=True, exist_ok=True)
            await self._fetch_tree(step.what["tree"], into)
            await asyncio.to_thread(self._store.keep_layer, space, name)
        return Record(name, step.title, (name,))

    async def _pulled(self, job: Job) -> Record:
        what = job.step.what
        locked = what.get("locked", {}).get("base")
        name = f"{what['tag'].partition('@')[0]}@{locked}" if locked else what["tag"]
        asked = Wanted(
            reference.parse(name), bases.machine(), secret_values(job.step, job.secrets), what.get("auth", "")
        )
        found = await pull(asked, self._store, self._host.registries, self._host.way(), job.note)
        key = digest.step_key(digest.ROOT, {"registry": found.digest})
        if job.step.force:
            key = digest.renewed_key(key, randomness.token_hex(8))
        facts = {"tag": what["tag"], "digest": found.digest, "config": json.dumps(asdict(found.config))}
        return Record(key, job.step.title, found.layers, facts)

    async def _own_python(self, job: Job) -> Record:
        """The Python of an image that others made, with `python` and uv as on every image."""
        tag = job.chain.base.get("tag", "")
        name = self._new_name(job)
        with self._store.workspace() as space:
            answers = await self._asked(job, space, foreign.finding_script(), job.chain.env)
            own = foreign.found(answers, tag)
            job.note(f"Python {own.version} is the image's own, {own.path}")
            await asyncio.to_thread(self._store.keep_layer, space, name)
        facts = {"python_version": own.version, "python": own.path, "uv": "1" if own.uv else ""}
        if "/usr/local/bin" not in job.chain.env["PATH"].split(":"):
            facts["path"] = "/usr/local/bin"
        return Record(name, job.step.title, (name,), facts)

    async def _added_python(self, job: Job) -> Record:
        """A Python laid on top of an image that others made."""
        asked = str(job.step.what.get("locked", {}).get("python") or job.step.what["version"])
        name = self._new_name(job)
        with self._store.workspace() as space:
            answers = await self._asked(job, space, foreign.LIBRARIES, STANDARD_ENV)
            has = foreign.libraries(answers, job.chain.base.get("tag", ""))
        with self._store.workspace() as space:
            found = await pythons.find(asked, self._host, space.scratch, job.note)
            assert found  # or it would have raised
            if asked not in (found.minor, found.version):
                job.note(f"Python {asked} is not to be had here: taking {found.version} instead")
            job.note(f"Python {found.version} from {found.origin}")
            await asyncio.to_thread(pythons.lay, found, space.upper, has.__contains__)
            script = pythons.finishing_script(found) + foreign.uv_script()
            answers = await self._asked(job, space, script, STANDARD_ENV)
            uv = foreign.has_uv(answers)
            await asyncio.to_thread(self._store.keep_layer, space, name)
        facts = {"python_version": found.version, "python": PYTHON, "uv": "1" if uv else "", "path": "/usr/local/bin"}
        return Record(name, job.step.title, (name,), facts)

    async def _asked(self, job: Job, space: Workspace, script: str, env: Mapping[str, str]) -> Path:
        """Run a script of ours in the image; where it left its answers."""
        (space.scratch / "lent").mkdir()
        await asyncio.to_thread(shutil.copyfile, bases.find_uv(), space.scratch / "lent/uv")
        (space.scratch / "lent/uv").chmod(0o755)
        try:
            await self._in_container(job, space, Command(("/bin/sh", "-c", script), dict(env), network=False), ())
        except ImageBuildError as error:
            said = "\n".join(error.details.get("tail", ())).lower()
            if not all(word in said for word in _NO_SHELL):
                raise
            raise ImageBuildError(
                f"the image {job.chain.base.get('tag', '')} has no /bin/sh, which Python and build steps need",
                hint="choose a tag with a shell (many images without one have a variant named debug or dev)",
                **error.details,
            ) from error
        return space.scratch / "temporary"
