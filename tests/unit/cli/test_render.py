"""Protects output: every byte in order where nobody looks, and a readable terminal where somebody does."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from alight.cli.render import Drawing

sys.path.insert(0, str(Path(__file__).parent))
from streams import Kept

FIRST, SECOND = "ta-aaaaaaaaaaaaaaaaaaaa11", "ta-bbbbbbbbbbbbbbbbbbbb22"


@pytest.fixture
def piped():
    out, err = Kept(tty=False), Kept(tty=False)
    drawing = Drawing(out, err)
    yield drawing, out, err
    drawing.close()


@pytest.fixture
def seen(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")  # no spinner, no colours: what remains is the layout
    out = Kept(tty=True)
    err = Kept(tty=True)
    drawing = Drawing(out, err)
    yield drawing, out, err
    drawing.close()


def test_pipes_get_every_byte(piped):
    drawing, out, err = piped
    pieces = [b"\x00\xff", b"a\r", b"\x1b[2Jb", b"no newline"]
    for index, piece in enumerate(pieces):
        drawing.output((FIRST, SECOND)[index % 2], "f", 1, piece)
        drawing.output(FIRST, "f", 2, piece)
    drawing.close()
    assert out.written == b"".join(pieces)
    assert err.written == b"".join(pieces)


def test_unfinished_lines_are_drawn_at_once(seen):
    drawing, out, _ = seen
    drawing.output(FIRST, "f", 1, b"10%\r")
    assert out.written == b"10%\r"
    drawing.output(FIRST, "f", 1, b"20%\r")
    assert out.written == b"10%\r20%\r"


def test_words_of_ours_begin_a_line(seen):
    drawing, out, err = seen
    drawing.output(FIRST, "f", 1, b"half")
    drawing.done("built")
    assert out.written == b"half\n"
    assert err.written.decode() == "✓ built\n"


def test_one_speaker_after_another_needs_no_names(seen):
    drawing, out, _ = seen
    for container in (FIRST, SECOND):
        for line in (b"one\n", b"two\n"):
            drawing.output(container, "f", 1, line)
    assert out.written == b"one\ntwo\none\ntwo\n"


def test_several_speakers_at_once_are_named(seen):
    drawing, out, _ = seen
    for round_ in range(3):
        drawing.output(FIRST, "train", 1, f"first {round_}\n".encode())
        drawing.output(SECOND, "eval", 1, f"second {round_}\n".encode())
    lines = out.written.decode().splitlines()
    assert lines[:2] == ["first 0", "second 0"]
    assert lines[2] == "[train aaaa11] first 1"
    assert lines[3] == "[eval bbbb22] second 1"


def test_who_speaks_alone_after_others_needs_no_name(seen):
    drawing, out, _ = seen
    for container in (FIRST, SECOND, FIRST, "ta-3", "ta-3"):
        drawing.output(container, "f", 1, container[-2:].encode() + b"\n")
    assert out.written.decode().splitlines() == ["11", "22", "[f aaaa11] 11", "-3", "-3"]


def test_progress_bars_of_several_speakers_become_their_last_state(seen):
    drawing, out, _ = seen
    drawing.output(FIRST, "f", 1, b"start\n")
    drawing.output(SECOND, "f", 1, b"start\n")
    for percent in (b"10%\r", b"20%\r", b"30%\r\n"):
        drawing.output(FIRST, "f", 1, percent)
        drawing.output(SECOND, "f", 1, percent)
    drawing.close()
    text = out.written.decode()
    assert "\r" not in text
    assert text.count("30%") == 2
    assert "10%" not in text


def test_nothing_is_held_back_at_the_end(seen):
    drawing, out, _ = seen
    for _ in range(2):
        drawing.output(FIRST, "f", 1, b"line\n")
        drawing.output(SECOND, "f", 1, b"line\n")
    drawing.output(SECOND, "f", 1, b"no end")
    drawing.close()
    assert "no end" in out.written.decode()


def test_control_sequences_do_not_reach_a_terminal(seen):
    drawing, out, _ = seen
    drawing.output(FIRST, "f", 1, b"a\x1b[2")
    drawing.output(FIRST, "f", 1, b"Jb\x1b[31mred\n")
    assert out.written == b"ab\x1b[31mred\n"


def test_build_logs_are_indented_and_drawn_by_lines(piped):
    drawing, _, err = piped
    drawing.build_line("im-1", b"Collec")
    drawing.build_line("im-1", b"ting\n10%\r100%\nrest")
    drawing.close()
    assert err.written.decode().splitlines() == ["  │ Collecting", "  │ 100%", "  │ rest"]


def test_reasons_to_wait_are_lines_without_a_terminal(piped, monkeypatch):
    monkeypatch.setattr("alight.cli.render.LASTING", 1000.0)
    drawing, _, err = piped
    drawing.waiting("fc-1", "waiting for a container: 1 starting")
    drawing.waiting("fc-1", "waiting for a container: 1 starting")
    assert err.written == b"", "a moment is not worth a line"
    drawing._say_waits()  # what the timer does
    drawing.waiting("fc-1", "waiting for memory; 1,200 inputs come first")
    drawing.waiting("fc-1", "waiting for memory; 12 inputs come first")
    drawing.waiting("fc-1", "")
    drawing._say_waits()
    assert err.written.decode() == (
        "· waiting for a container: 1 starting\n· waiting for memory; 1,200 inputs come first\n"
    )


def test_what_an_app_was_told_is_not_said_again_of_its_calls(piped):
    drawing, _, err = piped
    drawing.note("held: its budget is used up")
    drawing.waiting("fc-1", "held: its budget is used up")
    drawing._say_waits()
    assert err.written.decode() == "· held: its budget is used up\n"


def test_a_warning_is_said_once(piped):
    drawing, _, err = piped
    drawing.warn("`region` has no effect here")
    drawing.warn("`region` has no effect here")
    assert err.written.decode() == "! warning: `region` has no effect here\n"


def test_timestamps_precede_every_line():
    out, err = Kept(tty=False), Kept(tty=False)
    drawing = Drawing(out, err, timestamps=True)
    drawing.output(FIRST, "f", 1, b"a\nb")
    drawing.output(FIRST, "f", 1, b"c\n")
    drawing.close()
    assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "T ", line) for line in out.written.decode().splitlines()] == [
        "T a",
        "T bc",
    ]


def test_the_status_line_leaves_before_output_and_at_the_end(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("alight.cli.render.PATIENCE", 0.0)
    both = Kept(tty=True)
    drawing = Drawing(both, both)
    drawing.phase("building")
    drawing._status._draw()
    drawing.output(FIRST, "f", 1, b"hello\n")
    drawing.close()
    text = both.written.decode()
    assert "building" in text
    assert re.search(r"\r\x1b\[2Khello\n", text)
    assert text.rstrip().endswith("hello") or text.endswith("\r\x1b[2K")


def test_how_far_a_map_is_stands_in_the_status_line_and_leaves_with_it(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("alight.cli.render.PATIENCE", 1000.0)  # nothing is drawn but by hand
    both = Kept(tty=True)
    drawing = Drawing(both, both)
    drawing.waiting("fc-2", "waiting for a container")
    for done in ("10", "3,210"):
        drawing.counted("fc-1", f"map f: {done} of 10,000 done")
    drawing._status._draw()
    assert "map f: 3,210 of 10,000 done (and 1 more)" in both.written.decode()
    drawing.output(FIRST, "f", 1, b"not finished")
    drawing.counted("fc-1", "map f: 3,211 of 10,000 done")
    assert drawing._status._held, "it was drawn over a line of the user's"
    drawing.output(FIRST, "f", 1, b" yet\n")
    assert not drawing._status._held
    drawing.counted("fc-1", "")
    assert drawing._status._text == "waiting for a container"
    drawing.close()


def test_how_far_a_map_is_does_not_fill_a_file(piped):
    drawing, out, err = piped
    drawing.counted("fc-1", "map f: 3,210 of 10,000 done")
    drawing.counted("fc-1", "")
    assert out.written + err.written == b""


def test_lines_return_to_the_left_while_a_container_has_the_terminal(seen, piped):
    """A raw terminal does not do it, and the status line would draw over the program's words."""
    for (drawing, out, err), end in ((seen, b"\r\n"), (piped, b"\n")):
        drawing.connected(is_on=True)
        drawing.output(FIRST, "f", 1, b"one\ntwo\n")
        drawing.note("three")
        assert drawing._status.paused
        drawing.connected(is_on=False)
        drawing.output(FIRST, "f", 1, b"four\n")
        assert out.written == b"one" + end + b"two" + end + b"four\n"
        assert err.written.endswith("· three".encode() + end)
