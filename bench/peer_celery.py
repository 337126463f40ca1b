"""Celery with two processes and a Redis of its own that keeps nothing on disk."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import peers


def main() -> None:
    """All rows. Ends what it started."""
    redis = shutil.which("redis-server")
    if redis is None:
        sys.exit("redis-server is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        os.environ["PEER_REDIS_PORT"] = port = str(probe.getsockname()[1])
    # The port is read when the app is imported.
    import celery
    from peer_celery_app import app, nap, nothing, square

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [
        subprocess.Popen([redis, "--port", port, "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"], **quiet)
    ]
    try:
        command = [sys.executable, "-m", "celery", "-A", "peer_celery_app", "worker", "-c", "2", "-P", "prefork"]
        command += ["-l", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        processes.append(subprocess.Popen(command, cwd=Path(__file__).parent, **quiet))
        peers.say("Celery: calls and maps")
        nothing.delay().get(timeout=60)
        call = peers.latency(lambda: nothing.delay().get(timeout=60), 1200)

        def mapped(task: object, count: int) -> list[int]:
            return [one.get(timeout=60) for one in [task.delay(x) for x in range(count)]]

        tiny = peers.rates(lambda: mapped(square, 5_000), 5_000, 3)
        naps = peers.rates(lambda: mapped(nap, 1000), 500.0, 2)
        app.close()
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(20)
    name = f"Celery {celery.__version__} on Redis"
    peers.rows(
        (f"{name}: call, no-op", call, "ms"),
        (f"{name}: 5,000 tiny calls", tiny, "inputs/s"),
        (f"{name}: 1,000 calls of 10 ms", naps, "% of ideal"),
    )


if __name__ == "__main__":
    main()
