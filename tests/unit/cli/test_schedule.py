"""What is said of schedules."""

from __future__ import annotations

import json

import pytest

from alight.cli import schedule, schedule_words
from alight.sdk.schedule import Cron, Period
from alight.wire.scheduling import ScheduleListed, ScheduleNamed, ScheduleRan, ScheduleSummary


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (Cron("0 9 * * 1-5", timezone="Europe/Berlin"), "0 9 * * 1-5 Europe/Berlin"),
        (Cron("*/5 * * * *"), "*/5 * * * * UTC"),
        (Period(hours=6), "every 6 h"),
        (Period(days=1, seconds=1.5), "every 1 day 1.5 s"),
        (Period(months=2, weeks=1), "every 2 months 1 week"),
    ],
)
def test_a_schedule_in_words(declared, words):
    assert schedule_words.describe(declared.to_plain()) == words


PAUSED = ScheduleSummary(
    "ap-1",
    "news",
    "fu-1",
    "fetch",
    "main",
    {"period": {"hours": 6}},
    None,
    True,
    0.0,
    "fc-1",
    "failed",
    "ValueError: x",
)


@pytest.fixture
def asked(monkeypatch):
    """What a command asked, and the answers that it gets."""
    seen = []
    answers = {"schedule.list": ScheduleListed((PAUSED,)), "schedule.run": ScheduleRan("fetch", "fc-2")}

    def ask(method, request, reply):
        seen.append((method, request))
        return answers[method]

    monkeypatch.setattr("alight.cli.session.ask", ask)
    monkeypatch.setattr("alight.cli.session.environment", lambda given: given or "")
    return seen


def test_people_see_why_a_run_failed_and_that_it_is_paused(asked, capsys):
    schedule.schedule(["list", "news"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("news", "fetch", "every 6 h", "failed: ValueError: x", "paused"))
    assert asked[0][1].app == "news"


def test_programs_see_it_in_fields(asked, capsys):
    schedule.schedule(["list", "--json"], standalone_mode=False)
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["last_status"], one["last_error"], one["paused"]) == ("failed", "ValueError: x", True)
    assert (one["next_run"], one["last_call_id"]) == (None, "fc-1")


def test_run_now_prints_the_call(asked, capsys):
    schedule.schedule(["run-now", "news/fetch", "-e", "dev"], standalone_mode=False)
    assert capsys.readouterr().out == "fc-2\n"
    assert asked == [("schedule.run", ScheduleNamed("news", "fetch", "dev"))]
