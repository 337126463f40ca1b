"""Server and node as services of systemd, for machines that are to have them at every start.

Writes two unit files and a group; asks nothing and prints nothing. `server.py` and `uninstall.py` say what was done.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

from alight.wire.errors import Error, PermissionDeniedError

UNITS = Path("/etc/systemd/system")
GROUP = "alight"


def install(home: Path, listen: str) -> List[str]:
    """Make the group, write the units, and start them. Returns what was made.

    Raises Error where there is no systemd.
    """
    if os.geteuid() != 0:
        raise PermissionDeniedError("installing a system service needs root", hint="sudo alight server install")
    if shutil.which("systemctl") is None or not Path("/run/systemd/system").is_dir():
        raise Error(
            "this machine was not started by systemd, and Alight knows no other way to install a service",
            hint="`alight server start` starts it in the background until the machine is turned off",
        )
    import grp  # noqa: PLC0415  absent on Windows

    made = []
    try:
        grp.getgrnam(GROUP)
    except KeyError:
        _run("groupadd", "--system", GROUP)
        made.append(f"the group {GROUP}")
    for name, text in units(home, listen).items():
        (UNITS / name).write_text(text, encoding="utf-8")
        made.append(str(UNITS / name))
    _run("systemctl", "daemon-reload")
    _run("systemctl", "enable", "--now", *units(home, listen))
    return made


def remove() -> List[str]:
    """Stop and remove what ``install`` made, save the group, which may have members. Returns what was removed."""
    present = [UNITS / name for name in _NAMES if (UNITS / name).exists()]
    if not present:
        return []
    if shutil.which("systemctl") is not None:
        _run("systemctl", "disable", "--now", *(path.name for path in present))
    for path in present:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    if shutil.which("systemctl") is not None:
        _run("systemctl", "daemon-reload")
    return [str(path) for path in present]


def units(home: Path, listen: str) -> Dict[str, str]:
    """The unit files by name. Stopping the node's service leaves its containers running, as an update needs."""
    python = sys.executable
    listening = f" --listen {listen}" if listen else ""
    return {
        _NAMES[0]: _unit(
            "Alight server",
            "network-online.target",
            f"{python} -m alight.server --home {home}{listening}",
            home,
        ),
        _NAMES[1]: _unit(
            "Alight node",
            _NAMES[0],
            f"{python} -m alight.node --home {home} --server unix:{home}/run/server.sock",
            home,
        ),
    }


_NAMES = ("alight-server.service", "alight-node.service")


def _unit(description: str, after: str, command: str, home: Path) -> str:
    return f"""[Unit]
Description={description}
After={after}
Wants={after}

[Service]
Environment=ALIGHT_HOME={home}
ExecStart={command}
Restart=on-failure
KillMode=process
Delegate=yes

[Install]
WantedBy=multi-user.target
"""


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Error(f"`{' '.join(words)}` failed: {done.stderr.strip() or done.returncode}")
