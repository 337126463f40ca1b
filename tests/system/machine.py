"""One instance of Alight on this machine, as a test drives it: a state directory and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.system import base, zygote

#: Commands that are started as users start them. Others look, or change a name: they need not be loaded each time.
STARTED = {"run", "deploy", "serve", "shell", "python", "server", "node", "setup", "curl", "doctor", "uninstall"}


@dataclass
class Machine:
    """An instance. Server and node start with the first command that needs them; ``close`` ends them."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)

    def environment(self, **more: str) -> dict[str, str]:
        """What a command of this instance gets. The caller's own settings were removed before."""
        return {
            **os.environ,
            "ALIGHT_HOME": str(self.home),
            "ALIGHT_CONFIG_PATH": str(self.home / "alight.toml"),
            "NO_COLOR": "1",
            "COLUMNS": "160",
            **self.env,
            **more,
        }

    def start(self, *words: str, cwd: Path | None = None, **popen: object) -> subprocess.Popen[str]:
        """`alight WORDS…` that runs on; the caller waits for it. Pipes for its output unless told otherwise."""
        arguments = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **popen}
        environment = self.environment(**arguments.pop("env", {}))
        return subprocess.Popen(
            [sys.executable, "-m", "alight", *map(str, words)], env=environment, cwd=cwd, text=True, **arguments
        )

    def run(self, *words: str, cwd: Path | None = None, status: int | None = 0, timeout: float = 240, **env: str):
        """`alight WORDS…` to its end. ``status`` is the exit status that it must have; None takes any."""
        if str(words[0]) in STARTED or str(words[0]).startswith("-"):
            done = subprocess.run(
                [sys.executable, "-m", "alight", *map(str, words)],
                env=self.environment(**env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        else:
            done = zygote.run([*map(str, words)], self.environment(**env), cwd, timeout)
        if status is not None and done.returncode != status:
            raise AssertionError(
                f"alight {' '.join(map(str, words))}: exit status {done.returncode}, not {status}\n"
                f"--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}\n{self.logs()}"
            )
        return done

    def json(self, *words: str) -> object:
        """What `alight WORDS… --json` says."""
        return json.loads(self.run(*words, "--json").stdout)

    def python(self, script: Path, *words: str, status: int | None = 0, timeout: float = 240):
        """A plain `python script.py` that finds this instance."""
        done = subprocess.run(
            [sys.executable, str(script), *words],
            env=self.environment(),
            cwd=script.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert status is None or done.returncode == status, f"{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done

    def logs(self, lines: int = 30) -> str:
        """The ends of server, node and spawner log, for a failure's message."""
        parts = []
        for file in sorted((self.home / "log").glob("*.log")):
            tail = "\n".join(file.read_text(errors="replace").splitlines()[-lines:])
            parts.append(f"--- {file.name}\n{tail}")
        return "\n".join(parts)

    def processes(self) -> dict[int, str]:
        """The processes that belong to this instance, by command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue  # it ended meanwhile
                if str(self.home) in words:
                    found[int(entry.name)] = words.strip()
        return found

    def close(self) -> None:
        """Stop what runs, see that nothing is left, and remove the state directory."""
        self.run("server", "stop", status=None, timeout=60)
        left = self.processes()
        mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(self.home) in line]
        logs = self.logs()
        if not left and not mounts:
            base.remove_home(self.home)
        assert not left, f"still running after `alight server stop`: {left}\n{logs}"
        assert not mounts, f"still mounted after `alight server stop`: {mounts}\n{logs}"
