"""docs/performance.md, which holds the table of each program of this folder between two marks of its own."""

from __future__ import annotations

from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "performance.md"


def put(marks: tuple[str, str], text: str) -> None:
    """Replace what stands between two marks."""
    begin, end = marks
    before, begun, rest = DOCUMENT.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise SystemExit(f"{DOCUMENT} has no {begin} … {end}: nothing was written")
    DOCUMENT.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
