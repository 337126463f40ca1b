"""The agent with real containers and a fake server: isolation of its sockets, kills, volumes, images."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace

import pytest

from alight.node import output
from alight.wire import errors, payload
from alight.wire.commands import BuildImage, Command, ImageBuilt, Run, VolumeWork
from alight.wire.messages import AppEvent
from alight.wire.spec import ImageSpec, Resources, VolumeMount
from alight.wire.stored import VolumeFiles, VolumePath
from tests.system.nodes import CODE, give_of, many_of, scenario, start_of, started

pytestmark = pytest.mark.system

IMAGE = ImageSpec(({"op": "debian_slim", "python": "3.11"},))


def texts(log: bytes) -> str:
    return b"".join(record.data for record in output.parse(log)[0]).decode()


async def call(server, start, *args):
    give, body = give_of(start, *args)
    await server.give(give, body)
    return payload.loads(await server.wait_value(give.call_id, 0, 60))


async def begun(server, name, code=CODE, **changes):
    start = start_of(server, name, code, **{"image": IMAGE, **changes})
    await server.start(start)
    await server.wait_report("ready", start.container_id, 60)
    return start


def test_a_call_runs_in_a_container_and_nothing_of_it_is_left(fresh_home):
    async def play(server, _node):
        start = await begun(server, "add")
        assert await call(server, start, 2, 3) == 5
        await server.say(Command("stop", start.container_id, grace=5))
        await server.wait_report("ended", start.container_id)
        folder = fresh_home / "node/containers" / start.container_id
        for _ in range(100):
            if not folder.exists():
                break
            await asyncio.sleep(0.02)
        assert not folder.exists()

    scenario(fresh_home, play)


@pytest.mark.slow
def test_a_killed_agent_loses_no_running_input_and_no_line(fresh_home):
    async def play(server, node):
        code = """
import time
def f(n):
    for i in range(n):
        print('line', i, flush=True)
        time.sleep(0.03)
    return n
"""
        start = await begun(server, "f", code)
        give, body = give_of(start, 200)
        await server.give(give, body)
        await asyncio.sleep(0.3)
        node.end(signal.SIGKILL)
        await asyncio.sleep(0.5)
        node.start()
        await node.wait_ready()
        held = server.hellos[-1].containers
        assert [one.container_id for one in held] == [start.container_id]
        assert held[0].ready
        assert held[0].runs == (Run(give.call_id, 0, 1),)
        result = await server.wait_value(give.call_id)
        assert payload.loads(result) == 200
        for _ in range(100):
            if "line 199" in texts(server.logs[start.container_id]):
                break
            await asyncio.sleep(0.02)
        assert texts(server.logs[start.container_id]) == "".join(f"line {i}\n" for i in range(200))

    scenario(fresh_home, play)


def test_an_output_made_while_the_agent_was_dead_arrives(fresh_home):
    async def play(server, node):
        start = await begun(server, "slow")
        give, body = give_of(start, 0.4)
        await server.give(give, body)
        await asyncio.sleep(0.1)
        node.end(signal.SIGKILL)
        await asyncio.sleep(0.8)
        node.start()
        await node.wait_ready()
        result = await server.wait_value(give.call_id)
        assert payload.loads(result) == "slept"
        assert await call(server, start, 0) == "slept", "the container serves on"

    scenario(fresh_home, play)


@pytest.mark.slow
def test_a_chunk_survives_kills_of_the_agent_between_its_answers(fresh_home):
    async def play(server, node):
        start = await begun(server, "slow")
        give, body = many_of(start, [(0.02,)] * 150)
        await server.give(give, body)
        for _ in range(3):
            await asyncio.sleep(0.5)
            node.end(signal.SIGKILL)
            node.start()
            await node.wait_ready()
        for position in range(150):
            assert payload.loads(await server.wait_value(give.call_id, position)) == "slept"
        # What it says that it had not begun is at most what was answered and kept before a kill.
        done = {position for values, _ in server.values for position in values.positions}
        back = [run for report, _ in server.reports if report.kind == "returned" for run in report.runs]
        assert all(position in done for run in back for position in range(run.start, run.stop))
        assert await call(server, start, 0) == "slept"

    scenario(fresh_home, play)


def test_an_end_while_the_agent_was_dead_is_reported(fresh_home):
    async def play(server, node):
        code = "import os, time\ndef f():\n    time.sleep(0.3)\n    print('last words', flush=True)\n    os._exit(7)\n"
        start = await begun(server, "f", code)
        give, body = give_of(start)
        await server.give(give, body)
        await asyncio.sleep(0.1)
        node.end(signal.SIGKILL)
        await asyncio.sleep(0.8)
        node.start()
        await node.wait_ready()
        ended, _ = await server.wait_report("ended", start.container_id)
        assert ended.exit_code == 7
        assert "last words" in texts(server.logs[start.container_id])

    scenario(fresh_home, play)


def test_a_timeout_holds_across_a_killed_agent(fresh_home):
    async def play(server, node):
        start = await begun(server, "slow", timeout=1.5)
        give, body = give_of(start, 60)
        await server.give(give, body)
        await asyncio.sleep(0.1)
        node.end(signal.SIGKILL)
        node.start()
        await node.wait_ready()
        answer, _ = await server.wait_output(give.call_id)
        assert answer.status == "timeout"

    scenario(fresh_home, play)


def test_disconnecting_leaves_containers_running(fresh_home):
    async def play(server, node):
        start = await begun(server, "pid")
        pid = await call(server, start)
        assert node.end(signal.SIGTERM) == 0
        node.start()
        await node.wait_ready()
        assert await call(server, start) == pid

    scenario(fresh_home, play)


FORGER = """
import json, os, socket, struct, subprocess, sys
sys.path.append("/opt/alight/lib")

