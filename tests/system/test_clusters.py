"""Functions on several containers at once: together from the start to the end, among themselves, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.machine import Machine
from tests.system.test_crashes import nothing_is_left, pid_of
from tests.system.test_engine_kills import until

SCRIPT = '''
import os, socket, sys, time, uuid

import alight
from alight.experimental import get_cluster_info

app = alight.App("clusters", image=alight.Image.debian_slim(python_version="3.11"))


def gather(number, port=4000):
    """Every rank sends its number to rank 0, over a port that nobody was told of; the sum there."""
    info = get_cluster_info()
    if info.rank == 0:
        with socket.create_server(("0.0.0.0", port)) as server:
            for _ in info.container_ips[1:]:
                connection, _ = server.accept()
                with connection, connection.makefile() as file:
                    number += int(file.readline())
                    connection.sendall(b"thanks")
        return number
    while True:
        try:
            with socket.create_connection(("rank-0", port), 5) as connection:
                connection.sendall(f"{number}\\n".encode())
                assert connection.recv(6) == b"thanks"
            return None
        except ConnectionRefusedError:
            time.sleep(0.02)


@app.function()
@alight.clustered(size=3)
def add(number):
    rank = alight.Cluster.from_context().container_rank()
    total = gather(number * 10**rank)
    return total if rank == 0 else object()  # which nobody could have pickled


@app.function()
@alight.clustered(size=2, rdma=True)
def who():
    info = get_cluster_info()
    cluster = alight.Cluster.from_context()
    gather(1)
    names = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "NODE_RANK", "NNODES", "NCCL_SOCKET_IFNAME")
    return {
        "id": info.cluster_id, "ips": info.container_ipv4_ips, "ids": cluster.container_ids(),
        "env": {name: os.environ.get(name) for name in names},
        "hostname": socket.gethostname(), "rank-1": socket.gethostbyname("rank-1"),
    }


@app.function()
@alight.clustered(size=2)
def items(count):
    gather(0)
    for number in range(count):
        yield number


@app.function()
@alight.clustered(size=2)
def fail(rank):
    if get_cluster_info().rank == rank:
        raise ValueError("no")
    time.sleep(100)


@app.function(timeout=2)
@alight.clustered(size=2)
def slow():
    if get_cluster_info().rank == 1:
        time.sleep(100)


@app.function()
@alight.clustered(size=2)
def leave():
    if get_cluster_info().rank == 1:
        sys.exit(3)
    time.sleep(100)


@app.function()
@alight.clustered(size=2)
def hold(seconds):
    print("begun", get_cluster_info().rank, uuid.uuid4(), flush=True)
    time.sleep(seconds)
    return gather(1)


@app.cls()
@alight.clustered(size=2)
class Pair:
    @alight.enter()
    def begin(self):
        self.rank = get_cluster_info().rank

    @alight.method()
    def sum(self, number):
        return gather(number + self.rank)


@app.function()
def reach(address, port):
    try:
        socket.create_connection((address, port), 3).close()
        return "reached"
    except OSError as error:
        return str(error)


@app.local_entrypoint()
def values():
    assert add.remote(1) == 111
    assert sorted(add.map([1, 2, 3])) == [111, 222, 333]
    assert list(items.remote_gen(5)) == [0, 1, 2, 3, 4]
    assert Pair().sum.remote(5) == 11
    print("well")


@app.local_entrypoint()
def facts():
    import json
    print(json.dumps(who.remote()))


@app.local_entrypoint()
def failures():
    for rank in (0, 1):
        try:
            fail.remote(rank)
        except ValueError as error:
            print(error, error.__notes__)
    try:
        slow.remote()
    except alight.exception.FunctionTimeoutError as error:
        print("timeout", error)
    try:
        leave.remote()
    except alight.exception.RemoteError as error:
        print("left", error, error.__notes__)


@app.local_entrypoint()
def holding(seconds: int = 600):
    print("result", hold.remote(seconds), flush=True)


@app.local_entrypoint()
def apart():
    import time
    call = hold.spawn(8)
    other = who.spawn()
    ips = other.get()["ips"]
    print(reach.remote(ips[0], 4000))
    assert call.get() == 2


@app.local_entrypoint()
def cancelled():
    call = hold.spawn(600)
    time.sleep(2)
    call.cancel()
    assert hold.remote(0) == 2
    print("well")
'''

TOO_LARGE = """
import alight
app = alight.App("large", image=alight.Image.debian_slim(python_version="3.11"))

@app.function(memory=1 << 20)
@alight.clustered(size=64)
def f():
    pass

@app.local_entrypoint()
def main():
    f.remote()
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clusters") / "job.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module")
def clustered(new_machine) -> Iterator[Machine]:
    """An instance whose processes may be killed, for all tests of this file."""
    machine = new_machine(ALIGHT_HOLDER_GRACE="1")
    machine.run("server", "start")
    yield machine
    nothing_is_left(machine)
    machine.close()


