"""Money, amounts and ranges of reports in words; what cannot be is refused with what can."""

from __future__ import annotations

import csv
import io
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from alight.cli import billing_range, money, session
from alight.cli.billing import billing
from alight.cli.budget import app_budget
from alight.cli.errors import UsageError
from alight.cli.run import run
from alight.wire.billing import CostTold, UsageItem, UsageReported
from alight.wire.errors import InvalidError

NOW = datetime(2026, 3, 18, 15, 30, tzinfo=timezone.utc)  # a Wednesday
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(0.03, "USD", "$0.03"), (0.0001, "USD", "< $0.01"), (0, "USD", "$0.00"), (1234.5, "CHF", "1,234.50 CHF")],
)
def test_money(amount, currency, text):
    assert money.shown(amount, currency) == text


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (
            CostTold(0.0285, "USD", {"container": 41.0, "cpu": 5.0, "gpu:A100-40GB": 41.0}, peaks={"A100-40GB": 1.0}),
            "41 s on 1 \u00d7 A100-40GB, $0.03",
        ),
        (CostTold(0.0002, "USD", {"container": 12.0, "cpu": 12.0}), "12 s of 1 CPU, < $0.01"),
        (
            CostTold(1.0, "EUR", {"gpu:H100": 900.0}, idle=0.5, peaks={"H100": 4.0}),
            "900 GPU-seconds on up to 4 \u00d7 H100, €1.00 (50% of it while containers idled)",
        ),
        (
            CostTold(0.1, "USD", {"gpu:A100-40GB": 30.0}, peaks={"A100-40GB": 0.5}),
            "60 s on 0.5 \u00d7 A100-40GB, $0.10",
        ),
        (
            CostTold(0.0, "USD", {"gpu:ODD": 3.0}, unpriced=("gpu:ODD",)),
            "3.0 s on 1 \u00d7 ODD, $0.00 (without ODD: no price is set, see `alight billing rates`)",
        ),
        (CostTold(0.0, "USD"), ""),
    ],
)
def test_the_line_at_the_end_of_a_run(told, line):
    assert money.run_line(told) == line


def test_the_line_of_a_call():
    assert money.call_line(CostTold(0.0, "USD", small=True)) == "less than 0.05 s of a container"
    told = CostTold(0.5, "USD", {"container": 60.0, "gpu:T4": 60.0})
    assert money.call_line(told) == "$0.50 for 60 s of containers, 60 s of T4"


def days(found):
    return tuple(one.isoformat() for one in found)


@pytest.mark.parametrize(
    ("named", "first", "last"),
    [
        ("today", "2026-03-18", "2026-03-19"),
        ("yesterday", "2026-03-17", "2026-03-18"),
        ("This  Week", "2026-03-16", "2026-03-19"),
        ("last week", "2026-03-09", "2026-03-16"),
        ("this month", "2026-03-01", "2026-04-01"),
        ("last month", "2026-02-01", "2026-03-01"),
        ("2025-12", "2025-12-01", "2026-01-01"),
        ("7 days", "2026-03-12", "2026-03-19"),
        ("last 30d", "2026-02-17", "2026-03-19"),
    ],
)
@pytest.mark.parametrize("where", [timezone.utc, BERLIN])
def test_ranges_by_name(named, first, last, where):
    found = billing_range.during(named, where, NOW)
    assert [one.strftime("%Y-%m-%d %H:%M") for one in found] == [f"{first} 00:00", f"{last} 00:00"]
    assert all(one.tzinfo is where for one in found)


def test_ranges_by_their_ends():
    assert billing_range.between("2026-03-01", None, None, BERLIN, NOW) == (datetime(2026, 3, 1, tzinfo=BERLIN), NOW)
    found = billing_range.between("2026-03-01T12:00Z", "2026-03-02", None, timezone.utc, NOW)
    assert days(found) == ("2026-03-01T12:00:00+00:00", "2026-03-02T00:00:00+00:00")
    assert billing_range.between(None, None, None, timezone.utc, NOW)[0].day == 1


