"""A plan on disk before its container starts: the bundle that the OCI runtime reads, and what the spawner is told.

The agent's side; the mounts themselves are the spawner's.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alight.node import mounts
from alight.node.engine import mountpoints, oci_config
from alight.node.engine.base import EngineError, rank_name
from alight.node.network import DNS_ADDRESS

if TYPE_CHECKING:
    from alight.node.engine.base import ContainerPlan


_HOSTS = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"


@dataclass(frozen=True)
class Node:
    """What the bundles of a node have in common."""

    machine: oci_config.Machine
    mountpoints: Path
    """Where empty targets of mounts are kept."""
    shared: Path
    """Sources of read-only binds below it are the same for many containers."""


def write(plan: ContainerPlan, directory: Path, group: str, base: int, node: Node) -> dict[str, Any]:
    """Write the bundle of a plan into its directory; the request for the spawner.

    ``base`` is the first id of its user namespace on the host, 0 for none.
    """
    _write_etc(plan, directory / "etc")
    upper = Path(plan.upper) if plan.upper is not None else directory / "upper"
    upper.mkdir(exist_ok=True)
    upper.chmod(0o755)
    os.chown(upper, base, base)
    sources, shared, shown = _sources(plan, directory, base, node)
    place = oci_config.Place(
        directory=str(directory),
        group=group,
        root=f"{_place(plan, directory, base)}/root",
        etc=f"{_place(plan, directory, base)}/etc",
        sources=sources,
        devices=tuple(_device_numbers(path) for path in plan.devices),
        base=base,
    )
    config = json.dumps(oci_config.config(plan, place, node.machine))
    descriptor = os.open(directory / "config.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(config)
    # A bucket's place is in mounts that we do not see; it is a directory.
    targets = [(one.target, mounts.is_bucket_place(one.source) or Path(one.source).is_dir()) for one in plan.binds]
    targets += [(path, False) for path in plan.devices]
    targets += mountpoints.behind_links((*plan.own_layers, *plan.layers))
    bottom = mountpoints.layer(node.mountpoints, targets)
    return {
        "id": plan.id,
        "directory": str(directory),
        "layers": [*plan.layers, bottom],
        "own_layers": list(plan.own_layers),
        "upper": str(upper),
        # Beside it, because both have to be on one file system.
        "work": f"{upper}.work",
        "group": group,
        "full_network": plan.network == "full",
        "base": base,
        "shared": shared,
        "devices": list(plan.devices),
        "shown": shown,
    }


def write_hosts(directory: Path, addresses: Sequence[str]) -> None:
    """Let a running container know the others of its gang, and itself, by "rank-0", "rank-1" …

    In place: a file of another number would not be the one that is bound into it.
    """
    names = "".join(f"{address} {rank_name(rank)}\n" for rank, address in enumerate(addresses))
    (directory / "etc" / "hosts").write_text(f"{_HOSTS}{names}", encoding="utf-8")


def _place(plan: ContainerPlan, directory: Path, base: int) -> str:
    return mounts.place(plan.id) if base else str(directory)


def _sources(
    plan: ContainerPlan, directory: Path, base: int, node: Node
) -> tuple[tuple[str, ...], list[str], list[tuple[str, str]]]:
    # Where the OCI runtime finds the source of each bind, and what the spawner has to show for that.
    if not base:
        return tuple(one.source for one in plan.binds), [], []
    place = _place(plan, directory, base)
    sources: list[str] = []
    shared: list[str] = []
    shown: list[tuple[str, str]] = []
    for number, one in enumerate(plan.binds):
        source = Path(one.source)
        if mounts.is_bucket_place(one.source):
            sources.append(one.source)
        elif source.is_relative_to(directory):
            sources.append(f"{place}/{source.relative_to(directory)}")
        elif one.readonly and source.is_relative_to(node.shared):
            sources.append(mounts.shared_place(one.source, base))
            shared.append(one.source)
        else:
            target = directory / f"bind{number}"
            if source.is_dir():
                target.mkdir(exist_ok=True)
            else:
                target.touch()
            sources.append(f"{place}/{target.name}")
            shown.append((one.source, target.name))
    return tuple(sources), shared, shown


def _write_etc(plan: ContainerPlan, etc: Path) -> None:
    etc.mkdir(exist_ok=True)
    texts = {
        "resolv.conf": f"nameserver {DNS_ADDRESS[0]}\n" if plan.network == "full" else "",
        "hostname": f"{plan.hostname}\n",
        "hosts": f"{_HOSTS}127.0.1.1 {plan.hostname}\n",
    }
    for name, text in texts.items():
        (etc / name).write_text(text, encoding="utf-8")
        # Whatever the agent's umask: users other than root read these.
        (etc / name).chmod(0o644)


def _device_numbers(path: str) -> tuple[str, int, int]:
    try:
        found = Path(path).stat()
    except OSError as error:
        raise EngineError(f"The device {path} is not there: {error.strerror}") from error
    if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        raise EngineError(f"{path} is not a device")
    kind = "c" if stat.S_ISCHR(found.st_mode) else "b"
    return kind, os.major(found.st_rdev), os.minor(found.st_rdev)
