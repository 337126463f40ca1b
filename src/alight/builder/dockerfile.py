"""Steps in the language of Dockerfiles: whole files as a base, and lines on top of an image. buildah reads them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alight.builder import bases, digest, layers, trouble
from alight.builder.buildah import Buildah, Made
from alight.builder.chain import Chain, Job, secret_values
from alight.builder.hostconfig import HostConfig
from alight.builder.registry import reference
from alight.builder.registry.pull import Wanted, pull
from alight.builder.steps import LENT
from alight.wire.spec import ImageSpec

_FROM = re.compile(r"^\s*FROM\s+(?:--platform=\S+\s+)?(\S+)(?:\s+AS\s+(\S+))?", re.IGNORECASE)
_ARG = re.compile(r"^\s*ARG\s+(\w+)(?:=(\S*))?", re.IGNORECASE)
_COPY_FROM = re.compile(r"^\s*(?:COPY|RUN)\s+.*?(?:--from=|--mount=\S*?\bfrom=)([^\s,]+)", re.IGNORECASE)


#: What the image so far is called in lines that are put on top of it.
_SO_FAR = "alight-image-so-far"


@dataclass(frozen=True)
class _Base:
    """An image that a Dockerfile names, as it lies in buildah's storage."""

    name: str
    layers: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


