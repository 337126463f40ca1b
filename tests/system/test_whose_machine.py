"""Whose machine: plain users beside a server that root runs, two state directories, second starts.

The plain user is `nobody`, in a mount namespace where /var/lib/alight is the state directory of the test's server: so
the real defaults are tried, and nothing of them is left on the machine.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import alight

if TYPE_CHECKING:
    from collections.abc import Iterator


SOURCE = str(Path(alight.__file__).parents[1])
NOBODY = pwd.getpwnam("nobody")
GROUP = "alight"

SCRIPT = """
import os

import alight

app = alight.App("whose", image=alight.Image.debian_slim(python_version="3.11"))


@app.function()
def who() -> str:
    print("uid", os.getuid(), flush=True)
    return "done"
"""


class Plain:
    """A user without any right on this machine, with a home directory of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.groups: list[int] = []
        self.system: Path | None = None  # what lies at /var/lib/alight for them
        self.env: dict[str, str] = {}

    def run(self, *words: object, status: int | None = 0, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return self.python("-m", "alight", *words, status=status, timeout=timeout)

    def python(self, *words: object, status: int | None = 0, timeout: float = 120):
        system = self.system or self.home / "nothing"
        inside = (
            f"mount -t tmpfs none /var/lib && mkdir /var/lib/alight && "
            f"if [ -d {system} ]; then mount --bind {system} /var/lib/alight; else rmdir /var/lib/alight; fi && "
            f"{_readable(self.home)}"
            f'exec setpriv --reuid {NOBODY.pw_uid} --regid {NOBODY.pw_gid} {self._groups()} --no-new-privs "$@"'
        )
        env = {name: value for name, value in os.environ.items() if not name.startswith(("ALIGHT_", "MODAL_", "XDG_"))}
        env |= {
            "HOME": str(self.home),
            "PYTHONPATH": SOURCE,
            "NO_COLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.env,
        }
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", inside, "sh", sys.executable, *map(str, words)],
            env=env,
            cwd=self.home,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )
        assert status is None or done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def _groups(self) -> str:
        return f"--groups {','.join(map(str, self.groups))}" if self.groups else "--clear-groups"


def _readable(beside: Path) -> str:
    """Commands that let everybody reach this Python and this checkout where they lie in root's own home."""
    needed = {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), Path(SOURCE)}
    hidden = sorted(one for one in needed if Path("/root") in one.parents)
    hidden = [one for one in hidden if not any(other in one.parents for other in hidden)]
    keep = [f"mkdir {beside}/k{n} && mount --bind {one} {beside}/k{n} && " for n, one in enumerate(hidden)]
    back = [f"mkdir -p {one} && mount --move {beside}/k{n} {one} && " for n, one in enumerate(hidden)]
    gone = [f"rmdir {beside}/k{n} && " for n, _ in enumerate(hidden)]
    return "".join([*keep, "mount -t tmpfs -o mode=755 none /root && ", *back, *gone]) if hidden else ""


@pytest.fixture
def plain() -> Iterator[Plain]:
    home = Path(tempfile.mkdtemp(prefix="alight-plain-", dir="/tmp"))
    home.chmod(0o755)
    (home / "job.py").write_text(SCRIPT)
    for one in (home, home / "job.py"):
        os.chown(one, NOBODY.pw_uid, NOBODY.pw_gid)
    user = Plain(home)
    started = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'import alight.cli.main']))"
    if user.python("-c", started, status=None).returncode:
        shutil.rmtree(home)
        pytest.skip("a plain user cannot read this Python or this checkout")
    yield user
    shutil.rmtree(home)


@pytest.fixture
def group() -> Iterator[int]:
    """The group whose members may use root's server; made here unless the machine has it."""
    with contextlib.suppress(KeyError):
        yield grp.getgrnam(GROUP).gr_gid
        return
    subprocess.run(["groupadd", "--system", GROUP], check=True)
    yield grp.getgrnam(GROUP).gr_gid
    subprocess.run(["groupdel", GROUP], check=True)


