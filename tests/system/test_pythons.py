"""Each Python that images may have runs what users write: a function, a generator, a class, a failure, many at once.

Which of them a machine can get depends on its mirrors and on what is installed on it; the others are skipped by name.
"""

from __future__ import annotations

import pytest

from alight.builder.pythons import _on_this_machine

SCRIPT = """
import sys
import modal

app = modal.App("pythons")
image = modal.Image.debian_slim("{minor}").pip_install("six")

@app.function(image=image)
def version(number):
    import six
    print("speaking", number)
    return "%d.%d" % sys.version_info[:2], six.__version__ != "", number * 2

@app.function(image=image)
async def count(most):
    for number in range(most):
        yield number

@app.cls(image=image)
class Counter:
    start: int = modal.parameter(default=1)

    @modal.enter()
    def begin(self):
        self.value = self.start

    @modal.method()
    def add(self, number):
        return self.value + number

@app.function(image=image)
def failing():
    raise KeyError("nothing of that name")

@app.local_entrypoint()
def main():
    print("SAW", version.remote(21), [row[2] for row in version.map(range(3))], list(count.remote_gen(3)))
    print("CLASS", Counter(start=5).add.remote(2))
    try:
        failing.remote()
    except KeyError as error:
        print("RAISED", error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("minor", ["3.9", "3.10", "3.11", "3.12", "3.13", "3.14"])
def test_what_users_write_runs_on_this_python(fresh_machine, tmp_path, minor):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(minor=minor))
    done = fresh_machine.run("run", str(script), cwd=tmp_path, status=None)
    if done.returncode and ("is not to be had" in done.stderr or "could not be made" in done.stderr):
        assert not _on_this_machine(minor), done.stderr
        pytest.skip(f"this machine cannot get Python {minor}: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    assert f"SAW ('{minor}', True, 42) [0, 2, 4] [0, 1, 2]" in done.stdout
    assert "CLASS 7" in done.stdout
    assert "RAISED 'nothing of that name'" in done.stdout
    assert "speaking 21" in done.stdout
