"""What an OCI runtime is told: the floor of isolation is in this text, so each part of it is pinned."""

from __future__ import annotations

from dataclasses import replace

import pytest

from alight.node.engine import mountpoints, seccomp
from alight.node.engine.base import Bind, ContainerPlan, ContainerState, Limits
from alight.node.engine.oci_config import Machine, Place, config, memory_cap

GIB = 1 << 30
MACHINE = Machine(
    memory_bytes=16 * GIB, reserve_bytes=GIB, nofile=20_000, memlock=8192, caps_swap=False, mounts_cgroup=False
)
PLAN = ContainerPlan("c1", ("/layers/a",), ("python3", "-c", "1"), {"A": "1"})
PLACE = Place("/home/c1", "/alight-x/c1", root="/home/c1/root", etc="/home/c1/etc")


class Uname:
    """``os.uname`` of another machine."""

    def __init__(self, machine):
        self.machine = machine

    def __call__(self):
        return self


def test_it_has_namespaces_of_its_own():
    kinds = {one["type"] for one in config(PLAN, PLACE, MACHINE)["linux"]["namespaces"]}
    assert kinds == {"pid", "mount", "ipc", "uts", "cgroup", "network"}


def test_a_user_namespace_is_joined_and_its_ids_are_said():
    linux = config(PLAN, replace(PLACE, base=0x70010000), MACHINE)["linux"]
    assert {"type": "user", "path": "/home/c1/userns"} in linux["namespaces"]
    assert linux["uidMappings"] == linux["gidMappings"] == [{"containerID": 0, "hostID": 0x70010000, "size": 65536}]


def test_devices_in_a_user_namespace_are_nodes_of_its_own():
    plan = replace(PLAN, devices=("/dev/gpu0",))
    sources = [
        next(one["source"] for one in config(plan, replace(PLACE, base=base), MACHINE)["mounts"] if "gpu0" in str(one))
        for base in (0, 0x70010000, 0x70020000)
    ]
    assert sources[0] == "/dev/gpu0"
    assert len(set(sources)) == 3


def test_privileges_are_few_and_cannot_grow():
    process = config(PLAN, PLACE, MACHINE)["process"]
    assert process["noNewPrivileges"]
    assert set(process["capabilities"]) == {"bounding", "effective", "permitted"}
    for dangerous in ("SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN", "MKNOD", "SYS_MODULE", "DAC_READ_SEARCH"):
        assert f"CAP_{dangerous}" not in process["capabilities"]["bounding"]


def test_every_bind_is_quiet():
    plan = replace(PLAN, binds=(Bind("/a", "/b"), Bind("/c", "/d", readonly=False)))
    made = config(plan, replace(PLACE, sources=("/shown/a", "/c")), MACHINE)["mounts"]
    assert [one["source"] for one in made if one["destination"] in {"/b", "/d"}] == ["/shown/a", "/c"]
    mounts = {one["destination"]: one["options"] for one in made}
    assert {"ro", "nosuid", "nodev", "rprivate"} <= set(mounts["/b"])
    assert {"rw", "nosuid", "nodev"} <= set(mounts["/d"])
    assert "ro" not in mounts["/d"]


def test_a_device_is_bound_and_allowed_and_no_other():
    plan = replace(PLAN, devices=("/dev/gpu0",))
    made = config(plan, replace(PLACE, devices=(("c", 195, 0),)), MACHINE)
    rules = made["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert rules[1:] == [{"allow": True, "access": "rw", "type": "c", "major": 195, "minor": 0}]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(), {"shares": 128}),
        (Limits(cpu_shares=2, cpu_quota=1.5), {"shares": 2048, "period": 100_000, "quota": 150_000}),
        (Limits(cpu_shares=0.0001), {"shares": 2}),
    ],
)
def test_cpu_is_a_share_and_a_cap_only_when_asked(limits, expected):
    assert config(replace(PLAN, limits=limits), PLACE, MACHINE)["linux"]["resources"]["cpu"] == expected


