"""What a container cannot do to the machine, a test for each row of the table in the documentation.

Each test of an attempt looks at the container's own words, so that a refusal for the wrong reason is seen.
"""

# ruff: noqa: F811 fixtures are imported and then asked for by name
from __future__ import annotations

import os
import signal
import textwrap
from pathlib import Path

import pytest

from alight.node.engine.base import Bind, ContainerPlan, EngineError, Limits
from tests.system.forked_lab import lab  # noqa: F401 a fixture
from tests.system.lab import MIB

SYSCALL = """
import ctypes, os, errno
libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {"x86_64": dict(clone=56, keyctl=250, bpf=321), "aarch64": dict(clone=220, keyctl=219, bpf=280)}
NUMBER = {"io_uring_setup": 425, **NUMBERS[os.uname().machine]}
def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    print(name, "worked" if result >= 0 else errno.errorcode[ctypes.get_errno()])
"""


def attempt(lab, code: str, **more) -> str:
    return lab.ask(lab.python(SYSCALL + textwrap.dedent(code), **more))


def test_mount_is_refused(lab):
    assert attempt(lab, 'call("mount", b"none", b"/mnt", b"tmpfs", 0, None); call("umount2", b"/proc", 2)') == (
        "mount EPERM\numount2 EPERM\n[0]"
    )


def test_new_namespaces_are_refused(lab):
    text = attempt(
        lab,
        """
        call("unshare", 0x10000000)
        call("setns", os.open("/proc/self/ns/net", os.O_RDONLY), 0)
        call("syscall", NUMBER["clone"], 0x10000000 | 17, 0, 0, 0, 0)
        """,
    )
    assert text == "unshare EPERM\nsetns EPERM\nsyscall ENOSYS\n[0]"


def test_devices_cannot_be_made(lab):
    assert attempt(lab, 'call("mknod", b"/tmp/disk", 0o60600, os.makedev(254, 0))') == "mknod EPERM\n[0]"


def test_kernel_keys_and_programs_are_refused(lab):
    text = attempt(
        lab,
        """
        call("syscall", NUMBER["keyctl"], 0, 0, 0, 0)
        call("syscall", NUMBER["bpf"], 0, 0, 0)
        call("syscall", NUMBER["io_uring_setup"], 1, 0)
        """,
    )
    # The last one is not on the list at all, so that programs take their older way.
    assert text == "syscall EPERM\nsyscall EPERM\nsyscall ENOSYS\n[0]"


def test_the_hypervisors_sockets_are_refused(lab):
    assert (
        attempt(lab, 'call("socket", 40, 1, 0); call("socket", 2, 1, 0)') == "socket EAFNOSUPPORT\nsocket worked\n[0]"
    )


def test_the_kernels_settings_cannot_be_written(lab):
    code = """
        for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/sys/kernel/profiling"):
            try:
                open(path, "w")
                print("opened", path)
            except OSError as error:
                print(error.strerror)
    """
    assert lab.ask(lab.python(code)) == "Read-only file system\n" * 3 + "[0]"


def test_what_tells_of_the_host_is_masked(lab):
    code = """
        import os
        for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"):
            print(len(open(path).read()) if os.path.exists(path) else 0)
        print(os.listdir("/sys/firmware"), os.listdir("/proc/acpi") if os.path.exists("/proc/acpi") else [])
    """
    assert lab.ask(lab.python(code)) == "0\n" * 4 + "[] []\n[0]"


def test_privileges_are_the_default_set_and_cannot_grow(lab):
    text = lab.ask(lab.plan("grep", "-E", "^(Cap|NoNewPrivs|Seccomp:)", "/proc/self/status"))
    fields = dict(line.split(":\t") for line in text.splitlines() if ":" in line)
    assert fields["CapEff"] == fields["CapBnd"] == fields["CapPrm"] == "00000000a00425fb"
    assert fields["CapAmb"] == fields["CapInh"] == "0" * 16
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


def test_other_processes_are_not_seen(lab):
    code = "import os; print({'1', str(os.getpid())} ^ {one for one in os.listdir('/proc') if one.isdigit()})"
    # A fork is not the first process; the first one of its container only reaps.
    assert lab.ask(lab.python(code)) == "set()\n[0]"


def test_no_descriptor_of_the_node_is_inherited(lab):
    code = "import os; print(sorted(os.listdir('/proc/self/fd'))[:4], os.readlink('/proc/self/fd/0'))"
    text = lab.ask(lab.python(code))
    assert text == "['0', '1', '2', '3'] /dev/null\n[0]"


def test_default_signal_handling_is_handed_on(lab):
    # Python itself ignores SIGPIPE, and its children would inherit that.
    assert "SigIgn:\t0000000000000000" in lab.ask(lab.plan("grep", "SigIgn", "/proc/self/status"))


