"""Server and node as services of systemd, for machines that are to have them at every start.

Writes two unit files and a group; asks nothing and prints nothing. `server.py` and `uninstall.py` say what was done.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from alight.sdk import services
from alight.wire.errors import Error, PermissionDeniedError

HOME = Path("/var/lib/alight")  # the state directory of the services
UNITS = services.UNITS
SETTINGS = Path("/etc/default/alight")  # ALIGHT_… settings of the services, a line each
GROUP = "alight"


def install(home: Path, listen: str) -> List[str]:
    """Make the group, write the units, and start them. Returns what was made. Look whether it can be done before."""
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
    _run("systemctl", "enable", "--now", *_NAMES)
    return made


def check_root(doing: str, command: str) -> None:
    """Raise PermissionDeniedError for all but root."""
    if os.geteuid() != 0:
        raise PermissionDeniedError(f"{doing} a system service needs root", hint=f"sudo alight server {command}")


def check_can_install() -> None:
    """Raise what keeps services from being installed: not root, or no systemd."""
    check_root("installing", "install")
    if shutil.which("systemctl") is None or not Path("/run/systemd/system").is_dir():
        raise Error(
            "this machine was not started by systemd, and Alight knows no other way to install a service",
            hint="`alight server start` starts it in the background until the machine is turned off",
        )


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
    server = [sys.executable, "-m", "alight.server", "--home", str(home), *(["--listen", listen] if listen else [])]
    address = f"unix:{home}/run/server.sock"
    node = [sys.executable, "-m", "alight.node", "--home", str(home), "--server", address, "--kept"]
    return {
        _NAMES[0]: _unit("Alight server", "network-online.target", server, home),
        _NAMES[1]: _unit("Alight node", _NAMES[0], node, home, *_FOR_CONTAINERS),
    }


def state() -> Dict[str, str]:
    """What systemd says of each unit that is there: "enabled", "disabled" …; "written" where it cannot be asked."""
    found = {}
    for name in _NAMES:
        if (UNITS / name).exists():
            done = None
            if shutil.which("systemctl") is not None and Path("/run/systemd/system").is_dir():
                done = subprocess.run(["systemctl", "is-enabled", name], capture_output=True, text=True, check=False)
            found[name] = done.stdout.strip() or "unknown" if done is not None else "written"
    return found


def settings() -> Dict[str, str]:
    """What the services find in their environment: the ALIGHT_… lines of their file of settings."""
    found = {}
    try:
        lines = SETTINGS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    for line in lines:
        name, is_one, value = line.strip().partition("=")
        if is_one and name.startswith("ALIGHT_"):
            with contextlib.suppress(ValueError):  # systemd leaves out what it cannot read, too
                found[name] = "".join(shlex.split(value)[:1])
    return found


def python() -> Optional[Path]:
    """The Python that the server's unit starts."""
    for line in (UNITS / _NAMES[0]).read_text(encoding="utf-8").splitlines():
        if line.startswith("ExecStart="):
            return Path(shlex.split(line.partition("=")[2])[0].replace("%%", "%"))
    return None


_NAMES = (services.SERVER, services.NODE)
# Containers have groups of their own below the service's, where all their processes count, and one that is killed for
# memory is no reason to end the node.
_FOR_CONTAINERS = ("Delegate=yes", "TasksMax=infinity", "OOMPolicy=continue")
_RUNS_ALREADY = 3  # what server and node exit with where somebody has started another one by hand


def _unit(description: str, after: str, command: Sequence[str], home: Path, *more: str) -> str:
    path = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    lines = [
        f"Environment={_quoted(f'ALIGHT_HOME={home}')} {_quoted(f'PATH={path}')}",
        f"EnvironmentFile=-{SETTINGS}",
        f"ExecStartPre=-/bin/rm -f {_quoted(f'{home}/run/stopped')}",  # `alight server stop` was for the time before
        f"ExecStart={' '.join(_quoted(word) for word in command)}",
        "Restart=on-failure",
        f"RestartPreventExitStatus={_RUNS_ALREADY}",
        "KillMode=process",
        "LimitNOFILE=1048576",
        *more,
    ]
    settings = "\n".join(lines)
    return f"""[Unit]
Description={description}
After={after}
Wants={after}
StartLimitIntervalSec=0

[Service]
{settings}

[Install]
WantedBy=multi-user.target
"""


def _quoted(word: str) -> str:
    """A word of a unit file: % means itself, spaces are part of it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if " " in word or escaped != word else word


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Error(f"`{' '.join(words)}` failed: {done.stderr.strip() or done.returncode}")
