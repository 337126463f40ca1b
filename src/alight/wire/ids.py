"""Identifiers and the rules for names.

An id is a prefix that says what it is and 22 characters of base 62 that sort by the time they were made
(48 bits of milliseconds, then 80 random bits), so that lists by id are lists by age.
"""

from __future__ import annotations

import os
import re
import time

from alight.wire.errors import InvalidError

APP = "ap"
FUNCTION = "fu"
CALL = "fc"
INPUT = "in"
IMAGE = "im"
VOLUME = "vo"
SECRET = "st"
CONTAINER = "ta"
CLUSTER = "cu"
NODE = "no"
DICT = "di"
QUEUE = "qu"
TOKEN_ID = "ak"
TOKEN_SECRET = "as"

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]  # halves the divisions
_BODY = 22

_ID = re.compile(r"[a-z]{2}-[0-9A-Za-z]{22}")
_INPUT_ID = re.compile(r"in-[0-9A-Za-z]{22}(?:-[1-9][0-9]{0,18})?")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ENVIRONMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def new_id(prefix: str) -> str:
    """A fresh id with this prefix, unique without coordination."""
    return from_number(prefix, (int(time.time() * 1000) << 80) | int.from_bytes(os.urandom(10), "big"))


def from_number(prefix: str, number: int) -> str:
    """The id that stands for a number of 128 bits."""
    digits = []
    for _ in range(_BODY // 2):
        number, rest = divmod(number, 3844)
        digits.append(_PAIRS[rest])
    digits.reverse()
    return f"{prefix}-{''.join(digits)}"


def is_id(text: str, prefix: str | None = None) -> bool:
    """Whether text has the form of an id (of this kind, when a prefix is given)."""
    if prefix == INPUT:
        return bool(_INPUT_ID.fullmatch(text))
    return bool(_ID.fullmatch(text)) and (prefix is None or text.startswith(prefix + "-"))


def input_id(call_id: str, position: int) -> str:
    """The id of a call's input. It is made of both, so that nobody has to keep a table of them."""
    body = call_id[len(CALL) :]
    return f"{INPUT}{body}-{position}" if position else INPUT + body


def of_input(text: str) -> tuple[str, int]:
    """The call and the position that an input's id names. Raises InvalidError for what is no such id."""
    if not _INPUT_ID.fullmatch(text):
        raise InvalidError(f"{text!r} is not the id of an input", hint="they look like in-…")
    end = len(INPUT) + 1 + _BODY
    return CALL + text[len(INPUT) : end], int(text[end + 1 :] or 0)


def check_name(name: str, what: str) -> str:
    """Return name when it follows the rules for names of objects, else raise InvalidError naming the rule."""
    if not _NAME.fullmatch(name) or name in {".", ".."}:
        raise InvalidError(
            f"{name!r} cannot be the name of {_article(what)}",
            hint="names have 1 to 64 characters: letters, digits, '.', '_' and '-'",
        )
    if is_id(name, APP):
        raise InvalidError(f"{name!r} cannot be the name of {_article(what)}: it has the form of an app's id")
    return name


def check_environment(name: str) -> str:
    """Return name when it follows the rules for environments, else raise InvalidError."""
    if not _ENVIRONMENT.fullmatch(name) or name.startswith("en-"):
        raise InvalidError(
            f"{name!r} cannot be the name of an environment",
            hint="it starts with a letter or digit, then letters, digits, '_' and '-', and does not start with 'en-'",
        )
    return name


def _article(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"
