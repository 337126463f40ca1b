"""Pid 1 ends as its child ends, and passes signals on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = str(Path(__file__).parents[3] / "src")


def split(code: str) -> subprocess.Popen[str]:
    script = f"import sys; sys.path.insert(0, {SOURCE!r})\nfrom alight.runtime import init\ninit.split()\n{code}"
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("code", "status"),
    [("sys.exit(0)", 0), ("sys.exit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 128 + 9)],
)
def test_it_ends_as_its_child_ends(code, status):
    with split(code) as process:
        process.communicate()
    assert process.returncode == status


def test_signals_reach_the_child():
    code = "import signal\nsignal.signal(15, lambda *_: sys.exit(5))\nprint('up', flush=True)\nsignal.pause()"
    with split(code) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 5


def test_the_child_has_the_signals_of_any_program():
    code = "import signal\nprint(signal.pthread_sigmask(signal.SIG_BLOCK, []) == set(), signal.getsignal(15) == 0)"
    with split(code) as process:
        assert process.communicate()[0] == "True True\n"
