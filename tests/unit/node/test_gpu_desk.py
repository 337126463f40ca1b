"""The desk that hands out GPUs: who holds what, parts, leaked memory, and those out of service."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from alight.node.gpus import FakeGpus, GpuDesk, GpuLocks, Mps, NvmlGpus, desk
from alight.node.gpus.base import Injection
from alight.wire import errors
from alight.wire.gpus import Grant

sys.path.insert(0, str(Path(__file__).parent))
from fake_nvml import FakeNvml

A = {"uuid": "GPU-a", "name": "NVIDIA A100-SXM4-40GB", "memory": 40536}


class Lab:
    """A desk over pretended GPUs, and what it told the server."""

    def __init__(self, folder, *, provider=None, mps=None):
        self.folder = folder
        self.seen = folder / "fake-gpus.json"
        self.provider = provider or FakeGpus("A100-40GB:2", self.seen)
        self.told = []
        self.mps = mps
        self.desk = self.again()

    def again(self):
        """The desk of an agent that starts after this one was killed."""
        locks = GpuLocks(self.folder / f"locks{len(list(self.folder.iterdir()))}")
        return GpuDesk(self.provider, locks, self.mps, self.folder, self.told.append)

    def look(self, **what):
        self.seen.write_text(json.dumps({index[1:]: one for index, one in what.items()}))

    @property
    def faults(self):
        return [gpu.fault for gpu in self.desk.described()]


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


async def wait_until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  what changes is on disk
            await asyncio.sleep(0.01)


def run(play):
    return asyncio.run(play())


def test_a_whole_gpu_has_one_holder_and_parts_several(lab):
    one, two = (gpu.uuid for gpu in lab.provider.gpus())

    async def play():
        await lab.desk.take("c1", "u", (one,))
        for wanted in (one, f"{one}@10/1"):
            with pytest.raises(errors.ConflictError, match="c1"):
                await lab.desk.take("c2", "u", (wanted,))
        given = await lab.desk.take("c3", "u", (f"{two}@20000/50",))
        assert "nothing is shared, for it is not there" in given.notes[0]
        await lab.desk.take("c4", "u", (f"{two}@20480",))
        with pytest.raises(errors.ConflictError, match="of which 40480 are held by 2 containers"):
            await lab.desk.take("c5", "u", (f"{two}@481",))
        with pytest.raises(errors.ConflictError, match="all of its processors"):
            await lab.desk.take("c5", "u", (f"{two}@1/51",))
        with pytest.raises(errors.ConflictError):
            await lab.desk.take("c6", "u", (two,))
        await lab.desk.release("c3")
        await lab.desk.take("c5", "u", (f"{two}@400/50",))
        for name in ("c1", "c4", "c5"):
            await lab.desk.release(name)
        given = await lab.desk.take("c7", "u", (one, two))
        assert given.notes == ()
        assert given.injection.env["ALIGHT_FAKE_GPUS"] == f"{one},{two}"

    run(play)


def test_what_an_agent_adopts_nobody_else_gets(lab):
    uuid = lab.provider.gpus()[0].uuid

    async def play():
        lab.desk.adopt("old", "u", (f"{uuid}@30000",))
        with pytest.raises(errors.ConflictError):
            await lab.desk.take("new", "u", (f"{uuid}@20000",))
        await lab.desk.release("old")
        await lab.desk.take("new", "u", (f"{uuid}@20000",))

    run(play)


def test_a_broken_gpu_is_out_of_service_until_the_node_starts_again(lab):
    async def play():
        running = asyncio.create_task(lab.desk.run())
        lab.look(_1={"fault": "it is lost"})
        await wait_until(lambda: any(lab.faults))
        assert lab.faults == ["", "it is lost"]
        assert [gpu.fault for gpu in lab.told[-1].found] == ["", "it is lost"]
        assert json.loads((lab.folder / "gpus.json").read_text())["out"]
        with pytest.raises(errors.ServiceError, match="out of service: it is lost"):
            await lab.desk.take("c1", "u", (lab.provider.gpus()[1].uuid,))
        await lab.desk.release("c1")
        lab.look()
        assert lab.faults == ["", "it is lost"]
        lab.desk.restore(lab.provider.gpus()[1].uuid)
        await wait_until(lambda: not any(lab.faults))
        assert [gpu.fault for gpu in lab.told[-1].found] == ["", ""]
        await lab.desk.take("c1", "u", (lab.provider.gpus()[1].uuid,))
        running.cancel()

    run(play)


def test_memory_that_a_container_left_is_waited_for(lab):
    uuid = lab.provider.gpus()[0].uuid

    async def play():
        lab.look(_0={"used": 700})  # somebody's desktop
        await lab.desk.take("c1", "u", (uuid,))
        lab.look(_0={"used": 5000})
        await lab.desk.release("c1")
        assert lab.faults[0] == "a container that has ended left 4300 MiB of its memory in use, which are waited for"
        assert lab.told[-1].found[0].fault, "it was told before the container's end is"
        with pytest.raises(errors.ServiceError, match="out of service"):
            await lab.desk.take("c2", "u", (uuid,))
        await lab.desk.release("c2")
        running = asyncio.create_task(lab.desk.run())
        lab.look(_0={"used": 800})
        await wait_until(lambda: not any(lab.faults))
        assert not lab.told[-1].found[0].fault
        await lab.desk.take("c3", "u", (uuid,))
        running.cancel()

    run(play)


def test_an_agent_that_starts_again_knows_what_was_in_use_before(lab):
    uuid = lab.provider.gpus()[0].uuid

    async def play():
        lab.look(_0={"used": 700})
        await lab.desk.take("c1", "u", (uuid,))
        lab.desk = lab.again()
        lab.desk.adopt("c1", "u", (uuid,))
        lab.look(_0={"used": 900})
        await lab.desk.release("c1")
        assert lab.faults[0] == ""

    run(play)


def test_memory_of_living_processes_is_nobody_s_leak(tmp_path):
    nvml = FakeNvml({**A})
    lab = Lab(tmp_path, provider=NvmlGpus(nvml.opened))
    lab.provider.inject = lambda uuids: Injection()

    async def play():
        await lab.desk.take("c1", "u", ("GPU-a",))
        nvml.gpus[0].update(used=3000, processes={os.getpid(): 2900})
        await lab.desk.release("c1")
        assert lab.faults == [""]

    run(play)


CONTROL = """\
    #!{python}
    # Stands in for NVIDIA's control daemon: it has its arguments, its pid file and its word "quit".
    import os, signal, subprocess, sys, time
    pipe = os.environ["CUDA_MPS_PIPE_DIRECTORY"]
    pid = os.path.join(pipe, "nvidia-cuda-mps-control.pid")
    if sys.argv[1:] == ["-d"]:
        if os.path.exists({refuse!r}):
            sys.exit("mps: refused")
        if os.fork():
            while not os.path.exists(pid):
                time.sleep(0.01)
            sys.exit()
        open("/proc/self/comm", "w").write("nvidia-cuda-mps-control"[:15])
        open(pid + ".new", "w").write(str(os.getpid()))
        open(os.path.join(pipe, "device"), "w").write(os.environ["CUDA_VISIBLE_DEVICES"])
        os.rename(pid + ".new", pid)
        for fd in (0, 1, 2):
            os.close(fd)
        time.sleep(120)
    elif "quit" in sys.stdin.read():
        os.kill(int(open(pid).read()), signal.SIGTERM)
