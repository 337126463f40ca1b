"""This machine's own server and node: found, started in the background, stopped.

With nothing configured, `alight run` and plain scripts come here: one lock makes starting idempotent, so two that
start at once get the same server. What is started lives in sessions of its own and outlives its starter. Nothing here
imports server or node: they are started as `python -m`, as anybody could.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Optional, Tuple

from alight.sdk import config, processes
from alight.wire import errors
from alight.wire.record import dataclass, replace

_READY_SECONDS = 30.0
_CLEAR_SECONDS = 120.0
_LOOK_SECONDS = 0.05
_TAIL_LINES = 8
_ALREADY_RUNS = 3  # what server and node exit with when another one holds the state directory


@dataclass(frozen=True)
class Status:
    """What runs of this state directory. Pids are None for what does not run."""

    home: Path
    server_pid: Optional[int] = None
    node_pid: Optional[int] = None
    socket_path: str = ""
    address: str = ""
    fingerprint: str = ""
    version: str = ""
    started_at: float = 0.0
    left: Tuple[str, ...] = ()
    """What ``stop`` ended besides: what a killed node had left, in words."""


@dataclass(frozen=True)
class Options:
    """How to start. ``listen`` is HOST:PORT or "none"; the rest are the node's."""

    listen: str = ""
    engine: str = ""
    fake_gpus: str = ""
    node: bool = True


def ensure(*, again: bool = False) -> str:
    """The path of the server's socket, after starting what does not run. ``again``: this program had a server before.

    Raises ConnectionError with the last lines of the log when a start fails, and when somebody stopped the server on
    purpose.
    """
    home = config.home()
    path = socket_path(home)
    if _answers(path) and _node_runs(home):
        return str(path)
    shared = _of_system()
    if shared is not None and joins_system():
        return str(shared)
    if again and _stopped_on_purpose(home):
        raise errors.ConnectionError(
            "the server was stopped while this program was using it", hint="`alight server start` starts it again"
        )
    start(Options())
    return str(path)


def joins_system() -> bool:
    """Whether this user, without a server of their own, is one of those of the machine's own server."""
    shared = _of_system()
    return shared is not None and not _answers(socket_path(config.home())) and _answers(shared)


def start(options: Options) -> Status:
    """Start server and node unless they run. Two at once do it once. Services of systemd are started by systemd."""
    from alight.sdk import services  # noqa: PLC0415  start-up weight: mostly there is nothing to start

    home = config.home()
    settings = config.load()
    _check_may_start(options.engine or settings["engine"])
    _make_directories(home)
    with _lock(home / "run" / "start.lock"):
        if _runs(home, options):
            return status()
        if services.of(home):
            services.check(home, [name for name in ("listen", "engine", "fake_gpus") if getattr(options, name)])
            services.start(node=options.node)
            _wait_for_services(home, options)
        else:
            _start_missing(home, options, settings)
    return status()


def stop() -> Status:
    """End the server and, with it, the node and every container of this machine, and what killed ones left of them.

    Returns what was running.
    """
    was = status()
    home = was.home
    (home / "run").mkdir(parents=True, exist_ok=True)
    with _lock(home / "run" / "start.lock"):
        (home / "run" / "stopped").touch()
        nodes = _end_all(home, "node", was.node_pid, signal.SIGUSR1)
        servers = _end_all(home, "server", was.server_pid, signal.SIGTERM)
        # The server may have been starting a killed node again when it heard of the end.
        nodes += _end_all(home, "node", None, signal.SIGUSR1)
        left = _end_leftovers(home)
    return replace(
        was, server_pid=servers[0] if servers else None, node_pid=nodes[0] if nodes else None, left=tuple(left)
    )


def status() -> Status:
    """What runs now."""
    home = config.home()
    server = _read_json(home / "run" / "server.json")
    pid = server.get("pid")
    alive = isinstance(pid, int) and processes.is_one(pid, "server") and _answers(socket_path(home))
    if not alive:
        return Status(home=home, node_pid=_node_pid(home))
    return Status(
        home=home,
        server_pid=pid,
        node_pid=_node_pid(home),
        socket_path=str(socket_path(home)),
        address=str(server.get("address") or ""),
        fingerprint=str(server.get("fingerprint") or ""),
        version=str(server.get("version") or ""),
        started_at=float(server.get("started_at") or 0.0),
    )


def socket_path(home: Path) -> Path:
    """Where the server of this state directory listens."""
    return home / "run" / "server.sock"


