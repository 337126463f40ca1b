"""Schedules and retries are checked where they are written, not when they first run."""

from __future__ import annotations

import pytest

from alight.sdk.app import App
from alight.sdk.schedule import Cron, Period, Retries
from alight.wire.errors import InvalidError


@pytest.mark.parametrize(
    "text",
    ["* * * * *", "*/15 0-6 1,15 * mon-fri", "0 9 * jan,jul 7", "5/10 * * * *", "0 0 29 2 *"],
)
def test_schedules_that_cron_knows(text):
    assert Cron(text).to_plain() == {"cron": text, "timezone": "UTC"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("* * * *", "4 fields"),
        ("60 * * * *", "'60' for the minute"),
        ("* 24 * * *", "for the hour"),
        ("* * 0 * *", "for the day of the month"),
        ("* * * 13 *", "for the month"),
        ("* * * * 8", "for the day of the week"),
        ("*/0 * * * *", "for the minute"),
        ("5-1 * * * *", "for the minute"),
        ("* * * monday *", "for the month"),
        ("@daily", "1 fields"),
    ],
)
def test_schedules_that_cannot_be(text, says):
    with pytest.raises(InvalidError, match=says) as caught:
        Cron(text)
    assert caught.value.hint


def test_time_zones():
    assert Cron("0 9 * * *", timezone="UTC") == Cron("0 9 * * *")
    assert Cron("0 9 * * *", timezone="Europe/Berlin") != Cron("0 9 * * *")
    with pytest.raises(InvalidError, match="not a time zone"):
        Cron("0 9 * * *", timezone="Mars/Olympus")


def test_periods():
    assert Period(days=1, seconds=0.5).to_plain() == {"period": {"days": 1, "seconds": 0.5}}
    assert Period(hours=4) == Period(hours=4)
    for wrong in ({}, {"days": -1}, {"hours": 0.5}, {"minutes": True}, {"seconds": "1"}):
        with pytest.raises(InvalidError):
            Period(**wrong)


def test_retries():
    assert Retries(max_retries=3).backoff_coefficient == 2.0
    for wrong in (
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"max_retries": 1, "backoff_coefficient": 0.5},
        {"max_retries": 1, "initial_delay": 61},
        {"max_retries": 1, "max_delay": 0},
    ):
        with pytest.raises(InvalidError):
            Retries(**wrong)


def test_what_is_no_schedule_is_said_where_it_stands():
    with pytest.raises(InvalidError, match=r"schedule= of the function .*tick is the text '0 9 \* \* \*'") as caught:

        @App().function(serialized=True, schedule="0 9 * * *")
        def tick(): ...

    assert "alight.Cron" in caught.value.hint


def test_a_scheduled_function_is_called_without_arguments():
    app = App()
    with pytest.raises(InvalidError, match="needs x, z") as caught:

        @app.function(serialized=True, schedule=Period(hours=1))
        def tick(x, y=2, *rest, z, **more): ...

    assert caught.value.hint == "give x a default"

    @app.function(serialized=True, schedule=Period(hours=1))
    def tock(y=2, *rest, z=3, **more): ...
