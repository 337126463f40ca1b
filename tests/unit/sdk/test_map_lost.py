"""Connections that break and servers that are killed in the middle of a call: each result once, in order."""

from __future__ import annotations

import itertools
import threading

import pytest

import alight
from alight.sdk.ranges import Ranges
from alight.wire import errors
from tests.unit.sdk.callserver import CallServer

FUNCTION = "fu-" + "0" * 22
COUNT = 1000


@pytest.fixture
def server(far):
    return CallServer(far, lambda x: x * 2)


@pytest.fixture
def f(client, server):
    return alight.Function.from_id(FUNCTION, client=client)


def slowly(count):
    """An ordinary iterator, so that inputs come from a thread, in small chunks at first."""
    for number in range(count):
        if number in {1, 5}:
            threading.Event().wait(0.003)
        yield number


@pytest.mark.parametrize("forget", [0, 300])
@pytest.mark.parametrize("step", range(1, 25))
def test_a_server_killed_at_any_step(f, server, step, forget):
    """With ``forget`` it also comes back without its last inputs and what it had answered to them, as when it is killed
    before a commit: what the caller has already is not run again.
    """
    server.die_at, server.forget = {step}, forget
    assert list(f.map(slowly(COUNT))) == [x * 2 for x in range(COUNT)]
    assert server.steps >= step or step > 10
    assert set(server.call.runs) == set(range(COUNT))
    # What was answered is not run again; what had run and was lost on its way is.
    assert max(server.call.runs.values()) <= (2 if forget else 1)


def test_inputs_that_a_server_lost_after_its_word_are_an_error(f, server, monkeypatch):
    """A spawn has no answers to go by: what the server said to have, and has not, cannot be had again."""
    from alight.sdk import mapping, sending

    monkeypatch.setattr(sending, "WINDOW_BYTES", 30_000)
    monkeypatch.setattr(mapping, "_ASK_AFTER", 0.01)
    server.forget = 10_000
    shown = server._shown

    def show_and_die_later(call):
        if len(call.inputs) > 1500:
            server.die_at = {server.steps + 1}
        return shown(call)

    server._shown = show_and_die_later
    with pytest.raises(errors.DataLossError, match="had said that it has more"):
        f.spawn_map(itertools.repeat(1, 3000))


@pytest.mark.parametrize("ordered", [True, False])
def test_a_server_killed_again_and_again(f, server, ordered):
    server.die_at = set(range(2, 60, 3))
    server.order = lambda positions: [positions[::2], positions[1::2]]
    got = list(f.map(slowly(COUNT), order_outputs=ordered))
    assert (got if ordered else sorted(got)) == [x * 2 for x in range(COUNT)]


def test_the_caller_says_what_it_has_and_sends_only_what_is_missing(f, server, far):
    server.die_at = {8}
    list(f.map(range(COUNT)))
    first, second = far.of("call.start")
    assert first.args["call_id"] == second.args["call_id"]
    assert "resend" not in first.args
    assert second.args["resend"] is True
    have = Ranges()
    for start, stop in second.args["have"]:
        have.add(start, stop)
    assert have.count > 0
    again = [one for one in server.chunks if one.start < have.count]
    assert len(again) == len({one.start for one in again})  # what was answered was not sent twice


@pytest.mark.parametrize("step", range(1, 12))
def test_a_spawn_arrives_whole_whatever_breaks(f, server, step):
    server.die_at = {step}
    f.spawn_map(slowly(600))
    assert len(server.call.inputs) == 600
    assert server.call.total == 600


@pytest.mark.parametrize("step", range(1, 12))
def test_looking_at_results_goes_on_where_it_was(f, server, step, monkeypatch):
    from alight.sdk import looking

    monkeypatch.setattr(looking, "WINDOW", 100)
    server.order = lambda positions: [positions[::2], positions[1::2]]
    call = f.experimental_spawn_map(range(250))
    server.die_at = {server.steps + step}
    assert list(call.iter()) == [x * 2 for x in range(250)]


def test_ranges_tell_what_is_new():
    """Against the plain way to do it, over every small case."""
    for pairs in itertools.product([(0, 2), (1, 3), (2, 4), (5, 6), (0, 6), (3, 3)], repeat=3):
        ranges, seen = Ranges(), set()
        for start, stop in pairs:
            new = {position for begin, end in ranges.add(start, stop) for position in range(begin, end)}
            assert new == set(range(start, stop)) - seen
            seen |= set(range(start, stop))
            found = [position for begin, end in ranges.pairs() for position in range(begin, end)]
            assert found == sorted(seen)
            assert ranges.count == len(seen)
            assert all(left[1] < right[0] for left, right in zip(ranges.pairs(), ranges.pairs()[1:]))
