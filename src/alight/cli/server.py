"""``alight server``: start, stop and look at this machine's server, with its node and their logs.

The only file of the CLI that may load the server, and only for a start in the foreground; in the background it is
started by ``sdk/local.py``, as `alight run` does it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Optional, Tuple

import click

from alight.cli import backup, service, session, tables, terminal
from alight.cli.terminal import Style
from alight.sdk import config, local
from alight.wire.errors import Error, NotFoundError
from alight.wire.messages import ServerInfo


@click.group(short_help="Start, stop and look at the server.")
def server() -> None:
    """Start, stop and look at the server of this machine."""


@server.command()
@click.option("--listen", metavar="HOST:PORT|none", default="", help="Where to listen besides the local socket.")
@click.option("--engine", type=click.Choice(["oci", "process"]), help="What runs containers. [default: oci]")
@click.option("--fake-gpus", metavar="TYPE:N", default="", help="Pretend to have GPUs, for trying things out.")
@click.option("--no-node", is_flag=True, help="Do not lend this machine to the server.")
@click.option("--foreground", is_flag=True, help="Run the server alone, here, until Ctrl-C.")
def start(listen: str, engine: Optional[str], fake_gpus: str, no_node: bool, foreground: bool) -> None:
    """Start server and node in the background, unless they run.

    `alight run` does the same by itself where nothing is configured.
    """
    before = local.status()
    if foreground:
        if before.server_pid is not None:
            raise Error(f"the server runs already (pid {before.server_pid})", hint="`alight server stop` ends it")
        _foreground(listen)
        return
    now = local.start(local.Options(listen=listen, engine=engine or "", fake_gpus=fake_gpus, node=not no_node))
    style = Style(colour=terminal.wants_colour(sys.stderr))
    if before.server_pid == now.server_pid and before.node_pid == now.node_pid:
        print(f"The server runs already (pid {now.server_pid})", file=sys.stderr)
        if listen or engine or fake_gpus:
            print(f"{style.warning('! warning:')} options take effect at the next start only", file=sys.stderr)
        return
    print(f"{style.good('✓')} Server (pid {now.server_pid}) at {now.address or now.socket_path}", file=sys.stderr)
    if now.node_pid is not None:
        print(f"{style.good('✓')} Node (pid {now.node_pid})", file=sys.stderr)


@server.command()
def stop() -> None:
    """Stop server and node of this machine. Containers end; what was accepted goes on after the next start."""
    was = local.stop()
    if was.server_pid is None and was.node_pid is None and not was.left:
        print(f"Nothing runs in {was.home}", file=sys.stderr)
        return
    names = [
        f"{name} (pid {pid})" for name, pid in (("server", was.server_pid), ("node", was.node_pid)) if pid is not None
    ]
    if names:
        print(f"Stopped {' and '.join(names)}", file=sys.stderr)
    if was.left:
        print(f"Ended what an earlier node had left: {', '.join(was.left)}", file=sys.stderr)


@server.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show what runs: address, pids, uptime, version, state directory, machines. Exit status 1 when nothing does."""
    here = local.status()
    elsewhere = bool(config.load()["server_url"]) or local.joins_system()
    if not elsewhere and here.server_pid is None:
        if as_json:
            print(json.dumps({"running": False, "home": str(here.home), "node_pid": here.node_pid}, indent=2))
        node = f"; a node does (pid {here.node_pid})" if here.node_pid else ""
        raise NotFoundError(f"no server runs in {here.home}{node}", hint="`alight server start` starts one")
    info = session.ask("server.info", {}, ServerInfo)
    if as_json:
        node_pid = None if elsewhere else here.node_pid
        print(json.dumps({"running": True, "node_pid": node_pid, **asdict(info)}, indent=2))
        return
    for name, value in _status_lines(info, here, elsewhere=elsewhere):
        print(f"{name:<13} {terminal.clean(str(value))}")


@server.command()
@click.option("-f", "--follow", is_flag=True, help="Go on as lines come.")
@click.option(
    "-n", "--tail", type=click.IntRange(min=0), metavar="N", default=100, show_default=True, help="So many last lines."
)
@click.option(
    "--of", type=click.Choice(["server", "node", "spawner"]), default="server", show_default=True, help="Whose log."
)
def logs(follow: bool, tail: int, of: str) -> None:
    """Show the log of this machine's server, node or spawner."""
    path = local.log_path(config.home(), of)
    if not path.exists():
        raise NotFoundError(f"there is no log at {path}", hint="`alight server start` starts the server")
    shown = terminal.is_terminal(sys.stdout)
    for line in follow_lines(path, tail, follow=follow):
        print(terminal.clean(line) if shown else line, flush=follow)


