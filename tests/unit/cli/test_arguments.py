"""Protects the bridge from a signature to a command line, the same for every function that users write."""

from __future__ import annotations

import datetime as dt
from typing import Any, Dict, List, Literal, Optional

import click
import pytest

from alight.cli.arguments import _help, parse
from alight.wire.errors import InvalidError


def given(function, *words):
    parsed = parse([function], function.__name__, words, "alight run x.py")
    assert parsed is not None
    return parsed.named if parsed.named is not None else parsed.positional


def test_types():
    def f(text: str, count: int, rate: float, day: dt.datetime, anything: Any, bare): ...

    words = ["--text=a", "--count", "3", "--rate", "1e-3", "--day", "2026-01-31", "--anything", "x", "--bare", "5"]
    assert given(f, *words) == {
        "text": "a",
        "count": 3,
        "rate": 1e-3,
        "day": dt.datetime(2026, 1, 31),  # noqa: DTZ001  as it was typed, local
        "anything": "x",
        "bare": "5",
    }


def test_names_get_dashes_and_flags_their_opposite():
    def f(max_iters: int = 1, use_gpu: bool = False, Big: int = 2): ...  # noqa: N803  as users write

    assert given(f, "--max-iters=20", "--use-gpu") == {"max_iters": 20, "use_gpu": True}
    assert given(f, "--no-use-gpu", "--Big", "7") == {"use_gpu": False, "Big": 7}


def test_what_is_not_given_stays_with_the_function():
    sentinel = object()

    def f(value: int = sentinel): ...

    assert given(f) == {}


def test_optional_and_literal():
    def f(
        maybe: Optional[int] = None,
        flag: Optional[bool] = None,
        size: Literal["s", "m"] = "s",
        level: Literal[1, 2] = 1,
    ): ...

    assert given(f, "--maybe", "3", "--flag", "--size", "m", "--level", "2") == {
        "maybe": 3,
        "flag": True,
        "size": "m",
        "level": 2,
    }
    with pytest.raises(click.UsageError, match="'xl'"):
        given(f, "--size", "xl")


def test_words_as_they_are():
    def f(*words): ...

    assert given(f, "--anything", "-x", "y", "--") == ("--anything", "-x", "y", "--")


@pytest.mark.parametrize("words", [["--count", "many"], [], ["--cuont", "3"], ["3"]])
def test_wrong_words_are_usage_errors(words):
    def f(count: int): ...

    with pytest.raises(click.UsageError):
        given(f, *words)


def mixed(first, *rest): ...


def keywords(**rest): ...


def lists(sizes: List[int]): ...


def dicts(table: Dict[str, int] = {}): ...  # noqa: B006


def optional_literal(size: Optional[Literal["a"]] = None): ...


def mixed_literal(size: Literal["a", 1] = "a"): ...


def raw(data: bytes): ...


@pytest.mark.parametrize("function", [mixed, keywords, lists, dicts, optional_literal, mixed_literal, raw])
def test_signatures_without_a_command_line_are_named(function):
    with pytest.raises(InvalidError) as caught:
        given(function)
    assert f"{function.__name__}()" in str(caught.value)
    assert caught.value.hint


def test_the_parameter_at_fault_is_named():
    with pytest.raises(InvalidError, match="'sizes' of lists"):
        given(lists)


def test_help_shows_docstring_types_and_defaults(capsys):
    def train(steps: int = 20, name: str = "baby"):
        """Train a little model."""

    assert parse([train], "train", ["--help"], "alight run x.py::train") is None
    text = capsys.readouterr().out
    for part in ("alight run x.py::train", "Train a little model.", "--steps INTEGER", "default: 20", "default: baby"):
        assert part in text


def test_annotations_that_only_type_checkers_can_resolve():
    def f(count: int, thing: NotThere = None): ...  # noqa: F821

    with pytest.raises(InvalidError, match="'thing'"):
        given(f, "--count", "3")


def test_a_laid_out_docstring_keeps_its_lines():
    text = _help("Train.\n\n    One\n    two.\n\n    Args:\n        x: first\n        y: second\n    ")
    assert text == "Train.\n\nOne\ntwo.\n\n\b\nArgs:\n    x: first\n    y: second"
