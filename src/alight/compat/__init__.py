"""`import modal` means Alight, where somebody asked for it: the CLI for the scripts that it runs, and the runtime.

Nowhere else: `import alight` alone must leave the name free for whatever else a machine has installed. Standard library
only; imports nothing of Alight before a script imports one of the names.
"""

from __future__ import annotations

import sys

from alight.compat.finder import NAME, Finder


def install() -> None:
    """From now on, `import modal` and `import modal.…` find Alight. Doing it twice does nothing more."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        # First, because an image or a laptop may have the other package installed.
        sys.meta_path.insert(0, Finder())


def uninstall() -> None:
    """The reverse; modules that were imported under the name stay with whoever holds them."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Finder)]
    for name in [name for name in sys.modules if name == NAME or name.startswith(NAME + ".")]:
        del sys.modules[name]


__all__ = ["install", "uninstall"]
