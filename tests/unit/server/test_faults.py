"""A server that is killed at each named step of a call: its caller sends again, and each input has one answer."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from alight.link.dial import Answers, dial_unix
from alight.server import faults
from alight.testing.fakes import FakeNode
from alight.wire import errors, ids
from alight.wire.messages import Hello
from alight.wire.spec import FunctionSpec
from tests.unit.server.conftest import Client

SOURCE = Path(__file__).resolve().parents[3] / "src"


async def start(home, fault=""):
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "ALIGHT_HOME": str(home)}
    if fault:
        environment |= {"ALIGHT_TEST": "1", "ALIGHT_FAULT": fault}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "alight.server",
        "--listen",
        "none",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
    )
    assert await process.stdout.readline() == b"READY\n"
    return process


async def connect(home):
    return Client(await dial_unix(str(home / "run/server.sock"), Hello(1, "0", "client"), Answers()))


async def has_read(peer):
    """Return when the server has read what was sent, or is gone."""
    ways = {asyncio.ensure_future(peer.ping(10)), asyncio.ensure_future(peer.wait_closed())}
    _, others = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    for other in others:
        other.cancel()


async def ask(client, function, call, kind, got):
    """Send a call (again) and gather what comes of it, until the server dies."""
    resend = {"resend": True, "have": tuple((one, one + 1) for one in sorted(got))} if got is not None else {}
    if kind == "one":
        stream = await client.start(function, 0, call=call, **resend)
    else:
        stream = await client.open_map(function, call=call, **resend)
        begin = 0
        if resend:
            client.read(stream, *await asyncio.wait_for(stream.recv(), 10))
            begin = stream.accepted
        try:
            for at in range(begin, 40, 10):
                await client.send(stream, at, list(range(at, at + 10)))
                await has_read(client.peer)  # what comes in one read is one chunk
            await stream.end()
        except errors.ConnectionError:
            pass
    found = {}
    try:
        while (message := await asyncio.wait_for(stream.recv(), 10)) is not None:
            found.update(client.read(stream, *message))
    except errors.ConnectionError:
        pass
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "kind"),
    # One input whose caller waits is written down together with what came of it: that has no step of its own.
    [(step, kind) for step in faults.STEPS for kind in ("one", "many") if (step, kind) != ("committed", "one")],
)
def test_a_server_killed_at_a_step_loses_nothing(tmp_path, step, kind):
    home = tmp_path / "home"

    async def work():
        process = await start(home, f"{step}:2" if kind == "many" and step != "received" else step)
        node = FakeNode({"f": lambda x: x + 1})
        await node.connect(str(home / "run/server.sock"))
        client = await connect(home)
        _, functions = await client.app(FunctionSpec(name="f"), kind="detached")
        call, wanted = ids.new_id(ids.CALL), {one: one + 1 for one in range(40 if kind == "many" else 1)}
        got = {}
        try:
            got = await ask(client, functions["f"], call, kind, None)
        except errors.ConnectionError:
            pass
        try:
            if process.returncode is None and got != wanted:
                await asyncio.wait_for(process.wait(), 10)
            elif process.returncode is None:  # what comes after the answer is on its way
                await asyncio.wait_for(process.wait(), 2)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
            raise AssertionError("the step was not reached") from None
        assert process.returncode == -signal.SIGKILL
        await node.disconnect()

        process = await start(home)
        try:
            await node.connect(str(home / "run/server.sock"))
            client = await connect(home)
            rest = await ask(client, functions["f"], call, kind, got)
            assert not set(got) & set(rest)
            assert {**got, **rest} == wanted
            attached = await ask_results(client, call)
            assert attached == wanted
            container = [one for one in node.containers.values() if one.unacknowledged]
            for _ in range(200):
                if not any(one.unacknowledged for one in container):
                    break
                await asyncio.sleep(0.02)
            assert not any(one.unacknowledged for one in container)
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()
            await node.disconnect()

    asyncio.run(work())


async def ask_results(client, call):
    from alight.wire.calling import CallResult

    return await client.gather(await client.peer.open("call.result", CallResult(call, index=-1), end=True))


def test_a_step_that_there_is_not_is_said():
    with pytest.raises(ValueError, match="the steps are received, committed"):
        faults.arm("sometime")


def test_nothing_is_armed_without_the_word_for_tests(tmp_path):
    async def work():
        environment = {"ALIGHT_FAULT": "received"}
        os.environ.update(environment)
        try:
            process = await start(tmp_path / "home")
        finally:
            del os.environ["ALIGHT_FAULT"]
        node = FakeNode({"f": lambda x: x})
        await node.connect(str(tmp_path / "home/run/server.sock"))
        client = await connect(tmp_path / "home")
        _, functions = await client.app(FunctionSpec(name="f"))
        assert (await client.remote(functions["f"], 1))[1] == 1
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        await node.disconnect()

    asyncio.run(work())