def without_a_traceback(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_without_a_server_a_plain_user_is_told_the_one_way(plain):
    said = without_a_traceback(plain.run("run", "job.py", status=1))
    assert said.count("\n") <= 3, said
    assert "no server runs on this machine, and starting containers needs root once" in said
    assert "sudo alight server install" in said
    assert "ALIGHT_ENGINE=process" in said
    assert not (plain.home / ".local").exists(), "nothing was started, so nothing is left"


def test_the_process_engine_asked_for_by_name_works_and_says_what_it_is(plain):
    plain.env["ALIGHT_ENGINE"] = "process"
    try:
        done = plain.run("run", "job.py::who")
        assert done.stdout == f"uid {NOBODY.pw_uid}\n"
        assert "warning: nothing is isolated: functions run as plain processes of this user" in done.stderr
    finally:
        plain.run("server", "stop", status=None)
    assert not [one for one in os.listdir("/proc") if one.isdigit() and _cmdline(one, str(plain.home))]


def test_outside_the_group_a_user_is_told_how_to_get_in(plain, fresh_machine):
    fresh_machine.home.chmod(0o711)  # as /var/lib/alight is made
    fresh_machine.run("server", "start")
    plain.system = fresh_machine.home
    said = without_a_traceback(plain.run("run", "job.py", status=1))
    assert "you may not use the server at /var/lib/alight" in said
    assert "usermod -aG alight" in said
    assert said.count("\n") <= 3, said


def test_a_member_of_the_group_uses_roots_server_and_sees_what_is_theirs(plain, group, fresh_machine, tmp_path):
    fresh_machine.home.chmod(0o711)  # as /var/lib/alight is made
    script = tmp_path / "job.py"
    script.write_text(SCRIPT.replace("whose", "of-root"))
    fresh_machine.run("run", "--detach", f"{script}::who")
    owned = fresh_machine.json("app", "list")[0]["app_id"]
    fresh_machine.run("token", "new")
    fresh_machine.run("secret", "create", "of-root", "KEY=value")
    plain.system, plain.groups = fresh_machine.home, [group]
    done = plain.run("run", "job.py::who")
    assert done.stdout == "uid 0\n"  # of the container, not of the machine
    assert str(fresh_machine.home) in plain.run("server", "status").stdout
    assert "whose" in plain.run("app", "list").stdout
    assert owned not in plain.run("app", "list").stdout
    assert "of-root" not in plain.run("secret", "list").stdout
    thief = (
        (plain.home / "job.py")
        .read_text()
        .replace("@app.function()", "@app.function(secrets=[alight.Secret.from_name('of-root')])")
    )
    (plain.home / "thief.py").write_text(thief)
    (plain.home / "thief.py").chmod(0o644)
    refused = plain.run("run", "thief.py::who", status=1)
    assert "belongs to another user" in without_a_traceback(refused)
    for words in (
        ("token", "list"),
        ("token", "new"),
        ("token", "pending"),
        ("token", "approve", "AAAA-AAAA"),
        ("secret", "create", "--force", "of-root", "KEY=theirs"),
        ("secret", "delete", "--yes", "of-root"),
        ("app", "logs", owned),
        ("app", "stop", "--yes", owned),
    ):
        refused = plain.run(*words, status=1)
        assert refused.stdout == "", words
        without_a_traceback(refused)
    assert fresh_machine.json("app", "list")[-1]["state"] == "detached"
    # Nor by another way: neither the files nor the node's place at the server.
    readable = "[p for p in ('server', 'node/containers', 'log', 'run') if os.access('/var/lib/alight/' + p, os.R_OK)]"
    assert plain.python("-c", f"import os; print({readable})").stdout == "[]\n"
    target = "client.Target(path='/var/lib/alight/run/server.sock', role='node')"
    dial = f"from alight.sdk import client, sync; sync.run(client.Client({target}).connect())"
    node = plain.python("-c", dial, status=1)
    assert "may not run a node of this server" in node.stderr
    # What root had goes on.
    assert fresh_machine.run("run", f"{script}::who").stdout == "uid 0\n"


@pytest.mark.slow
def test_two_state_directories_side_by_side(machine, fresh_machine, tmp_path):
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    both = [one.start("run", f"{script}::who") for one in (machine, fresh_machine)]
    for process in both:
        out, errors = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "uid 0\n"), errors
    assert machine.json("server", "status")["server_id"] != fresh_machine.json("server", "status")["server_id"]
    fresh_machine.run("server", "stop")
    assert machine.run("run", f"{script}::who").stdout == "uid 0\n"


def test_a_second_start_refuses_and_harms_nothing(fresh_machine, tmp_path):
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    # Two at once from nothing make one server.
    both = [fresh_machine.start("run", f"{script}::who") for _ in range(2)]
    for process in both:
        out, errors = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "uid 0\n"), errors
    before = fresh_machine.json("server", "status")
    servers = [line for line in fresh_machine.processes().values() if "alight.server" in line]
    nodes = [line for line in fresh_machine.processes().values() if "alight.node " in line]
    assert (len(servers), len(nodes)) == (1, 1)
    for words in (
        ["-m", "alight.server", "--home", fresh_machine.home],
        ["-m", "alight.node", "--home", fresh_machine.home, "--server", "unix:/nowhere"],
    ):
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            env=fresh_machine.environment(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 3, done
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) <= 2, done.stderr
        assert str(before["pid"] if "server" in words[1] else before["node_pid"]) in done.stderr
    assert "runs already" in fresh_machine.run("server", "start").stderr
    assert "runs already" in fresh_machine.run("server", "start", "--foreground", status=1).stderr
    after = fresh_machine.json("server", "status")
    assert (after["pid"], after["node_pid"], after["server_id"]) == (
        before["pid"],
        before["node_pid"],
        before["server_id"],
    )
    assert fresh_machine.run("run", f"{script}::who").stdout == "uid 0\n"


def _cmdline(pid: str, word: str) -> bool:
    try:
        return word in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False  # it ended meanwhile
