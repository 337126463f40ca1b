"""The agent with a real runtime in bare processes and a fake server: what it promises across kills and reconnects."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from alight.node import output
from alight.testing.fake_server import random_content
from alight.wire import chunk, payload
from alight.wire.codec import PREFACE, Kind, encode_frame
from alight.wire.commands import Command
from tests.system import base
from tests.system.nodes import BARE, give_of, large_of, scenario, start_of, started, until

pytestmark = pytest.mark.system


@pytest.fixture
def home():
    # Unix addresses are short: pytest's own directories are not.
    path = Path(tempfile.mkdtemp(prefix="al-"))
    base.lend_library(path)
    yield path
    shutil.rmtree(path)


def test_a_call_goes_through_and_its_output_is_kept(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "add"))
        give, body = give_of(start, 2, 3)
        await server.give(give, body)
        result = await server.wait_value(give.call_id)
        assert payload.loads(result) == 5
        await server.say(Command("stop", start.container_id, grace=5))
        ended, _ = await server.wait_report("ended", start.container_id)
        assert ended.exit_code == 0
        records, used = output.parse(server.logs[start.container_id])
        assert b"".join(record.data for record in records) == b"adding 2 3\n"
        assert used == len(server.logs[start.container_id])
        folder = home / "node/containers" / start.container_id
        for _ in range(100):
            if not folder.exists():
                break
            await asyncio.sleep(0.02)
        assert not folder.exists(), "an acknowledged container leaves its directory behind"

    scenario(home, play, *BARE)


def test_while_somebody_watches_the_lines_come_before_the_result(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "loud"))
        await server.say(Command("watch", app_id=start.app_id, on=True))
        give, body = give_of(start, 5000)
        await server.give(give, body)
        await server.wait_value(give.call_id)
        answer = server.values[-1][0]
        before = [report for report, _ in server.reports if report.kind == "log"]
        assert answer.log_offset == len(server.logs[start.container_id])
        assert before
        assert server.told[-1] == "values"
        assert server.logs[start.container_id].count(b"line") > 0

    scenario(home, play, *BARE)


def test_large_arguments_and_results_travel_as_files(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "length"))
        content = random_content(5 << 20)
        arguments = payload.dumps_bytes(((content,), {}))
        give, body = large_of(start, server.keep(arguments), len(arguments))
        await server.give(give, body)
        result = await server.wait_value(give.call_id)
        assert payload.loads(result) == len(content)

        start = await started(server, start_of(server, "big"))
        give, body = give_of(start, 20 << 20)
        await server.give(give, body)
        blob, size = chunk.read_reference(await server.wait_value(give.call_id))
        assert server.values[-1][0].is_reference
        assert size == len(server.blobs[blob])
        assert payload.loads(server.blobs[blob]) == b"y" * (20 << 20)
        folder = home / "node/containers" / start.container_id
        await until(lambda: not list((folder / "outputs").iterdir()))
        await until(lambda: not list((folder / "spool").iterdir()))

    scenario(home, play, *BARE)


def test_an_output_survives_a_server_that_is_away_and_is_said_once(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "slow"))
        give, body = give_of(start, 0.5)
        await server.give(give, body)
        await asyncio.sleep(0.1)
        await server.close()
        await asyncio.sleep(0.8)
        kept = list((home / "node/containers" / start.container_id / "outputs").iterdir())
        assert len(kept) == 1, "an output that nobody took belongs on the disk"
        await server.open()
        await server.wait_session()
        result = await server.wait_value(give.call_id)
        assert payload.loads(result) == "slept"
        assert server.hellos[-1].containers[0].runs == ()
        assert len(server.values) == 1

    scenario(home, play, *BARE)


def test_a_crash_is_reported_with_its_signal(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "crash"))
        give, body = give_of(start)
        await server.give(give, body)
        ended, _ = await server.wait_report("ended", start.container_id)
        assert "SIGSEGV" in ended.text
        assert not any(report.output for report, _ in server.reports)
        assert server.values == []

    scenario(home, play, *BARE)


def test_what_importing_the_code_raised_comes_with_the_end(home):
    async def play(server, _node):
        start = start_of(server, "f", code="print('hello')\nraise KeyError('nope')\n")
        await server.start(start)
        ended, body = await server.wait_report("ended", start.container_id)
        assert ended.failure is not None
        assert ended.failure.type.endswith("KeyError")
        assert ended.failure.pickled
        assert isinstance(payload.loads(body), KeyError)
        assert b"hello" in server.logs[start.container_id]

    scenario(home, play, *BARE)


def test_code_that_cannot_be_fetched_is_an_error_of_the_start(home):
    async def play(server, _node):
        start = start_of(server, "add")
        server.blobs.clear()
        await server.start(start)
        ended, _ = await server.wait_report("ended", start.container_id)
        assert ended.error["code"] == "not_found"

    scenario(home, play, *BARE)


def test_reserved_names_cannot_be_overridden(home):
    async def play(server, _node):
        start = start_of(server, "env", env={"MODAL_TASK_ID": "forged", "MINE": "from env", "OTHER": "e"})
        start = replace(start, secrets={"MINE": "from secret", "KEY": "s3"})
        await started(server, start)
        for name, want in (
            ("MODAL_TASK_ID", start.container_id),
            ("MINE", "from env"),
            ("KEY", "s3"),
            ("MODAL_IS_REMOTE", "1"),
        ):
            give, body = give_of(start, name)
            await server.give(give, body)
            result = await server.wait_value(give.call_id)
            assert payload.loads(result) == want
        kept = b"".join(path.read_bytes() for path in (home / "node/containers").rglob("*.json"))
        assert b"s3" not in kept, "a secret was written to a file"

    scenario(home, play, *BARE)


def test_a_stranger_cannot_take_a_containers_sockets(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "add"))
        folder = home / "node/containers" / start.container_id / "sock"
        for name in ("link.sock", "sdk.sock"):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.settimeout(5)
                stranger.connect(str(folder / name))
                if name == "sdk.sock":
                    hello = msgspec.json.encode({"wire": 1, "version": "0"})
                    stranger.sendall(PREFACE + b"".join(encode_frame(Kind.HELLO, 0, hello)))
                answer = await asyncio.to_thread(_read_all, stranger)
                assert b"server_id" not in answer
                assert name == "link.sock" or b"only processes of this container" in answer
        give, body = give_of(start, 1, 1)
        await server.give(give, body)
        await server.wait_value(give.call_id)

    scenario(home, play, *BARE)


def _read_all(sock: socket.socket) -> bytes:
    found = b""
    try:
        while data := sock.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    return found


def test_sigterm_disconnects_and_the_servers_word_ends_all(home):
    async def play(server, node):
        start = await started(server, start_of(server, "pid"))
        give, body = give_of(start)
        await server.give(give, body)
        result = await server.wait_value(give.call_id)
        await server.say(Command("shutdown"))
        assert await asyncio.to_thread(node.process.wait, 10) == 0
        node.end(0) if node.process.poll() is None else node.process.stdout.close()
        node.process = None
        assert not Path(f"/proc/{payload.loads(result)}").exists()

    scenario(home, play, *BARE)


def test_a_second_node_of_one_directory_is_refused(home):
    async def play(server, node):
        second = await asyncio.to_thread(
            subprocess.run, node.process.args, capture_output=True, text=True, timeout=20, check=False
        )
        assert second.returncode == 3
        assert f"process {node.process.pid}" in second.stderr

    scenario(home, play, *BARE)


def test_code_that_never_finishes_importing_runs_into_the_startup_timeout(home):
    async def play(server, _node):
        start = start_of(server, "f", code="import time\ntime.sleep(60)\n", startup_timeout=0.6)
        await server.start(start)
        ended, _ = await server.wait_report("ended", start.container_id)
        assert ended.error["code"] == "function_timeout"
        assert "0.6 s" in ended.error["message"]

    scenario(home, play, *BARE)


def test_fake_gpus_are_handed_out_and_held(home):
    async def play(server, _node):
        gpus = server.hellos[0].gpus
        assert [(gpu.type, gpu.fake) for gpu in gpus] == [("A100-80GB", True), ("A100-80GB", True)]
        start = replace(start_of(server, "env"), gpus=(gpus[1].uuid,))
        await started(server, start)
        give, body = give_of(start, "NVIDIA_VISIBLE_DEVICES")
        await server.give(give, body)
        result = await server.wait_value(give.call_id)
        assert payload.loads(result) == gpus[1].uuid
        second = replace(start_of(server, "env"), gpus=(gpus[1].uuid,))
        await server.start(second)
        ended, _ = await server.wait_report("ended", second.container_id)
        assert ended.error["code"] == "conflict"
        await server.say(Command("stop", start.container_id, grace=0))
        await server.wait_report("ended", start.container_id)
        await started(server, replace(start_of(server, "env"), gpus=(gpus[1].uuid,)))

    scenario(home, play, *BARE, "--fake-gpus", "A100-80GB:2")


def test_a_container_that_is_not_here_is_reported_as_ended(home):
    async def play(server, _node):
        start = start_of(server, "add")
        give, body = give_of(start, 1, 2)
        await server.give(give, body)
        ended, _ = await server.wait_report("ended", start.container_id)
        assert "does not have" in ended.text

    scenario(home, play, *BARE)


def test_use_is_told_while_somebody_watches(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "add"))
        await server.say(Command("watch", app_id=start.app_id, on=True))
        report, _ = await server.wait_report("usage", start.container_id, 15)
        assert report.usage["memory_bytes"] > 0
        assert report.usage["pids"] >= 1

    scenario(home, play, *BARE)
