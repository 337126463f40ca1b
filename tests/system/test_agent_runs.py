"""The agent with a real runtime in bare processes: runs of inputs, and what becomes of each."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest

from alight.wire import chunk, payload
from alight.wire.commands import Command, Run
from alight.wire.spec import Autoscaling
from tests.system import base
from tests.system.nodes import BARE, give_of, many_of, scenario, start_of, started, until

pytestmark = pytest.mark.system


@pytest.fixture
def home():
    # Unix addresses are short: pytest's own directories are not.
    path = Path(tempfile.mkdtemp(prefix="al-"))
    base.lend_library(path)
    yield path
    shutil.rmtree(path)


def test_a_timeout_ends_the_container_and_says_how_long(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "slow", timeout=0.6))
        # Each has its time from when its own code begins; the last two never do.
        give, body = many_of(start, [(0.4,), (0.4,), (60,), (0,), (0,)])
        await server.give(give, body)
        answer, _ = await server.wait_output(give.call_id, 2)
        assert answer.status == "timeout"
        assert answer.serial == 0
        assert answer.error["code"] == "function_timeout"
        assert "0.6 s" in answer.error["message"]
        assert payload.loads(await server.wait_value(give.call_id, 1)) == "slept"
        returned, _ = await server.wait_report("returned", start.container_id)
        assert returned.runs == (Run(give.call_id, 3, 5),)
        await server.wait_report("ended", start.container_id)
        assert server.told.index("returned") < server.told.index("ended")

    scenario(home, play, *BARE)


def test_of_several_at_once_only_the_one_that_is_too_slow_times_out(home):
    async def play(server, _node):
        scaling = Autoscaling(max_concurrent_inputs=4)
        start = await started(server, start_of(server, "slow", timeout=1.0, autoscaling=scaling))
        give, body = many_of(start, [(0.6,), (60,), (0.6,)])
        await server.give(give, body)
        await asyncio.sleep(0.5)
        late, body = many_of(start, [(60,)])
        await server.give(late, body)
        answer, _ = await server.wait_output(give.call_id, 1)
        assert answer.status == "timeout"
        for position in (0, 2):
            assert payload.loads(await server.wait_value(give.call_id, position)) == "slept"
        await server.wait_report("ended", start.container_id)
        assert [report.output.call_id for report, _ in server.reports if report.output] == [give.call_id]

    scenario(home, play, *BARE)


def test_a_batch_has_its_time_from_when_it_is_gathered(home):
    async def play(server, _node):
        code = "import time\ndef f(seconds):\n    time.sleep(max(seconds))\n    return seconds\n"
        scaling = Autoscaling(batch_size=3, batch_wait=1.5)
        start = await started(server, start_of(server, "f", code, timeout=1.7, autoscaling=scaling))
        give, body = many_of(start, [(0.5,), (0.4,)])
        await server.give(give, body)
        for position in (0, 1):
            assert payload.loads(await server.wait_value(give.call_id, position)) == (0.5, 0.4)[position]
        give, body = many_of(start, [(0.1,), (60,), (0.1,)])
        await server.give(give, body)
        for position in range(3):
            answer, _ = await server.wait_output(give.call_id, position)
            assert answer.status == "timeout"
        await server.wait_report("ended", start.container_id)

    scenario(home, play, *BARE)


def test_a_stop_lets_the_input_finish_within_its_grace(home):
    async def play(server, _node):
        code = "import time\ndef f(place):\n    open(place, 'w').close()\n    time.sleep(0.5)\n    return 'slept'\n"
        start = await started(server, start_of(server, "f", code))
        begun = home / "begun"
        give, body = give_of(start, str(begun))
        await server.give(give, body)
        await until(begun.exists)
        await server.say(Command("stop", start.container_id, grace=8, reason="scaled down"))
        result = await server.wait_value(give.call_id)
        assert payload.loads(result) == "slept"
        ended, _ = await server.wait_report("ended", start.container_id)
        assert ended.text == "scaled down"
        assert ended.exit_code == 0

    scenario(home, play, *BARE)


def test_a_stop_is_no_request_when_the_grace_is_over(home):
    async def play(server, _node):
        code = "import signal, time\ndef f():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    time.sleep(60)\n"
        start = await started(server, start_of(server, "f", code=code))
        give, body = give_of(start)
        await server.give(give, body)
        await asyncio.sleep(0.1)
        await server.say(Command("stop", start.container_id, grace=1))
        ended, _ = await server.wait_report("ended", start.container_id, 5)
        assert ended.signal == 9

    scenario(home, play, *BARE)


def test_a_cancelled_input_says_so_and_the_container_serves_on(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "slow"))
        give, body = give_of(start, 60)
        await server.give(give, body)
        await asyncio.sleep(0.2)
        await server.say(Command("cancel", start.container_id, call_id=give.call_id, position=0))
        answer, _ = await server.wait_output(give.call_id)
        assert answer.status == "cancelled"
        many, body = many_of(start, [(60,), (0,), (0,)])
        await server.give(many, body)
        await asyncio.sleep(0.2)
        await server.say(Command("cancel", start.container_id, call_id=many.call_id))
        for position in range(3):
            answer, _ = await server.wait_output(many.call_id, position)
            assert answer.status == "cancelled"
        give, body = give_of(start, 0)
        await server.give(give, body)
        result = await server.wait_value(give.call_id)
        assert payload.loads(result) == "slept"

    scenario(home, play, *BARE)


FORGER = """
import gc
from alight.runtime.link import Link
from alight.wire import chunk
from alight.wire.codec import Kind, encode_frame

