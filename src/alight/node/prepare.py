"""From what the server asks for to what the engine needs: image, code, volumes, GPUs, environment of one container.

Everything that can be missing or wrong about a start is found here, before a process exists. Secrets are not here: they
go over the link, never into files.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from alight.builder import BuiltImage
from alight.node import channel, held_buckets, runtime_files
from alight.node.blobs import Blobs
from alight.node.engine.base import Bind, ContainerPlan, Engine, Limits, rank_name
from alight.node.gpus import GpuProvider, Injection, inject
from alight.node.images import Images
from alight.node.runtime_files import RuntimeFiles
from alight.node.stages import IMAGE, MOUNTS, Stages
from alight.node.templates import Ground
from alight.node.trees import Trees
from alight.node.volumes import Volumes
from alight.wire import errors
from alight.wire.codec import MAX_FRAME
from alight.wire.commands import StartContainer
from alight.wire.spec import FunctionSpec, Resources

SOCKETS = "/run/alight"
SPOOL = "/run/alight-spool"
_MIB = 1 << 20
#: Images say NVIDIA_VISIBLE_DEVICES=all, and a bare process would see what the machine has.
_NO_GPU = Injection(env=inject.NONE)
_RUNTIME = "alight/runtime/__main__.py"
#: The runtime's program, as isolated containers see it.
MAIN = f"{runtime_files.TARGET}/{_RUNTIME}"
#: Programs that spread over all cores of a machine by default get as many threads as the function asked cores for.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Workshop:
    """What preparing needs of the node."""

    engine: Engine
    images: Images
    trees: Trees
    runtime: RuntimeFiles
    volumes: Volumes
    gpus: GpuProvider
    blobs: Blobs


@dataclass(frozen=True)
class Prepared:
    """One container, ready to be started."""

    plan: ContainerPlan
    function: FunctionSpec
    """As the container sees it: without isolation, paths are the machine's."""
    env: Mapping[str, str]
    """What cannot be overridden by secrets and the function's env."""
    spool: str
    serialized: bytes = b""
    mounts: tuple[tuple[str, str], ...] = field(default=())
    """(target, source) of what must be checked after the mount."""
    ground: Ground | None = None
    """What templates of it would stand on; None without isolation, where there are none."""


async def prepare(start: StartContainer, shop: Workshop, stages: Stages, injected: Injection | None = None) -> Prepared:
    """Gather everything; ``stages`` hears how long what took. ``injected`` is for its GPUs.

    Raises Error: the reason goes to whoever called the function.
    """
    function = start.function
    # Their stores are asked while everything else is looked for.
    targets = {one.path: _target(one.path) for one in function.buckets}
    checking = asyncio.get_running_loop().create_task(held_buckets.prepare(start, targets))
    try:
        serialized = await _serialized(function, shop)
        code = await shop.trees.layers(function.files)
        stages.reached(MOUNTS, IMAGE)
        if shop.engine.isolates:
            prepared = await _isolated(start, shop, code, injected or _NO_GPU, serialized, stages)
            shown, binds = await checking
            plan = replace(prepared.plan, buckets=shown, binds=(*prepared.plan.binds, *binds))
            return replace(prepared, plan=plan)
        return await _bare(start, shop, code, injected or _NO_GPU, serialized)
    finally:
        checking.cancel()
        await asyncio.gather(checking, return_exceptions=True)


async def _isolated(
    start: StartContainer,
    shop: Workshop,
    code: tuple[str, ...],
    injected: Injection,
    serialized: bytes,
    stages: Stages,
) -> Prepared:
    function = start.function
    image = await shop.images.ready(function.image, function.python_version)
    library = await shop.runtime.ready(image)
    stages.reached(IMAGE, MOUNTS)
    folder = shop.engine.directory(start.container_id)
    make_folders(folder)
    binds = [
        Bind(str(library), runtime_files.TARGET),
        Bind(str(folder / "sock"), SOCKETS),
        Bind(str(folder / "spool"), SPOOL, readonly=False),
        *injected.binds,
    ]
    checked = []
    for mount in function.volumes:
        source = await asyncio.to_thread(shop.volumes.mount, mount.volume_id, mount.sub_path)
        binds.append(Bind(source, _target(mount.path), mount.read_only))
        if mount.sub_path:
            checked.append((_target(mount.path), source))
    reserved = _reserved(start, Path(SOCKETS))
    plan = ContainerPlan(
        id=start.container_id,
        layers=(*code, *image.layers),
        argv=(image.python_path, MAIN),
        env={**_environment(image, function, injected), **reserved},
        cwd=image.workdir or "/root",
        hostname=rank_name(start.cluster.rank) if start.cluster is not None else "alight",
        binds=tuple(binds),
        limits=_limits(function.resources),
        network="none" if function.block_network else "full",
        devices=injected.devices,
        owner=start.owner,
    )
    ground = Ground(
        owner=start.owner,
        image=image.digest,
        python=f"{image.python_path} {image.python_version}",
        env=environment(image),
        workdir=plan.cwd,
        library=str(library),
        layers=image.layers,
        code=code,
    )
    return Prepared(plan, function, reserved, SPOOL, serialized, tuple(checked), ground)


