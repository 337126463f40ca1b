"""`python -m alight.node`: the agent as a process of its own.

SIGTERM disconnects (containers run on). The server's word "shutdown", or SIGUSR1, ends everything. With --clear it ends
what an agent that is no more left running.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import hashlib
import importlib
import json
import logging
import logging.handlers
import os
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import IO

from alight.link.run import run
from alight.node import machine, templates
from alight.node.engine.base import Engine
from alight.node.engine.oci import OciEngine
from alight.node.engine.process import ProcessEngine
from alight.node.gpus import desk, provider
from alight.node.session import ServerAddress
from alight.wire import errors
from alight.wire.version import __version__

log = logging.getLogger("alight.node")

#: What `python -m alight.node` says with its exit status when another one holds the state directory.
ALREADY_RUNS = 3
_LOG_BYTES = 10 << 20
_LOG_FILES = 5


def main(argv: list[str] | None = None) -> int:
    """Run until told to end. Prints READY on stdout when the server knows this node."""
    asked = _arguments(argv)
    home = Path(asked.home).resolve()
    for name in ("run", "log", "node"):
        (home / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    _log_to(home / "log" / "node.log")
    lock = _lock(home / "run" / "node.lock")
    if lock is None:
        holder = _holder(home / "run" / "node.lock")
        print(f"alight: another node serves {home}: {holder}", file=sys.stderr)  # noqa: T201
        return ALREADY_RUNS
    with lock:
        if asked.clear:
            return _clear(home)
        # The memory of this process has secrets in it, and that of containers, which inherit this and may raise it.
        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, most))
        _say_where(home, asked, argv if argv is not None else sys.argv[1:])
        try:
            run(_serve(asked, home))
        except errors.Error as error:
            hint = f" ({error.hint})" if error.hint else ""
            log.error("%s%s", error, hint)
            print(f"alight: {error}{hint}", file=sys.stderr)  # noqa: T201
            return 1
        finally:
            (home / "run" / "node.json").unlink(missing_ok=True)
    return 0


def _clear(home: Path) -> int:
    from alight.node import clearing  # noqa: PLC0415  start-up weight

    try:
        ended = run(clearing.clear(home, instance_of(home), _oci_runtime()))
    except (errors.Error, OSError) as error:
        log.error("what an earlier node left could not be ended: %s", error)
        return 1
    (home / "run" / "node.json").unlink(missing_ok=True)
    for one in ended:
        print(one)  # noqa: T201
    return 0


async def _serve(asked: argparse.Namespace, home: Path) -> None:
    token = os.environ.get("ALIGHT_TOKEN_ID", ""), os.environ.get("ALIGHT_TOKEN_SECRET", "")
    server = ServerAddress.parse(asked.server, token_id=token[0], token_secret=token[1])
    told = templates.settings(os.environ, machine.facts().memory_mib)
    sharing = desk.sharing(os.environ)
    engine: Engine
    if asked.engine == "process":
        engine = ProcessEngine(home, lenient=asked.lenient)
    else:
        engine = OciEngine(home, instance_of(home), runtime=_oci_runtime(), user_namespaces=_user_namespaces())
    if not engine.isolates:
        log.warning("containers of this node are bare processes: nothing is isolated")
    loop = asyncio.get_running_loop()
    # The spawner's interpreter starts on another core while ours imports the rest.
    opening = loop.create_task(engine.open())
    agents = await asyncio.to_thread(importlib.import_module, "alight.node.agent")
    await opening
    agent = agents.Agent(
        agents.NodeSettings(home, server, templates=told, gpu_sharing=sharing), engine, provider(asked.fake_gpus, home)
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.leave)
    loop.add_signal_handler(signal.SIGUSR1, agent.shut_down)
    await agent.run(lambda: _say_ready(home))


def instance_of(home: Path) -> str:
    """The name under which this state directory's bridges, tables and groups are found, now and after a crash."""
    return hashlib.sha256(os.fsencode(home)).hexdigest()[:6]


def _oci_runtime() -> str:
    """What ALIGHT_OCI_RUNTIME names where it is set; else crun, which starts containers in half the time, or runc."""
    asked = os.environ.get("ALIGHT_OCI_RUNTIME", "")
    return asked or next((name for name in ("crun", "runc") if shutil.which(name)), "runc")


def _user_namespaces() -> bool:
    """ALIGHT_USER_NAMESPACES=0 has containers run without, as they do where the machine cannot have them."""
    return os.environ.get("ALIGHT_USER_NAMESPACES", "") != "0"


def _say_where(home: Path, asked: argparse.Namespace, argv: list[str]) -> None:
    """Leave run/node.json: the next command finds this node by it, and the server starts it again when it was
    killed, unless it is ``kept`` by somebody else.
    """
    command = [sys.executable, "-m", "alight.node", *argv]
    said = {"pid": os.getpid(), "version": __version__, "argv": command, "kept": asked.kept, "ready": False}
    _write(home / "run" / "node.json", said)


def _say_ready(home: Path) -> None:
    """The server knows this node: for whoever started it, and for others who wait for it to come up."""
    path = home / "run" / "node.json"
    with contextlib.suppress(FileNotFoundError):  # told to end meanwhile
        _write(path, {**json.loads(path.read_text()), "ready": True})
    # Whoever started us may have gone since.
    with contextlib.suppress(OSError, ValueError):
        print("READY", flush=True)  # noqa: T201


def _write(path: Path, said: dict[str, object]) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(said) + "\n")
    temporary.replace(path)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m alight.node", description="Alight's agent of one machine.")
    parser.add_argument("--home", required=True, help="state directory (ALIGHT_HOME)")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--server", default="", help="unix:PATH or tls:HOST:PORT#FINGERPRINT")
    what.add_argument("--clear", action="store_true", help="end what a node that is no more left, say what, and exit")
    parser.add_argument("--fake-gpus", default="", metavar="TYPE:COUNT", help="pretend to have GPUs, to try schedules")
    parser.add_argument("--engine", choices=("oci", "process"), default="oci")
    parser.add_argument("--kept", action="store_true", help="somebody starts it again when it was killed (systemd)")
    parser.add_argument("--lenient", action="store_true", help="process engine: warn of what it cannot give")
    return parser.parse_args(argv)


def _lock(path: Path) -> IO[str] | None:
    """The right to be this directory's node, as long as the file is open; None when another has it."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    file.truncate(0)
    file.write(f"process {os.getpid()}\n")
    file.flush()
    return file


def _holder(path: Path) -> str:
    return path.read_text().strip() or "it is just starting"


def _log_to(path: Path) -> None:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES - 1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(os.environ.get("ALIGHT_LOGLEVEL", "INFO").upper())


if __name__ == "__main__":
    sys.exit(main())
