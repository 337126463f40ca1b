"""Steps for projects, private repositories, conda and Dockerfiles: what runs, what stays secret, what is found."""

from __future__ import annotations

import subprocess

import pytest

from alight.builder import conda, dockerfile, functions, projects, recipe
from alight.builder.installs import Indexes
from alight.builder.steps import LENT
from alight.wire.errors import InvalidError
from alight.wire.spec import ImageSpec

PYTHON = "/usr/local/bin/python"
TREE = "a" * 64


def step(**raw):
    return recipe.parse(ImageSpec(steps=({"op": "debian_slim"}, raw)))[1]


def test_a_uv_project_is_the_images_python_from_then_on():
    made = projects.uv_sync(step(op="uv_sync", context=TREE, groups=["dev"], frozen=True), Indexes("https://i"), PYTHON)
    assert made.facts == {"python": "/.uv/.venv/bin/python", "path": "/.uv/.venv/bin"}
    assert made.argv[-2:] == ("--group", "dev")
    assert made.argv[3:7] == (f"{LENT}/context", PYTHON, "https://i", "frozen")


@pytest.mark.parametrize(("asked", "wanted"), [("latest", ""), ("1.8", "==1.8"), ("<2", "<2")])
def test_the_version_of_poetry(asked, wanted):
    made = projects.poetry_install(step(op="poetry_install", context=TREE, version=asked), Indexes(), PYTHON)
    assert made.argv[5] == wanted


def test_tokens_of_private_repositories_are_asked_for_and_never_written(tmp_path):
    what = step(op="pip_private", packages=["github.com/o/r@main", "gitlab.com/o/s"], git_user="ada")
    made = projects.pip_private(what, Indexes(), PYTHON)
    assert made.argv[4] == "GITHUB_TOKEN GITLAB_TOKEN"
    assert "git+https://github.com/o/r@main" in made.argv
    script = tmp_path / "askpass"
    script.write_bytes(made.files["askpass"])
    env = {**made.env, "GITHUB_TOKEN": "gh-secret", "GITLAB_TOKEN": "gl-secret"}
    for question, answer in (
        ("Username for 'https://github.com': ", "ada"),
        ("Password for 'https://ada@github.com': ", "gh-secret"),
        ("Password for 'https://ada@gitlab.com': ", "gl-secret"),
    ):
        said = subprocess.run(["sh", script, question], env=env, capture_output=True, text=True, check=True).stdout
        assert said == answer + "\n"
    assert "gh-secret" not in " ".join(made.argv)


def test_a_missing_token_is_named(tmp_path):
    made = projects.pip_private(step(op="pip_private", packages=["github.com/o/r"], git_user="a"), Indexes(), PYTHON)
    done = subprocess.run(made.argv, env={"PATH": "/bin:/usr/bin"}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "GITHUB_TOKEN is not set" in done.stderr


def test_micromamba_comes_from_where_the_machine_says():
    what = step(op="micromamba", python="3.12")
    assert "linux" in conda.micromamba(what, "", PYTHON).argv[5]
    given = conda.micromamba(what, "/srv/micromamba-{platform}", PYTHON)
    assert given.binds[0][0].startswith("/srv/micromamba-linux")
    assert given.argv[5] == given.binds[0][1]
    assert given.facts["python"] == "/opt/conda/bin/python"


def test_conda_packages_default_to_conda_forge_and_files_bring_their_own_channels():
    assert "-c conda-forge one" in conda.install(step(op="micromamba_install", packages=["one"])).argv[-1]
    named = conda.install(step(op="micromamba_install", packages=["one"], channels=["a", "b"])).argv[-1]
    assert "-c a -c b one" in named
    filed = conda.install(step(op="micromamba_install", name="../env.yml", context=TREE)).argv[-1]
    assert filed.endswith(f"-f {LENT}/context/env.yml")


def test_a_function_is_keyed_by_its_code_and_not_by_the_files_that_go_along():
    one = step(
        op="run_function",
        name="m.f",
        code="1",
        lent="b" * 64,
        needs={"timeout": 9, "volumes": [["v", "/v", False, ""]]},
    )
    two = step(op="run_function", name="m.f", code="1", lent="c" * 64)
    assert one.what == two.what
    assert (one.needs.timeout, one.needs.volumes) == (9, (("v", "/v", False, ""),))
    assert functions.run_function(one, PYTHON).argv[0] == PYTHON


def test_steps_without_their_files_are_refused():
    for op in ("uv_sync", "poetry_install", "dockerfile"):
        with pytest.raises(InvalidError, match="digest of its files"):
            step(op=op)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("FROM debian:12\nRUN x", ["debian:12"]),
        ("FROM scratch\nCOPY a /", []),
        (
            "FROM --platform=linux/amd64 golang:1 AS build\nFROM build\nFROM alpine\nCOPY --from=build /x /x",
            ["golang:1", "alpine"],
        ),
        ("ARG BASE=python:3.11\nFROM ${BASE}", ["python:3.11"]),
        ("ARG V\nFROM nvidia/cuda:${V:-12}-base", ["nvidia/cuda:12-base"]),
        ("FROM a AS one\nCOPY --from=0 /x /x\nCOPY --from=busybox:1 /y /y", ["a", "busybox:1"]),
        ("FROM a\nRUN --mount=type=bind,from=b,target=/b ls\nRUN --mount=type=cache,target=/c ls", ["a", "b"]),
        ("FROM \\\n  a:1", ["a:1"]),
        ("# FROM nothing\nfrom a as B\nFROM b", ["a"]),
    ],
)
def test_the_images_that_a_dockerfile_takes_from_elsewhere(text, names):
    assert dockerfile.external(text, {}) == names


def test_build_arguments_choose_the_base():
    assert dockerfile.external("ARG BASE=python:3.11\nFROM $BASE", {"BASE": "python:3.13"}) == ["python:3.13"]
