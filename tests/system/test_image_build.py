"""``alight image build``: the images of a script without a run, their ids and names."""

from __future__ import annotations

import shutil

import pytest

SCRIPT = """
import modal

app = modal.App("built")
BASE = modal.Image.debian_slim(python_version="3.11")
one, two = BASE.run_commands("echo one > /made"), BASE.run_commands("echo two > /made")

@app.function(image=one)
def first(): return open("/made").read()

@app.function(image=two)
def second(): return open("/made").read()
"""
USE = """
import modal

app = modal.App("used")

@app.function(image=modal.Image.from_id("{id}"))
def by_id(): return open("/made").read()

@app.function(image=modal.Image.from_name("made-by-build:1"))
def by_name(): return open("/made").read()

@app.local_entrypoint()
def main():
    print("SAW", by_id.remote().strip(), by_name.remote().strip())
"""


def test_the_images_of_a_script_are_built_and_named_without_a_run(machine, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = machine.run("image", "build", "script.py", cwd=tmp_path)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[1] for row in rows] == ["first", "second"]
    named = machine.run("image", "build", "script.py::second", "-t", "made-by-build:1", cwd=tmp_path)
    assert named.stdout.split() == [rows[1][0]]
    (tmp_path / "use.py").write_text(USE.format(id=rows[0][0]))
    assert "SAW one two" in machine.run("run", "use.py", cwd=tmp_path).stdout


def test_what_cannot_be_built_is_said_before_anything_is_asked(machine, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "empty").mkdir()
    for words, said in (
        (["build", "script.py", "-t", "x"], "has 2 images"),
        (["build", "script.py", "--registry-secret", "x"], "is no directory"),
        (["build", "empty"], "there is no empty/Dockerfile"),
        (["pull", "debian:12"], "docker.io/library/debian:12"),
        (["pull", "ghcr.io/a/b", "--registry-secret-from-env"], "REGISTRY_USERNAME and REGISTRY_PASSWORD is not set"),
    ):
        assert said in machine.run("image", *words, cwd=tmp_path, status=2).stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed")
def test_a_dockerfile_in_its_context_is_built(machine, tmp_path):
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM python:3.11\nCOPY made /made\n")
    (context / "made").write_text("from the context")
    base = ("--substitute-base", "python:3.11=debian_slim")
    (image,) = machine.run("image", "build", "context", *base, "-t", "made-by-build:1", cwd=tmp_path).stdout.split()
    (tmp_path / "use.py").write_text(USE.format(id=image))
    assert "SAW from the context from the context" in machine.run("run", "use.py", cwd=tmp_path).stdout
