"""Which files a pattern means: the rules of .dockerignore, relative to the directory that is added.

``*`` and ``?`` stay within one name, ``**`` spans directories, ``!`` takes back, the last pattern that fits decides,
and a directory that fits takes everything below it along.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import Callable, List, Sequence, Tuple, Union

from alight.wire.errors import InvalidError

Ignore = Union[Sequence[str], Callable[[Path], bool]]


class FilePatternMatcher:
    """Says of a path whether the patterns mean it. ``~matcher`` says the opposite.

    A path is relative to the directory that the patterns are for. Raises InvalidError for a pattern that cannot be
    read.
    """

    def __init__(self, *pattern: str) -> None:
        self._patterns = tuple(pattern)
        self._rules: List[Tuple[bool, re.Pattern[str]]] = []
        for text in pattern:
            if not isinstance(text, str):
                raise InvalidError(f"a file pattern must be text, not {type(text).__name__}")
            stripped = text.strip()
            takes_back = stripped.startswith("!")
            stripped = stripped[1:].strip() if takes_back else stripped
            if stripped and not stripped.startswith("#"):
                self._rules.append((takes_back, _compile(stripped)))
        self._takes_back = any(takes_back for takes_back, _ in self._rules)

    @classmethod
    def from_file(cls, file_path: Union[str, Path]) -> FilePatternMatcher:
        """The patterns of a file such as .dockerignore: one a line, ``#`` begins a comment."""
        return cls(*Path(file_path).read_text(encoding="utf-8").splitlines())

    @property
    def patterns(self) -> Tuple[str, ...]:
        """The patterns as they were given."""
        return self._patterns

    def __call__(self, file_path: PurePath) -> bool:
        parts = PurePath(file_path).parts
        candidates = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        matched = False
        for takes_back, rule in self._rules:
            if matched == takes_back and any(rule.match(candidate) for candidate in candidates):
                matched = not takes_back
        return matched

    def can_prune_directories(self) -> bool:
        """Whether a directory that fits need not be looked into: nothing below it can be taken back."""
        return not self._takes_back

    def __invert__(self) -> InvertedMatcher:
        return InvertedMatcher(self)

    def __repr__(self) -> str:
        return f"FilePatternMatcher({', '.join(map(repr, self._patterns))})"


class InvertedMatcher:
    """``~FilePatternMatcher(…)``."""

    def __init__(self, matcher: Callable[[PurePath], bool]) -> None:
        self._matcher = matcher

    def __call__(self, file_path: PurePath) -> bool:
        return not self._matcher(file_path)

    def can_prune_directories(self) -> bool:
        return False

    def __invert__(self) -> Callable[[PurePath], bool]:
        return self._matcher

    def __repr__(self) -> str:
        return f"~{self._matcher!r}"


def as_matcher(ignore: Ignore) -> Callable[[Path], bool]:
    """What ``ignore=`` takes, as a function of a relative path."""
    if callable(ignore):
        return ignore
    if isinstance(ignore, str):
        raise InvalidError("ignore= takes a list of patterns, not one text", hint=f"ignore=[{ignore!r}]")
    return FilePatternMatcher(*ignore)


def _compile(pattern: str) -> re.Pattern[str]:
    parts = [part for part in pattern.replace("\\", "/").split("/") if part not in {"", "."}]
    if ".." in parts:
        raise InvalidError(f"the file pattern {pattern!r} leaves its directory")
    regex = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            regex += ".*" if last else "(?:[^/]+/)*"
        else:
            regex += _part(part, pattern) + ("" if last else "/")
    return re.compile(regex + r"\Z", re.DOTALL)


def _part(text: str, pattern: str) -> str:
    out, index = "", 0
    while index < len(text):
        char = text[index]
        if text.startswith("**", index):
            out, index = out + ".*", index + 2
            continue
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[":
            end = text.find("]", index + 2)
            if end < 0:
                raise InvalidError(f"the file pattern {pattern!r} has a '[' without its ']'")
            inside = text[index + 1 : end].replace("\\", "\\\\")
            out += "[" + ("^" + inside[1:] if inside[0] in "!^" else inside) + "]"
            index = end
        else:
            out += re.escape(char)
        index += 1
    return out


#: Everything but Python source; what `add_local_python_source` leaves out unless told otherwise.
NON_PYTHON_FILES = InvertedMatcher(FilePatternMatcher("**/*.py"))
