"""Whatever is killed, nothing is lost and nothing is left; and engines on machines that are not as they should be."""

# ruff: noqa: F811 fixtures are imported and then asked for by name
from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from alight.node import cgroups
from alight.node.engine.base import EngineError
from alight.node.network import Names
from tests.system.lab import CONNECT, MIB, SOURCE, Lab, lab, serving, short_home  # noqa: F401 fixtures


def leftovers(home: Path) -> list[str]:
    """What an instance still has on the machine, in words."""
    names = Names.of(str(home))
    found = [f"group {one}" for tree in cgroups.trees() for one in [f"{tree}{names.group}"] if os.path.exists(one)]
    found += [f"device {name}" for _, name in socket.if_nameindex() if name.startswith(names.prefix)]
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    found += ["table"] if names.table in tables else []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if str(home).encode() in line:
                found.append(f"process {line!r}")
            if str(home) in Path(f"/proc/{pid}/mountinfo").read_text():
                found.append(f"mount in {pid}")
    return found


def until(check, seconds: float = 10.0):
    end = time.monotonic() + seconds
    while True:
        value = check()
        if not value or time.monotonic() > end:
            return value
        time.sleep(0.02)


def test_a_killed_spawner_leaves_nothing_and_is_replaced(base_layers, short_home):
    lab = Lab(base_layers, short_home)
    plans = [lab.plan("sh", "-c", "echo up; sleep 1000 & exec sleep 1000") for _ in range(3)]
    pids = [lab.started(one).pid for one in plans]
    spawner = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])
    assert b"spawner" in Path(f"/proc/{spawner}/cmdline").read_bytes()
    os.kill(spawner, signal.SIGKILL)

    states = [lab.run(lab.engine.wait(one.id)) for one in plans]
    assert {(one.status, one.signal) for one in states} == {("exited", signal.SIGKILL)}
    assert all("killed" in one.error for one in states)
    assert not until(lambda: [one for one in pids if os.path.exists(f"/proc/{one}")])
    # The engine goes on with a new one.
    assert lab.ask(lab.plan("echo", "again")) == "again\n[0]"
    for one in plans:
        assert lab.printed(one.id) == "up\n"
        lab.run(lab.engine.remove(one.id))
    lab.close()
    assert not until(lambda: leftovers(short_home))


AGENT = """
import asyncio, pathlib, sys
from alight.node.engine.base import ContainerPlan
from alight.node.engine.oci import OciEngine

async def main():
    home, layers = pathlib.Path(sys.argv[1]), tuple(sys.argv[2:])
    engine = OciEngine(home, str(home))
    await engine.open()
    script = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.005; done; exit 42"
    await engine.start(ContainerPlan("lines", layers, ("sh", "-c", script), {"PATH": "/usr/bin:/bin"}))
    await engine.start(ContainerPlan("stays", layers, ("sleep", "1000"), {"PATH": "/usr/bin:/bin"}))
    print("started", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def kill_an_agent(base_layers, home: Path) -> None:
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, home, *base_layers],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": SOURCE},
    )
    with agent.stdout:
        assert agent.stdout.readline() == b"started\n"
        agent.kill()
        agent.wait()


def test_a_killed_agent_loses_no_line_and_no_exit_code(base_layers, short_home):
    kill_an_agent(base_layers, short_home)
    time.sleep(0.5)
    lab = Lab(base_layers, short_home)
    states = {one.id: one for one in lab.run(lab.engine.list())}
    assert set(states) == {"lines", "stays"}
    assert states["stays"].status == "running"
    assert lab.run(lab.engine.wait("lines")).exit_code == 42
    assert lab.printed("lines") == "".join(f"line {one}\n" for one in range(300))
    lab.close()
    assert not until(lambda: leftovers(short_home))


def test_agent_and_spawner_killed_together_leave_nothing(base_layers, short_home):
    kill_an_agent(base_layers, short_home)
    for line in (short_home / "log" / "spawner.log").read_text().splitlines():
        if "spawner" in line and "ready" in line:
            os.kill(int(line.partition("spawner ")[2].split()[0]), signal.SIGKILL)
    lab = Lab(base_layers, short_home)
    states = {one.id: one for one in lab.run(lab.engine.list())}
    assert states["stays"].signal == signal.SIGKILL
    assert not lab.run(lab.engine.inside("stays"))
    lab.close()
    assert not until(lambda: leftovers(short_home))


@pytest.mark.slow
def test_two_instances_live_side_by_side(lab, base_layers, short_home):
    other = Lab(base_layers, short_home)
    mine, address = serving(lab)
    theirs, other_address = serving(other)
    assert address.rpartition(".")[0].rpartition(".")[0] != other_address.rpartition(".")[0].rpartition(".")[0]
    text = other.ask(other.python(f"{CONNECT}\nreach('{address}', 8000)"))
    assert "reached" not in text
    other.close()
    assert not until(lambda: leftovers(short_home))
    # The first one's network is as it was.
    text = lab.ask(lab.python(f"{CONNECT}\nreach('{other_address}', 8000)"))
    assert "[0]" in text
    lab.run(lab.engine.remove(mine))
    assert theirs


def test_a_full_disk_neither_blocks_nor_ends_anything(base_layers):
    """Output is lost, counted and told; the exit code is not lost."""
    home = Path(tempfile.mkdtemp(prefix="alight-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", home], check=True)
    try:
        lab = Lab(base_layers, home)
        plan = lab.plan("sh", "-c", "head -c 6000000 /dev/zero; echo up; sleep 1; echo after; exit 3")
        lab.run(lab.engine.start(plan))
        deadline = time.monotonic() + 10
        while (home / "node/containers" / plan.id / "output.log").stat().st_size < 2 * MIB:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)
        subprocess.run(["mount", "-o", "remount,size=64m", home], check=True)
        state = lab.run(lab.engine.wait(plan.id))
        assert state.exit_code == 3
        text = lab.printed(plan.id)
        assert "bytes of output were lost: no room on the disk" in text
        assert text.endswith("after\n")
        lab.close()
    finally:
        subprocess.run(["umount", home], check=True)
        home.rmdir()


def test_a_runtime_that_hangs_or_fails_is_an_error_and_leaves_nothing(base_layers, short_home):
    home = short_home / "home"
    broken = short_home / "broken-runtime"
    broken.write_text("#!/bin/sh\necho 'cannot do that' >&2\nexit 1\n")
    broken.chmod(0o755)
    lab = Lab(base_layers, home, str(broken))
    plan = lab.plan("true")
    with pytest.raises(EngineError, match="cannot do that"):
        lab.run(lab.engine.start(plan))
    assert not lab.engine.directory(plan.id).exists()
    lab.close()
    assert not until(lambda: leftovers(home))


def test_a_spawner_that_cannot_start_says_why(base_layers, short_home):
    (short_home / "run" / "spawner.sock").mkdir(parents=True)
    with pytest.raises(OSError, match=r"spawner\.sock"):
        Lab(base_layers, short_home)
    with pytest.raises(EngineError, match="no-such-runtime is not installed") as caught:
        Lab(base_layers, short_home, "no-such-runtime")
    assert caught.value.hint


IN_OWN_NETWORK = """
import subprocess, sys
from alight.node import firewall
from alight.node.network import Names
names = Names.of("a test")
docker = "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }"
subprocess.run(["nft", "-f", "-"], input=docker, text=True, check=True)
def marked():
    text = subprocess.run(["nft", "list", "table", "ip", "filter"], capture_output=True, text=True, check=True).stdout
    return [line.strip() for line in text.splitlines() if names.table in line]