def ask(method, container):
    from alight.wire.codec import PREFACE, FrameReader, Kind, encode_frame
    s = socket.socket(socket.AF_UNIX)
    s.connect("/run/alight/sdk.sock")
    hello = json.dumps({"wire": 1, "version": "0", "role": "node"}).encode()
    head = json.dumps({"method": method, "args": {"a": 1}, "container": container}).encode()
    s.sendall(PREFACE + b"".join(encode_frame(Kind.HELLO, 0, hello) + encode_frame(Kind.OPEN, 1, head, b"body")))
    reader, seen = FrameReader(), []
    while True:
        for frame in reader.feed(s.recv(65536)):
            if frame.stream == 1:
                return json.loads(frame.head), frame.body

def steal():
    code = '''
import socket
s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect('/run/alight/link.sock')
import struct, json
head = json.dumps({'wire': 1, 'version': '0', 'pid': 1, 'python': '3'}).encode()
try:
    s.sendall(struct.pack('!IIIB', len(head), 0, len(head), 1) + head)
    data = s.recv(1000)
except OSError:
    data = b''
print('got', data)
'''
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout

def sockets():
    return sorted(os.listdir("/run/alight"))

def secrets():
    return open("/proc/1/environ").read()
"""


def test_the_container_cannot_say_who_it_is(fresh_home):
    async def play(server, _node):
        start = await begun(server, "ask", FORGER)
        head, body = await call(server, start, "fake.echo", "ta-0000000000000000000000")
        assert head == {"you": start.container_id}
        assert body == b"body"
        assert server.requests[-1] == ("fake.echo", {"a": 1}, start.container_id)

    scenario(fresh_home, play)


def test_user_code_cannot_take_the_runtimes_link(fresh_home):
    async def play(server, _node):
        start = await begun(server, "steal", FORGER)
        assert await call(server, start) == "got b''\n"
        assert await call(server, start) == "got b''\n", "the runtime's own link is whole"

    scenario(fresh_home, play)


def test_a_restricted_container_has_no_way_to_the_server(fresh_home):
    async def play(server, _node):
        start = await begun(server, "sockets", FORGER, restrict_access=True)
        assert await call(server, start) == ["link.sock"]

    scenario(fresh_home, play)


def test_a_container_killed_for_memory_says_so(fresh_home):
    async def play(server, _node):
        code = "def f():\n    return len(bytearray(600 << 20))\n"
        start = await begun(server, "f", code, resources=Resources(memory=64, memory_limit=128))
        give, body = give_of(start)
        await server.give(give, body)
        ended, _ = await server.wait_report("ended", start.container_id, 30)
        assert ended.oom_killed
        assert "its limit is 128 MiB" in ended.text

    scenario(fresh_home, play)


VOLUME_CODE = """
import os
def write():
    os.makedirs("/vol/deep/er", exist_ok=True)
    open("/vol/deep/er/file.txt", "w").write("hello")
    os.symlink("/etc", "/vol/out")
    os.symlink("../../../../../etc/passwd", "/vol/deep/up")
    os.symlink("deep/er/file.txt", "/vol/in")
    os.mkfifo("/vol/fifo")
    return sorted(os.listdir("/vol"))
def read():
    return open("/vol/er/file.txt").read()
