"""JSON heads by the C code that ``json`` itself uses, without ``re`` and ``enum``, which ``json`` imports first.

Only for what our own node and runtime say: heads without white space around them. An interpreter whose C code is
called otherwise gets ``json``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Rules:
    """What the scanner looks at once."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def _refuse(value: Any) -> Any:
    raise TypeError(f"a {type(value).__name__} is no part of a message")


try:
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    rules: Any = _Rules
    _scan = make_scanner(rules)
    _chunks = make_encoder(None, _refuse, encode_basestring_ascii, None, ":", ",", False, False, True)

    def decode(text: str) -> Any:
        """The value. Raises ValueError for what is no JSON."""
        try:
            value, end = _scan(text, 0)
        except StopIteration:
            raise ValueError(f"no JSON: {text[:40]!r}") from None
        if end != len(text):
            raise ValueError(f"more than one value: {text[:40]!r}")
        return value

    def encode(value: Any) -> str:
        """The text of plain data, without spaces."""
        return "".join(_chunks(value, 0))

    if decode(encode({"a": [1, -2.5, None, True, "\u00e9\n"]})) != {"a": [1, -2.5, None, True, "\u00e9\n"]}:
        raise ImportError("this interpreter's C code does something else")
except (ImportError, TypeError, ValueError):
    import json

    decode = json.JSONDecoder().decode  # type: ignore[assignment]
    encode = json.JSONEncoder(separators=(",", ":")).encode  # type: ignore[assignment]
