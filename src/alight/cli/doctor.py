"""``alight doctor``: what this machine can do, what it cannot, and the commands that would help.

The checks are the node's (`node/doctor.py`); here they are printed, and, when asked, their remedies are run. Nothing is
run that was not shown first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any, List, Sequence

import click

from alight.cli import options, terminal
from alight.cli.terminal import Style
from alight.sdk import config
from alight.wire.errors import Error

_MARKS = {"ok": "✓", "warning": "!", "missing": "✗"}


@click.command(short_help="Check what this machine can do, and fix what it cannot.")
@click.option("--fix", is_flag=True, help="Show the commands that would help, and run those that you agree to.")
@options.yes
@options.as_json
def doctor(fix: bool, yes: bool, as_json: bool) -> None:
    """Check what containers, images and GPUs need on this machine. Exit status 1 when something needed is missing."""
    checks = _checks()
    if fix:
        _show(checks)
        _fix(checks, yes=yes)
        checks = _checks()
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        _show(checks)
    if any(check.level == "missing" for check in checks):
        raise click.exceptions.Exit(1)


def _checks() -> Sequence[Any]:
    if not sys.platform.startswith("linux"):
        raise Error(
            "this system cannot run containers of Alight, and needs nothing to be a client",
            hint="`alight setup https://HOST:9009` connects it to a server",
        )
    from alight.node.doctor import examine  # noqa: PLC0415  heavy, and Linux only

    return [*examine(config.home()), _boot()]


def _boot() -> Any:
    """Whether deployed apps come back after a boot."""
    from alight.cli import service  # noqa: PLC0415  this command only
    from alight.node.doctor import OK, WARNING, Check  # noqa: PLC0415  heavy, and Linux only

    name, home, states = "boot", config.home(), service.state()
    if home != service.HOME:
        return Check(
            name, WARNING, f"deployed apps of {home} come back after a boot when `alight server start` is run for it"
        )
    if not states:
        return Check(
            name,
            WARNING,
            "deployed apps come back after a boot when `alight server start` is run; "
            "`sudo alight server install` has systemd do it",
        )
    python = service.python()
    if python is None or not python.exists():
        return Check(
            name,
            WARNING,
            f"the services of systemd start {python}, which does not exist any more: deployed apps will not come back",
            ("sudo alight server install",),
        )
    if set(states.values()) <= {"enabled"}:
        return Check(name, OK, f"deployed apps come back after a boot ({', '.join(states)})")
    shown = ", ".join(f"{unit}: {state}" for unit, state in states.items())
    return Check(
        name,
        WARNING,
        f"systemd does not start the services at boot ({shown}): deployed apps will not come back by themselves",
        (f"sudo systemctl enable --now {' '.join(states)}",),
    )


def _show(checks: Sequence[Any]) -> None:
    style = Style(colour=terminal.wants_colour(sys.stdout))
    paint = {"ok": style.good, "warning": style.warning, "missing": style.bad}
    width = max((len(check.name) for check in checks), default=0)
    for check in checks:
        mark = paint[check.level](_MARKS[check.level])
        print(f"{mark} {check.name:<{width}}  {terminal.clean(check.sentence)}")
        if check.level != "ok" and check.fix:
            print(f"  {'':<{width}}  {style.faint('fix: ' + ' && '.join(check.fix))}")


def _fix(checks: Sequence[Any], *, yes: bool) -> None:
    commands: List[str] = []
    for check in checks:
        if check.level != "ok":
            commands.extend(command for command in check.fix if command not in commands)
    if not commands:
        print("Nothing to fix.", file=sys.stderr)
        return
    for command in commands:
        print(f"\n    {command}\n", file=sys.stderr)
        options.confirm("Run this?", yes=yes)
        done = subprocess.run(["/bin/sh", "-c", command], check=False)
        if done.returncode:
            raise Error(f"`{command}` failed with exit status {done.returncode}")
