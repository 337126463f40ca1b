"""``python -m alight …`` is ``alight …``."""

from __future__ import annotations

from alight.cli.main import main

if __name__ == "__main__":
    main()
