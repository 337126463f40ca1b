"""``alight node``: lend this machine to a server.

Runs the agent here, in the foreground; `alight server start` starts the one beside its server by itself.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Optional

import click

from alight.sdk import config, local
from alight.wire.errors import ConflictError


@click.group(short_help="Lend this machine to a server.")
def node() -> None:
    """Lend this machine to a server."""


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
