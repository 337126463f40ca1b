"""Moments as people type them."""

from __future__ import annotations

from datetime import datetime

import pytest

from alight.cli.errors import UsageError
from alight.cli.moments import parse_when

NOW = datetime.fromisoformat("2026-03-05T14:30")


@pytest.mark.parametrize(
    ("text", "ago"),
    [("2h30m", 9000), ("5 m", 300), ("10 minutes ago", 600), ("1 day", 86400), ("1d 2 hours", 93600), ("90sec", 90)],
)
def test_how_long_ago(text, ago):
    assert parse_when(text, NOW.timestamp()) == NOW.timestamp() - ago


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("now", "2026-03-05T14:30"),
        ("today", "2026-03-05T00:00:00"),
        ("Yesterday", "2026-03-04T00:00:00"),
        ("14:30", "2026-03-05T14:30"),
        ("9:05", "2026-03-05T09:05:00"),
        ("23:15:30", "2026-03-04T23:15:30"),
        ("1772368200", "2026-03-01T12:30:00+00:00"),
        ("2026-03-01T12:00", "2026-03-01T12:00:00"),
    ],
)
def test_a_time_of_day_is_the_last_one_that_there_was(text, meant):
    assert parse_when(text, NOW.timestamp()) == datetime.fromisoformat(meant).timestamp()


@pytest.mark.parametrize("text", ["25:99", "yesterdya", "tomorrow", "-5m", "2026-13-01", "", "5", "ago"])
def test_what_is_no_moment_is_refused_with_what_could_be_written(text):
    with pytest.raises(UsageError, match="is no moment") as raised:
        parse_when(text, NOW.timestamp())
    assert "14:30" in str(raised.value.hint)
