"""What every engine promises, on every filling: nothing that a container prints or ends with is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from alight.node import output
from alight.node.engine.base import Bind, ContainerPlan, Engine, EngineError, Limits
from alight.node.engine.execs import ExecPlan, ProgramError
from alight.node.engine.oci import OciEngine
from alight.node.engine.process import ProcessEngine

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
pytestmark = pytest.mark.timeout(60)


@dataclass
class Place:
    """An engine's home, in which a test may make engines one after another."""

    filling: str
    home: Path
    layers: tuple[str, ...]
    engines: list[Engine] = field(default_factory=list)

    def engine(self) -> Engine:
        made: Engine
        if self.filling == "process":
            made = ProcessEngine(self.home)
        else:
            made = OciEngine(self.home, str(self.home), runtime=self.filling)
        self.engines.append(made)
        return made

    def plan(self, container_id: str, *argv: str, **more) -> ContainerPlan:
        env = {"PATH": PATH, "HOME": "/root", **more.pop("env", {})}
        return ContainerPlan(container_id, self.layers, argv, env, **more)

    def shell(self, container_id: str, script: str, **more) -> ContainerPlan:
        return self.plan(container_id, "sh", "-c", script, **more)


@pytest.fixture(params=["process", "runc", "crun"])
def place(request):
    layers = ()
    if request.param != "process":
        if shutil.which(request.param) is None:
            pytest.skip(f"{request.param} is not installed")
        layers = request.getfixturevalue("base_layers")
    # A short path: pytest's own are too long for the sockets of other parts.
    home = Path(tempfile.mkdtemp(prefix="alight-"))
    yield Place(request.param, home, layers)
    shutil.rmtree(home)


def drive(place, work):
    """Run a test with an open engine, and leave nothing behind."""

    async def main():
        engine = place.engine()
        await engine.open()
        try:
            return await work(engine)
        finally:
            for one in place.engines[:-1]:
                await one.close()
            await place.engines[-1].shutdown()

    return asyncio.run(main())


async def finish(engine, plan):
    await engine.start(plan)
    return await asyncio.wait_for(engine.wait(plan.id), 30)


def printed(engine, container_id, stream=None):
    records = output.read(engine.directory(container_id) / "output.log")
    return b"".join(one.data for one in records if stream in {None, one.stream})


async def until_printed(engine, container_id, text):
    while text not in printed(engine, container_id):
        await asyncio.sleep(0.01)
        await engine.drain(container_id)


def test_a_container_runs_and_its_end_is_known(place):
    async def work(engine):
        state = await finish(engine, place.shell("a", "echo hello; exit 3"))
        assert (state.status, state.exit_code, state.signal, state.oom_killed) == ("exited", 3, None, False)
        assert state.ended_at >= state.started_at
        assert printed(engine, "a") == b"hello\n"
        assert [one.id for one in await engine.list()] == ["a"]

    drive(place, work)


def test_streams_are_told_apart_and_keep_their_order(place):
    async def work(engine):
        script = "for i in 1 2 3; do echo out$i; sleep 0.05; echo err$i >&2; sleep 0.05; done"
        await finish(engine, place.shell("a", script))
        assert printed(engine, "a", output.STDOUT) == b"out1\nout2\nout3\n"
        assert printed(engine, "a", output.STDERR) == b"err1\nerr2\nerr3\n"
        assert printed(engine, "a") == b"out1\nerr1\nout2\nerr2\nout3\nerr3\n"

    drive(place, work)


def test_a_burst_is_complete_when_wait_returns(place):
    async def work(engine):
        state = await finish(engine, place.shell("a", "head -c 5000000 /dev/zero; echo end >&2"))
        assert state.exit_code == 0
        assert len(printed(engine, "a", output.STDOUT)) == 5_000_000
        assert printed(engine, "a", output.STDERR) == b"end\n"

    drive(place, work)


def test_what_children_print_is_kept(place):
    async def work(engine):
        await finish(engine, place.shell("a", "(sh -c 'echo grandchild') & wait; echo parent"))
        assert printed(engine, "a") == b"grandchild\nparent\n"

    drive(place, work)


