"""Protects `alight dashboard`: an address that logs in is shown to its user alone, and its absence harms no run."""

from __future__ import annotations

import stat
import webbrowser

import pytest

from alight.cli import dashboard, main, session
from alight.wire.dashboard import DashboardUrl
from alight.wire.errors import ServiceError, UnimplementedError

URL = DashboardUrl("http://alight.localhost:1/apps/ap-1", "http://alight.localhost:1/login?code=c0de&to=/apps/ap-1")


@pytest.fixture
def answers(monkeypatch):
    """What the server answers, and what it was asked."""

    def set_to(answer):
        asked = []

        def ask(method, request, reply):
            asked.append((method, request))
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(session, "ask", ask)
        return asked

    return set_to


def test_the_address_is_printed_and_the_browser_opens_a_file_that_only_its_user_reads(
    answers, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("ALIGHT_HOME", str(tmp_path / "home"))
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    asked = answers(URL)
    for _ in range(2):  # the file of last time is in the way
        assert main.run(["dashboard", "--browser", "ap-1"]) == 0
    assert capsys.readouterr().out.splitlines() == [URL.login] * 2
    assert (asked[0][0], asked[0][1].object_id, asked[0][1].login) == ("dashboard.link", "ap-1", True)
    assert opened[0].startswith("file://")
    assert "c0de" not in opened[0], "everybody on the machine reads command lines"
    [page] = tmp_path.rglob("dashboard.html")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "code=c0de&amp;to=" in page.read_text()


def test_nothing_is_opened_where_there_is_no_browser_or_none_is_wanted(answers, monkeypatch, capsys):
    monkeypatch.setattr(webbrowser, "open", lambda url: pytest.fail("opened"))
    answers(URL)
    assert main.run(["dashboard"]) == 0  # output goes to a pipe here
    assert main.run(["dashboard", "--no-browser"]) == 0
    assert capsys.readouterr().out.splitlines() == [URL.login] * 2


def test_a_server_without_a_web_port_is_a_sentence(answers, capsys):
    answers(DashboardUrl())
    assert main.run(["dashboard"]) == 1
    assert "ALIGHT_WEB_LISTEN=none" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [UnimplementedError("older"), ServiceError("lost"), DashboardUrl()])
def test_a_run_ends_well_without_an_address(answers, answer):
    answers(answer)
    assert dashboard.line_of("ap-1", "View run at") == ""


def test_a_run_says_where_it_can_be_looked_at_without_logging_anybody_in(answers):
    asked = answers(URL)
    assert dashboard.line_of("ap-1", "View run at") == "View run at http://alight.localhost:1/apps/ap-1"
    assert not asked[0][1].login
