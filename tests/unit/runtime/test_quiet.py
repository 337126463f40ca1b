"""Protects: an answer says that nothing was printed before it only where that is true, whoever printed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

_SCRIPT = """
import os, subprocess, sys, time
from alight.runtime import stdio

answers = []
def ask():
    answers.append(stdio.is_quiet())

ask()                      # nobody knows what was before
time.sleep(0.05); ask(); ask()
os.write(1, b"x"); ask()   # printed: by whatever means
ask()                      # and in this very tick there may be more
time.sleep(0.05); ask(); ask()
subprocess.run([sys.executable, "-c", "import os; os.write(2, b'y')"]); ask()
time.sleep(0.05); ask(); ask()
os.close(1); ask()
os.write(int(sys.argv[1]), repr(answers).encode())
"""


def test_printing_shows_whoever_printed(tmp_path):
    result = os.open(tmp_path / "answers", os.O_RDWR | os.O_CREAT)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(result)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[result],
        timeout=20,
        check=False,
    )
    os.close(result)
    assert done.returncode == 0, done.stderr
    answers = ast.literal_eval((tmp_path / "answers").read_text())
    assert answers[:3] == [False, True, True]
    assert answers[3:7] == [False, False, False, True]
    assert answers[7:] == [False, False, True, False]