class DockerSteps:
    """Makes those steps; the rest is the builder's."""

    ops = frozenset({"from_dockerfile", "dockerfile"})

    def __init__(
        self,
        home: Path,
        store: layers.LayerStore,
        host: HostConfig,
        fetch_tree: Callable[[str, Path], Awaitable[None]],
        new_name: Callable[[Job], str],
        chain_of: Callable[[ImageSpec, Job], Awaitable[Chain]],
    ) -> None:
        self._store = store
        self._host = host
        self._fetch_tree = fetch_tree
        self._new_name = new_name
        self._chain_of = chain_of
        self._buildah = Buildah(home)

    async def make(self, job: Job) -> layers.Record:
        """The record of such a step. Raises ImageBuildError."""
        self._buildah.check(job.step.title)
        what = job.step.what
        values = secret_values(job.step, job.secrets)
        with self._store.workspace() as space:
            context = space.scratch / "context"
            context.mkdir()
            await self._fetch_tree(str(what["context"]), context)
            (context / "files").mkdir(exist_ok=True)
            text = (context / "Dockerfile").read_text(encoding="utf-8")
            if what["op"] == "dockerfile":
                known = {_SO_FAR: await self._own(job, space)}
                text = f"FROM {_SO_FAR}\n{text}"
            else:
                known = {}
                for name in external(text, what.get("build_args", {})):
                    stand_in = what.get("stand_ins", {}).get(name)
                    known[name] = await (
                        self._stand_in(name, stand_in, job, space)
                        if stand_in
                        else self._named(name, values, job, space)
                    )
            (space.scratch / "Dockerfile").write_text(text, encoding="utf-8")
            name = f"localhost/alight/{job.key}"
            await self._run(job, space, name, known, values)
            base = next((one for one in known.values() if one.name == self._stands_on(name, known)), _Base(""))
            made = await self._buildah.made(name, base.name)
            added = await asyncio.to_thread(self._take_over, made, job)
        facts = {"config": json.dumps(_config(made.config)), "tag": what.get("name", ""), "digest": ""}
        digests = {one: lent.facts["digest"] for one, lent in known.items() if lent.facts.get("digest")}
        facts.update({"bases": json.dumps(digests)} if digests else {})
        below = base.layers
        if what["op"] == "dockerfile":
            below = ()
            facts.update(job.chain.base, python=job.chain.python)
        return layers.Record(self._new_name(job), job.step.title, (*added, *below), facts)

    def _stands_on(self, name: str, known: Mapping[str, _Base]) -> str:
        return self._buildah.stands_on(name, [one.name for one in known.values()])

    async def _own(self, job: Job, space: layers.Workspace) -> _Base:
        """The image so far."""
        return await self._lent(job.chain.layers, _as_config(job.chain), {}, space, job)

    async def _stand_in(self, name: str, steps: list[dict[str, Any]], job: Job, space: layers.Workspace) -> _Base:
        """What the settings put in the place of an image, made by the builder like any other."""
        chain = await self._chain_of(ImageSpec(tuple(steps)), job)
        base = await self._lent(chain.layers, _as_config(chain), {}, space, job)
        await self._buildah.name(base.name, str(reference.parse(name)))
        return base

    async def _named(self, name: str, values: Mapping[str, str], job: Job, space: layers.Workspace) -> _Base:
        """An image of a registry, by the name that a Dockerfile gives it."""
        locked = job.step.what.get("locked", {}).get("bases", {}).get(name)
        wanted = reference.parse(f"{name.partition('@')[0]}@{locked}" if locked else name)
        asked = Wanted(wanted, bases.machine(), values, "")
        found = await pull(asked, self._store, self._host.registries, self._host.way(), job.note)
        base = await self._lent(found.layers, asdict(found.config), {"digest": found.digest}, space, job)
        if "@" not in name:
            # buildah looks for --build-context names before it fills in arguments: FROM $BASE needs the name itself.
            await self._buildah.name(base.name, str(reference.parse(name)))
        return base

    async def _lent(
        self,
        lowers: tuple[str, ...],
        config: Mapping[str, Any],
        facts: Mapping[str, str],
        space: layers.Workspace,
        job: Job,
    ) -> _Base:
        said = json.dumps([lowers, config], sort_keys=True, default=dict)
        name = f"localhost/alight-base/{hashlib.sha256(said.encode()).hexdigest()[:32]}"
        async with self._store.alone(f"buildah-{name.rpartition('/')[2]}", lambda: job.tell("waiting", "", 0.0)):
            if not await self._buildah.has(name):
                job.note("handing the image so far to buildah: once for all Dockerfiles on it")
                scratch = space.scratch / f"base-{name.rpartition('/')[2]}"
                scratch.mkdir()
                await self._buildah.add(name, [self._store.path(layer) for layer in lowers], scratch, config)
        return _Base(name, lowers, facts)

    async def _run(
        self, job: Job, space: layers.Workspace, name: str, known: Mapping[str, _Base], values: Mapping[str, str]
    ) -> None:
        what = job.step.what
        lent = space.scratch / "lent"
        await asyncio.to_thread(_write, lent, {**self._host.step_files(), **_settings(self._host)})
        arguments = ["-f", str(space.scratch / "Dockerfile"), "-t", name]
        for one, base in known.items():
            arguments += ["--build-context", f"{one}=container-image://{base.name}"]
        for key, value in {**job.step.env, **what.get("build_args", {})}.items():
            arguments += ["--build-arg", f"{key}={value}"]
        for key in values:
            arguments += ["--secret", f"id={key},env={key}"]
        for source, target, _ in self._binds(lent):
            arguments += ["-v", f"{source}:{target}:ro"]
        if job.step.force:
            arguments.append("--no-cache")
        output = job.output()
        env = {**self._host.proxies, **values}
        status = await self._buildah.build(arguments, space.scratch / "context" / "files", env, output.feed)
        output.close()
        if status != 0:
            raise trouble.step_failed(job.step.title, status, output.tail)

    def _binds(self, lent: Path) -> tuple[tuple[str, str, bool], ...]:
        return (
            (str(lent), LENT, True),
            (str(lent / "pip.conf"), "/etc/pip.conf", True),
            (str(lent / "uv.toml"), "/etc/uv/uv.toml", True),
            *self._host.step_binds(),
        )

    def _take_over(self, made: Made, job: Job) -> tuple[str, ...]:
        """buildah's layers as ours: by hard links, since neither side ever writes to them again."""
        targets = [target for _, target, _ in self._binds(Path("/"))] + list(layers.MOUNT_POINTS)
        names = []
        for diff, folder in made.layers:
            name = digest.step_key(digest.ROOT, {"buildah": diff})
            names.append(name)
            if self._store.path(name).is_dir():
                continue
            with self._store.workspace() as space:
                _link_tree(folder, space.upper)
                below = [self._store.path(layer) for layer in job.chain.layers]
                layers.clear_mount_points(space.upper, below, targets)
                self._store.keep_layer(space, name)
        return tuple(names)


