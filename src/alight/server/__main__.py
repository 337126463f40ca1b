"""``python -m alight.server``: one server for one state directory.

Takes the directory's lock (a second start says who runs and exits 3), listens, says READY on stdout, and ends on
SIGTERM after writing down what is under way. Started in the background by clients (``sdk/local``) and by the CLI.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import logging
import os
import resource
import signal
import sys
from pathlib import Path

from alight.link.run import run
from alight.server import faults, journal, wiring
from alight.server.settings import Settings, default_home, from_environment
from alight.wire import errors
from alight.wire.version import __version__

ALREADY_RUNNING = 3
log = logging.getLogger("alight.server")


def main() -> int:
    """Parse, lock, serve. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m alight.server")
    parser.add_argument("--home", type=Path, default=None, help="state directory (ALIGHT_HOME)")
    parser.add_argument("--listen", default="", help='HOST:PORT, or "none" for the local socket only')
    options = parser.parse_args()
    try:
        settings = from_environment((options.home or default_home()).absolute(), options.listen)
        settings.listen_address()
        settings.home.mkdir(parents=True, exist_ok=True)
        lock = _take_lock(settings)
        if lock is None:
            return ALREADY_RUNNING
        if os.environ.get("ALIGHT_TEST") == "1" and os.environ.get("ALIGHT_FAULT"):
            faults.arm(os.environ["ALIGHT_FAULT"])
        journal.install(settings.log / "server.log")
        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, most))  # this process's memory has secrets in it
        return run(_serve(settings))
    except errors.Error as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"{error}{hint}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"the server cannot use its state directory: {error}\n")
        return 1


async def _serve(settings: Settings) -> int:
    server = await wiring.start(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop_asked.set)
    try:
        await server.listen_unix()
        await server.listen_tcp()
        await server.listen_web()
        _write_server_json(settings, server)
        log.info("Alight %s serves %s at %s", __version__, settings.home, server.address or "the local socket")
        _say_ready()
        await server.stop_asked.wait()
    finally:
        (settings.run / "server.json").unlink(missing_ok=True)
        await server.close()
    log.info("stopped")
    return 0


def _take_lock(settings: Settings) -> int | None:
    """The lock of the state directory, held until this process ends. None, after saying who has it, when taken."""
    descriptor = os.open(settings.home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 64, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        sys.stderr.write(f"a server is running for {settings.home} already (process {holder})\n")
        return None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _write_server_json(settings: Settings, server: wiring.Server) -> None:
    plain = {
        "pid": os.getpid(),
        "address": server.address,
        "web": server.web_address,
        "fingerprint": server.fingerprint,
        "version": __version__,
        "started_at": server.started_at,
        "server_id": server.server_id,
        "socket": str(settings.run / "server.sock"),
    }
    path = settings.run / "server.json"
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(plain) + "\n")
    fresh.replace(path)


def _say_ready() -> None:
    try:
        os.write(1, b"READY\n")
    except OSError:
        return  # whoever started us does not listen; that is theirs to decide


if __name__ == "__main__":
    sys.exit(main())
