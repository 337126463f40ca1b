"""Protects what the `logs` commands ask of a server and what they print."""

from __future__ import annotations

import time

import pytest

from alight.cli import logs, main, session
from alight.wire.codec import dumps_head
from alight.wire.errors import ConnectionError as LostConnectionError
from alight.wire.logs import LogPiece, LogPieces, LogQuery

BOX = "ta-" + "4" * 22
CALL = "fc-" + "5" * 22
AT = time.mktime((2026, 1, 31, 12, 0, 0, 0, 0, -1))


def message(*pieces, **fields):
    """One message of an answer: (source, bytes) each."""
    made = tuple(LogPiece(AT, BOX, source, len(data), "fu-1", CALL, 0) for source, data in pieces)
    said = LogPieces(made, fields.pop("cursor", "1.0"), (("fu-1", "fit"),), **fields)
    return dumps_head(said), b"".join(data for _, data in pieces)


@pytest.fixture
def server(monkeypatch):
    """Answers ``logs.query``; what was asked is in ``asked``."""

    class Server:
        def stream(self, method, request):
            assert method == "logs.query"
            self.asked.append(request)
            for one in self.answers.pop(0):
                if isinstance(one, Exception):
                    raise one
                yield one

    made = Server()
    made.asked, made.answers = [], []
    monkeypatch.setattr(session, "stream", made.stream)
    monkeypatch.setattr(logs.time, "sleep", lambda seconds: None)
    return made


def test_output_goes_where_it_was_written_and_alights_own_words_to_stderr(server, capfdbinary):
    server.answers = [[message(("stdout", b"out \xff"), ("stderr", b"err\n"), ("system", b"it started\n"))]]
    assert main.run(["app", "logs", "train"]) == 0
    out, err = capfdbinary.readouterr()
    assert out == b"out \xff"
    assert err == b"err\n\xc2\xb7 it started\n"
    assert server.asked == [LogQuery("train", tail=100)]


def test_options_become_a_question(server):
    server.answers = [[] for _ in range(5)]
    now = time.time()
    words = [
        "--since",
        "2h",
        "--until",
        "1h",
        "--search",
        "x",
        "-s",
        "stderr",
        "-f",
        "--call",
        CALL,
        "--function",
        "fit",
    ]
    assert main.run(["app", "logs", "train", *words]) == 0
    asked = server.asked[0]
    assert (asked.app, asked.call, asked.function, asked.search) == ("train", CALL, "fit", "x")
    assert (asked.source, asked.follow, asked.tail) == ("stderr", True, -1)
    assert abs(asked.since - (now - 7200)) < 60
    assert abs(asked.until - (now - 3600)) < 60
    assert main.run(["app", "logs", "train", "--all"]) == 0
    assert main.run(["container", "logs", BOX, "-n", "7"]) == 0
    assert main.run(["app", "logs", "train", "--since", "2026-01-31T12:00"]) == 0
    assert [one.tail for one in server.asked[1:]] == [-1, 7, -1]
    assert server.asked[2].container == BOX
    assert server.asked[3].since == AT


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["app", "logs", "x", "--since", "yesterdayish"], "'yesterdayish' is no moment"),
        (["app", "logs", "x", "--until", "2026-13-45"], "is no moment"),
        (["app", "logs", "x", "--since", "1h", "--until", "2h"], "--since is after --until"),
        (["app", "logs", "x", "--all", "-n", "3"], "--tail excludes --all"),
        (["app", "logs", "x", "--source", "stdin"], "stdin"),
        (["container", "logs", "box"], "is no id of a container"),
    ],
)
def test_what_cannot_be_meant_is_said(server, capsys, words, said):
    assert main.run(words) == 2
    assert said in capsys.readouterr().err
    assert server.asked == []


def test_what_stands_before_lines_stands_before_whole_ones(server, capsys):
    server.answers = [[message(("stdout", b"one\ntwo ")), message(("stdout", b"goes on\nthree\n"), ("system", b"s\n"))]]
    words = ["--timestamps", "--show-container-id", "--show-function-call-id", "--show-function-id"]
    assert main.run(["app", "logs", "train", *words]) == 0
    out, err = capsys.readouterr()
    before = f"2026-01-31 12:00:00 {BOX} fu-1 {CALL} "
    assert out == f"{before}one\n{before}two goes on\n{before}three\n"
    assert err == f"· {before}s\n"


def test_a_server_that_was_away_is_asked_again_from_the_last_place(server, capsys):
    gone = LostConnectionError("gone")
    server.answers = [
        [message(("stdout", b"one\n"), cursor="1~a"), gone],
        [gone],
        [message(("stdout", b"two\n"), cursor="2~a"), message(ended="the app has ended")],
    ]
    assert main.run(["app", "logs", "-f", "train"]) == 0
    out, err = capsys.readouterr()
    assert out == "one\ntwo\n"
    assert "the app has ended" in err
    assert [one.after for one in server.asked] == ["", "1~a", "1~a"]
    server.answers = [[message(("stdout", b"one\n")), gone]]
    assert main.run(["app", "logs", "train"]) == 1
