"""Many inputs in one frame: gathered outputs, recalls, duplicates, cancellation by call and position."""

from __future__ import annotations

import pytest

from alight.runtime.inputs import Held
from alight.wire import chunk, ids, payload
from alight.wire.codec import Kind
from alight.wire.commands import LinkStop, Output, Run
from tests.unit.runtime.conftest import CALL, OTHER

#: Runs until a file of the input's number is there.
GATED = """
    import os, time
    def f(x):
        if x < 0:
            return x
        print("begun", x, flush=True)
        while not os.path.exists(str(x)):
            time.sleep(0.002)
        return x
"""


def begun(node, number):
    assert node.process.stdout.readline() == f"begun {number}\n"


def drain(node, count):
    """So many outputs: positions with their values, and the frames that they came in."""
    values, frames = {}, 0
    while len(values) < count:
        head, bodies = node.outputs()
        frames += 1
        for position, body in zip(head.positions, bodies):
            assert position not in values
            values[position] = payload.loads(body)
    return values, frames


def test_values_of_tiny_inputs_travel_together(node):
    node.start("def f(x):\n    return x * 2\n")
    node.give_many(5, range(1000))
    values, frames = drain(node, 1000)
    assert values == {5 + number: number * 2 for number in range(1000)}
    assert frames < 200


def test_serials_count_frames_and_failures_alike(node):
    node.start("def f(x):\n    return 1 / x\n")
    node.give_many(0, [1, 0, 2])
    serials, positions = [], []
    while len(positions) < 3:
        head, _ = node.outputs()
        serials.append(head.serial)
        positions += [head.position] if isinstance(head, Output) else head.positions
    assert serials == list(range(1, len(serials) + 1))
    assert positions == [0, 1, 2]


def test_a_value_does_not_wait_for_a_long_input_behind_it(node):
    node.start(GATED)
    node.give_many(0, [-1, -2, 7])
    values, _ = drain(node, 2)
    assert values == {0: -1, 1: -2}
    begun(node, 7)
    (node.directory / "7").touch()
    assert drain(node, 1)[0] == {2: 7}


def test_a_recall_returns_what_was_not_begun(node):
    node.start(GATED)
    node.give_many(0, [3, 4, 5])
    node.give_many(0, [6], call=OTHER, attempt=2)
    begun(node, 3)
    node.send_frame(Kind.LINK_RECALL, b"", b"")
    assert node.returned() == [(CALL, 1, 3, 1), (OTHER, 0, 1, 2)]
    node.hang_up()
    assert node.accept().running == (Run(CALL, 0, 1, 1),)
    node.give_many(1, [-4])  # the same input may come back, at the same attempt
    (node.directory / "3").touch()
    assert drain(node, 2)[0] == {0: 3, 1: -4}
    node.send_frame(Kind.LINK_RECALL, b"", b"")
    assert node.returned() == []


def test_a_stop_returns_what_was_not_begun_and_finishes_the_rest(node):
    node.start(GATED)
    node.give_many(0, [3, 4, 5])
    begun(node, 3)
    node.send(Kind.LINK_STOP, LinkStop(grace=5))
    assert node.returned() == [(CALL, 1, 3, 1)]
    node.give_many(3, [6])
    assert node.returned() == [(CALL, 3, 4, 1)]
    (node.directory / "3").touch()
    assert drain(node, 1)[0] == {0: 3}
    assert node.end()[0] == 0


def test_what_a_restarted_node_gives_again_runs_once(node):
    node.start(GATED)
    node.give_many(0, [-1, 2, -3])
    head, bodies = node.outputs(acknowledge=False)
    assert list(head.positions) == [0]
    begun(node, 2)
    node.hang_up()
    assert node.accept().running == (Run(CALL, 1, 3, 1),)
    again, same = node.outputs()
    assert (again.serial, same) == (head.serial, bodies)
    node.give_many(0, [-1, 2, -3, -4])
    (node.directory / "2").touch()
    assert drain(node, 3)[0] == {1: 2, 2: -3, 3: -4}


def test_another_attempt_is_another_input(node):
    node.start("def f(x):\n    return x\n")
    node.give(0, 1)
    node.output(acknowledge=False)
    node.give_chunk(0, [payload.dumps_bytes(((2,), {}))], attempt=2)
    head, _ = node.output()
    assert (head.position, head.attempt) == (0, 2)


def test_a_call_is_cancelled_as_a_whole(node):
    node.start(GATED)
    node.give_many(0, [1, 2])
    node.give_many(0, [-9], call=OTHER)
    begun(node, 1)
    node.cancel()
    ends = [node.output()[0] for _ in range(3)]
    assert [(end.call_id, end.position, end.status) for end in ends] == [
        (CALL, 0, "cancelled"),
        (CALL, 1, "cancelled"),
        (OTHER, 0, "success"),
    ]


@pytest.mark.parametrize(("flags", "told"), [(0, False), (chunk.SPAWNED, True)])
def test_what_fails_is_told_in_the_log_when_nobody_waits(node, flags, told):
    node.start("def f():\n    raise ValueError('told once')\n")
    node.give(0, flags=flags)
    assert node.output()[0].status == "exception"
    _, _, err = node.stop()
    assert ("told once" in err) == told


def test_a_container_may_ask_for_no_more_inputs(node):
    node.start(
        """
        from alight.wire import ambient
        def f(x):
            ambient.stop_fetching_inputs()
            return ambient.input_concurrency(None)
        """
    )
    node.give_many(0, [1, 2])
    assert node.returned() == [(CALL, 1, 2, 1)]
    assert drain(node, 1)[0] == {0: 1}
    assert node.end()[0] == 0


def test_input_ids_are_those_of_the_wire():
    held = Held()
    (given,) = held.add(chunk.Inputs(CALL, 0, [1, 1]), b"ab")
    assert [given.input_id(index) for index in range(2)] == [ids.input_id(CALL, 0), ids.input_id(CALL, 1)]


def test_held_inputs_are_told_in_stretches():
    held = Held()
    (given,) = held.add(chunk.Inputs(CALL, 10, [1] * 6), b"abcdef")
    for index in (3, 0, 4):
        given.answered(index)
    assert [(run["start"], run["stop"]) for run in held.running()] == [(11, 13), (15, 16)]
    for index in (1, 2):
        given.answered(index)
    assert [(run["start"], run["stop"]) for run in held.running()] == [(15, 16)]


def test_what_is_acknowledged_is_forgotten():
    held = Held()
    (given,) = held.add(chunk.Inputs(CALL, 0, [1, 1, 1]), b"abc")
    assert held.add(chunk.Inputs(CALL, 0, [1, 1, 1]), b"abc") == []
    (new,) = held.add(chunk.Inputs(CALL, 2, [1, 1]), b"cd")
    assert (new.start, new.count, new.arguments(0)) == (3, 1, b"d")
    held.acknowledged(given, 3)
    held.acknowledged(new, 1)
    assert held.running() == []
    assert len(held.add(chunk.Inputs(CALL, 0, [1]), b"a")) == 1
