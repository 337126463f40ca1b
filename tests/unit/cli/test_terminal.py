"""Protects the reader's terminal: output of containers is somebody else's bytes."""

from __future__ import annotations

import pytest

from alight.cli.terminal import ControlFilter, clean


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain\ttext\r\n", b"plain\ttext\r\n"),
        (b"\x1b[1;31mred\x1b[0m", b"\x1b[1;31mred\x1b[0m"),
        (b"10%\r20%\r", b"10%\r20%\r"),
        (b"a\x1b[2Jb", b"ab"),
        (b"a\x1b[10;10Hb", b"ab"),
        (b"\x1b]0;title\x07x", b"x"),
        (b"\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", b"link"),
        (b"\x1bP+q544e\x1b\\x", b"x"),
        (b"\x1b[6nx\x1b[c", b"x"),
        (b"\x07\x08\x00\x7fx", b"x"),
        (b"\xc2\x9b31mx", b"31mx"),
        ("żółw 🐢".encode(), "żółw 🐢".encode()),
    ],
)
def test_only_colours_and_carriage_returns_pass(raw, shown):
    assert ControlFilter().feed(raw) == shown


@pytest.mark.parametrize("raw", [b"a\x1b[31mred\x1b[0mb", b"a\x1b]0;title\x07b", "ń\x1b[Ka".encode(), b"\x1b[2Jx"])
def test_cutting_anywhere_changes_nothing(raw):
    whole = ControlFilter().feed(raw)
    for cut in range(len(raw) + 1):
        filter_ = ControlFilter()
        assert filter_.feed(raw[:cut]) + filter_.feed(raw[cut:]) + filter_.flush() == whole, cut


def test_an_escape_that_never_ends_does_not_swallow_the_output_for_ever():
    filter_ = ControlFilter()
    out = b"".join(filter_.feed(b"\x1b]" if index == 0 else b"x" * 100) for index in range(100))
    assert b"x" * 100 in out


def test_messages_are_cleaned():
    assert clean("no such volume \x1b[2J'x'") == "no such volume 'x'"