def test_children_end_with_the_first_process(place):
    async def work(engine):
        state = await finish(engine, place.shell("a", "sleep 1000 & echo started"))
        assert state.exit_code == 0
        async with asyncio.timeout(10):  # a killed process of a busy machine is there a moment longer
            while await engine.inside("a"):  # noqa: ASYNC110  nothing tells
                await asyncio.sleep(0.01)

    drive(place, work)


def test_drain_finds_what_was_printed_before_it(place):
    async def work(engine):
        await engine.start(place.shell("a", "echo now; exec sleep 1000"))
        await until_printed(engine, "a", b"now\n")
        size = await engine.drain("a")
        assert size == (engine.directory("a") / "output.log").stat().st_size == output.HEAD.size + 4

    drive(place, work)


def test_kill_returns_when_all_are_dead(place):
    async def work(engine):
        await engine.start(place.shell("a", "sleep 1000 & echo up; wait"))
        await until_printed(engine, "a", b"up")
        assert len(await engine.inside("a")) == 2
        await engine.kill("a")
        state = await engine.wait("a")
        assert (state.exit_code, state.signal) == (None, signal.SIGKILL)
        assert not state.oom_killed
        assert await engine.inside("a") == set()
        await engine.kill("a")

    drive(place, work)


def test_a_signal_reaches_its_handler(place):
    async def work(engine):
        await engine.start(place.shell("a", "trap 'echo got it; exit 9' TERM; echo up; while :; do sleep 0.02; done"))
        await until_printed(engine, "a", b"up")
        await engine.signal("a", signal.SIGTERM)
        assert (await engine.wait("a")).exit_code == 9
        assert printed(engine, "a") == b"up\ngot it\n"
        await engine.signal("a", signal.SIGTERM)

    drive(place, work)


def test_everyone_gets_a_signal(place):
    async def work(engine):
        inner = "trap 'echo inner; exit' USR1; echo up; while :; do sleep 0.02; done"
        await engine.start(place.shell("a", f'sh -c "{inner}" & trap : USR1; wait; wait; echo outer'))
        await until_printed(engine, "a", b"up")
        await engine.signal("a", signal.SIGUSR1, everyone=True)
        await asyncio.wait_for(engine.wait("a"), 10)
        assert b"inner" in printed(engine, "a")

    drive(place, work)


