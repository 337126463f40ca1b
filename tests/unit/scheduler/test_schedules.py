"""When scheduled functions run: clock changes, calendars, restarts and clocks that jump."""

from __future__ import annotations

from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alight.scheduler import schedules
from alight.wire.errors import InvalidError
from tests.unit.generated import times

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def cron(text: str, zone: str = "UTC"):
    return schedules.parse({"cron": text, "timezone": zone}, "f")


def period(**parts):
    return schedules.parse({"period": parts}, "f")


def utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat()


def runs(table, start: float, count: int, since: float = 0.0) -> list[str]:
    """The next moments after ``start``, one asked for after the other."""
    found = []
    for _ in range(count):
        start = table.after(start, since)
        found.append(utc(start))
    return found


# the clock on the wall


def test_a_time_that_spring_leaves_out_comes_at_the_end_of_the_gap():
    table = cron("30 2 * * *", BERLIN)
    assert runs(table, at("2026-03-28 12:00", BERLIN), 2) == ["2026-03-29T01:00:00+00:00", "2026-03-30T00:30:00+00:00"]


def test_two_times_of_the_missing_hour_are_one_run():
    table = cron("0,30 2 * * *", BERLIN)
    assert runs(table, at("2026-03-28 12:00", BERLIN), 2) == ["2026-03-29T01:00:00+00:00", "2026-03-30T00:00:00+00:00"]


@pytest.mark.parametrize("fold", [0, 1])
def test_a_time_that_comes_twice_in_autumn_runs_the_first_time_alone(fold):
    """Also for a server that starts between the two: the second one is no run."""
    table = cron("30 2 * * *", BERLIN)
    start = at("2026-10-25 02:10", BERLIN, fold=fold)
    first = "2026-10-26T01:30:00+00:00" if fold else "2026-10-25T00:30:00+00:00"
    assert runs(table, start, 1) == [first]


def test_stars_go_by_elapsed_time_through_both_changes():
    spring = runs(cron("*/30 * * * *", BERLIN), at("2026-03-29 01:20", BERLIN), 3)
    assert spring == ["2026-03-29T00:30:00+00:00", "2026-03-29T01:00:00+00:00", "2026-03-29T01:30:00+00:00"]
    autumn = runs(cron("30 * * * *", BERLIN), at("2026-10-25 01:40", BERLIN), 3)
    assert autumn == ["2026-10-25T00:30:00+00:00", "2026-10-25T01:30:00+00:00", "2026-10-25T02:30:00+00:00"]


def test_days_of_the_week_and_of_the_month_are_where_the_zone_has_them():
    assert runs(cron("0 9 * * mon", "Asia/Tokyo"), at("2026-11-20 00:00"), 1) == ["2026-11-23T00:00:00+00:00"]
    assert runs(cron("0 0 29 2 *"), at("2026-01-01 00:00"), 1) == ["2028-02-29T00:00:00+00:00"]


# calendars


def test_months_and_years_follow_the_calendar_from_the_deploy():
    since = at("2026-01-31 06:00")
    months = ["2026-02-28T06:00:00+00:00", "2026-03-31T06:00:00+00:00", "2026-04-30T06:00:00+00:00"]
    assert runs(period(months=1), since, 3, since) == months
    leap = at("2024-02-29 00:00")
    assert runs(period(years=1), leap, 4, leap)[3] == "2028-02-29T00:00:00+00:00"
    assert runs(period(months=1, days=1), since, 1, since) == ["2026-03-01T06:00:00+00:00"]


def test_a_period_counts_from_the_deploy():
    assert runs(period(hours=6), 1000.0, 2, since=1000.0) == [utc(1000 + 6 * 3600), utc(1000 + 12 * 3600)]
    assert period(seconds=2).after(1000.0 + 31, 1000.0) == 1032.0


@given(
    st.fixed_dictionaries({"months": st.integers(0, 30), "days": st.integers(0, 40), "seconds": st.integers(1, 10**6)}),
    st.floats(0, 2e9),
    st.floats(0, 2e9),
)
@settings(max_examples=times(150))
def test_a_run_is_neither_early_nor_left_out(parts, since, later):
    table, now = period(**parts), since + later
    coming = table.after(now, since)
    assert coming > now
    assert table.newest(since, coming, since) == coming
    newest = table.newest(since, now, since)
    assert newest is None or table.after(newest, since) == coming