@pytest.mark.parametrize(
    ("start", "end", "named", "words"),
    [
        ("yesteryear", None, None, "--start 'yesteryear' is no day"),
        ("2026-02-30", None, None, "is no day"),
        ("2026-03-02", "2026-03-01", None, "comes before"),
        (None, "2026-03-01", None, "--end needs a --start"),
        ("2026-03-01", None, "today", "exclude each other"),
        (None, None, "soon", "--for 'soon' is no time"),
        (None, None, "2026-13", "is no time"),
        (None, None, "0 days", "is no time"),
    ],
)
def test_ranges_that_cannot_be(start, end, named, words):
    with pytest.raises(UsageError) as caught:
        billing_range.between(start, end, named, timezone.utc, NOW)
    assert words in str(caught.value)


def test_time_zones(monkeypatch):
    assert billing_range.zone("utc") == ("", timezone.utc)
    assert billing_range.zone("Europe/Berlin")[0] == "Europe/Berlin"
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert billing_range.zone("local")[0] == "Asia/Tokyo"
    with pytest.raises(UsageError, match="no such time zone"):
        billing_range.zone("Mars/Base")


@pytest.mark.parametrize("text", ["five", "-1", "nan", "inf", "", "1e13"])
def test_amounts_that_cannot_be(text):
    with pytest.raises(InvalidError, match="not a number of 0 or more"):
        money.read(text, "--max-cost")


def test_amounts_may_have_a_sign():
    assert (money.read("$5", "x"), money.read("1,000.50", "x"), money.read(None, "x")) == (5, 1000.5, None)


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        (billing, ["report", "--json", "--csv"], "exclude each other"),
        (billing, ["report", "--by", "moon"], "by app, function, user, or tag:NAME"),
        (billing, ["report", "--tz", "Mars"], "no such time zone"),
        (billing, ["report", "-r", "w"], "'w' is not one of"),
        (billing, ["summary", "--for", "soon"], "is no time"),
        (billing, ["budget", "--month", "5"], "a budget is somebody's"),
        (billing, ["budget", "--app", "a", "--user", "b"], "exclude each other"),
        (app_budget, ["a", "--month", "5", "--cost", "5"], "say the same"),
        (app_budget, ["a", "--month", "much"], "--month much: not a number"),
        (app_budget, ["a", "--month", "5", "--clear"], "exclude each other"),
        (run, ["--stop-at-budget", "x.py"], "needs a budget"),
        (run, ["--max-cost", "much", "x.py"], "--max-cost much: not a number"),
        (run, ["--max-gpu-seconds", "-3", "x.py"], "--max-gpu-seconds -3: not a number"),
    ],
)
def test_bad_words_are_refused_before_a_server_is_asked(command, words, said):
    result = CliRunner().invoke(command, words)
    assert result.exit_code != 0
    assert said in f"{result.output} {result.exception}"


def test_a_report_as_csv_holds_nothing_that_a_spreadsheet_would_compute(monkeypatch, capsys):
    """Who names an app or a tag may be somebody else than who opens the file."""
    tags = {"team": '=HYPERLINK("x")', "note": 'a "b", c'}
    item = UsageItem(1.8e9, "ap-1", "+shop", "main", "ann", {}, 1.5, 0.25, 0.0, {"cpu": 1.5}, tags=tags)
    told = UsageReported(1.8e9, 1.8e9, "USD", (item,))
    monkeypatch.setattr(session, "ask", lambda method, asked, answer: told)
    billing.main(["report", "--csv", "-t", "*"], standalone_mode=False)
    head, row = csv.reader(io.StringIO(capsys.readouterr().out))
    assert head[-2:] == ["note", "team"]
    assert row[2:] == ["'+shop", "main", "1.5", "0.25", "0.0", "USD", 'a "b", c', '\'=HYPERLINK("x")']


def test_what_has_no_tag_is_a_row_with_a_name(monkeypatch, capsys):
    told = UsageReported(1.8e9, 1.8e9, "USD", (UsageItem(1.8e9, "", "", "", "", {}, 1.5, 0.0, 0.0, {}),))
    monkeypatch.setattr(session, "ask", lambda method, asked, answer: told)
    billing.main(["report", "--by", "tag:team"], standalone_mode=False)
    assert "(none)" in capsys.readouterr().out


def test_an_empty_report_says_of_what_it_is(monkeypatch, capsys):
    monkeypatch.setattr(session, "ask", lambda method, asked, answer: UsageReported(1.8e9, 1.8e9, "USD"))
    billing.main(["report", "--app", "shpo", "-e", "dev"], standalone_mode=False)
    assert "Nothing of shpo in dev ran in that time." in capsys.readouterr().err