@server.command()
def uninstall() -> None:
    """Stop the services that `install` made and remove them (needs root). The state directory stays."""
    if not service.state():
        raise NotFoundError("no service of Alight is installed here", hint="`sudo alight server install` makes one")
    service.check_root("removing", "uninstall")
    if config.home() == service.HOME:
        local.stop()  # a service that is stopped leaves its containers running
    for one in service.remove():
        print(f"Removed {one}", file=sys.stderr)


@server.command()
@click.option("--listen", metavar="HOST:PORT|none", default="", help="Where to listen besides the local socket.")
def install(listen: str) -> None:
    """Make server and node services that start with the machine (systemd, needs root).

    Members of the group `alight` may use them.
    """
    service.check_can_install()
    running = local.status()
    if running.server_pid is not None and running.home == service.HOME:
        local.stop()
    for one in service.install(service.HOME, listen):
        print(f"Made {one}", file=sys.stderr)
    print(f"Settings go into {service.SETTINGS}, a line like ALIGHT_VERSIONS_KEPT=20 each", file=sys.stderr)
    print(f"Let somebody use it: usermod -aG {service.GROUP} USER", file=sys.stderr)


server.add_command(backup.backup)
server.add_command(backup.restore)
server.add_command(backup.rotate_key)


def follow_lines(path: Path, tail: int, *, follow: bool) -> Iterator[str]:
    """The last lines of a file, and then those that come; a file that was rotated away is opened again."""
    file = path.open(encoding="utf-8", errors="replace")
    try:
        yield from _last(file, tail)
        held = ""
        while follow:
            piece = file.read()
            if piece:
                *whole, held = (held + piece).split("\n")
                yield from whole
                continue
            if _was_rotated(path, file):
                file.close()
                file = path.open(encoding="utf-8", errors="replace")
                continue
            time.sleep(0.2)
    finally:
        file.close()


def _foreground(listen: str) -> None:
    """The server's own main, as a child that gets our terminal and our Ctrl-C."""
    command = [sys.executable, "-m", "alight.server", "--home", str(config.home())]
    if listen:
        command += ["--listen", listen]
    child = subprocess.Popen(command)
    try:
        code = child.wait()
    except KeyboardInterrupt:
        code = child.wait()
    if code:
        raise click.exceptions.Exit(code)


def _status_lines(info: ServerInfo, here: local.Status, *, elsewhere: bool) -> List[Tuple[str, Any]]:
    lines: List[Tuple[str, Any]] = [
        ("server", f"pid {info.pid}, version {info.version}"),
        ("up for", tables.duration(max(0.0, time.time() - info.started_at))),
        ("address", info.address or "local socket only"),
    ]
    if info.fingerprint:
        lines.append(("fingerprint", info.fingerprint))
    if not elsewhere:
        lines.append(("socket", here.socket_path))
        lines.append(("node", f"pid {here.node_pid}" if here.node_pid else "not running"))
    lines.append(("state", info.home))
    lines.extend(("machine", _machine(asdict(node))) for node in info.nodes)
    if not info.nodes:
        lines.append(("machine", "none is connected: functions wait"))
    return lines


def _machine(node: Dict[str, Any]) -> str:
    gpus = ", ".join(node["gpus"]) or "no GPU"
    memory = tables.size(node["memory"] * 1024.0 * 1024.0)
    what = f"{node['engine']}, {node['cpus']:g} CPUs, {memory}, {gpus}"
    return f"{node['hostname']}: {what}, {node['containers']} containers"


def _last(file: IO[str], count: int) -> List[str]:
    from collections import deque  # noqa: PLC0415  this command only

    return [line.rstrip("\n") for line in deque(file, maxlen=count)]


def _was_rotated(path: Path, file: IO[str]) -> bool:
    import os  # noqa: PLC0415  this command only

    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(file.fileno())
    return (now.st_ino, now.st_dev) != (opened.st_ino, opened.st_dev) or now.st_size < file.tell()
