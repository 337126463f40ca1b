"""What a container may use: memory is reserved by the first number, and taken away by the second alone."""

from __future__ import annotations

import pytest

from alight.wire import payload
from alight.wire.spec import ImageSpec, Resources
from tests.system.nodes import give_of, scenario, start_of

pytestmark = pytest.mark.system

IMAGE = ImageSpec(({"op": "debian_slim", "python": "3.11"},))
MIB = 1 << 20
CODE = """
import os, subprocess, sys

def use(mib):
    kept = []
    for _ in range(mib // 64):
        kept.append(b"x" * (64 << 20))
    return sum(len(one) for one in kept) >> 20

def use_in_a_child(mib):
    code = "import sys; kept = b'x' * (int(sys.argv[1]) << 20)"
    return subprocess.run([sys.executable, "-c", code, str(mib)]).returncode
"""


async def begun(server, name, **changes):
    start = start_of(server, name, CODE, image=IMAGE, **changes)
    await server.start(start)
    await server.wait_report("ready", start.container_id, 60)
    return start


async def used(server, start, mib):
    give, body = give_of(start, mib)
    await server.give(give, body)
    return payload.loads(await server.wait_value(give.call_id, 0, 60))


@pytest.mark.parametrize("resources", [pytest.param(Resources(), marks=pytest.mark.slow), Resources(memory=128)])
def test_what_is_reserved_is_no_limit(fresh_home, resources):
    async def play(server, _node):
        start = await begun(server, "use", resources=resources)
        assert await used(server, start, 1024) == 1024

    scenario(fresh_home, play)


def test_the_second_number_kills_and_says_so(fresh_home):
    async def play(server, _node):
        start = await begun(server, "use", resources=Resources(memory=256, memory_limit=512))
        assert await used(server, start, 384) == 384
        give, body = give_of(start, 768)
        await server.give(give, body)
        ended, _ = await server.wait_report("ended", start.container_id, 30)
        assert ended.oom_killed
        assert ended.text.startswith("the container was killed for memory: it used 5")
        assert ended.text.endswith("MiB, and its limit is 512 MiB")
        assert ended.usage["memory_peak_bytes"] <= 512 * MIB

    scenario(fresh_home, play)


def test_a_child_that_is_killed_for_memory_leaves_the_container_to_decide(fresh_home):
    async def play(server, _node):
        start = await begun(server, "use_in_a_child", resources=Resources(memory=256, memory_limit=512))
        assert await used(server, start, 768) == -9
        assert await used(server, start, 16) == 0, "the container serves on"

    scenario(fresh_home, play)