def log_path(home: Path, which: str) -> Path:
    """The log of "server", "node" or "spawner"."""
    return home / "log" / f"{which}.log"


def last_lines(path: Path, count: int = _TAIL_LINES) -> str:
    """The end of a log, for an error message."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16384))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in lines[-count:])


def _runs(home: Path, options: Options) -> bool:
    return _answers(socket_path(home)) and (not options.node or _node_runs(home))


def _wait_for_services(home: Path, options: Options) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not _runs(home, options):
        if time.monotonic() > deadline:
            which = "node" if _answers(socket_path(home)) else "server"
            tail = last_lines(log_path(home, which))
            raise errors.ConnectionError(
                f"the service alight-{which} did not become ready within {_READY_SECONDS:g} s"
                + (f"; its log {log_path(home, which)} ends with:\n{tail}" if tail else ""),
                hint=f"systemctl status alight-{which}",
            )
        time.sleep(_LOOK_SECONDS)


def _start_missing(home: Path, options: Options, settings: config.Config) -> None:
    with contextlib.suppress(FileNotFoundError):
        (home / "run" / "stopped").unlink()
    server = None
    if not _answers(socket_path(home)):
        listen = ["--listen", options.listen] if options.listen else []
        server = _Starting(home, "server", ["alight.server", "--home", str(home), *listen])
    arguments = ["alight.node", "--home", str(home), "--server", f"unix:{socket_path(home)}"]
    for flag, value in (("engine", options.engine), ("fake_gpus", options.fake_gpus)):
        chosen = value or settings[flag]
        if chosen:
            arguments += [f"--{flag.replace('_', '-')}", chosen]
    # The node dials until the server listens, so both can import at the same time.
    node = _Starting(home, "node", arguments) if options.node and not _node_runs(home) else None
    try:
        if server is not None:
            server.wait_ready()
        deadline = time.monotonic() + _READY_SECONDS
        while node is not None and not node.wait_ready() and not _comes_up(home, deadline):
            node = _Starting(home, "node", arguments)
    except BaseException:
        for started in (node, server):
            if started is not None:
                started.end()
        raise


def _comes_up(home: Path, deadline: float) -> bool:
    """Wait for the node that somebody else has started; whether it is ready. One that was killed may have been it."""
    while not _node_runs(home):
        if time.monotonic() > deadline:
            raise errors.ConnectionError(
                f"this machine's node, which is starting, did not become ready within {_READY_SECONDS:g} s",
                hint=f"see {log_path(home, 'node')}; `alight doctor` checks what it needs",
            )
        if _node_pid(home) is None:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


class _Starting:
    """A background process that prints READY when it may be used."""

    def __init__(self, home: Path, name: str, arguments: List[str]) -> None:
        self.name = name
        self.log = log_path(home, name)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",
                env=_environment(home),
                start_new_session=True,
            )

    def wait_ready(self) -> bool:
        """Whether it is ready; False: another one serves this directory, or was until it has quite ended."""
        out: IO[bytes] = self.process.stdout  # type: ignore[assignment]  # a pipe was asked for
        deadline = time.monotonic() + _READY_SECONDS
        seen = b""
        while b"READY" not in seen:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([out], [], [], left)[0]:
                raise self._failed(f"did not become ready within {_READY_SECONDS:g} s")
            piece = os.read(out.fileno(), 4096)
            if not piece:
                code = self.process.wait()
                if code == _ALREADY_RUNS:
                    out.close()
                    return False  # somebody else started it between our look and our start
                raise self._failed(f"ended at its start with exit code {code}")
            seen += piece
        out.close()
        # It is not ours to wait for: it outlives this program. Its end is seen by whoever uses it next.
        self.process.returncode = 0
        return True

    def end(self) -> None:
        self.process.returncode = None
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _failed(self, what: str) -> errors.Error:
        tail = last_lines(self.log)
        return errors.ConnectionError(
            f"this machine's {self.name} {what}" + (f"; its log {self.log} ends with:\n{tail}" if tail else ""),
            hint="`alight doctor` checks what it needs",
        )


#: Settings of the one who starts, not of what is started.
_NOT_FOR_SERVERS = frozenset(
    {"ALIGHT_SERVER_URL", "ALIGHT_TOKEN_ID", "ALIGHT_TOKEN_SECRET", "ALIGHT_PROFILE", "ALIGHT_ENVIRONMENT",
     "MODAL_ENVIRONMENT", "ALIGHT_TRACEBACK", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONBREAKPOINT"}
)  # fmt: skip


def _check_may_start(engine: str) -> None:
    if not sys.platform.startswith("linux"):
        raise errors.ConnectionError(
            "no server is configured, and this system cannot be one: Alight's server and containers need Linux",
            hint="`alight setup https://your-server:9009` connects this machine to one",
        )
    if sys.version_info < (3, 11):
        raise errors.ConnectionError(
            "no server is configured, and this Python cannot run one: Alight's server needs Python 3.11 or newer",
            hint="`alight setup https://your-server:9009`, or install Alight for a newer Python",
        )
    if os.geteuid() == 0 or engine == "process":
        return
    from alight.sdk import services  # noqa: PLC0415  as above

    if services.there():
        raise errors.ConnectionError(
            "this machine's Alight does not run: it is a service of systemd, which root starts",
            hint="sudo systemctl start alight-server alight-node",
        )
    raise errors.ConnectionError(
        "no server runs on this machine, and starting containers needs root once",
        hint="sudo alight server install   (or, without isolation: ALIGHT_ENGINE=process)",
    )


def _make_directories(home: Path) -> None:
    try:
        for name, mode in (("", 0o711), ("run", 0o700), ("log", 0o700)):
            directory = home / name
            directory.mkdir(parents=True, exist_ok=True, mode=mode)
        os.chmod(home / "log", 0o700)
    except OSError as error:
        raise errors.PermissionDeniedError(
            f"the state directory {home} cannot be made: {error.strerror}", hint="set ALIGHT_HOME to a place of yours"
        ) from error


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    import fcntl  # noqa: PLC0415  absent on Windows, where nothing is started

    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _of_system() -> Optional[Path]:
    """The socket of the machine's own server, which plain users join unless they named a state directory."""
    if os.environ.get("ALIGHT_HOME") or not hasattr(os, "geteuid") or os.geteuid() == 0:
        return None
    return socket_path(Path("/var/lib/alight"))


