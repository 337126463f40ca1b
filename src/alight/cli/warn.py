"""Warnings of Alight as one plain line; everybody else's as Python prints them."""

from __future__ import annotations

import sys
import warnings
from typing import Any, Optional, TextIO, Type, Union

from alight.cli import terminal
from alight.cli.terminal import Style
from alight.wire.errors import AsyncUsageWarning, DeprecationError, InternalAPIWarning, ServerWarning

_OURS = (AsyncUsageWarning, DeprecationError, InternalAPIWarning, ServerWarning)


def show_plainly() -> None:
    """From now on, warnings of ours name the user's line and nothing of Python's own format."""
    before = warnings.showwarning

    def show(
        message: Union[Warning, str],
        category: Type[Warning],
        filename: str,
        lineno: int,
        file: Optional[TextIO] = None,
        line: Optional[str] = None,
    ) -> Any:
        if not issubclass(category, _OURS) or file is not None:
            return before(message, category, filename, lineno, file, line)
        style = Style(colour=terminal.wants_colour(sys.stderr))
        where = style.faint(f" ({filename}:{lineno})")
        print(f"{style.warning('! warning:')} {terminal.clean(str(message))}{where}", file=sys.stderr)
        return None

    warnings.showwarning = show
