"""The step Image.debian_slim(): a Debian whose own Python it is, or one with the asked Python on top."""

from __future__ import annotations

import asyncio
import secrets as randomness
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from alight.builder import bases, digest, installs, layers, pythons, recipe
from alight.builder.chain import STANDARD_ENV, Chain, Job
from alight.builder.hostconfig import HostConfig
from alight.wire.errors import ImageBuildError

InContainer = Callable[[Job, layers.Workspace, installs.Command, tuple[tuple[str, str, bool], ...]], Awaitable[None]]


class DebianStep:
    """Makes bases; ``in_container`` runs a command on a chain's layers, ``new_name`` names a layer."""

    def __init__(
        self, store: layers.LayerStore, host: HostConfig, in_container: InContainer, new_name: Callable[[Job], str]
    ) -> None:
        self._store = store
        self._host = host
        self._in_container = in_container
        self._new_name = new_name

    async def make(self, job: Job) -> layers.Record:
        """The record of the step; raises ImageBuildError when no way leads to that Python."""
        asked = str(job.step.what.get("locked", {}).get("python") or job.step.what["python"])
        minor = recipe.minor_of(asked)
        suite = bases.suite_for(minor)
        base = await self._suite(suite, job) if suite else None
        if base and asked in (minor, base.facts["python_version"]):
            return self._record(job, base)
        with self._store.workspace() as space:
            try:
                found = await pythons.find(asked, self._host, space.scratch, job.note, standalone_only=bool(suite))
            except ImageBuildError as error:
                testing = bases.testing_for(minor)
                if testing is None:
                    raise
                job.note(str(error))
                job.note(f"taking the one of Debian {testing}, which is not released yet")
                base, found = await self._suite(testing, job), None
                if asked in (minor, base.facts["python_version"]):
                    return self._record(job, base)
            if found is None:
                assert base  # without one, `find` raises
                job.note(
                    f"Python {asked} is not to be had here: taking Debian's {base.facts['python_version']} instead"
                )
                return self._record(job, base)
            if asked not in (minor, found.version):
                job.note(f"Python {asked} is not to be had here: taking {found.version} instead")
            base = await self._suite(found.suite, job)
            below = self._store.path(base.layers[0])
            job.note(f"Python {found.version} from {found.origin}")
            await asyncio.to_thread(pythons.lay, found, space.upper, partial(pythons.has_library, below))
            chain = Chain(layers=base.layers)
            script = pythons.finishing_script(found)
            command = installs.Command(("/bin/sh", "-c", script), dict(STANDARD_ENV), network=False)
            await self._in_container(replace(job, chain=chain), space, command, ())
            name = digest.renewed_key(self._new_name(job), base.key)
            await asyncio.to_thread(self._store.keep_layer, space, name)
        return layers.Record(name, job.step.title, (name, *base.layers), {"python_version": found.version})

    def _record(self, job: Job, base: layers.Record) -> layers.Record:
        key = digest.step_key(self._new_name(job), {"base": base.key})
        return layers.Record(key, job.step.title, base.layers, base.facts)

    async def _suite(self, suite: str, job: Job) -> layers.Record:
        key = digest.step_key(digest.ROOT, {"debian": suite, "machine": bases.machine()})
        before = self._store.record(key)
        if before is not None and not job.step.force:
            return before
        async with self._store.alone(key, lambda: job.tell("waiting", "", 0.0)):
            now = self._store.record(key)
            if now is not None and (not job.step.force or now != before):
                return now
            job.note(f"making a minimal Debian {suite}: about half a minute, once for all images")
            name = key if before is None else digest.renewed_key(key, randomness.token_hex(8))
            with self._store.workspace() as space:
                output = job.output()
                status = await bases.make_debian(suite, space, self._host, output.feed)
                output.close()
                if status != 0:
                    raise bases.failed(job.step.title, suite, status, output)
                version = await asyncio.to_thread(bases.python_version, space.upper, suite)
                await asyncio.to_thread(self._store.keep_layer, space, name)
            record = layers.Record(name, f"Debian {suite}", (name,), {"python_version": version}, made_at=time.time())
            await asyncio.to_thread(self._store.keep_record, key, record)
            return record