def elements(machine: Machine) -> str:
    """What the firewall lets containers reach of each other."""
    from alight.node.__main__ import instance_of
    from alight.node.network import Names

    table = Names.of(instance_of(machine.home.resolve())).table
    asked = ["nft", "list", "set", "inet", table, "together"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout


def test_all_ranks_work_on_each_input_and_rank_0_answers(clustered, script):
    assert "well" in clustered.run("run", f"{script}::values").stdout


def test_every_rank_is_told_who_and_where_all_are(clustered, script):
    said = json.loads(clustered.run("run", f"{script}::facts").stdout.splitlines()[-1])
    assert said["id"].startswith("cu-")
    assert len(set(said["ips"])) == len(set(said["ids"])) == 2
    assert said["env"] == {
        "MASTER_ADDR": said["ips"][0],
        "MASTER_PORT": "29500",
        "RANK": "0",
        "WORLD_SIZE": "2",
        "NODE_RANK": "0",
        "NNODES": "2",
        "NCCL_SOCKET_IFNAME": "eth0",
    }
    assert (said["hostname"], said["rank-1"]) == ("rank-0", said["ips"][1])


def test_a_rank_that_fails_or_takes_too_long_fails_the_input_and_says_which(clustered, script):
    out = clustered.run("run", f"{script}::failures").stdout
    assert "no ['raised by rank 0 of 2" in out
    assert "no ['raised by rank 1 of 2" in out
    assert "timeout rank 1 of 2 of slow ran longer" in out
    assert "['raised by rank 1 of 2" in out.partition("left leave() called exit(3)")[2]


@pytest.mark.slow
def test_nobody_else_reaches_them(clustered, script):
    out = clustered.run("run", f"{script}::apart").stdout
    assert "reached" not in out
    # The rules go with the containers.
    assert not until(lambda: "elements" in elements(clustered) and elements(clustered))


def test_after_a_cancellation_others_come_in(clustered, script):
    assert "well" in clustered.run("run", f"{script}::cancelled").stdout


def test_more_than_the_machine_has_is_said_at_once(clustered, tmp_path):
    path = tmp_path / "large.py"
    path.write_text(TOO_LARGE)
    done = clustered.run("run", path, status=None)
    assert done.returncode == 1
    assert "@clustered(size=64)" in done.stderr


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param("server", marks=SLOW),
        pytest.param("node", marks=SLOW),
        pytest.param("spawner", marks=SLOW),
        "rank 1",
    ],
)
def test_whatever_is_killed_the_input_ends_well(clustered, script, victim):
    process = clustered.start("run", f"{script}::holding", "--seconds", "6", stderr=subprocess.STDOUT)
    seen = ""
    while seen.count("begun") < 2:
        line = process.stdout.readline()
        assert line, seen
        seen += line
    if victim == "rank 1":
        rank = next(one for one in clustered.json("container", "list") if one["state"] == "ready")["container_id"]
        clustered.run("container", "exec", rank, "--", "sh", "-c", "kill -9 -1", status=None)
    else:
        os.kill(pid_of(clustered, victim), signal.SIGKILL)
    out, _ = process.communicate(timeout=90)
    assert process.returncode == 0, f"{seen}{out}{clustered.logs()}"
    assert "result 2" in out
    begun = (seen + out).count("begun")
    assert begun == (2 if victim in {"server", "node"} else 4), seen + out


TORCH = """
import os, subprocess, sys

import alight

image = alight.Image.debian_slim(python_version="3.11").pip_install(
    "torch", "numpy"
)
app = alight.App("torchrun", image=image)

PROGRAM = '''
import torch, torch.distributed as dist
dist.init_process_group("gloo")
mine = torch.full((4,), float(dist.get_rank() + 1))
dist.all_reduce(mine)
if dist.get_rank() == 0:
    open("/tmp/sum", "w").write(str([dist.get_world_size(), mine.tolist()]))
dist.barrier()
dist.destroy_process_group()
'''


@app.function(timeout=200, cpu=1, memory=1024)
@alight.clustered(size=2)
def train():
    open("/tmp/program.py", "w").write(PROGRAM)
    subprocess.run(
        ["torchrun", "--nnodes", os.environ["NNODES"], "--node-rank", os.environ["NODE_RANK"], "--nproc-per-node", "2",
         "--master-addr", os.environ["MASTER_ADDR"], "--master-port", os.environ["MASTER_PORT"], "/tmp/program.py"],
        check=True,
    )
    return open("/tmp/sum").read() if os.environ["NODE_RANK"] == "0" else None


@app.local_entrypoint()
def main():
    print("sum", train.remote())
"""


@pytest.mark.slow
@pytest.mark.timeout(1500)  # PyTorch is gigabytes
def test_torchrun_reduces_across_two_containers(clustered, tmp_path):
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(TORCH))
    assert "sum [4, [10.0, 10.0, 10.0, 10.0]]" in clustered.run("run", path, timeout=1400).stdout
