"""What an operator can set, with what holds when nothing is set. Seconds, bytes, MiB as named."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from alight.gateway.limits import Limits
from alight.wire import errors, gpus

DEFAULT_PORT = 9009
DEFAULT_WEB_PORT = 9080
LOOPBACK = "127.0.0.1"
_DOMAIN = re.compile(r"(?=.{1,180}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
GROUP = "alight"  # of the users of a server that root runs, where the system has it


@dataclass(frozen=True)
class Settings:
    """``listen`` is HOST:PORT, "none", or "" for port 9009 of loopback (any free port when it is taken)."""

    home: Path
    listen: str = ""
    holder_grace: float = 120.0  # an ephemeral app whose client is gone lives this long
    node_grace: float = 60.0  # a machine that is gone keeps its containers this long
    results_kept: float = 7 * 86400.0
    files_kept: float = 7 * 86400.0  # code and files that no app and no image is made of any more
    rows_kept: float = 30 * 86400.0
    logs_kept: float = 30 * 86400.0
    log_bytes: int = 64 << 20  # of one container
    logs_bytes: int = 10 << 30  # of all containers; the oldest output goes first
    images_kept: float = 30 * 86400.0  # since their last use
    images_bytes: int | None = None  # on each machine; what was used least recently goes first
    bodies_in_memory: int = 64 << 20
    schedules_late: float | None = None  # a missed run is made up when it is no older; None: until the next one is due
    versions_kept: int = 10  # of each deployed app: so many can it go back to, the one that serves included
    web_listen: str = ""  # HOST:PORT of the web gateway, "none", or "" for 9080 of loopback (a free one when taken)
    web_domain: str = ""  # labels of web functions stand before it: <label>.<domain>
    web_cert: str = ""  # PEM files, several separated by ":"; the web gateway's port speaks TLS then
    web_key: str = ""
    web_plain: bool = False  # others than this machine's own may reach the web gateway in plain HTTP
    web_terminal: bool = True  # the dashboard may open terminals in containers
    gpu_aliases: dict[str, str] = field(default_factory=dict)  # the site's own names of GPUs
    metrics_open: bool = False  # everybody on this machine may read /metrics, without a token
    web: Limits = field(default_factory=Limits)

    @property
    def run(self) -> Path:
        """Sockets and what a client needs to find them."""
        return self.home / "run"

    @property
    def state(self) -> Path:
        """What must survive."""
        return self.home / "server"

    @property
    def log(self) -> Path:
        """Where the processes write their own logs."""
        return self.home / "log"

    def listen_address(self) -> tuple[str, int] | None:
        """Host and port, or None for the local socket only. Raises InvalidError."""
        return _address("--listen", self.listen, DEFAULT_PORT)

    def web_address(self) -> tuple[str, int] | None:
        """Where the web gateway listens; None: nowhere. Raises InvalidError."""
        return _address("ALIGHT_WEB_LISTEN", self.web_listen, DEFAULT_WEB_PORT)


def default_home() -> Path:
    """ALIGHT_HOME, else /var/lib/alight for root and a folder of the user's for everybody else."""
    named = os.environ.get("ALIGHT_HOME")
    if named:
        return Path(named)
    if os.getuid() == 0:
        return Path("/var/lib/alight")
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    return Path(data) / "alight"


