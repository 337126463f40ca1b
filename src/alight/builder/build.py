"""Builder: from a recipe to an image that is ready on this machine.

Walks the steps, asks the store for each, and makes what is missing. Starting containers is the runner's part; what a
step's command is, is ``installs``'s. A second build of the same recipe touches neither container nor network.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import secrets as randomness
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from alight.builder import (
    commands,
    debian_step,
    digest,
    exchange,
    foreign_steps,
    installed,
    installs,
    layers,
    lock,
    recipe,
    trouble,
)
from alight.builder.chain import Chain, Job, secret_values, with_record, with_setting
from alight.builder.dockerfile import DockerSteps
from alight.builder.hostconfig import HostConfig
from alight.builder.inventory import Inventory
from alight.builder.steps import CACHES, LENT, BuildEvent, BuiltImage, StepRun, StepRunner
from alight.wire.errors import InvalidError
from alight.wire.spec import ImageSpec

FetchTree = Callable[[str, Path], Awaitable[None]]


class Builder:
    """Builds images under ``home`` (the node's directory) with ``runner``; ``fetch_tree(digest, into)`` brings files,
    and ``lend_tree``, if there is one, brings files that are only read.

    Any number of builds may run at once, in one process or several; two that need the same step make it once.
    """

    def __init__(
        self,
        home: Path,
        runner: StepRunner,
        host: HostConfig,
        fetch_tree: FetchTree,
        lend_tree: FetchTree | None = None,
    ) -> None:
        self._home = home
        self._runner = runner
        self._host = host
        self._fetch_tree = fetch_tree
        self._lend_tree = lend_tree or fetch_tree
        self._store = layers.LayerStore(home)
        self.inventory = Inventory(home)
        self._foreign = foreign_steps.ForeignSteps(
            self._store, host, fetch_tree, in_container=self._in_container, new_name=self._new_name
        )
        self._debian = debian_step.DebianStep(self._store, host, self._in_container, self._new_name)
        self.exchange = exchange.Exchange(home, self._store, self.inventory)
        self._docker = DockerSteps(home, self._store, host, fetch_tree, self._new_name, self._chain_of)

    def sweep(self) -> int:
        """Remove what killed builds left; return how many. For the start of the node; safe at any time."""
        return self._store.sweep()

    def cached(self, spec: ImageSpec) -> BuiltImage | None:
        """The image if all of it is here and no step is forced, within a few milliseconds; else None.

        Raises: as `build` for a recipe that cannot be.
        """
        chain = Chain()
        made: list[tuple[str, layers.Record]] = []
        for step in recipe.parse(spec):
            if step.makes_layer:
                name = digest.step_key(chain.key, step.what)
                record = None if step.force or step.ignore else self._store.record(name)
                if record is None:
                    return None
                made.append((name, record))
                chain = with_record(chain, record)
            else:
                chain = with_setting(chain, step)
        image = self._image(chain)
        self._keep_image(image, chain, made)
        return image

    async def describe(self, spec: ImageSpec) -> tuple[dict[str, object], ...]:
        """What each step of a recipe that was built here brought, as a lock. Raises NotFoundError."""
        return await lock.describe(self._store, self._host, spec)

    async def build(
        self,
        spec: ImageSpec,
        secrets: Mapping[str, Mapping[str, str]],
        on_event: Callable[[BuildEvent], None],
        owner: str = "default",
    ) -> BuiltImage:
        """Make what is missing of the image, and return it.

        ``secrets`` are values by the ids that steps name; they reach those steps' environment and nothing else.
        ``owner`` keeps package caches apart. A cancelled build leaves nothing but the steps that were finished.
        Raises: ImageBuildError (its details hold ``step``, ``exit_status`` and ``tail``), InvalidError for the recipe.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", owner):
            raise InvalidError(f"{owner!r} is not the name of an owner")
        steps = recipe.parse(spec)
        redact = trouble.Redactor([*self._host.secrets(), *(text for one in secrets.values() for text in one.values())])
        with self.inventory.building():
            return await self._build(steps, secrets, redact, on_event, owner)

    async def _build(
        self,
        steps: tuple[recipe.Step, ...],
        secrets: Mapping[str, Mapping[str, str]],
        redact: trouble.Redactor,
        on_event: Callable[[BuildEvent], None],
        owner: str,
    ) -> BuiltImage:
        chain = Chain()
        made: list[tuple[str, layers.Record]] = []
        for number, step in enumerate(steps, 1):
            if not step.makes_layer:
                chain = with_setting(chain, step)
                continue
            title = redact(step.title)

            def tell(kind: str, line: str, seconds: float, number: int = number, title: str = title) -> None:
                on_event(BuildEvent(kind, number, len(steps), title, seconds, line))

            key = digest.step_key(chain.key, step.what)
            job = Job(replace(step, title=title), chain, key, secrets, owner, redact, tell)
            record = await self._step(job)
            made.append((key, record))
            chain = with_record(chain, record)
        image = self._image(chain)
        await asyncio.to_thread(self._keep_image, image, chain, made)
        return image

    async def _chain_of(self, spec: ImageSpec, job: Job) -> Chain:
        """What a recipe inside of a step adds up to; made if need be, and told as that step's output."""
        chain = Chain()
        for step in recipe.parse(spec):
            if step.makes_layer:
                key = digest.step_key(chain.key, step.what)
                inner = replace(job, step=step, chain=chain, key=key, tell=_as_output(job.tell, job.redact(step.title)))
                chain = with_record(chain, await self._step(inner))
        return chain

    async def _step(self, job: Job) -> layers.Record:
        before = self._store.record(job.key)
        if before is not None and not job.step.force and not job.step.ignore:
            job.tell("cached", "", 0.0)
            return before
        async with self._store.alone(job.key, lambda: job.tell("waiting", "", 0.0)):
            now = self._store.record(job.key)
            # Forced, too, is satisfied by a build that was made while this one waited.
            if now is not None and not job.step.ignore and (not job.step.force or now != before):
                job.tell("cached", "", 0.0)
                return now
            job.tell("started", "", 0.0)
            begun = time.monotonic()
            said: list[str] = []
            job = replace(job, tell=_noting(job.tell, said))
            with _explained(job.step.title):
                asked = json.loads(job.redact(json.dumps(dict(job.step.what))))
                reason = await asyncio.to_thread(self.inventory.explain, job.chain.key, job.key, asked)
                if before is None and reason:
                    job.note(reason)
                record = await self._make(job)
                if "locked" in job.step.what:
                    await asyncio.to_thread(self._compare, job, record)
                await asyncio.to_thread(self.inventory.remember, job.chain.key, job.key, asked, said)
                record = replace(record, seconds=time.monotonic() - begun, made_at=time.time())
                if not job.step.ignore:
                    await asyncio.to_thread(self._store.keep_record, job.key, record)
            job.tell("finished", "", record.seconds)
            return record

    def _compare(self, job: Job, record: layers.Record) -> None:
        """Say how what a step made differs from its lock."""
        below = [self._store.path(layer) for layer in reversed(job.chain.layers)]
        before = installed.after(below)
        for line in lock.differences(job.step.what["locked"], before, lock.state_after(self._store, before, record)):
            job.note(line)

    async def _make(self, job: Job) -> layers.Record:
        if job.step.op == "debian_slim":
            return await self._debian.make(job)
        if job.step.op in self._foreign.ops:
            return await self._foreign.make(job)
        if job.step.op == "imported":
            raise exchange.not_here(str(job.step.what["digest"]))
        if job.step.op in self._docker.ops:
            return await self._docker.make(job)
        if job.chain.bare:
            return await self._foreign.bare_layer(job)
        return await self._layer(job)

    async def _layer(self, job: Job) -> layers.Record:
        step, chain = job.step, job.chain
        command = commands.command(
            step, self._host.indexes, chain.python, chain.shell, uv=chain.uv, micromamba=self._host.micromamba
        )
        command = lock.command(command, step, chain.python, self._host.step_env().get("PIP_CONSTRAINT", ""))
        name = self._new_name(job)
        with self._store.workspace() as space:
            if step.op == "copy":
                tree = space.scratch / "lent/tree"
                tree.mkdir(parents=True)
                await self._lend_tree(step.what["tree"], tree)
            for place, tree_digest in (("context", step.what.get("context")), ("source", step.lent)):
                if tree_digest:
                    tree = space.scratch / "lent" / place
                    tree.mkdir(parents=True)
                    await self._fetch_tree(str(tree_digest), tree)
            env = {**self._host.step_env(), **chain.env, **command.env, **step.env, **secret_values(step, job.secrets)}
            binds = (*self._host.step_binds(), *command.binds)
            await self._in_container(job, space, replace(command, env=env), binds)
            await asyncio.to_thread(self._store.keep_layer, space, name)
        return layers.Record(name, step.title, (name,), dict(command.facts))

    async def _in_container(
        self, job: Job, space: layers.Workspace, command: installs.Command, binds: tuple[tuple[str, str, bool], ...]
    ) -> None:
        """Run the command on the chain's layers, the workspace's upper on top; raise when it fails."""
        lent = space.scratch / "lent"
        await asyncio.to_thread(_lend, lent, {**self._host.step_files(), **command.files})
        binds = (*self._caches(job.owner, space), (str(lent), LENT, True), *binds)
        lowers = tuple(str(self._store.path(layer)) for layer in job.chain.layers)
        output = job.output()
        status = await self._runner.run(
            StepRun(
                lowers,
                str(space.upper),
                command.argv,
                command.env,
                job.chain.workdir,
                binds,
                command.network,
                job.step.needs,
            ),
            output.feed,
        )
        output.close()
        if status != 0:
            raise trouble.step_failed(job.step.title, status, output.tail)
        mounted = [path for _, path, _, _ in job.step.needs.volumes]
        targets = [*(target for _, target, _ in binds), *mounted, *layers.MOUNT_POINTS]
        await asyncio.to_thread(layers.clear_mount_points, space.upper, map(Path, lowers), targets)

    def _caches(self, owner: str, space: layers.Workspace) -> tuple[tuple[str, str, bool], ...]:
        # apt locks its directories, so those are the step's own; uv's and pip's caches are made to be shared.
        shared = {name: self._home / "cache" / owner / name for name in ("uv", "pip")}
        apt, temporary = space.scratch / "apt", space.scratch / "temporary"
        for folder in (*shared.values(), apt / "lists/partial", apt / "archives/partial", temporary):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        return (
            *((str(path), f"{CACHES}/{name}", False) for name, path in shared.items()),
            (str(apt), f"{CACHES}/apt", False),
            (str(temporary), f"{CACHES}/temporary", False),
        )

    def _new_name(self, job: Job) -> str:
        """The name of what a step makes: its key, unless something of that name is in use and gets a successor."""
        taken = self._store.path(job.key).exists() or self._store.record(job.key) is not None
        return digest.renewed_key(job.key, randomness.token_hex(8)) if taken else job.key

    def _image(self, chain: Chain) -> BuiltImage:
        return BuiltImage(
            digest=chain.key,
            layers=tuple(str(self._store.path(layer)) for layer in chain.layers),
            env=chain.env,
            workdir=chain.workdir,
            python_path=chain.python,
            python_version=chain.python_version,
            entrypoint=chain.entrypoint,
            cmd=chain.cmd,
        )

    def _keep_image(self, image: BuiltImage, chain: Chain, made: list[tuple[str, layers.Record]]) -> None:
        steps = [
            {"name": name, "title": one.title, "layers": one.layers, "seconds": one.seconds, "made_at": one.made_at}
            for name, one in made
        ]
        self._store.keep_image(
            image.digest,
            {
                "layers": chain.layers,
                "steps": steps,
                "env": dict(image.env),
                "workdir": image.workdir,
                "python_version": image.python_version,
                "python": image.python_path,
                "base": dict(chain.base),
                "shell": chain.shell,
                "uv": chain.uv,
                "entrypoint": image.entrypoint,
                "cmd": image.cmd,
            },
        )


def _as_output(tell: Callable[[str, str, float], None], title: str) -> Callable[[str, str, float], None]:
    def plainly(kind: str, line: str, seconds: float) -> None:
        tell("log", line if kind == "log" else f"{title}: {kind}", seconds)

    return plainly


def _noting(tell: Callable[[str, str, float], None], said: list[str]) -> Callable[[str, str, float], None]:
    def both(kind: str, line: str, seconds: float) -> None:
        if kind == "log":
            said.append(line)
        tell(kind, line, seconds)

    return both


def _lend(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write what a step borrows. apt_install's settings are the common ones and where its own directories lie."""
    content = {**files, "apt-install.conf": files["apt.conf"] + installs.APT_DIRECTORIES.encode()}
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)


@contextmanager
def _explained(title: str) -> Iterator[None]:
    """A full disk is the user's to solve, and says so; other errors of the disk stay what they are."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise trouble.disk_full(title) from error
        raise
