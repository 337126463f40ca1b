"""Image methods as they are declared: what the recipe says, what decides about a rebuild, what is refused at once."""

from __future__ import annotations

import asyncio

import pytest

import alight
from alight.sdk import config
from alight.sdk.image_function import _FunctionStep
from alight.sdk.resolve import Resolver
from alight.wire import ambient
from alight.wire.errors import InvalidError

BASE = alight.Image.debian_slim("3.11")
SETTING = 1


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def recipe(image):
    """The steps as they are sent; nothing is sent, since no step here names a secret or a volume."""
    return asyncio.run(Resolver(None, "ap-1").image(image)).steps


def last(image):
    return recipe(image)[-1]


# run_function


def prepare(name, times=1):
    return name * times * SETTING


def key(function, *args, **kwargs):
    return last(BASE.run_function(function, args=args, kwargs=kwargs))["code"]


def test_a_functions_key_is_its_source_its_arguments_and_the_globals_that_it_names(monkeypatch):
    one = key(prepare, "a")
    assert one == key(prepare, "a")
    assert one != key(prepare, "b")
    assert one != key(prepare, "a", times=2)
    monkeypatch.setitem(globals(), "BASE_UNRELATED", 2)
    assert one == key(prepare, "a")
    monkeypatch.setitem(globals(), "SETTING", 2)
    assert one != key(prepare, "a")


def test_a_function_inside_another_travels_by_value():
    def inner():
        return 1

    files = _FunctionStep(inner, b"", True, "f").files()
    assert b'"serialized"' in files["function.json"]
    assert files["code"]


def test_what_cannot_be_a_build_function_is_said_at_once():
    with pytest.raises(InvalidError, match="lambda"):
        BASE.run_function(lambda: None)
    with pytest.raises(InvalidError, match="takes a function"):
        BASE.run_function("prepare")
    with pytest.raises(InvalidError, match="3 MiB"):
        BASE.run_function(prepare, args=(b"x" * (3 << 20),))
    with pytest.raises(InvalidError, match="not absolute"):
        BASE.run_function(prepare, volumes={"data": alight.Volume.from_name("v")})


def test_the_limits_of_a_build_function_are_how_and_not_what():
    step = last(BASE.run_function(prepare, args=("a",), cpu=2, memory=512, timeout=60, gpu="a10g"))
    assert step["needs"] == {"cpu": 2, "memory": 512, "timeout": 60.0}
    assert step["gpu"] == ["A10G"]


# projects


def test_a_uv_project_counts_by_its_two_files(tmp_path):
    project = tmp_path / "p"
    project.mkdir()
    (project / "pyproject.toml").write_text("[project]\n")
    (project / "uv.lock").write_text("version = 1\n")
    one = last(BASE.uv_sync("p", groups=["a"], extras=["b"]))
    assert (one["groups"], one["extras"], one["frozen"]) == (["a"], ["b"], True)
    (project / "main.py").write_text("x")
    assert last(BASE.uv_sync("p", groups=["a"], extras=["b"])) == one
    (project / "uv.lock").write_text("version = 2\n")
    assert last(BASE.uv_sync("p", groups=["a"], extras=["b"]))["context"] != one["context"]


def test_a_uv_project_that_cannot_be_installed_says_why(tmp_path):
    with pytest.raises(InvalidError, match=r"pyproject\.toml"):
        recipe(BASE.uv_sync("."))
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(InvalidError, match=r"uv\.lock") as caught:
        recipe(BASE.uv_sync("."))
    assert "uv lock" in (caught.value.hint or "")
    assert recipe(BASE.uv_sync(".", frozen=False))
    (tmp_path / "pyproject.toml").write_text("[tool.uv.workspace]\nmembers = []\n")
    with pytest.raises(InvalidError, match="workspace"):
        recipe(BASE.uv_sync(".", frozen=False))


def test_a_poetry_project_needs_its_lock_unless_it_is_ignored(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.poetry]\n")
    with pytest.raises(InvalidError, match=r"poetry\.lock"):
        recipe(BASE.poetry_install_from_file("pyproject.toml"))
    step = last(
        BASE.poetry_install_from_file("pyproject.toml", ignore_lockfile=True, with_=["dev"], poetry_version="1.8")
    )
    assert (step["with"], step["version"], step["frozen"]) == (["dev"], "1.8", False)


