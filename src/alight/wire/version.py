"""The version of the package and of the wire, and the one sentence that a mismatch gets.

Wire N talks to N and N-1. The number changes when a peer that does not know the change would misread a frame;
new optional fields do not change it, because decoders ignore what they do not know.
"""

from __future__ import annotations

from alight.wire.errors import VersionError

__version__ = "0.1.0"

WIRE_VERSION = 1


def check_peer(wire: int, version: str, who: str) -> None:
    """Raise VersionError, in one sentence, when a peer's wire is too old or too new for ours.

    ``who`` names the peer as the reader knows it: "server", "SDK", "container".
    """
    if wire in (WIRE_VERSION, WIRE_VERSION - 1):
        return
    newer = wire > WIRE_VERSION
    side = f"the {who}" if not newer else "this side"
    raise VersionError(
        f"the {who} is Alight {version} (wire {wire}) and this is Alight {__version__} (wire {WIRE_VERSION}): "
        "they do not understand each other",
        hint=f"update {side}: `pip install --upgrade alight`, then `alight server stop` so that it starts anew",
    )
