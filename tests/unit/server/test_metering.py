"""Accounting of containers' time: it adds up to their lives exactly, whatever happens in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alight.server import metering
from alight.server.metering import BUSY, CPU, GPU, IDLE, MEMORY, STARTING, WHOLE, Meter, Metered, Owner, Shape, micros
from tests.unit.generated import times

START = 1_700_000_000.0
SHAPE = Shape(2.0, 0.5, "A100-40GB", 1.0)


def container(name="ta-1", at=START, *, shared=False, shape=SHAPE, app="ap-1"):
    return Metered(name, Owner(app, "fu-1", "owner", "main"), shape, shared, micros(at))


def sums(hours, resource, state=None):
    found = [
        amount for key, amount in hours.items() if key.resource == resource and (state is None or key.state == state)
    ]
    return sum(found)


def test_a_call_its_waiting_and_its_start_are_told_apart():
    meter = Meter()
    meter.begin(container())
    meter.ready("ta-1", START + 3)
    meter.moved([("ta-1", "fc-1", 1, True)], START + 5)
    meter.moved([("ta-1", "fc-1", -1, True)], START + 46)
    meter.ended("ta-1", START + 50)
    hours, calls = meter.take({})
    assert [sums(hours, WHOLE, state) for state in (STARTING, BUSY, IDLE)] == [3, 41, 6]
    assert sums(hours, CPU) == 100
    assert sums(hours, MEMORY) == 25
    assert sums(hours, GPU + "A100-40GB") == 50
    assert calls["fc-1"].amounts() == {WHOLE: 41, CPU: 82, MEMORY: 20.5, GPU + "A100-40GB": 41}


def test_two_inputs_at_once_have_a_half_each():
    meter = Meter()
    meter.begin(container(shared=True))
    meter.ready("ta-1", START)
    meter.moved([("ta-1", "fc-1", 1, True)], START)
    meter.moved([("ta-1", "fc-2", 1, True)], START + 10)
    meter.moved([("ta-1", "fc-1", -1, True)], START + 30)
    meter.moved([("ta-1", "fc-2", -1, True)], START + 36)
    _, calls = meter.take({})
    assert calls["fc-1"].total == micros(20)
    assert calls["fc-2"].total == micros(16)


def test_inputs_in_line_within_a_container_cost_nothing_until_their_turn():
    meter = Meter()
    meter.begin(container())
    meter.ready("ta-1", START)
    meter.moved([("ta-1", "fc-1", 2, True), ("ta-1", "fc-2", 1, True)], START)
    meter.moved([("ta-1", "fc-1", -1, True)], START + 4)
    meter.moved([("ta-1", "fc-2", -1, False)], START + 5)  # returned: it had not begun
    meter.moved([("ta-1", "fc-1", -1, True)], START + 9)
    _, calls = meter.take({})
    assert calls["fc-1"].total == micros(9)
    assert "fc-2" not in calls


def test_a_long_call_has_its_part_of_each_hour():
    meter = Meter()
    at = START - START % 3600 + 3500  # 100 s before the hour
    meter.begin(container(at=at))
    meter.ready("ta-1", at)
    meter.moved([("ta-1", "fc-1", 1, True)], at)
    meter.settle(at + 7500)
    hours, _ = meter.take({})
    by_hour = {key.hour: amount for key, amount in hours.items() if key.resource == WHOLE}
    first = int(at // 3600)
    assert by_hour == {first: 100, first + 1: 3600, first + 2: 3600, first + 3: 200}


def test_what_is_used_beyond_what_is_held_counts_for_who_had_the_container():
    meter = Meter()
    meter.begin(container(shape=Shape(0.5, 1.0)))
    meter.ready("ta-1", START)
    meter.moved([("ta-1", "fc-1", 1, True)], START)
    used = {"cpu_seconds": 15.0, "memory_byte_seconds": 30.0 * (1 << 30), "gpu_joules": 500.0}
    meter.sample("ta-1", used, START + 10)
    meter.settle(START + 10)
    hours, calls = meter.take({"fc-1": None})
    assert sums(hours, CPU) == pytest.approx(15)  # 5 held, 10 beyond
    assert sums(hours, metering.CPU_USED) == pytest.approx(15)
    assert calls["fc-1"].amounts()[CPU] == pytest.approx(15)
    assert calls["fc-1"].amounts()[MEMORY] == pytest.approx(30)
    assert calls["fc-1"].joules == 500
    meter.sample("ta-1", used, START + 20)  # the same counters: nothing more was used
    assert sums(meter.take({})[0], metering.CPU_USED) == 0


def test_the_last_sample_may_come_after_the_end():
    meter = Meter()
    meter.begin(container(shape=Shape(0.1, 0.1)))
    meter.ready("ta-1", START)
    meter.ended("ta-1", START + 10)
    meter.sample("ta-1", {"cpu_seconds": 8.0}, START + 11)
    hours, _ = meter.take({})
    assert sums(hours, CPU) == pytest.approx(8)
    meter.sample("ta-1", {"cpu_seconds": 8.0}, START + 12)  # said again
    assert meter.take({})[0] == {}


def test_what_ran_while_the_server_was_away_counts_once_and_for_who_had_it():
    meter = Meter()
    one = container()
    one.ready, one.gap = True, True  # accounted for until START by an earlier process
    meter.begin(one)
    meter.settle(START + 60)
    assert meter.take({})[0] == {}  # nobody knows yet whether it is there
    meter.moved([("ta-1", "fc-1", 1, True)], START + 100)
    meter.moved([("ta-1", "fc-1", -1, True)], START + 130)
    meter.ended("ta-1", START + 130)
    hours, calls = meter.take({})
    assert sums(hours, WHOLE) == 130
    assert calls["fc-1"].total == micros(130)


def test_one_that_was_gone_when_its_machine_came_back_counts_until_it_was_seen_last():
    meter = Meter()
    one = container()
    one.ready, one.gap = True, True
    meter.begin(one)
    meter.ended("ta-1", None)
    assert meter.take({})[0] == {}


def test_small_calls_have_no_account_of_their_own_once_they_are_over():
    meter = Meter()
    meter.begin(container())
    meter.ready("ta-1", START)
    meter.moved([("ta-1", "fc-1", 2, True)], START)
    meter.moved([("ta-1", "fc-1", -1, True)], START + 0.03)
    assert meter.take({"fc-1": None})[1] == {}  # it runs on, and may come to more
    meter.moved([("ta-1", "fc-1", -1, True)], START + 0.06)
    assert meter.take({})[1]["fc-1"].total == 60_000
    meter.moved([("ta-1", "fc-2", 1, True)], START + 1)
    meter.moved([("ta-1", "fc-2", -1, True)], START + 1.001)
    assert meter.take({})[1] == {}
    assert meter.calls == {}


def test_a_call_with_little_of_each_of_many_containers_has_an_account():
    meter = Meter()
    for number in range(10):
        meter.begin(container(f"ta-{number}"))
        meter.ready(f"ta-{number}", START)
        meter.moved([(f"ta-{number}", "fc-1", 1, True)], START)
        meter.moved([(f"ta-{number}", "fc-1", -1, True)], START + 0.02)
    assert meter.take({})[1]["fc-1"].total == 200_000


def test_what_could_not_be_written_is_there_the_next_time():
    meter = Meter()
    meter.begin(container())
    meter.ready("ta-1", START)
    meter.moved([("ta-1", "fc-1", 1, True)], START)
    meter.settle(START + 5, calls=True)
    meter.put_back(*meter.take({}))
    meter.settle(START + 9, calls=True)
    hours, calls = meter.take({})
    assert sums(hours, WHOLE) == 9
    assert calls["fc-1"].total == micros(9)


def test_what_is_rounded_up_for_some_is_not_there_for_the_last():
    meter = Meter()
    one = container(shared=True)
    meter.begin(one)
    meter.ready("ta-1", START)
    names = [f"fc-{number}" for number in range(5)]
    meter.moved([("ta-1", name, 1, True) for name in names], START)
    meter.moved([("ta-1", name, -1, True) for name in names], START + 3e-6)
    assert one.given == one.busy == 3


CALLS = [f"fc-{number}" for number in range(4)]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["give", "give", "answer", "answer", "return", "settle", "sample", "end", "start", "ready"]),
        st.integers(0, 2),  # which container
        st.sampled_from(CALLS),
        st.integers(1, 5),  # how many
        st.floats(0, 4000, allow_nan=False),  # seconds later
    ),
    max_size=60,
)


@settings(max_examples=times(100))
@given(STEPS, st.booleans())
def test_what_calls_idling_and_starting_have_is_what_containers_lived(steps, shared):
    meter = Meter()
    now = START
    lives, held, number = {}, {}, 0
    began, hours, calls = {}, {}, {}

    def take():
        taken, spent = meter.take(dict.fromkeys(CALLS))
        for key, amount in taken.items():
            hours[key] = hours.get(key, 0.0) + amount
        for call, one in spent.items():
            calls[call] = calls.get(call, 0) + one.total

    for what, which, call, count, later in steps:
        now += later
        name = lives.get(which)
        if what == "start" and name is None:
            number += 1
            lives[which] = name = f"ta-{number}"
            meter.begin(container(name, now, shared=shared))
            began[name], held[name] = now, {}
        elif name is None:
            continue
        elif what == "ready":
            meter.ready(name, now)
        elif what == "give" and meter.alive[name].ready:
            meter.moved([(name, call, count, True)], now)
            held[name][call] = held[name].get(call, 0) + count
        elif what in {"answer", "return"} and held[name].get(call):
            some = min(count, held[name][call])
            meter.moved([(name, call, -some, what == "answer")], now)
            held[name][call] -= some
        elif what == "settle":
            meter.settle(now, calls=count > 2)
            take()
        elif what == "sample":
            meter.sample(name, {"cpu_seconds": 0.0}, now)
        elif what == "end":
            one = meter.alive[name]
            meter.ended(name, now)
            assert one.life == micros(now) - micros(began[name])  # to the microsecond
            assert one.given == one.busy  # calls have all that was busy, and no more
            del lives[which]
            began[name] = now - began[name]
    for which, name in list(lives.items()):
        one = meter.alive[name]
        meter.ended(name, now)
        assert one.life == micros(now) - micros(began[name])
        assert one.given == one.busy
        began[name] = now - began[name]
        del lives[which]
    take()
    for call, one in meter.calls.items():
        calls[call] = calls.get(call, 0) + one.total
    whole = sum(began.values())
    assert sums(hours, WHOLE) == pytest.approx(whole, abs=1e-3)
    assert sums(hours, GPU + "A100-40GB") == pytest.approx(whole, abs=1e-3)
    assert sums(hours, CPU) == pytest.approx(2 * whole, abs=1e-3)
    assert sum(calls.values()) / 1e6 == pytest.approx(sums(hours, WHOLE, BUSY), abs=1e-3)