@given(
    st.sampled_from(
        ["* * * * *", "*/7 3 * * *", "30 2 * * *", "0 0 31 * *", "15 4 1 1 *", "59 23 * * sun", "30 * * * *"]
    ),
    st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe"]),
    st.floats(1.7e9, 1.9e9),
    st.floats(1, 4e6),
)
@settings(max_examples=times(50))
def test_the_newest_missed_run_is_the_one_before_the_next(text, zone, done, later):
    table, now = cron(text, zone), done + later
    newest, coming = table.newest(done, now, 0.0), table.after(now, 0.0)
    assert coming > now
    if newest is None:
        assert table.after(done, 0.0) == coming
    else:
        assert done < newest <= now
        assert table.after(newest, 0.0) == coming


# restarts and clocks


def test_a_run_is_due_at_its_moment_and_once():
    table = period(seconds=10)
    before = schedules.look(table, 0.0, 0.0, 9.9)
    assert before == schedules.Look(None, None, 0.0, 10.0)
    due = schedules.look(table, 0.0, before.done, 10.002)
    assert (due.run, due.done, due.next) == (10.0, 10.0, 20.0)
    assert schedules.look(table, 0.0, due.done, 10.002).run is None


def test_of_missed_runs_the_newest_is_made_up_once():
    table = cron("0 * * * *")
    back = schedules.look(table, 0.0, at("2026-11-01 10:00"), at("2026-11-21 17:45"))
    assert (utc(back.run), utc(back.next)) == ("2026-11-21T17:00:00+00:00", "2026-11-21T18:00:00+00:00")
    assert schedules.look(table, 0.0, back.done, at("2026-11-21 17:45")).run is None


def test_how_late_a_missed_run_may_be_is_a_setting():
    table = cron("0 0 * * *")
    done, now = at("2026-11-20 00:00"), at("2026-11-21 17:45")
    old = schedules.look(table, 0.0, done, now, oldest=3600.0)
    assert (old.run, utc(old.skipped), utc(old.done)) == (
        None,
        "2026-11-21T00:00:00+00:00",
        "2026-11-21T00:00:00+00:00",
    )
    assert schedules.look(table, 0.0, done, now, oldest=86400.0).run == old.skipped
    # a run that begins as soon as it can was not missed, whatever the setting says
    assert schedules.look(table, 0.0, done, at("2026-11-21 00:00:05"), oldest=0.0).run is not None


def test_a_clock_set_back_a_little_repeats_nothing():
    table = cron("0 12 * * *")
    done, now = at("2026-11-21 12:00"), at("2026-11-21 11:59:58")
    found = schedules.look(table, 0.0, done, now)
    assert (found.run, utc(found.next)) == (None, "2026-11-22T12:00:00+00:00")


def test_a_clock_that_was_years_ahead_does_not_stop_a_schedule():
    table = cron("0 12 * * *")
    found = schedules.look(table, 0.0, at("2031-01-01 12:00"), at("2026-11-21 11:00"))
    assert (found.run, utc(found.next)) == (None, "2026-11-21T12:00:00+00:00")


# what is wrong


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"cron": "61 * * * *"}, ["f()", "'61 * * * *'", "minute"]),
        ({"cron": "0 25 * * *"}, ["hour"]),
        ({"cron": "0 0 30 2 *"}, ["day of the month"]),
        ({"cron": "0 0 * * * *"}, ["6 fields, not 5"]),
        ({"cron": "0 0 * * *", "timezone": "Mars/Olympus"}, ["no time zone 'Mars/Olympus'"]),
        ({"cron": "0 0 * * *", "timezone": "../../etc/passwd"}, ["no time zone"]),
        ({"period": {"seconds": 0.2}}, ["0.2 s is too short"]),
        ({"period": {"fortnights": 1}}, ["fortnights=1"]),
        ({"period": {"days": 1.5}}, ["days=1.5"]),
        ({"period": {"seconds": float("nan")}}, ["seconds=nan"]),
        ({"period": {"years": 10**9}}, ["thousand years"]),
        ({}, ["alight.Cron"]),
    ],
)
def test_what_cannot_be_is_said(plain, words):
    with pytest.raises(InvalidError) as caught:
        schedules.parse(plain, "f")
    assert all(word in str(caught.value) for word in words), str(caught.value)
