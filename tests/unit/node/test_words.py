"""What the node says and decides in words: endings, environments, recipes, addresses, checks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from alight.builder import BuiltImage
from alight.node import doctor, endings, images, machine, prepare
from alight.node.engine.base import ContainerState, Stats
from alight.node.gpus import Injection
from alight.node.session import ServerAddress
from alight.wire import errors
from alight.wire.commands import StartContainer
from alight.wire.spec import FunctionSpec, ImageSpec, Resources

STATE = ContainerState("ta-1", "exited", None, 100.0, ended_at=103.5)


def test_how_a_container_ended():
    function = FunctionSpec("f", resources=Resources(memory_limit=512))
    say = endings.sentence
    assert say(replace(STATE, exit_code=7), function, Stats()) == "the container ended with exit code 7"
    assert say(replace(STATE, signal=11), function, Stats()) == "the container was ended by SIGSEGV"
    assert say(replace(STATE, exit_code=139), function, Stats()) == "the container was ended by SIGSEGV"
    killed = say(replace(STATE, signal=9, oom_killed=True), function, Stats(memory_peak_bytes=512 << 20))
    assert killed == "the container was killed for memory: it used 512 MiB, and its limit is 512 MiB"
    assert endings.report(replace(STATE, exit_code=0), function, Stats(), 100.0).usage["seconds"] == 3.5


def test_an_end_by_a_process_of_the_machine_is_nobodys_fault():
    killed = replace(STATE, signal=9, error="its parent process on the node was killed")
    assert endings.report(killed, FunctionSpec(name="f"), Stats(), 100.0).interrupted
    assert not endings.report(replace(STATE, signal=9), FunctionSpec(name="f"), Stats(), 100.0).interrupted


def _start(function: FunctionSpec) -> StartContainer:
    return StartContainer("ta-1", "ap-1", "app", "main", "fu-1", function, "im-1")


def test_who_the_container_is_under_both_names():
    names = prepare._reserved(_start(FunctionSpec("f")), Path("/run/alight"))
    assert names["MODAL_TASK_ID"] == names["ALIGHT_TASK_ID"] == "ta-1"
    assert names["MODAL_IS_REMOTE"] == "1"
    assert names["MODAL_CLOUD_PROVIDER"] == "self-hosted"


def test_threads_follow_the_cores_that_were_asked_for():
    own = {"PATH": "/bin", "LD_LIBRARY_PATH": "/mine", "MKL_NUM_THREADS": "1"}
    image = BuiltImage("d", (), own, "/root", "py", "3.11")
    gpu = Injection(env={"LD_LIBRARY_PATH": "/usr/local/nvidia/lib64"})
    env = prepare._environment(image, FunctionSpec("f", resources=Resources(cpu=3.6)), gpu)
    assert env["OMP_NUM_THREADS"] == "4"
    assert env["MKL_NUM_THREADS"] == "1"
    assert env["LD_LIBRARY_PATH"] == "/usr/local/nvidia/lib64:/mine"
    assert "OMP_NUM_THREADS" not in prepare._environment(image, FunctionSpec("f"), Injection())


def test_only_the_second_number_of_a_pair_kills():
    assert prepare._limits(Resources(cpu=2.0, memory=4096)).memory_bytes is None
    assert prepare._limits(Resources(cpu=2.0, memory=4096)).cpu_quota is None
    limits = prepare._limits(Resources(cpu=1.0, cpu_limit=2.0, memory=64, memory_limit=128))
    assert (limits.memory_bytes, limits.shm_bytes, limits.cpu_quota) == (128 << 20, 64 << 20, 2.0)


@pytest.mark.parametrize("path", ["data", "/", "//", "/a/../b", ""])
def test_volumes_have_a_place(path):
    with pytest.raises(errors.InvalidError):
        prepare._target(path)


def test_a_recipe_without_a_python_takes_the_callers():
    spec = ImageSpec(({"op": "debian_slim", "python": None, "force": True}, {"op": "run", "command": "x"}))
    filled = images.with_python(spec, "3.11.4")
    assert filled.steps[0]["python"] == "3.11"
    assert images.with_python(ImageSpec(({"op": "debian_slim", "python": "3.9"},)), "3.11").steps[0]["python"] == "3.9"
    assert "force" not in images._unforced(filled).steps[0]


def test_where_the_server_is():
    assert ServerAddress.parse("unix:/run/s.sock").path == "/run/s.sock"
    far = ServerAddress.parse("tls:[::1]:9009#ABCD", token_id="ak", token_secret="as")
    assert (far.host, far.port, far.fingerprint, far.token_id) == ("::1", 9009, "abcd", "ak")
    for wrong in ("", "unix:", "tls:host:9009", "tls:host#ff", "http://x", "tls::1#f"):
        with pytest.raises(errors.InvalidError):
            ServerAddress.parse(wrong)


def test_a_machine_keeps_a_reserve(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    assert machine.facts(tmp_path).memory_mib == 15564
    limit = tmp_path / "sys/fs/cgroup/memory.max"
    limit.parent.mkdir(parents=True)
    limit.write_text("1073741824\n")
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("50000 100000\n")
    facts = machine.facts(tmp_path)
    assert facts.memory_mib == 1024 - 256
    assert facts.cpus == 0.5


def test_every_check_says_what_to_do_or_that_nothing_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_dns", lambda: doctor.Check("dns", "ok", "not asked here"))
    monkeypatch.setattr(doctor, "_index", lambda: doctor.Check("package index", "ok", "not asked here"))
    checks = doctor.examine(tmp_path / "home")
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        assert check.level in {"ok", "warning", "missing"}
        assert check.sentence
        assert not check.sentence.endswith(".")
    assert not (tmp_path / "home").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_is_missing_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(doctor, "_run", lambda *_: None)
    check = doctor._runtime()
    assert check.level == "missing"
    if check.fix:
        assert check.fix[-1].endswith("apt-get install -y runc")