async def _bare(
    start: StartContainer, shop: Workshop, code: tuple[str, ...], injected: Injection, serialized: bytes
) -> Prepared:
    """For an engine without isolation: the machine's Python, and paths of the machine."""
    function = start.function
    if function.volumes or function.buckets:
        kind = "volume" if function.volumes else "bucket"
        raise errors.InvalidError(
            f"{function.name} mounts a {kind}, and containers without isolation have no mounts",
            hint="use the OCI engine; `alight doctor` says what it needs on this machine",
        )
    library = await shop.runtime.own()
    folder = shop.engine.directory(start.container_id)
    make_folders(folder)
    image = _settings(function)
    reserved = _reserved(start, folder / "sock")
    home = next((layer for layer in code if Path(layer, "root").is_dir()), "")
    env = {
        **_environment(image, function, injected),
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/root"),
        **reserved,
    }
    if code:
        env["PYTHONPATH"] = os.pathsep.join([str(Path(layer, "root")) for layer in code])
    plan = ContainerPlan(
        id=start.container_id,
        layers=(),
        argv=(image.python_path, str(library / _RUNTIME)),
        env=env,
        cwd=str(Path(home, "root")) if home else str(folder),
        hostname=rank_name(start.cluster.rank) if start.cluster is not None else "alight",
        network="none" if function.block_network else "full",
    )
    return Prepared(plan, _on_this_machine(function, code), reserved, str(folder / "spool"), serialized)


async def _serialized(function: FunctionSpec, shop: Workshop) -> bytes:
    if function.definition != "serialized":
        return b""
    return await shop.blobs.read(function.serialized, limit=MAX_FRAME - (1 << 20))


def environment(image: BuiltImage) -> dict[str, str]:
    """What every first process in an image starts with."""
    return {"HOME": "/root", "LANG": "C.UTF-8", **image.env, "PYTHONUNBUFFERED": "1"}


def _environment(image: BuiltImage, function: FunctionSpec, injected: Injection) -> dict[str, str]:
    """What the first process starts with. The image's own settings win over ours, GPUs' paths are joined to both."""
    env = environment(image)
    cpu = function.resources.cpu
    if cpu:
        for name in _THREADS:
            env.setdefault(name, str(max(1, round(cpu))))
    for name, value in injected.env.items():
        joined = name == "LD_LIBRARY_PATH" and env.get(name)
        env[name] = f"{value}:{env[name]}" if joined else value
    return env


def _reserved(start: StartContainer, sockets: Path) -> dict[str, str]:
    """Who the container is, under the names that scripts know and under ours, and where it finds the node.

    Nothing of a user overrides these.
    """
    facts = {
        "TASK_ID": start.container_id,
        "IMAGE_ID": start.image_id,
        "ENVIRONMENT": start.environment,
        "IS_REMOTE": "1",
        "REGION": "local",
        "CLOUD_PROVIDER": "self-hosted",
    }
    reserved = {f"{prefix}_{name}": value for prefix in ("ALIGHT", "MODAL") for name, value in facts.items()}
    reserved["ALIGHT_LINK"] = str(sockets / channel.LINK)
    if not start.function.restrict_access:
        reserved["ALIGHT_SDK"] = str(sockets / channel.SDK)
    return reserved


def _limits(resources: Resources) -> Limits:
    """Shares and ceilings. A reservation alone is no ceiling: only the second number of a pair kills."""
    memory = resources.memory_limit * _MIB if resources.memory_limit else None
    return Limits(
        cpu_shares=resources.cpu or 0.125,
        cpu_quota=resources.cpu_limit,
        memory_bytes=memory,
        shm_bytes=memory // 2 if memory else None,
    )


def _target(path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not path.startswith("/") or not parts or ".." in parts:
        raise errors.InvalidError(
            f"nothing can be mounted at {path!r}", hint="use an absolute path that is not the root"
        )
    return "/" + "/".join(parts)


def make_folders(folder: Path) -> None:
    """What lies in a container's directory before the engine comes: sockets, large payloads, answers."""
    for name, mode in (("sock", 0o755), ("spool", 0o700), ("outputs", 0o700)):
        (folder / name).mkdir(mode=mode, parents=True, exist_ok=True)


def _settings(function: FunctionSpec) -> BuiltImage:
    """What of an image means something without one: its environment."""
    env: dict[str, str] = {}
    for step in function.image.steps:
        if step.get("op") == "env":
            env.update({str(name): str(value) for name, value in step.get("vars", {}).items()})
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return BuiltImage("", (), env, "", sys.executable, version)


def _on_this_machine(function: FunctionSpec, code: tuple[str, ...]) -> FunctionSpec:
    for layer in code:
        path = Path(layer, function.source_path.lstrip("/"))
        if function.source_path and path.is_file():
            return replace(function, source_path=str(path))
    return function
