"""Steps of a call at which a test may kill the server, to see that nothing is lost.

``python -m alight.server`` reads ALIGHT_FAULT=STEP[:N] when ALIGHT_TEST=1 is set too, and then ends by SIGKILL the N-th
time (1 unless said) that the step is reached. Nothing else arms this, and unarmed a step costs a comparison.

received: a call has come and nothing was done about it. committed: its inputs are on disk (of one input whose caller
waits: only together with what came of it, so that this step is not reached). dispatched: the scheduler gave inputs to a
container, its machine has not heard. forwarded: its machine was told. output_received: an output has come and nothing
was done about it. output_committed: it is on disk, its machine does not know. reply_sent: its caller was told, it may
not be on disk.

Beside those of every call, ``scheduled``: it is on disk that a run of a schedule begins, and there is no call of it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

STEPS = ("received", "committed", "dispatched", "forwarded", "output_received", "output_committed", "reply_sent")
OTHERS = ("scheduled",)


class _Armed:
    step = ""
    left = 0


def arm(text: str) -> None:
    """Take "STEP" or "STEP:N". Raises ValueError for a step that there is not."""
    step, _, times = text.partition(":")
    if step not in (*STEPS, *OTHERS):
        raise ValueError(f"ALIGHT_FAULT={text}: the steps are {', '.join((*STEPS, *OTHERS))}")
    _Armed.step, _Armed.left = step, int(times or 1)


def at(step: str, first: Callable[[], None] | None = None) -> None:
    """A step is reached. ``first``: what has to leave the process before it dies."""
    if step != _Armed.step:
        return
    _Armed.left -= 1
    if _Armed.left == 0:
        if first is not None:
            first()
        os.kill(os.getpid(), signal.SIGKILL)
