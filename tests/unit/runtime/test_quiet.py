"""Protects: an answer says that nothing is left in the pipes only where that is true, whoever printed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

_SCRIPT = """
import os, subprocess, sys
from alight.runtime import stdio

said, saying = os.pipe()
os.dup2(saying, 1)
os.dup2(saying, 2)
answers = [stdio.is_empty()]
os.write(1, b"x")
answers.append(stdio.is_empty())
os.read(said, 10)
answers.append(stdio.is_empty())
subprocess.run([sys.executable, "-c", "import os; os.write(2, b'y')"])
answers.append(stdio.is_empty())
os.read(said, 10)
os.close(1)
answers.append(stdio.is_empty())
os.write(int(sys.argv[1]), repr(answers).encode())
"""


def test_what_is_in_the_pipes_shows_whoever_printed(tmp_path):
    result = os.open(tmp_path / "answers", os.O_RDWR | os.O_CREAT)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(result)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        pass_fds=[result],
        timeout=20,
        check=False,
    )
    os.close(result)
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval((tmp_path / "answers").read_text()) == [True, False, True, False, False]


def test_a_pipe_that_nobody_reads_any_more_shows():
    script = """
import os
from alight.runtime import stdio

said, saying = os.pipe()
os.dup2(saying, 1)
stdio.setup()
before = stdio.is_cut_off()
os.close(said)
after = stdio.is_cut_off()
elsewhere, of_the_user = os.pipe()
os.dup2(of_the_user, 1)
os.close(elsewhere)
os._exit(0 if (before, after, stdio.is_cut_off()) == (False, True, False) else 1)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