def test_the_environment_is_the_plans_and_nothing_else(place, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_NODE", "1")

    async def work(engine):
        await finish(engine, place.plan("a", "env", env={"MINE": "a b\nc"}))
        text = printed(engine, "a").decode()
        assert "MINE=a b\nc" in text
        assert "SECRET_OF_THE_NODE" not in text

    drive(place, work)


def test_a_program_that_is_not_there_is_said_so(place):
    async def work(engine):
        with pytest.raises(EngineError, match="nope") as caught:
            await engine.start(place.plan("a", "nope"))
        assert caught.value.hint
        assert await engine.list() == []
        assert not engine.directory("a").exists()
        # The id is free again.
        assert (await finish(engine, place.shell("a", "exit 0"))).exit_code == 0

    drive(place, work)


def test_an_unknown_container_is_said_so(place):
    async def work(engine):
        for call in (engine.wait, engine.kill, engine.stats, engine.drain, engine.inside):
            with pytest.raises(EngineError, match="no container ghost"):
                await call("ghost")
        await engine.remove("ghost")

    drive(place, work)


def test_remove_ends_and_forgets_and_may_be_repeated(place):
    async def work(engine):
        await engine.start(place.shell("a", "exec sleep 1000"))
        await engine.remove("a")
        assert await engine.list() == []
        assert not engine.directory("a").exists()
        await engine.remove("a")

    drive(place, work)


def test_another_engine_finds_what_runs_and_what_ended(place):
    async def work(engine):
        await finish(engine, place.shell("old", "echo first; exit 4"))
        await engine.start(place.shell("new", "echo second; sleep 0.3; exit 5"))
        await engine.close()
        again = place.engine()
        await again.open()
        states = {one.id: one for one in await again.list()}
        assert states["old"].exit_code == 4
        assert (await again.wait("new")).exit_code == 5
        assert (printed(again, "old"), printed(again, "new")) == (b"first\n", b"second\n")

    drive(place, work)


def test_many_at_once(place):
    async def work(engine):
        plans = [place.shell(f"c{one}", f"echo {one}; exit {one}") for one in range(12)]
        states = await asyncio.gather(*(finish(engine, one) for one in plans))
        assert [one.exit_code for one in states] == list(range(12))
        assert [printed(engine, f"c{one}") for one in range(12)] == [b"%d\n" % one for one in range(12)]

    drive(place, work)


def test_use_is_counted(place):
    async def work(engine):
        script = "echo up; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; exec sleep 1000"
        await engine.start(place.shell("a", script))
        await until_printed(engine, "a", b"done")
        async with asyncio.timeout(20):
            while not (stats := await engine.stats("a")).cpu_seconds:  # noqa: ASYNC110  counted by ticks, and late
                await asyncio.sleep(0.02)
        assert stats.memory_bytes > 0
        assert stats.pids == 1

    drive(place, work)


def test_waiting_for_one_may_be_given_up(place):
    async def work(engine):
        await engine.start(place.shell("a", "sleep 0.3; exit 6"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.wait("a"), 0.05)
        assert (await engine.wait("a")).exit_code == 6

    drive(place, work)


def test_a_bind_is_found(place, tmp_path):
    (tmp_path / "note").write_text("shared")

    async def work(engine):
        plan = place.shell("a", "cat $WHERE/note", binds=(Bind(str(tmp_path), "/given"),))
        where = "/given" if engine.isolates else str(tmp_path)
        await finish(engine, replace(plan, env={**plan.env, "WHERE": where}))
        assert printed(engine, "a") == b"shared"

    drive(place, work)


def test_the_unisolated_engine_refuses_what_it_cannot_give(tmp_path):
    async def main():
        engine = ProcessEngine(tmp_path)
        await engine.open()
        plain = ContainerPlan("a", (), ("true",), {"PATH": PATH})
        for asked in (
            replace(plain, layers=("/",)),
            replace(plain, network="none"),
            replace(plain, devices=("/dev/null",)),
            replace(plain, limits=Limits(memory_bytes=1 << 30)),
        ):
            with pytest.raises(EngineError, match="isolates nothing") as caught:
                await engine.start(asked)
            assert "OCI" in caught.value.hint
        lenient = ProcessEngine(tmp_path, lenient=True)
        await lenient.start(replace(plain, layers=("/",), network="none"))
        assert (await lenient.wait("a")).exit_code == 0
        await lenient.shutdown()

    asyncio.run(main())


def test_what_a_killed_agent_left_unisolated_is_ended(tmp_path):
    async def main():
        engine = ProcessEngine(tmp_path)
        await engine.open()
        state = await engine.start(ContainerPlan("a", (), ("sleep", "1000"), {"PATH": PATH}))
        from alight.node.engine import process

        # As if this were another process: the registry of running ones is empty in it.
        kept = dict(process._PROCESSES)
        process._PROCESSES.clear()
        later = ProcessEngine(tmp_path)
        await later.open()
        (found,) = await later.list()
        assert (found.status, found.signal, found.pid) == ("exited", signal.SIGKILL, state.pid)
        assert "agent" in found.error
        process._PROCESSES.update(kept)
        await engine.wait("a")
        with pytest.raises(ProcessLookupError):
            os.kill(state.pid, 0)
        await engine.remove("a")

    asyncio.run(main())


ENV = {"PATH": PATH, "HOME": "/root"}


async def everything(one):
    """What a program writes until it ended, by stream, and its status."""
    parts = {"out": b"", "err": b""}

    async def read(descriptor, name):
        while True:
            try:
                data = os.read(descriptor, 1 << 16)
            except BlockingIOError:
                await asyncio.sleep(0.005)
                continue
            except OSError:  # a terminal that nobody has any more
                return
            if not data:
                return
            parts[name] += data

    reading = [read(one.stdout, "out")] + ([read(one.stderr, "err")] if one.stderr >= 0 else [])
    await asyncio.wait_for(asyncio.gather(*reading), 20)
    status = await asyncio.wait_for(one.wait(), 20)
    await one.close()
    return parts["out"], parts["err"], status


def test_a_program_joins_a_running_container(place):
    async def work(engine):
        await engine.start(place.shell("a", "echo mine > /tmp/alight-joined-$$; sleep 60"))
        plan = ExecPlan(("sh", "-c", "cat; echo $X > /dev/stderr; exit 7"), {**ENV, "X": "given"})
        one = await engine.exec("a", plan)
        os.write(one.stdin, b"\0typed\xff")
        one.close_stdin()
        assert await everything(one) == (b"\0typed\xff", b"given\n", 7)
        assert printed(engine, "a") == b""  # it is not the container's output

    drive(place, work)


def test_a_joined_program_has_a_terminal(place):
    async def work(engine):
        await engine.start(place.shell("a", "sleep 60"))
        script = "stty size; test -t 0 && test -t 1 && test -t 2 && echo all; read line; echo got $line; exec sleep 60"
        one = await engine.exec("a", ExecPlan(("sh", "-c", script), ENV, terminal=(33, 77)))
        os.write(one.stdin, b"hello\n")
        drawn = b""
        while b"got hello" not in drawn:
            with contextlib.suppress(BlockingIOError):
                drawn += os.read(one.stdout, 4096)
            await asyncio.sleep(0.005)
        lines = drawn.replace(b"\r", b"").split(b"\n")
        assert {b"33 77", b"all"} <= set(lines)  # and the terminal's echo of what was typed, somewhere
        os.write(one.stdin, b"\x03")  # Ctrl-C is a signal: the terminal is its controlling one
        assert await asyncio.wait_for(one.wait(), 20) == -signal.SIGINT
        await one.close()

    drive(place, work)


def test_a_program_that_is_missing_is_said(place):
    async def work(engine):
        await engine.start(place.shell("a", "sleep 60"))
        with pytest.raises(ProgramError, match="no-such-program"):
            await engine.exec("a", ExecPlan(("no-such-program",), ENV))
        one = await engine.exec("a", ExecPlan(("true",), ENV))
        assert (await everything(one))[2] == 0

    drive(place, work)


def test_a_program_ends_with_its_container_and_with_who_started_it(place):
    async def work(engine):
        await engine.start(place.shell("a", "sleep 60"))
        one = await engine.exec("a", ExecPlan(("sleep", "60"), ENV))
        await one.close()
        assert await asyncio.wait_for(one.wait(), 20) == -signal.SIGKILL
        one = await engine.exec("a", ExecPlan(("sleep", "60"), ENV))
        await engine.kill("a")
        assert await asyncio.wait_for(one.wait(), 20) == -signal.SIGKILL
        with pytest.raises(EngineError):
            await engine.exec("a", ExecPlan(("true",), ENV))

    drive(place, work)


def test_a_signal_reaches_what_a_joined_program_started(place):
    async def work(engine):
        await engine.start(place.shell("a", "sleep 60"))
        one = await engine.exec("a", ExecPlan(("sh", "-c", "sleep 61 | cat; echo over"), ENV))
        await asyncio.sleep(0.1)
        await one.signal(signal.SIGTERM)
        assert (await everything(one))[2] in {-signal.SIGTERM, 143}  # all of the pipeline let go of its output

    drive(place, work)


SERVE = """
import socket
listener = socket.create_server(("0.0.0.0", 47117))
print("up", flush=True)
while True:
    listener.accept()[0].sendall(b"hello")
"""


def test_a_gang_reaches_each_other_and_others_do_not_reach_it(place):
    async def reached(engine, container_id, address):
        with await engine.netns_socket(container_id, socket.AF_INET, socket.SOCK_STREAM) as one:
            one.setblocking(False)
            try:
                await asyncio.wait_for(asyncio.get_running_loop().sock_connect(one, (address, 47117)), 5)
            except OSError:
                return False
            return True

    async def work(engine):
        await engine.start(place.plan("a", "python3", "-c", SERVE))
        await engine.start(place.shell("b", "sleep 60"))
        await engine.start(place.shell("c", "sleep 60"))
        await until_printed(engine, "a", b"up")
        addresses = await engine.connect("cu-1", ("a", "b"))
        assert len(set(addresses)) == 2
        assert await reached(engine, "b", addresses[0])
        assert not engine.isolates or not await reached(engine, "c", addresses[0])
        # Another engine sets the firewall up anew, and keeps what the one before let through.
        another = place.engine()
        await another.open()
        assert await reached(another, "b", addresses[0])
        assert not engine.isolates or not await reached(another, "c", addresses[0])
        await another.disconnect("cu-1")
        assert not engine.isolates or not await reached(another, "b", addresses[0])
        await another.disconnect("cu-1")

    drive(place, work)
