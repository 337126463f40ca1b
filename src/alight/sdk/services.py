"""Server and node as services of systemd: whether a state directory is theirs, and having systemd start them.

What `alight server install` writes (``cli/service.py``) is read here. A server that was started beside its service
would have the service fail, and would not be there after the next boot.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Optional, Sequence

from alight.wire import errors

UNITS = Path("/etc/systemd/system")
SYSTEMD = Path("/run/systemd/system")  # there when this machine was started by it
SERVER, NODE = "alight-server.service", "alight-node.service"
_SECONDS = 90.0  # as long as systemd waits by itself


def there() -> bool:
    """Whether this machine has them, and a systemd that can start them."""
    return (UNITS / SERVER).is_file() and SYSTEMD.is_dir() and shutil.which("systemctl") is not None


def of(home: Path) -> bool:
    """Whether this state directory is theirs."""
    return there() and _home() == home.resolve()


def check(home: Path, given: Sequence[str]) -> None:
    """Raise InvalidError when a start was given settings, by these names: services have theirs elsewhere."""
    if given:
        option = f"--{given[0].replace('_', '-')}"
        raise errors.InvalidError(
            f"{option} is no setting of a start here: server and node of {home} are services of systemd",
            hint="sudo alight server install --listen …, or the settings in /etc/default/alight, then "
            "`systemctl restart alight-server alight-node`",
        )


def start(*, node: bool) -> None:
    """Have systemd start them. Raises ConnectionError with what it says."""
    command = ["systemctl", "start", SERVER, *([NODE] if node and (UNITS / NODE).is_file() else [])]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise errors.ConnectionError(
            f"`{' '.join(command)}` did not end within {_SECONDS:g} s", hint=f"systemctl status {SERVER}"
        ) from None
    if done.returncode:
        said = done.stderr.strip() or f"exit status {done.returncode}"
        raise errors.ConnectionError(f"`{' '.join(command)}` failed: {said}", hint=f"systemctl status {SERVER}")


def _home() -> Optional[Path]:
    """The state directory in the server's unit."""
    try:
        lines = (UNITS / SERVER).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in lines:
        if line.startswith("ExecStart="):
            words = [word.replace("%%", "%") for word in shlex.split(line.partition("=")[2])]
            if "--home" in words[:-1]:
                return Path(words[words.index("--home") + 1]).resolve()
    return None