def from_environment(home: Path, listen: str) -> Settings:
    """Settings with what the environment says: ALIGHT_HOLDER_GRACE, ALIGHT_NODE_GRACE, ALIGHT_IMAGES_KEPT,
    ALIGHT_LOGS_KEPT, ALIGHT_SCHEDULES_LATE (seconds), ALIGHT_IMAGES_GIB, ALIGHT_LOGS_MIB, ALIGHT_LOGS_GIB,
    ALIGHT_VERSIONS_KEPT, ALIGHT_GPU_ALIASES.
    """
    return Settings(
        home,
        listen,
        holder_grace=_seconds("ALIGHT_HOLDER_GRACE", Settings.holder_grace),
        node_grace=_seconds("ALIGHT_NODE_GRACE", Settings.node_grace),
        images_kept=_seconds("ALIGHT_IMAGES_KEPT", Settings.images_kept),
        logs_kept=_seconds("ALIGHT_LOGS_KEPT", Settings.logs_kept),
        log_bytes=_count("ALIGHT_LOGS_MIB", Settings.log_bytes >> 20, 1 << 20) << 20,
        logs_bytes=_count("ALIGHT_LOGS_GIB", Settings.logs_bytes >> 30, 1 << 20) << 30,
        images_bytes=_gib("ALIGHT_IMAGES_GIB"),
        schedules_late=_seconds("ALIGHT_SCHEDULES_LATE", 0.0) if os.environ.get("ALIGHT_SCHEDULES_LATE") else None,
        versions_kept=_count("ALIGHT_VERSIONS_KEPT", Settings.versions_kept),
        web_listen=os.environ.get("ALIGHT_WEB_LISTEN", ""),
        web_domain=_domain("ALIGHT_WEB_DOMAIN"),
        web_cert=os.environ.get("ALIGHT_WEB_CERT", ""),
        web_key=os.environ.get("ALIGHT_WEB_KEY", ""),
        web_plain=os.environ.get("ALIGHT_WEB_PLAIN") == "1",
        web_terminal=os.environ.get("ALIGHT_WEB_TERMINAL", "1") != "0",
        gpu_aliases=gpus.aliases(os.environ.get("ALIGHT_GPU_ALIASES", "")),
        metrics_open=os.environ.get("ALIGHT_METRICS_OPEN") == "1",
        web=_web_limits(),
    )


def _web_limits() -> Limits:
    normal = Limits()
    body = _count("ALIGHT_WEB_BODY_MIB", 0, 1 << 24)
    return Limits(
        head_bytes=_count("ALIGHT_WEB_HEAD_KIB", normal.head_bytes >> 10) << 10,
        head_seconds=_seconds("ALIGHT_WEB_HEAD_SECONDS", normal.head_seconds),
        idle_seconds=_seconds("ALIGHT_WEB_IDLE_SECONDS", normal.idle_seconds),
        body_bytes=body << 20 if body else None,
        message_bytes=_count("ALIGHT_WEB_MESSAGE_MIB", normal.message_bytes >> 20) << 20,
        lease_seconds=_seconds("ALIGHT_WEB_LEASE_SECONDS", normal.lease_seconds),
        connections=_count("ALIGHT_WEB_CONNECTIONS", normal.connections, 1_000_000),
        trust_forwarded=os.environ.get("ALIGHT_WEB_TRUST_PROXY") == "1",
    )


def _address(what: str, text: str, default: int) -> tuple[str, int] | None:
    if text == "none":
        return None
    if not text:
        return LOOPBACK, default
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise errors.InvalidError(f"{what} {text}: not HOST:PORT", hint=f"e.g. {what} 0.0.0.0:{default}")
    return host.strip("[]"), int(port)


def _domain(name: str) -> str:
    text = os.environ.get(name, "").lower().strip(".").removeprefix("*.")
    if text and not _DOMAIN.fullmatch(text):
        raise errors.InvalidError(f"{name}={text!r} is not the name of a domain", hint="e.g. apps.lab.example")
    return text


def _count(name: str, default: int, most: int = 10_000) -> int:
    text = os.environ.get(name)
    if not text:
        return default
    if not text.isdigit() or not 0 < int(text) <= most:
        raise errors.InvalidError(f"{name}={text!r} is not a number from 1 to {most}")
    return int(text)


def _gib(name: str) -> int | None:
    text = os.environ.get(name)
    if not text:
        return None
    if not text.isdigit():
        raise errors.InvalidError(f"{name}={text!r} is not a number of GiB")
    return int(text) << 30


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise errors.InvalidError(f"{name}={text!r} is not a number of seconds")
    return value
