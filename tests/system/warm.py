"""Build the base image ahead of the tests; ``scripts/test`` runs this beside lint and types."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.system.base import base_image

print(*base_image().layers, sep="\n")
