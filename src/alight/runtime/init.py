"""Pid 1 of a container: reaps orphans, passes signals on, ends as the runtime ends.

The kernel treats pid 1 as special: signals without a handler are dropped and orphans are never reaped unless somebody
waits. User code is not written for that, so it never runs as pid 1. Must not import more than it does: this process
lives as long as the container.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # without the enumerations, which take longer than the rest of this process

#: The home directory inside a container, where the user's code lies.
HOME = "/root"
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2)


def split() -> None:
    """Return in a child; the parent stays behind as init and exits with the child's status."""
    # Signals that arrive before the handlers stand wait in the mask, and are not lost.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return

    def forward(number: int, _frame: object) -> None:
        try:
            os.kill(child, number)
        except ProcessLookupError:
            return  # it ended just now; the loop below is about to see it

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os._exit(_reap_until(child))


def _reap_until(child: int) -> int:
    """Wait for everybody; return the child's exit code, 128 + n when a signal ended it."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child and not os.WIFSTOPPED(status):
            return code_of(status)


def code_of(status: int) -> int:
    """A wait status as a shell would say it."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
