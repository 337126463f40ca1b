"""Lines of a .env file to values, by the rules of python-dotenv; a line that is none has its number said.

The differences: a key without "=" is refused instead of having no value, a bad line is refused instead of being
skipped with a warning, and a byte order mark at the beginning is no part of the first key. Values are never in what is
said of a line, since they may be secret.
"""

from __future__ import annotations

import re
from typing import Dict, Mapping, Match, Optional, Pattern, Tuple

from alight.wire.errors import InvalidError

_SPACE = re.compile(r"\s*")
_EXPORT = re.compile(r"(?:export[^\S\r\n]+)?")
_QUOTED_KEY = re.compile(r"'([^']+)'")
_KEY = re.compile(r"([^=#\s]+)")
_EQUALS = re.compile(r"[^\S\r\n]*=[^\S\r\n]*")
_SINGLE = re.compile(r"'((?:\\.|[^'\\])*)'", re.DOTALL)
_DOUBLE = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)
_PLAIN = re.compile(r"[^\r\n]*")
_REST = re.compile(r"[^\S\r\n]*(?:#[^\r\n]*)?(?:\r\n|\n|\r|$)")  # of a line, after what counts
_LINE_END = re.compile(r"\r\n|\n|\r")
_DOUBLE_ESCAPE = re.compile(r"\\[\\'\"abfnrtv]")
_SINGLE_ESCAPE = re.compile(r"\\[\\']")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_VARIABLE = re.compile(r"\$\{([^\}:]*)(?::-([^\}]*))?\}")


def parse_dotenv(
    text: str, environ: Optional[Mapping[str, str]] = None, where: str = "the .env file"
) -> Dict[str, str]:
    """The values of a .env file's text. ``${NAME}`` and ``${NAME:-default}`` in any value mean an earlier line's value,
    else that of ``environ``, else the default, else nothing.

    Raises InvalidError with the number of the first line that is none.
    """
    values: Dict[str, str] = {}
    known = dict(environ or {})
    at, _ = _taken(_SPACE, text, 1 if text.startswith("\ufeff") else 0)
    while at < len(text):
        at, key, raw = _statement(text, at, where)
        if key:
            values[key] = known[key] = _VARIABLE.sub(lambda found: _resolved(found, known), raw)
        at, _ = _taken(_SPACE, text, at)
    return values


def _statement(text: str, at: int, where: str) -> Tuple[int, str, str]:
    """Where the statement that begins here ends, its key ("" for a comment) and its value as it is written."""
    begun = at
    if text[at] == "#":
        return _taken(_REST, text, at)[0], "", ""
    start, _ = _taken(_EXPORT, text, at)
    first = text[start : start + 1]
    named = (_QUOTED_KEY if first == "'" else _KEY).match(text, start)
    if named is None:
        raise _bad(where, text, begun, "it has no name before the =" if first == "=" else "it is not KEY=value")
    equals = _EQUALS.match(text, named.end())
    if equals is None:
        raise _bad(where, text, begun, "it is not KEY=value")
    at, value = _value(text, equals.end(), spaced=not equals[0].endswith("="))
    if at < 0:
        raise _bad(where, text, begun, f"its closing {value} is missing")
    rest = _REST.match(text, at)
    if rest is None:
        raise _bad(where, text, begun, "something follows the closing quote")
    return rest.end(), named[1], value


def _value(text: str, at: int, *, spaced: bool) -> Tuple[int, str]:
    """Where a value ends, and the value; -1 and the quote when that is not closed."""
    quote = text[at : at + 1]
    if quote not in {"'", '"'}:
        end, plain = _taken(_PLAIN, text, at)
        if spaced and quote == "#":
            return end, ""  # a comment after no value
        return end, re.sub(r"\s+#.*", "", plain).rstrip()
    found = (_SINGLE if quote == "'" else _DOUBLE).match(text, at)
    if found is None:
        return -1, quote
    return found.end(), (_SINGLE_ESCAPE if quote == "'" else _DOUBLE_ESCAPE).sub(_unescaped, found[1])


def _taken(pattern: Pattern[str], text: str, at: int) -> Tuple[int, str]:
    found = pattern.match(text, at)
    assert found is not None  # these match nothing, too
    return found.end(), found[0]


def _unescaped(found: Match[str]) -> str:
    letter = found[0][1]
    return _ESCAPES.get(letter, letter)


def _resolved(found: Match[str], known: Mapping[str, str]) -> str:
    return known.get(found[1], found[2] or "")


def _bad(where: str, text: str, at: int, why: str) -> InvalidError:
    number = len(_LINE_END.findall(text, 0, at)) + 1
    # the line itself is not repeated: it may hold a secret
    return InvalidError(
        f"line {number} of {where} cannot be read: {why}",
        hint="lines are KEY=value, KEY=\"value\" with escapes like \\n, KEY='value as it is', or # a comment",
    )
