"""A connection that broke, as those see it who wait on it: apart from the carrier, so that whoever only declares
functions does not import sockets and threads. Must not import them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from alight.wire import errors

if TYPE_CHECKING:
    from alight.sdk.carrier import Carrier


class LostError(errors.ConnectionError):
    """The connection broke while something was under way on it. Callers that have ids try again on a new one."""

    carrier: Optional[Carrier] = None  # the one that broke