def test_writes_stay_in_the_container(lab):
    target = Path(lab.layers[0])
    before = sorted(os.listdir(target))
    assert lab.ask(lab.plan("sh", "-c", "echo x > /new && rm /etc/debian_version && ls /new")) == "/new\n[0]"
    assert sorted(os.listdir(target)) == before
    text = lab.ask(lab.plan("sh", "-c", "ls /new; cat /etc/debian_version >/dev/null && echo kept"))
    # Between the two streams the order is the reader's, which may find words on both.
    assert "kept\n" in text
    assert text.endswith("[0]")


def test_a_read_only_bind_cannot_be_written(lab, tmp_path):
    (tmp_path / "file").write_text("x")
    binds = (Bind(str(tmp_path), "/given"),)
    text = lab.ask(lab.plan("sh", "-c", "cat /given/file; echo y > /given/file", binds=binds))
    assert "Read-only file system" in text
    binds = (Bind(str(tmp_path), "/given", readonly=False),)
    lab.ask(lab.plan("sh", "-c", "echo y > /given/file", binds=binds))
    assert (tmp_path / "file").read_text() == "y\n"


def test_a_device_is_there_when_given_and_only_then(lab):
    device = next((one for one in ("/dev/fuse", "/dev/loop-control", "/dev/net/tun") if os.path.exists(one)), None)
    if device is None:
        pytest.skip("this machine has no device to try with")
    code = f"import os; os.close(os.open({device!r}, os.O_RDWR)); print('opened')"
    assert lab.ask(lab.python(code, devices=(device,))) == "opened\n[0]"
    assert "No such file" in lab.ask(lab.python(code))
    # A bind is no way around it: of the host's it cannot be shown to a user namespace.
    with pytest.raises(EngineError, match="cannot show files with other owners"):
        lab.ask(lab.python(code, binds=(Bind(device, device),)))


def test_a_kept_layer_holds_what_the_step_wrote_and_nothing_else(lab, tmp_path):
    upper = tmp_path / "upper"
    lab.ask(
        lab.plan(
            "sh",
            "-c",
            "echo x > /srv/made; rm /etc/debian_version",
            upper=str(upper),
            binds=(
                Bind(str(tmp_path), "/opt/deep/target"),
                Bind("/etc/hostname", "/opt/other/file"),
            ),
        )
    )
    found = {str(one.relative_to(upper)) for one in upper.rglob("*")}
    assert found == {"srv", "srv/made", "etc", "etc/debian_version"}
    assert (upper / "etc/debian_version").is_char_device()
    upper.rename(tmp_path / "layer")


def test_shared_memory_has_its_size(lab):
    text = lab.ask(lab.plan("df", "--output=size", "-k", "/dev/shm", limits=Limits(shm_bytes=32 * MIB)))
    assert text.split()[1] == "32768"


def test_more_layers_than_a_page_of_options(lab, tmp_path):
    layers = []
    for one in range(60):
        layer = tmp_path / ("long-" * 20) / f"{one}:a,b"
        layer.mkdir(parents=True)
        (layer / f"f{one}").touch()
        layers.append(str(layer))
    plan = lab.plan("sh", "-c", "ls / | grep -c '^f[0-9]'")
    plan = ContainerPlan(plan.id, (*layers, *lab.layers), plan.argv, plan.env)
    assert lab.ask(plan) == "60\n[0]"


# Limits


def test_processes_are_bounded(lab):
    code = """
        import os, time
        made = 0
        try:
            for _ in range(200):
                if os.fork() == 0:
                    time.sleep(60)
                made += 1
        except OSError as error:
            print("stopped", made < 60, error.strerror)
    """
    assert "stopped True Resource temporarily unavailable" in lab.ask(lab.python(code, limits=Limits(pids=60)))


def test_too_much_memory_is_reported_as_such(lab):
    plan = lab.python("print('up', flush=True); x = b'x' * (400 << 20)", limits=Limits(memory_bytes=64 * MIB))
    lab.run(lab.engine.start(plan))
    state = lab.run(lab.engine.wait(plan.id))
    assert (state.oom_killed, state.signal) == (True, signal.SIGKILL)
    assert lab.run(lab.engine.stats(plan.id)).memory_peak_bytes >= 60 * MIB
    lab.run(lab.engine.remove(plan.id))


def test_a_child_out_of_memory_is_not_blamed_on_one_that_goes_on(lab):
    code = """
        import subprocess, sys
        done = subprocess.run([sys.executable, "-c", "x = b'x' * (400 << 20)"])
        print(done.returncode)
    """
    plan = lab.python(code, limits=Limits(memory_bytes=64 * MIB))
    lab.run(lab.engine.start(plan))
    state = lab.run(lab.engine.wait(plan.id))
    assert (lab.printed(plan.id), state.exit_code, state.oom_killed) == ("-9\n", 0, False)
    lab.run(lab.engine.remove(plan.id))


def test_cpu_time_is_bounded_when_asked(lab):
    code = "import time; t = time.monotonic(); c = time.process_time()\nwhile time.monotonic() < t + 1: pass\n"
    code += "print(time.process_time() - c)"
    text = lab.ask(lab.plan("python3", "-c", code, limits=Limits(cpu_quota=0.2)))
    assert float(text.split("[")[0]) < 0.5
