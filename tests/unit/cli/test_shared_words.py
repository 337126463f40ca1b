"""Protects what people see of values in dicts and queues: whatever they are, nothing fails and nothing is hidden."""

from __future__ import annotations

import json

import pytest

from alight.cli import shared_words, terminal
from alight.wire import payload


class Odd:
    """A value whose own code fails."""

    def __repr__(self):
        raise ZeroDivisionError("no")


def _fails():
    raise OSError("not here")


class Trap:
    """A value that cannot be unpickled."""

    def __reduce__(self):
        return _fails, ()


def test_text_is_shown_as_it_is_and_all_else_as_python_writes_it():
    assert shared_words.value(payload.dumps_bytes("a b"), as_repr=False) == "a b"
    assert shared_words.value(payload.dumps_bytes("a b"), as_repr=True) == "'a b'"
    assert shared_words.value(payload.dumps_bytes([1, "x"]), as_repr=False) == "[1, 'x']"


@pytest.mark.parametrize(
    ("value", "shown"),
    [([1, None], [1, None]), ((1, 2), [1, 2]), ({1}, "{1}"), (b"x", "b'x'"), ({"a": 1.5}, {"a": 1.5})],
)
def test_json_has_values_where_json_has_such(value, shown):
    found = shared_words.json_value(payload.dumps_bytes(value), as_repr=False)
    assert found == shown
    json.dumps(found)
    assert shared_words.json_value(payload.dumps_bytes(value), as_repr=True) == repr(value)


def test_what_cannot_be_read_says_why_and_how_large_it_is():
    data = payload.dumps_bytes(Trap())
    for shown in (shared_words.value(data, as_repr=False), shared_words.json_value(data, as_repr=True)):
        assert shown.startswith(f"<{len(data)} bytes that cannot be unpickled here: ")
        assert "OSError: not here" in shown
    damaged = shared_words.value(b"\0\0", as_repr=False)
    assert "damaged" in damaged
    assert shared_words.value(payload.dumps_bytes(Odd()), as_repr=False) == (
        "<Odd, whose repr failed: ZeroDivisionError: no>"
    )


def test_a_terminal_gets_no_control_sequences(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "is_terminal", lambda stream: True)
    shared_words.show("a\x1b[2Jb")
    assert capsys.readouterr().out == "ab\n"
    monkeypatch.setattr(terminal, "is_terminal", lambda stream: False)
    shared_words.show("a\x1b[2Jb")
    assert capsys.readouterr().out == "a\x1b[2Jb\n"
