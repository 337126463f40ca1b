"""Rows for people, for pipes and for programs: a drawn table, aligned columns, or JSON."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, List, Optional, Sequence

from alight.cli import terminal


def show(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, as_json: bool, empty: str = "") -> None:
    """Print rows under their columns. JSON keys are the columns in lower case with underscores.

    ``empty`` is what a person reads when there are no rows.
    """
    if as_json:
        keys = [column.lower().replace(" ", "_") for column in columns]
        print(json.dumps([dict(zip(keys, row)) for row in rows], indent=2))
        return
    if not rows:
        if empty:
            print(empty, file=sys.stderr)
        return
    texts = [[terminal.clean("" if cell is None else str(cell)) for cell in row] for row in rows]
    if terminal.is_terminal(sys.stdout):
        _draw(columns, texts)
        return
    print("\n".join(_aligned([list(columns), *texts])))


def when(seconds: Optional[float]) -> Optional[str]:
    """A moment in local time, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else None


def size(count: float) -> str:
    """Bytes in the largest unit that leaves a number of people's size."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """How long, in at most two units."""
    whole = int(seconds)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415  only when it draws
    from rich.console import Console  # noqa: PLC0415  only when it draws
    from rich.table import Table  # noqa: PLC0415  only when it draws
    from rich.text import Text  # noqa: PLC0415  only when it draws

    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for column in columns:
        # ids are there to be copied
        table.add_column(column, overflow="fold", no_wrap=column.endswith("ID"))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _aligned(rows: Sequence[Sequence[str]]) -> List[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