"""


@pytest.fixture
def mps(tmp_path):
    program = tmp_path / "nvidia-cuda-mps-control"
    text = textwrap.dedent(CONTROL).format(python=sys.executable, refuse=str(tmp_path / "refuse"))
    program.write_text(text)
    program.chmod(0o755)
    with tempfile.TemporaryDirectory(prefix="al-") as short:  # a socket's path has its limit
        made = Mps(Path(short, "mps"), str(program))
        yield made
        made.end()


def alive(mps, uuid):
    return mps._pid(uuid)


@pytest.mark.slow
def test_mps_serves_the_parts_of_one_gpu_and_ends_with_the_last(mps):
    first = mps.enter("c1", "u", Grant("GPU-a", 20000, 50))
    assert first.env == {
        "CUDA_MPS_PIPE_DIRECTORY": "/run/alight-mps",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=20000M",
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "50",
        "CUDA_VISIBLE_DEVICES": "0",
    }
    assert [bind.target for bind in first.binds] == ["/run/alight-mps", "/dev/shm"]
    assert Path(first.binds[0].source, "device").read_text() == "GPU-a"
    pid = alive(mps, "GPU-a")
    second = mps.enter("c2", "u", Grant("GPU-a", 10000))
    assert "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE" not in second.env
    assert alive(mps, "GPU-a") == pid, "one daemon for each GPU"
    assert "somebody else's" in mps.enter("c3", "other", Grant("GPU-a", 1000))
    mps.leave("c1")
    assert alive(mps, "GPU-a") == pid
    mps.leave("c2")
    assert not alive(mps, "GPU-a")
    assert not (mps._folder / "GPU-a").exists()


@pytest.mark.slow
def test_a_daemon_outlives_the_agent_and_not_its_clients(mps):
    mps.enter("c1", "u", Grant("GPU-a", 20000))
    mps.enter("c2", "u", Grant("GPU-b", 20000))
    after = Mps(mps._folder, mps._program)
    after.adopt("c1", "u", Grant("GPU-a", 20000))
    after.end(unused=True)
    assert alive(after, "GPU-a")
    assert not alive(after, "GPU-b"), "its client was gone when the agent came back"
    after.leave("c1")
    assert not alive(after, "GPU-a")


def test_without_mps_it_is_time_slicing_and_said_so(tmp_path):
    mps = Mps(tmp_path / "mps", "no-such-program")
    nvml = FakeNvml({**A})
    lab = Lab(tmp_path, provider=NvmlGpus(nvml.opened), mps=mps)
    lab.provider.inject = lambda uuids: Injection(env={"NVIDIA_VISIBLE_DEVICES": ",".join(uuids)})

    async def play():
        given = await lab.desk.take("c1", "u", ("GPU-a@20000/50",))
        assert given.injection.env == {"NVIDIA_VISIBLE_DEVICES": "GPU-a"}
        (note,) = given.notes
        assert note.startswith("20000 MiB and 50 % of the processors of GPU 0 (NVIDIA A100-SXM4-40GB), shared by time")
        assert "this machine has no nvidia-cuda-mps-control" in note
        assert "another container can use up the memory" in note

    run(play)


def test_with_mps_its_limits_are_set_and_what_it_does_not_protect_is_said(tmp_path, mps):
    nvml = FakeNvml({**A})
    lab = Lab(tmp_path, provider=NvmlGpus(nvml.opened), mps=mps)
    lab.provider.inject = lambda uuids: Injection(env={"NVIDIA_VISIBLE_DEVICES": ",".join(uuids)})

    async def play():
        given = await lab.desk.take("c1", "u", ("GPU-a@20000/50",))
        assert given.injection.env["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=20000M"
        assert "shared through MPS" in given.notes[0]
        assert "a crash in one container can end the work of the others" in given.notes[0]
        (tmp_path / "refuse").touch()
        mps.end()
        given = await lab.desk.take("c2", "u", ("GPU-a@1000",))
        assert "did not start: mps: refused" in given.notes[0]
        await lab.desk.release("c1")
        await lab.desk.release("c2")
        assert not alive(mps, "GPU-a")

    run(play)


@pytest.mark.parametrize(("said", "mode"), [(None, "mps"), ("", "mps"), ("TIME", "time")])
def test_how_parts_are_kept_apart_is_a_setting(said, mode):
    assert desk.sharing({} if said is None else {"ALIGHT_GPU_SHARING": said}) == mode
    with pytest.raises(errors.InvalidError, match="neither mps nor time"):
        desk.sharing({"ALIGHT_GPU_SHARING": "mig"})


def test_fake_mig_instances_are_parts_of_one(tmp_path):
    one, two = FakeGpus("A100-40GB/3g.20gb:2").gpus()
    assert (one.memory, one.mig, one.parent, one.parent_memory) == (20480, "3g.20gb", two.parent, 40960)
    assert one.uuid != two.uuid
    with pytest.raises(errors.InvalidError, match="no profile"):
        FakeGpus("A100-40GB/half:2")
