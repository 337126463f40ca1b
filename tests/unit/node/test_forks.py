"""What forks are made of, without making any: the program of shells, the bundles, and what is laid into a shell."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alight.node import pause
from alight.node.engine import oci_config, oci_forks, seccomp
from alight.node.engine.base import Bind, ContainerPlan, Limits
from alight.node.engine.forks import shape


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}


@pytest.mark.skipif(not pause.is_known(), reason="no program for this machine")
def test_a_shells_first_process_waits_and_leaves_no_zombies():
    held = pause.descriptor()
    began = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execv('/proc/self/fd/3', ['pause'])"
    with subprocess.Popen([sys.executable, "-c", began, str(held)], pass_fds=[held]) as process:
        until = time.monotonic() + 10
        while not int(status_of(process.pid)["SigIgn"], 16) >> (signal.SIGCHLD - 1) & 1:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        assert "3" not in os.listdir(f"/proc/{process.pid}/fd")
        assert status_of(process.pid)["State"].startswith("S")
        process.kill()


def test_there_is_a_program_for_each_machine_that_has_a_seccomp_profile():
    for machine in ("x86_64", "aarch64"):
        assert pause.program(machine).startswith(b"\x7fELF")
    with pytest.raises(KeyError):
        pause.program("riscv64")


def bundle() -> dict:
    plan = ContainerPlan("c1", ("/layer",), ("python3",), {"SECRET": "x"})
    place = oci_config.Place("/d", "/group", "/d/root", "/d/etc", base=0x70000000)
    machine = oci_config.Machine(1 << 34, 1 << 30, 1024, 1 << 20, caps_swap=False, mounts_cgroup=False)
    return oci_config.config(plan, place, machine)


def test_a_template_has_no_privileges_and_may_enter_shells():
    config = bundle()
    oci_forks.as_template(config)
    assert not any(config["process"]["capabilities"].values())
    assert "pid" not in [one["type"] for one in config["linux"]["namespaces"]]
    if seccomp.profile() is not None:
        rules = [one for one in config["linux"]["seccomp"]["syscalls"] if "setns" in one["names"]]
        assert [one["action"] for one in rules] == ["SCMP_ACT_ALLOW"]


def test_a_shell_is_a_plain_container_whose_first_process_knows_nothing():
    config, plain = bundle(), bundle()
    oci_forks.as_shell(config)
    assert config["process"].pop("args") == [pause.PATH]
    assert config["process"].pop("env") == []
    del plain["process"]["args"], plain["process"]["env"]
    assert config == plain


def test_what_a_fork_keeps_is_what_a_plain_container_has():
    assert oci_forks.CAPABILITIES.bit_count() == len(oci_config.CAPABILITIES)
    # As a plain container shows it in its status; the isolation tests compare the two for real.
    assert f"{oci_forks.CAPABILITIES:016x}" == "00000000a00425fb"


def plan(name: str, **more) -> ContainerPlan:
    return ContainerPlan(name, ("/layer",), ("python3", name), {"NAME": name}, **more)


def test_a_shape_is_all_but_the_name_and_what_a_fork_is_told():
    one, other = ("/containers/c1", "/containers/c2")
    binds = [(Bind(f"{path}/sock", "/run/alight"), Bind("/volume", "/data")) for path in (one, other)]
    assert shape(plan("c1", binds=binds[0]), one) == shape(plan("c2", binds=binds[1]), other)
    assert shape(plan("c1", limits=Limits(pids=5)), one) != shape(plan("c1"), one)
    assert shape(plan("c1", owner="a"), one) != shape(plan("c1", owner="b"), one)


def test_what_was_laid_out_for_a_container_is_laid_into_the_shell_that_it_takes(tmp_path):
    mine, shell = tmp_path / "mine", tmp_path / "shell"
    for folder in (mine, shell):
        (folder / "sock").mkdir(parents=True)
        (folder / "told").write_text(folder.name)
    (mine / "spool").mkdir(mode=0o700)
    (mine / "spool" / "file").write_text("payload")
    bound = (shell / "told").stat().st_ino
    with socket.socket(socket.AF_UNIX) as door, socket.socket(socket.AF_UNIX) as guest:
        door.bind(os.path.relpath(mine / "sock" / "door"))
        door.listen()
        oci_forks._link_into(mine, shell)
        guest.connect(os.path.relpath(shell / "sock" / "door"))
    assert (shell / "spool" / "file").read_text() == "payload"
    assert (shell / "spool").stat().st_mode & 0o777 == 0o700
    # Mounted already, so the same file has the other content.
    assert ((shell / "told").read_text(), (shell / "told").stat().st_ino) == ("mine", bound)
    assert (mine / "sock" / "door").is_socket()


def test_a_start_that_failed_takes_back_what_it_made_and_nothing_else(tmp_path):
    (tmp_path / "sock").mkdir()
    there = {"sock"}
    (tmp_path / "upper" / "deep").mkdir(parents=True)
    (tmp_path / "config.json").touch()
    oci_forks._remove_but(tmp_path, there)
    assert os.listdir(tmp_path) == ["sock"]