def _answers(path: Path) -> bool:
    """Whether somebody listens there: a file that a crashed server left behind does not."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(str(path))
    except PermissionError:
        raise errors.PermissionDeniedError(
            f"you may not use the server at {path}",
            hint="ask its owner to run: sudo usermod -aG alight $USER, then log in again",
        ) from None
    except OSError:
        return False
    finally:
        probe.close()
    return True


def _node_runs(home: Path) -> bool:
    """Whether there is a node that the server knows."""
    return _node_pid(home) is not None and _read_json(home / "run" / "node.json").get("ready", True) is True


def _node_pid(home: Path) -> Optional[int]:
    pid = _read_json(home / "run" / "node.json").get("pid")
    return pid if isinstance(pid, int) and processes.is_one(pid, "node") else None


def _end_all(home: Path, name: str, said: Optional[int], how: int) -> List[int]:
    """End all processes of a name; which those were. ``said`` is the one that is known by its file."""
    found = processes.find(home, name)
    if said is not None and said not in found:
        found.append(said)
    for pid in found:
        processes.end(pid, how, name, log_path(home, name))
    return found


def _end_leftovers(home: Path) -> List[str]:
    """End what a node that was killed, or that only disconnected, has left running; that in words."""
    containers = home / "node" / "containers"
    signs = home / "run" / "spawner.sock", home / "run" / "node.json"  # a node that ends everything removes them
    try:
        if not any(path.exists() for path in signs) and not (containers.is_dir() and any(containers.iterdir())):
            return []
    except PermissionError:
        raise errors.PermissionDeniedError(
            f"the state directory {home} is another user's", hint="run the same with sudo"
        ) from None
    with log_path(home, "node").open("ab") as log:
        done = subprocess.run(
            [sys.executable, "-m", "alight.node", "--home", str(home), "--clear"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            env=_environment(home),
            timeout=_CLEAR_SECONDS,
            check=False,
        )
    if done.returncode:
        raise errors.ServiceError(
            f"what an earlier node of {home} left could not be ended:\n{last_lines(log_path(home, 'node'))}",
            hint="`alight server stop` tries again",
        )
    return done.stdout.decode().splitlines()


def _environment(home: Path) -> Dict[str, str]:
    """Of processes that belong to this directory."""
    environment = {key: value for key, value in os.environ.items() if key not in _NOT_FOR_SERVERS}
    environment["ALIGHT_HOME"] = str(home)
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    return environment


def _stopped_on_purpose(home: Path) -> bool:
    return (home / "run" / "stopped").exists()


def _read_json(path: Path) -> Dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