def test_without_a_limit_the_machine_keeps_a_reserve():
    assert memory_cap(Limits(), MACHINE) == 15 * GIB
    assert memory_cap(Limits(memory_bytes=GIB), MACHINE) == GIB
    assert memory_cap(Limits(memory_bytes=99 * GIB), MACHINE) == 15 * GIB


def test_swap_is_capped_only_where_the_kernel_can():
    resources = config(PLAN, PLACE, MACHINE)["linux"]["resources"]
    assert "swap" not in resources["memory"]
    resources = config(PLAN, PLACE, replace(MACHINE, caps_swap=True))["linux"]["resources"]
    assert resources["memory"]["swap"] == resources["memory"]["limit"]


def test_shared_memory_is_half_of_what_it_may_use():
    def shm(limits):
        mounts = config(replace(PLAN, limits=limits), PLACE, MACHINE)["mounts"]
        options = next(one["options"] for one in mounts if one["destination"] == "/dev/shm")
        return next(int(one.partition("=")[2]) for one in options if one.startswith("size="))

    assert shm(Limits(memory_bytes=4 * GIB)) == 2 * GIB
    assert shm(Limits(shm_bytes=5)) == 5


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_profile_refuses_the_ways_out(machine, monkeypatch):
    monkeypatch.setattr(seccomp.os, "uname", Uname(machine))
    seccomp.profile.cache_clear()
    profile = seccomp.profile()
    seccomp.profile.cache_clear()
    assert len(profile["architectures"]) == 1
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    by_action = {}
    for rule in profile["syscalls"]:
        if "args" not in rule:
            by_action.setdefault(rule["action"], set()).update(rule["names"])
    refused, allowed = by_action["SCMP_ACT_ERRNO"], by_action["SCMP_ACT_ALLOW"]
    assert not refused & allowed
    ways_out = "mount umount2 unshare setns pivot_root keyctl add_key request_key bpf open_by_handle_at move_mount"
    assert set(ways_out.split()) <= refused
    # clone only without new namespaces; io_uring and clone3 do not exist.
    assert not {"clone", "clone3", "io_uring_setup", "socket", "personality"} & allowed
    assert {"read", "execve", "futex", "epoll_wait", "landlock_create_ruleset"} <= allowed


def test_an_unknown_architecture_has_no_profile(monkeypatch):
    monkeypatch.setattr(seccomp.os, "uname", Uname("riscv64"))
    seccomp.profile.cache_clear()
    assert seccomp.profile() is None
    seccomp.profile.cache_clear()


def test_mount_targets_are_made_once_and_shared(tmp_path):
    first = mountpoints.layer(tmp_path, [("/opt/a/lib", True), ("/dev/gpu0", False)])
    again = mountpoints.layer(tmp_path, [("/dev/gpu0", False), ("opt/a/lib/", True)])
    other = mountpoints.layer(tmp_path, [])
    assert first == again != other
    assert len(list(tmp_path.iterdir())) == 2
    layer = tmp_path / first
    assert (layer / "opt/a/lib").is_dir()
    assert (layer / "dev/gpu0").is_file()
    assert (layer / "tmp").stat().st_mode & 0o7777 == 0o1777


def test_a_target_behind_a_link_of_the_image_is_found(tmp_path):
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for layer in (upper, lower):
        (layer / "etc").mkdir(parents=True)
    (lower / "etc/hosts").symlink_to("hidden")
    (upper / "etc/hosts").touch()
    (lower / "etc/resolv.conf").symlink_to("../../../run/resolve/stub.conf")
    assert mountpoints.behind_links((str(upper), str(lower))) == [("/run/resolve/stub.conf", False)]


def test_a_state_of_a_newer_version_is_read():
    state = ContainerState("a", "exited", None, 1.0, exit_code=3)
    assert ContainerState.from_plain({**state.to_plain(), "colour": "blue"}) == state
