"""The agent with a real runtime in bare processes and a fake server: what it promises across kills and reconnects."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from alight.link.run import run
from alight.node import output
from alight.testing.fake_server import FakeServer, random_content
from alight.wire import ids, payload
from alight.wire.commands import Command, GiveInput, StartContainer
from alight.wire.messages import Payload
from alight.wire.spec import FileEntry, FilesAt, FunctionSpec, digest_of, encode_tree

pytestmark = pytest.mark.system

CODE = '''
import os, sys, time

def add(a, b):
    print("adding", a, b)
    return a + b

def slow(seconds, path=None):
    time.sleep(seconds)
    if path:
        open(path, "a").write("x")
    return "slept"

def loud(lines):
    for n in range(lines):
        print("line", n)
    return lines

def big(size):
    return b"y" * size

def length(data):
    return len(data)

def fail():
    raise ValueError("on purpose")

def crash():
    os.kill(os.getpid(), 11)

def env(name):
    return os.environ.get(name)

def pid():
    return os.getpid()
'''


class Node:
    """An agent in a process of its own, which can be killed."""

    def __init__(self, home: Path, server: FakeServer, *options: str) -> None:
        self.home = home
        self.server = server
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "ALIGHT_LOGLEVEL": "DEBUG"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "alight.node", "--home", str(self.home), "--server", f"unix:{self.server.path}",
             *self.options],
            env=environment,
            stdout=subprocess.PIPE,
        )

    async def wait_ready(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), 20)
        assert line == b"READY\n"

    def end(self, number: int = signal.SIGUSR1) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code


@pytest.fixture()
def home():
    # Unix addresses are short: pytest's own directories are not.
    path = Path(tempfile.mkdtemp(prefix="al-"))
    yield path
    shutil.rmtree(path)


def scenario(home: Path, play, *options: str) -> None:
    """Run ``play(server, node)`` beside a node with these options (bare processes unless they say else)."""

    async def main() -> None:
        server = FakeServer(home / "s.sock")
        await server.open()
        node = Node(home, server, *(options or ("--engine", "process", "--lenient")))
        node.start()
        try:
            await node.wait_ready()
            await play(server, node)
        except BaseException:
            sys.stderr.write((home / "log" / "node.log").read_text())
            raise
        finally:
            if node.process is not None:
                node.end()
            await server.close()

    run(main())


def start_of(server: FakeServer, name: str, code: str = CODE, **changes) -> StartContainer:
    content = code.encode()
    tree = encode_tree([FileEntry("script.py", 0o644, len(content), server.keep(content))])
    function = FunctionSpec(
        name=name,
        module="script",
        qualname=name,
        source_path="/root/script.py",
        files=(FilesAt(server.keep(tree), "/root"),),
        **changes,
    )
    return StartContainer(
        container_id=ids.new_id(ids.CONTAINER),
        app_id=ids.new_id(ids.APP),
        app_name="test",
        environment="main",
        function_id=ids.new_id(ids.FUNCTION),
        function=function,
        image_id="im-test",
    )


def give_of(start: StartContainer, *args, **changes) -> tuple[GiveInput, bytes]:
    give = GiveInput(start.container_id, ids.new_id(ids.INPUT), ids.new_id(ids.CALL), 1)
    return replace(give, **changes), payload.dumps_bytes((args, {}))


async def started(server: FakeServer, start: StartContainer) -> StartContainer:
    await server.start(start)
    await server.wait_report("ready", start.container_id)
    return start


def test_a_call_goes_through_and_its_output_is_kept(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "add"))
        give, body = give_of(start, 2, 3)
        await server.give(give, body)
        answer, result = await server.wait_output(give.input_id)
        assert answer.status == "success"
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

    scenario(home, play)


def test_while_somebody_watches_the_lines_come_before_the_result(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "loud"))
        await server.say(Command("watch", app_id=start.app_id, on=True))
        give, body = give_of(start, 5000)
        await server.give(give, body)
        answer, _ = await server.wait_output(give.input_id)
        before = [report for report, _ in server.reports if report.kind == "log"]
        assert answer.log_offset == len(server.logs[start.container_id])
        assert before
        assert server.reports[-1][0].kind == "output"
        assert server.logs[start.container_id].count(b"line") > 0

    scenario(home, play)


def test_large_arguments_and_results_travel_as_files(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "length"))
        content = random_content(5 << 20)
        blob = server.keep(payload.dumps_bytes(((content,), {})))
        give, _ = give_of(start, payload=Payload(blob, 5 << 20))
        await server.give(give)
        answer, result = await server.wait_output(give.input_id)
        assert answer.status == "success", answer
        assert payload.loads(result) == len(content)

        start = await started(server, start_of(server, "big"))
        give, body = give_of(start, 20 << 20)
        await server.give(give, body)
        answer, result = await server.wait_output(give.input_id)
        assert result == b""
        assert payload.loads(server.blobs[answer.payload.blob]) == b"y" * (20 << 20)
        await asyncio.sleep(0.1)
        assert not list((home / "node/containers" / start.container_id / "outputs").iterdir())

    scenario(home, play)


def test_an_output_survives_a_server_that_is_away_and_is_said_once(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "slow"))
        give, body = give_of(start, 0.5)
        await server.give(give, body)
        await asyncio.sleep(0.1)
        await server.close()
        await asyncio.sleep(0.8)
        kept = list((home / "node/containers" / start.container_id / "outputs").glob("*.json"))
        assert len(kept) == 1, "an output that nobody took belongs on the disk"
        await server.open()
        await server.wait_session()
        answer, result = await server.wait_output(give.input_id)
        assert payload.loads(result) == "slept"
        assert server.hellos[-1].containers[0].inputs == ()
        assert sum(report.output is not None for report, _ in server.reports) == 1

    scenario(home, play)


def test_a_timeout_ends_the_container_and_says_how_long(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "slow"))
        give, body = give_of(start, 60, timeout=0.3)
        await server.give(give, body)
        answer, _ = await server.wait_output(give.input_id)
        assert answer.status == "timeout"
        assert answer.error["code"] == "function_timeout"
        assert "0.3 s" in answer.error["message"]
        await server.wait_report("ended", start.container_id)

    scenario(home, play)


def test_a_crash_is_reported_with_its_signal(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "crash"))
        give, body = give_of(start)
        await server.give(give, body)
        ended, _ = await server.wait_report("ended", start.container_id)
        assert "SIGSEGV" in ended.text
        assert not any(report.output for report, _ in server.reports)

    scenario(home, play)


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

    scenario(home, play)


def test_code_that_cannot_be_fetched_is_an_error_of_the_start(home):
    async def play(server, _node):
        start = start_of(server, "add")
        server.blobs.clear()
        await server.start(start)
        ended, _ = await server.wait_report("ended", start.container_id)
        assert ended.error["code"] == "not_found"

    scenario(home, play)


def test_reserved_names_cannot_be_overridden(home):
    async def play(server, _node):
        start = start_of(server, "env", env={"MODAL_TASK_ID": "forged", "MINE": "from env", "OTHER": "e"})
        start = replace(start, secrets={"MINE": "from secret", "KEY": "s3"})
        await started(server, start)
        for name, want in (("MODAL_TASK_ID", start.container_id), ("MINE", "from env"), ("KEY", "s3"),
                           ("MODAL_IS_REMOTE", "1")):
            give, body = give_of(start, name)
            await server.give(give, body)
            _, result = await server.wait_output(give.input_id)
            assert payload.loads(result) == want
        kept = b"".join(path.read_bytes() for path in (home / "node/containers").rglob("*.json"))
        assert b"s3" not in kept, "a secret was written to a file"

    scenario(home, play)


def test_a_stranger_cannot_take_a_containers_sockets(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "add"))
        folder = home / "node/containers" / start.container_id / "sock"
        for name in ("link.sock", "sdk.sock"):
            with socket.socket(socket.AF_UNIX) as stranger:
                stranger.settimeout(5)
                stranger.connect(str(folder / name))
                if name == "sdk.sock":
                    from alight.wire.codec import PREFACE, Kind, encode_frame
                    hello = msgspec.json.encode({"wire": 1, "version": "0"})
                    stranger.sendall(PREFACE + b"".join(encode_frame(Kind.HELLO, 0, hello)))
                answer = await asyncio.to_thread(_read_all, stranger)
                assert b"server_id" not in answer
                assert name == "link.sock" or b"only processes of this container" in answer
        give, body = give_of(start, 1, 1)
        await server.give(give, body)
        await server.wait_output(give.input_id)

    scenario(home, play)


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
        _, result = await server.wait_output(give.input_id)
        await server.say(Command("shutdown"))
        assert await asyncio.to_thread(node.process.wait, 10) == 0
        node.end(0) if node.process.poll() is None else node.process.stdout.close()
        node.process = None
        assert not Path(f"/proc/{payload.loads(result)}").exists()

    scenario(home, play)


def test_a_second_node_of_one_directory_is_refused(home):
    async def play(server, node):
        second = subprocess.run(node.process.args, capture_output=True, text=True, timeout=20, check=False)
        assert second.returncode == 3
        assert f"process {node.process.pid}" in second.stderr

    scenario(home, play)