def external(text: str, build_args: Mapping[str, str]) -> list[str]:
    """The images that a Dockerfile takes from elsewhere, in order, once each: neither its own stages nor scratch."""
    known: dict[str, str] = {}
    stages: set[str] = set()
    found: list[str] = []
    begun = False
    for line in re.sub(r"\\\s*\n", " ", text).splitlines():
        argument = _ARG.match(line)
        if argument and not begun:
            known[argument[1]] = build_args.get(argument[1], (argument[2] or "").strip("\"'"))
        start = _FROM.match(line)
        named = ""
        if start:
            begun = True
            named = _filled(start[1], known)
        elif copied := _COPY_FROM.match(line):
            named = _filled(copied[1], known)
        taken = named and named.lower() not in stages and named != "scratch" and not named.isdigit()
        if taken and named not in found:
            found.append(named)
        if start and start[2]:
            stages.add(start[2].lower())
    return found


def _filled(text: str, known: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        return known.get(match[1] or match[3], "") or match[2] or ""

    return re.sub(r"\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))", value, text)


def _as_config(chain: Chain) -> dict[str, Any]:
    return {name: getattr(chain, name) for name in ("env", "workdir", "entrypoint", "cmd", "shell")}


def _config(raw: Mapping[str, Any]) -> dict[str, Any]:
    pairs = [one.partition("=") for one in raw.get("Env") or ()]
    return {
        "env": {name: value for name, _, value in pairs},
        "workdir": raw.get("WorkingDir") or "",
        "entrypoint": raw.get("Entrypoint") or [],
        "cmd": raw.get("Cmd") or [],
        "shell": raw.get("Shell") or [],
    }


def _settings(host: HostConfig) -> dict[str, bytes]:
    """This machine's package settings as the files that pip and uv look for: RUN gets no environment from outside."""
    pip, uv = ["[global]"], []
    indexes = host.indexes
    if indexes.index_url:
        pip.append(f"index-url = {indexes.index_url}")
        uv.append(f"index-url = {json.dumps(indexes.index_url)}")
    if indexes.extra_index_urls:
        pip.append(f"extra-index-url = {' '.join(indexes.extra_index_urls)}")
        uv.append(f"extra-index-url = {json.dumps(list(indexes.extra_index_urls))}")
    if indexes.find_links:
        pip.append(f"find-links = {' '.join(indexes.find_links)}")
        uv.append(f"find-links = {json.dumps(list(indexes.find_links))}")
    if host.no_index:
        pip.append("no-index = true")
        uv.append("no-index = true")
    if host.ca_bundle:
        pip.append(f"cert = {LENT}/ca.pem")
    if host.trusted_hosts:
        pip.append(f"trusted-host = {' '.join(host.trusted_hosts)}")
    uv.append(f'index-strategy = "{indexes.strategy or "unsafe-best-match"}"')
    return {"pip.conf": ("\n".join(pip) + "\n").encode(), "uv.toml": ("\n".join(uv) + "\n").encode()}


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)


def _link_tree(source: Path, target: Path) -> None:
    """A directory again, its files as hard links; owners, modes, times and attributes as they are."""
    import subprocess  # noqa: PLC0415  cp keeps all that overlayfs knows of a file: whiteouts, attributes, owners

    done = subprocess.run(["cp", "-a", "-l", f"{source}/.", str(target)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"a layer of buildah's could not be taken over: {done.stderr.strip()[-300:]}")