def test_private_repositories_need_a_token_and_a_known_host():
    with pytest.raises(InvalidError, match="token"):
        BASE.pip_install_private_repos("github.com/o/r", git_user="a")
    secret = alight.Secret.from_dict({"GITHUB_TOKEN": "x"})
    with pytest.raises(InvalidError, match=r"github\.com or gitlab\.com"):
        BASE.pip_install_private_repos("https://github.com/o/r", git_user="a", secrets=[secret])


# Dockerfiles and conda


def test_a_dockerfile_counts_with_what_its_ignore_file_leaves(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / ".dockerignore").write_text("*.log\n")
    (tmp_path / "a.txt").write_text("a")
    image = alight.Image.from_dockerfile("Dockerfile", build_args={"A": "1"}, add_python="3.12")
    one = recipe(image)
    assert [step["op"] for step in one] == ["from_dockerfile", "python"]
    assert (one[0]["build_args"], one[1]["version"]) == ({"A": "1"}, "3.12")
    (tmp_path / "x.log").write_text("ignored")
    assert recipe(image) == one
    (tmp_path / "a.txt").write_text("b")
    assert recipe(image)[0]["context"] != one[0]["context"]
    all_ignored = alight.Image.from_dockerfile("Dockerfile", ignore=["**"])
    before = recipe(all_ignored)
    (tmp_path / "a.txt").write_text("c")
    assert recipe(all_ignored) == before


def test_what_a_dockerfile_lacks_is_named(tmp_path):
    with pytest.raises(InvalidError, match="Dockerfile"):
        recipe(alight.Image.from_dockerfile("Dockerfile"))
    with pytest.raises(InvalidError, match="build_args are text"):
        alight.Image.from_dockerfile("Dockerfile", build_args={"A": 1})
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    with pytest.raises(InvalidError, match="nowhere"):
        recipe(alight.Image.from_dockerfile("Dockerfile", context_dir="nowhere"))


def test_lines_without_copy_take_no_files_along(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    one = last(BASE.dockerfile_commands("RUN true", ["ENV A=1", "WORKDIR /srv"]))
    (tmp_path / "a.txt").write_text("b")
    assert last(BASE.dockerfile_commands("RUN true", ["ENV A=1", "WORKDIR /srv"])) == one
    copying = last(BASE.dockerfile_commands("COPY a.txt /a"))
    (tmp_path / "a.txt").write_text("c")
    assert last(BASE.dockerfile_commands("COPY a.txt /a"))["context"] != copying["context"]
    assert BASE.dockerfile_commands() is BASE


def test_conda():
    steps = recipe(alight.Image.micromamba("3.12").micromamba_install("b", ["a"], channels=["x"]))
    assert [step["op"] for step in steps] == ["debian_slim", "micromamba", "env", "micromamba_install"]
    assert (steps[1]["python"], steps[3]["packages"], steps[3]["channels"]) == ("3.12", ["a", "b"], ["x"])
    with pytest.raises(TypeError, match=r'write "3\.12"'):
        alight.Image.micromamba(3.12)
    assert BASE.micromamba_install() is BASE


# the cache, and imports


@pytest.mark.parametrize(("variable", "flag"), [("ALIGHT_FORCE_BUILD", "force"), ("MODAL_IGNORE_CACHE", "ignore")])
def test_settings_for_all_steps(variable, flag, monkeypatch):
    assert not any(flag in step for step in recipe(BASE.pip_install("six")))
    monkeypatch.setenv(variable, "1")
    assert config.load()[f"{'force_build' if flag == 'force' else 'ignore_cache'}"]
    assert all(step[flag] for step in recipe(BASE.pip_install("six")))


def test_a_missed_import_is_raised_for_the_function_whose_image_it_is_of(monkeypatch):
    container = ambient.Container("co-1", "ap-1", "a", "main", "fu-1", "mine", "im-1")
    monkeypatch.setattr(ambient, "container", container)
    image, app = alight.Image.debian_slim(), alight.App("a")
    with image.imports():
        import nothing_of_this_name  # noqa: F401

    app.function(image=BASE, name="mine")(prepare)
    app.function(image=image, name="other")(prepare)
    with pytest.raises(ModuleNotFoundError):
        app.function(image=image, name="mine")(prepare)
