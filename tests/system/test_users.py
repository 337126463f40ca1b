"""Users: root of a container is no user of the host, and files keep their owners on disk whoever looks at them."""

# ruff: noqa: F811 fixtures are imported and then asked for by name
from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from alight.node import kernel, users
from alight.node.engine.base import Bind, EngineError
from tests.system.lab import Lab, lab, short_home  # noqa: F401 fixtures

#: Places of the spawner's own, which no container has to itself.
OURS = {".shared", ".buckets"}


@pytest.fixture(params=["runc", "crun"])
def lab_of(request, base_layers, short_home):
    """A lab of its own with each OCI runtime."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    made = Lab(base_layers, short_home, request.param)
    yield made
    made.close()


@pytest.fixture
def shared():
    """A directory with files of several users, as a volume is."""
    path = Path(tempfile.mkdtemp(prefix="alight-volume-", dir="/var/tmp"))
    path.chmod(0o755)
    for name, owner, mode in (("roots", 0, 0o600), ("someones", 1000, 0o600)):
        (path / name).write_text(name)
        (path / name).chmod(mode)
        os.chown(path / name, owner, owner)
    yield path
    shutil.rmtree(path)


def ids(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.split() for key, _, value in (line.partition(":") for line in lines) if key in {"Uid", "Gid"}}


def test_root_of_a_container_is_nobody_on_the_host(lab_of):
    plan = lab_of.plan("sh", "-c", "id -u; cat /proc/self/uid_map; echo up; exec sleep 1000", owner="ada")
    state = lab_of.started(plan)
    base = users.range_for(str(lab_of.home), "ada")
    assert lab_of.printed(plan.id).split() == ["0", "0", str(base), "65536", "up"]
    assert ids(state.pid) == {"Uid": [str(base)] * 4, "Gid": [str(base)] * 4}
    lab_of.run(lab_of.engine.remove(plan.id))


def test_owners_have_ranges_apart():
    first, second = users.range_for("home", "ada"), users.range_for("home", "bob")
    assert first != second
    assert first == users.range_for("home", "ada")
    for one in (first, second):
        assert 0x70000000 <= one < 0x7FFF0000
        assert one % users.SIZE == 0


def test_what_a_container_writes_is_its_ranges_and_its_network_is_its_own(lab):
    plan = lab.plan("sh", "-c", "echo x > /srv/made; ls /sys/class/net; echo up; exec sleep 1000", owner="ada")
    lab.started(plan)
    made = lab.engine.directory(plan.id) / "upper" / "srv" / "made"
    assert made.stat().st_uid == made.stat().st_gid == users.range_for(str(lab.home), "ada")
    assert lab.printed(plan.id).split() == ["eth0", "lo", "up"]
    lab.run(lab.engine.remove(plan.id))


def test_a_volumes_files_keep_their_owners_both_ways(lab_of, shared):
    script = """
        import os
        for name in ("roots", "someones"):
            print(name, os.stat(f"/v/{name}").st_uid, open(f"/v/{name}").read())
        open("/v/made", "w").write("x")
        open("/v/given", "w").write("x")
        os.chown("/v/given", 1000, 1001)
        os.chown("/v/someones", 0, 0)
    """
    plan = lab_of.python(script, binds=(Bind(str(shared), "/v", readonly=False),))
    assert lab_of.ask(plan) == "roots 0 roots\nsomeones 1000 someones\n[0]"
    owners = {one.name: (one.stat().st_uid, one.stat().st_gid) for one in shared.iterdir()}
    assert owners == {"roots": (0, 0), "made": (0, 0), "given": (1000, 1001), "someones": (0, 0)}


def test_a_file_that_only_root_may_read_is_readable_when_bound(lab_of, shared):
    plan = lab_of.plan("sh", "-c", "cat /etc/secret; echo x 2>/dev/null >> /etc/secret || echo read-only")
    plan = replace(plan, binds=(Bind(str(shared / "roots"), "/etc/secret"),))
    assert lab_of.ask(plan) == "rootsread-only\n[0]"


def test_users_of_an_image_can_be_switched_to(lab):
    # As package managers do before they fetch: give a file away, become its owner, be nobody else any more.
    script = """
        import os, pwd
        apt = pwd.getpwnam("_apt")
        os.chown("/srv", apt.pw_uid, 0)
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(apt.pw_uid, apt.pw_uid, apt.pw_uid)
        open("/srv/fetched", "w").write("x")
        print(os.stat("/srv/fetched").st_uid == apt.pw_uid)
        for path in ("/etc/new", "/root/new"):
            try:
                open(path, "w")
            except OSError as error:
                print(error.strerror)
    """
    assert lab.ask(lab.python(script)) == "True\nPermission denied\nPermission denied\n[0]"


def test_standard_streams_can_be_opened_by_name(lab):
    assert lab.ask(lab.plan("sh", "-c", "echo one > /dev/stdout; echo two > /dev/stderr")) == "one\ntwo\n[0]"


def test_own_layers_are_seen_as_they_are(lab, tmp_path):
    base = users.range_for(str(lab.home), "")
    layer = tmp_path / "layer"
    (layer / "srv").mkdir(parents=True)
    (layer / "srv" / "made").write_text("mine")
    for one in (layer, layer / "srv", layer / "srv" / "made"):
        os.chown(one, base, base)
    plan = lab.plan("sh", "-c", "cat /srv/made; stat -c %u /srv/made", own_layers=(str(layer),))
    assert lab.ask(plan) == "mine0\n[0]"


def test_a_layer_that_was_made_again_is_shown_anew(lab, tmp_path):
    layer = tmp_path / "layer"
    for text in ("first", "second"):
        layer.mkdir()
        (layer / "which").write_text(text)
        plan = lab.plan("cat", "/which")
        assert lab.ask(replace(plan, layers=(str(layer), *plan.layers))) == f"{text}[0]"
        shutil.rmtree(layer)


def test_a_plan_may_ask_for_the_hosts_users(lab):
    assert lab.ask(lab.plan("cat", "/proc/self/uid_map", users="host")).split() == ["0", "0", "4294967295", "[0]"]


def test_what_cannot_be_mapped_is_refused_with_the_reason(lab):
    # The kernel's own file systems know no other owners, like network file systems.
    plan = lab.plan("sh", "-c", "ls /seen", binds=(Bind("/proc/sys/net", "/seen"),))
    with pytest.raises(EngineError, match="does not start without one") as caught:
        lab.ask(plan)
    assert "/proc/sys/net" in caught.value.message
    assert "ALIGHT_USER_NAMESPACES=0" in caught.value.hint


def test_without_user_namespaces_containers_run_as_before(base_layers, short_home):
    lab = Lab(base_layers, short_home, user_namespaces=False)
    try:
        assert lab.ask(lab.plan("cat", "/proc/self/uid_map")).split() == ["0", "0", "4294967295", "[0]"]
    finally:
        lab.close()


def test_a_namespace_below_another_has_its_ids():
    outer, network = users.child_of_host(users.range_for("home", "ada"))
    below = users.Below(outer)
    (inner, inner_network), (other, other_network) = below.make(), below.make()
    try:
        assert os.fstat(inner.fd).st_ino != os.fstat(other.fd).st_ino
        child = os.fork()
        if child == 0:
            kernel.setns(inner.fd, kernel.CLONE_NEWUSER)
            maps = Path("/proc/self/uid_map").read_text().split()
            os.setresuid(5, 5, 5)
            os._exit(0 if maps == ["0", "0", "65536"] else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        below.close()
        for one in (outer.fd, network, inner.fd, inner_network, other.fd, other_network):
            os.close(one)
        os.wait()  # for the helper


def test_the_spawner_keeps_no_mount_of_a_container_that_ended(lab):
    def mounts() -> int:
        return Path(f"/proc/{spawner}/mountinfo").read_text().count("\n")

    state = lab.started(plan := lab.plan("sh", "-c", "echo up; exec sleep 1000"))
    spawner = int(next(one for one in Path(f"/proc/{state.pid}/status").read_text().splitlines() if "PPid" in one)[5:])
    lab.run(lab.engine.remove(plan.id))
    before, descriptors = mounts(), len(os.listdir(f"/proc/{spawner}/fd"))
    for _ in range(5):
        lab.ask(lab.plan("true"))
    assert mounts() == before
    assert len(os.listdir(f"/proc/{spawner}/fd")) == descriptors
    assert not [one for one in Path(f"/proc/{spawner}/root/run/alight/mounts").iterdir() if one.name not in OURS]


def test_a_machine_without_them_is_found_out_and_the_reason_is_logged(caplog):
    assert not users.possible("/proc")
    assert "root in containers is root of this machine" in caplog.text