def forge(other):
    link = next(one for one in gc.get_objects() if isinstance(one, Link))._socket
    for attempt in (1, 2):
        head = chunk.Outputs(other, range(1), (6,), attempt=attempt, serial=1000 + attempt).encode()
        link.sendall(b"".join(encode_frame(Kind.LINK_OUTPUT, 0, head, b"forged")))
    return "tried"
"""


def test_nobody_answers_for_an_input_that_the_container_does_not_hold(home):
    async def play(server, _node):
        honest = await started(server, start_of(server, "slow"))
        give, body = give_of(honest, 1)
        await server.give(give, body)
        forger = await started(server, start_of(server, "forge", code=FORGER))
        forged, forged_body = give_of(forger, give.call_id)
        await server.give(forged, forged_body)
        result = await server.wait_value(forged.call_id)
        assert payload.loads(result) == "tried"
        assert payload.loads(await server.wait_value(give.call_id)) == "slept"
        assert [values.container for values, _ in server.values if values.call_id == give.call_id] == [
            honest.container_id
        ]

    scenario(home, play, *BARE)


def test_a_chunk_of_inputs_is_answered_in_chunks(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "add"))
        give, body = many_of(start, [(n, n) for n in range(500)], at=100)
        await server.give(give, body)
        for position in range(100, 600):
            assert payload.loads(await server.wait_value(give.call_id, position)) == 2 * (position - 100)
        assert len(server.values) < 250, "outputs travel together"
        assert [values.serial for values, _ in server.values] == list(range(1, len(server.values) + 1))
        assert {values.container for values, _ in server.values} == {start.container_id}

    scenario(home, play, *BARE)


def test_what_has_not_begun_can_be_recalled_and_given_again(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "slow"))
        give, body = many_of(start, [(1.0,), (0,), (0,), (0,)])
        await server.give(give, body)
        await asyncio.sleep(0.3)
        await server.say(Command("recall", start.container_id))
        returned, _ = await server.wait_report("returned", start.container_id)
        assert returned.runs == (Run(give.call_id, 1, 4),)
        again, body = many_of(start, [(0,), (0,), (0,)], give.call_id, at=1)
        await server.give(again, body)
        for position in range(4):
            assert payload.loads(await server.wait_value(give.call_id, position)) == "slept"

    scenario(home, play, *BARE)


def test_a_stop_returns_what_has_not_begun(home):
    async def play(server, _node):
        start = await started(server, start_of(server, "slow"))
        give, body = many_of(start, [(0.8,), (60,), (60,)])
        await server.give(give, body)
        await asyncio.sleep(0.3)
        await server.say(Command("stop", start.container_id, grace=8))
        returned, _ = await server.wait_report("returned", start.container_id)
        assert returned.runs == (Run(give.call_id, 1, 3),)
        late, body = give_of(start, 0)
        await server.give(late, body)
        assert payload.loads(await server.wait_value(give.call_id)) == "slept"
        await server.wait_report("ended", start.container_id)
        back = [run for report, _ in server.reports if report.kind == "returned" for run in report.runs]
        assert Run(late.call_id, 0, 1) in back, "what comes while it stops is returned, too"

    scenario(home, play, *BARE)


def test_items_of_a_generator_come_before_its_end(home):
    async def play(server, _node):
        code = "def count(n):\n    yield from range(n)\n"
        start = await started(server, start_of(server, "count", code, is_generator=True))
        give, body = give_of(start, 3000)
        await server.give(give, body)
        answer, _ = await server.wait_output(give.call_id)
        assert (answer.status, answer.items) == ("success", 3000)
        items = [one for values, body in server.values for one in chunk.cut(values.sizes, body)]
        assert [payload.loads(one) for one in items] == list(range(3000))
        numbers = [number for values, _ in server.values for number in values.positions]
        assert numbers == list(range(3000))
        assert server.told.index("output") > max(n for n, one in enumerate(server.told) if one == "values")

    scenario(home, play, *BARE)
