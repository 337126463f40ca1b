"""``alight node``: which machines there are, and how to lend this one to a server.

Runs the agent here, in the foreground; `alight server start` starts the one beside its server by itself.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Optional, Sequence

import click

from alight.cli import options, session, tables
from alight.sdk import config, local
from alight.wire.errors import ConflictError
from alight.wire.measures import NodeList, NodeShown, NodesListed


@click.group(short_help="List machines, lend this one to a server.")
def node() -> None:
    """List machines, lend this one to a server."""


@node.command("list")
@options.as_json
def list_(as_json: bool) -> None:
    """List the machines that containers run on: what each has, and what of it is in use."""
    found = session.ask("node.list", NodeList(), NodesListed).nodes
    columns = ("Node ID", "Machine", "State", "Containers", "CPU", "Memory", "GPUs", "Version", "Last seen")
    rows = [
        (
            one.node_id,
            one.hostname,
            one.state,
            one.containers,
            {"used": one.cpu, "cores": one.cpus} if as_json else _of(one.cpu, one.cpus, "cores"),
            {"used": one.memory_used, "bytes": one.memory} if as_json else _memory(one),
            list(one.gpus) if as_json else _counted(one.gpus),
            one.version,
            one.last_seen if as_json else ("now" if one.state == "connected" else tables.when(one.last_seen)),
        )
        for one in found
    ]
    tables.show(columns, rows, as_json=as_json, empty="No machine was ever connected. `alight node start` lends one.")


@node.command()
@click.option(
    "--server", "server_url", metavar="URL", help="tls:HOST:PORT#FINGERPRINT, or unix:PATH. [default: this machine's]"
)
@click.option("--engine", type=click.Choice(["oci", "process"]), help="What runs containers. [default: oci]")
@click.option("--fake-gpus", metavar="TYPE:N", help="Pretend to have GPUs, for trying things out.")
def start(server_url: Optional[str], engine: Optional[str], fake_gpus: Optional[str]) -> None:
    """Run the agent of this machine, here, until Ctrl-C. It dials the server, and dials again when it loses it.

    Containers outlive the agent: started again, it finds them. `alight server stop` ends both.
    """
    home = config.home()
    pid = local.status().node_pid
    if pid is not None:
        raise ConflictError(f"the node of {home} runs already (pid {pid})", hint="`alight server stop` ends it")
    command = [sys.executable, "-m", "alight.node", "--home", str(home)]
    command += ["--server", server_url or f"unix:{local.socket_path(home)}"]
    for flag, value in (("--engine", engine), ("--fake-gpus", fake_gpus)):
        if value:
            command += [flag, value]
    child = subprocess.Popen(command)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        code = child.wait()
    if code:
        raise click.exceptions.Exit(code)


@node.command()
def status() -> None:
    """Show whether the agent of this machine runs."""
    pid = local.status().node_pid
    print(f"pid {pid}" if pid is not None else "not running")
    if pid is None:
        raise click.exceptions.Exit(1)


def _counted(names: Sequence[str]) -> str:
    """ "8 x H100, L4": in the order in which they come."""
    counts = {name: names.count(name) for name in names}
    return ", ".join(f"{many} x {name}" if many > 1 else name for name, many in counts.items())


def _of(used: Optional[float], whole: float, unit: str) -> str:
    if not whole:
        return ""
    return f"{'?' if used is None else format(used, '.1f')} of {whole:g} {unit}"


def _memory(one: NodeShown) -> str:
    if not one.memory:
        return ""
    return f"{'?' if one.memory_used is None else tables.size(one.memory_used)} of {tables.size(one.memory)}"