firewall.install(names, "10.89.0.0/16")
firewall.install(names, "10.89.0.0/16")
print(len(marked()), open("/proc/sys/net/ipv4/ip_forward").read().strip())
subprocess.run(["nft", "flush", "ruleset"], check=True)
print(firewall.holds(names))
firewall.install(names, "10.89.0.0/16")
print(firewall.holds(names))
subprocess.run(["nft", "-f", "-"], input=docker, text=True, check=True)
print(firewall.holds(names))
firewall.install(names, "10.89.0.0/16")
print(firewall.holds(names))
firewall.remove(names)
left = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
print(len(marked()), left.strip())
"""


def test_a_foreign_chain_that_drops_lets_ours_through_and_is_left_as_it_was():
    """In a network namespace of its own, so that this machine's firewall is not touched."""
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", IN_OWN_NETWORK],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE},
        check=False,
    )
    assert done.stdout == "2 1\nFalse\nTrue\nFalse\nTrue\n0 table ip filter\n", done.stderr


IN_OWN_MOUNTS = """
import os, sys
from alight.node import mounts
root, *layers = sys.argv[1:]
mounts.private_namespace()
for name in ("m", "u", "w"):
    os.mkdir(f"{root}/{name}")
mounts._overlay_by_links(f"{root}/m", layers, f"{root}/u", f"{root}/w")
print(len(os.listdir(f"{root}/m")), sorted(os.listdir(root)))
mounts.detach(f"{root}/m")
mounts.detach(f"{root}/m")
"""


def test_older_kernels_take_many_layers_too(tmp_path):
    layers = [tmp_path / ("long-" * 20) / f"{one}:a,b" for one in range(60)]
    for number, layer in enumerate(layers):
        (layer / f"f{number}").mkdir(parents=True)
    root = tmp_path / "root"
    root.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", IN_OWN_MOUNTS, root, *layers],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE},
        check=False,
    )
    assert done.stdout == "60 ['m', 'u', 'w']\n", done.stderr


def test_an_agent_that_asks_nonsense_harms_nobody(lab):
    client = lab.engine._client
    with pytest.raises(EngineError, match="understand"):
        lab.run(client.ask("start", nonsense=1))
    with pytest.raises(EngineError, match="understand"):
        lab.run(client.ask("no such command"))
    assert lab.ask(lab.plan("echo", "fine")) == "fine\n[0]"