"""


def test_volumes_are_written_inside_and_read_outside_and_lead_nowhere(fresh_home):
    volume = "vo-0000000000000000000001"

    async def ask(server, verb, path="/", body=None, **changes):
        stream = await server.peer.open("node.volume", VolumeWork(verb, VolumePath(volume, path, **changes)))
        if body is not None:
            await stream.send(None, body)
        await stream.end()
        return [message async for message in stream]

    async def play(server, _node):
        start = await begun(server, "write", VOLUME_CODE, volumes=(VolumeMount("/vol", volume),))
        assert await call(server, start) == ["deep", "fifo", "in", "out"]
        answers = await ask(server, "files", recursive=True)
        files = {one.path: one.kind for head, _ in answers for one in _decode(VolumeFiles, head).files}
        assert files == {
            "deep": "directory",
            "deep/er": "directory",
            "deep/er/file.txt": "file",
            "deep/up": "symlink",
            "in": "symlink",
            "out": "symlink",
            "fifo": "other",
        }
        assert b"".join(body for _, body in await ask(server, "read", "/in")) == b"hello"
        for path in ("/out/passwd", "/deep/up", "/fifo", "/../../id", "/deep"):
            with pytest.raises(errors.InvalidError):
                await ask(server, "read", path)
        with pytest.raises(errors.NotFoundError):
            await ask(server, "read", "/nothing")
        with pytest.raises(errors.InvalidError):
            await ask(server, "write", "/out/evil", b"x")
        assert not os.path.exists("/etc/evil")
        await ask(server, "write", "/new/one.bin", b"content")
        with pytest.raises(errors.AlreadyExistsError):
            await ask(server, "write", "/new/one.bin", b"again")
        await ask(server, "write", "/new/one.bin", b"again", force=True)
        await ask(server, "copy", "/copied", sources=("/new",), recursive=True)
        assert b"".join(body for _, body in await ask(server, "read", "/copied/one.bin")) == b"again"
        await ask(server, "remove", "/new", recursive=True)
        await ask(server, "remove", "/out")
        await ask(server, "sync")
        assert os.path.exists("/etc/passwd")
        with pytest.raises(errors.ConflictError):
            await ask(server, "delete")
        below = await begun(server, "read", VOLUME_CODE, volumes=(VolumeMount("/vol", volume, True, "/deep"),))
        assert await call(server, below) == "hello"
        outside = (VolumeMount("/vol", volume, False, "../x"),)
        refused = start_of(server, "read", VOLUME_CODE, image=IMAGE, volumes=outside)
        await server.start(refused)
        ended, _ = await server.wait_report("ended", refused.container_id)
        assert ended.error["code"] == "invalid"

    scenario(fresh_home, play)


def _decode(kind, head):
    from alight.link.stream import decode

    return decode(kind, head)


def test_images_are_built_once_and_their_failures_are_told(fresh_home):
    async def build(server, image, **changes):
        stream = await server.peer.open("node.build", BuildImage("im-1", image, **changes), end=True)
        *events, last = [head async for head, _ in stream]
        return [_decode(AppEvent, head) for head in events], _decode(ImageBuilt, last)

    async def play(server, _node):
        image = ImageSpec((*IMAGE.steps, {"op": "run", "command": "echo building; echo made > /made"}))
        _, missing = await build(server, image, only_cached=True)
        assert missing.image_id == ""
        events, built = await build(server, image)
        assert built.built
        assert any(event.text == "building" for event in events)
        _, again = await build(server, image)
        assert not again.built
        start = start_of(server, "f", "def f():\n    return open('/made').read()\n", image=image)
        await started(server, start)
        assert await call(server, start) == "made\n"
        dated = ImageSpec((*IMAGE.steps, {"op": "run", "command": "date +%N > /made"}))
        await build(server, dated)
        start = await begun(server, "f", "def f():\n    return open('/made').read()\n", image=dated)
        first = await call(server, start)
        forced = ImageSpec((*IMAGE.steps, {"op": "run", "command": "date +%N > /made", "force": True}))
        await build(server, forced)
        start = await begun(server, "f", "def f():\n    return open('/made').read()\n", image=dated)
        assert await call(server, start) != first, "what was built anew is used from then on"
        broken = ImageSpec((*image.steps, {"op": "run", "command": "echo no such luck; exit 5"}))
        with pytest.raises(errors.ImageBuildError) as caught:
            await build(server, broken)
        assert caught.value.details["exit_status"] == 5
        assert "no such luck" in caught.value.details["tail"]
        start = replace(start_of(server, "add", image=broken))
        await server.start(start)
        ended, _ = await server.wait_report("ended", start.container_id, 30)
        assert ended.error["code"] == "image_build"

    scenario(fresh_home, play)


def test_two_containers_started_at_once_share_the_work(fresh_home):
    async def play(server, _node):
        starts = [start_of(server, "add", image=IMAGE) for _ in range(8)]
        await asyncio.gather(*(server.start(start) for start in starts))
        for start in starts:
            await server.wait_report("ready", start.container_id, 60)
        assert await asyncio.gather(*(call(server, start, n, n) for n, start in enumerate(starts))) == [
            2 * n for n in range(8)
        ]

    scenario(fresh_home, play)


def test_a_container_stopped_before_it_started_ends(fresh_home):
    async def play(server, _node):
        image = ImageSpec((*IMAGE.steps, {"op": "run", "command": "sleep 60"}))
        start = start_of(server, "add", image=image)
        await server.start(start)
        await asyncio.sleep(1)
        await server.say(Command("stop", start.container_id, grace=1, reason="the app was stopped"))
        ended, _ = await server.wait_report("ended", start.container_id)
        assert "the app was stopped" in ended.text
        assert not list((fresh_home / "node/layers").glob("tmp-*"))

    scenario(fresh_home, play)


def test_names_resolve_inside(fresh_home):
    async def play(server, _node):
        code = "import socket\ndef f():\n    return socket.gethostbyname('localhost'), open('/etc/resolv.conf').read()"
        start = await begun(server, "f", code)
        address, resolv = await call(server, start)
        assert address == "127.0.0.1"
        assert "127.0.0.53" in resolv

    scenario(fresh_home, play)
