"""Named queries: ``-- name: some_name`` on a line, a line of purpose, then one SQL statement up to the next name."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

_NAME = re.compile(r"^--\s*name:\s*([a-z][a-z0-9_]*)\s*$")


@functools.cache  # every store of a process has the same
def load_queries(folder: Path) -> Mapping[str, str]:
    """All queries of a folder by name. Raises ValueError for a name used twice, or without purpose or statement."""
    queries: dict[str, str] = {}
    for path in sorted(folder.glob("*.sql")):
        for name, sql in _parse(path):
            if name in queries:
                raise ValueError(f"query {name} is defined twice, the second time in {path.name}")
            queries[name] = sql
    return queries


def _parse(path: Path) -> list[tuple[str, str]]:
    found: list[tuple[str, list[str]]] = []
    for line in path.read_text().splitlines():
        match = _NAME.match(line)
        if match:
            found.append((match.group(1), []))
        elif found:
            found[-1][1].append(line)
    return [(name, _statement(name, lines, path)) for name, lines in found]


def _statement(name: str, lines: list[str], path: Path) -> str:
    if not lines or not lines[0].startswith("--"):
        raise ValueError(f"query {name} in {path.name} lacks its line of purpose")
    sql = "\n".join(line for line in lines if not line.startswith("--")).strip().rstrip(";")
    if not sql:
        raise ValueError(f"query {name} in {path.name} has no statement")
    return sql
