"""A recipe is checked before anything is built, and errors speak in the words of the user's script."""

from __future__ import annotations

import pytest

from alight.builder import recipe
from alight.wire.errors import ImageBuildError, InvalidError
from alight.wire.spec import ImageSpec

DEBIAN = {"op": "debian_slim", "python": "3.11"}


def parse(*steps):
    return recipe.parse(ImageSpec(steps=steps))


def test_an_empty_recipe_is_debian_with_a_python():
    (step,) = parse()
    assert (step.op, step.what["python"]) == ("debian_slim", recipe.DEFAULT_PYTHON)


@pytest.mark.parametrize(
    ("step", "title"),
    [
        ({"op": "pip_install", "tool": "pip", "packages": ["numpy", "x==1"]}, '.pip_install("numpy", "x==1")'),
        ({"op": "pip_install", "tool": "uv", "packages": ["numpy"]}, '.uv_pip_install("numpy")'),
        (
            {"op": "pip_install", "tool": "pip", "packages": [], "requirements": [{"name": "r.txt", "text": "six"}]},
            ".pip_install_from_requirements('r.txt')",
        ),
        ({"op": "apt_install", "packages": ["git"]}, '.apt_install("git")'),
        ({"op": "run", "command": "make all"}, ".run_commands('make all')"),
        ({"op": "copy", "tree": "a" * 64, "to": "/srv"}, ".add_local files at /srv"),
        ({"op": "workdir", "path": "/srv"}, ".workdir('/srv')"),
    ],
)
def test_a_step_is_shown_as_its_user_wrote_it(step, title):
    assert parse(DEBIAN, step)[1].title == title


def test_a_long_command_is_cut_in_its_title():
    assert len(parse(DEBIAN, {"op": "run", "command": "x" * 5000})[1].title) < 200


def test_an_op_of_a_later_version_is_named():
    with pytest.raises(ImageBuildError, match="'from_registry' cannot be built"):
        parse({"op": "from_registry", "tag": "debian"})


@pytest.mark.parametrize(
    "steps",
    [
        ({"op": "run", "command": "true"},),
        (DEBIAN, DEBIAN),
        ({"op": "debian_slim", "python": "2.7"},),
        ({"op": "debian_slim", "python": 3.11},),
        (DEBIAN, {"op": "pip_install", "packages": ["--index-url=x"]}),
        (DEBIAN, {"op": "apt_install", "packages": ["-o=Foo"]}),
        (DEBIAN, {"op": "workdir", "path": "relative"}),
        (DEBIAN, {"op": "copy", "tree": "a" * 64, "to": "/a/../b"}),
        (DEBIAN, {"op": "copy", "tree": "../x", "to": "/a"}),
        (DEBIAN, {"op": "env", "vars": {"A=B": "1"}}),
    ],
)
def test_a_step_that_cannot_be_is_refused_before_anything_is_built(steps):
    with pytest.raises(InvalidError):
        parse(*steps)


def test_a_field_that_is_empty_is_as_one_that_is_absent():
    full = {"op": "pip_install", "packages": ["six"], "find_links": None, "pre": False, "requirements": []}
    assert parse(DEBIAN, full)[1].what == {"op": "pip_install", "packages": ["six"]}


def test_an_install_of_nothing_makes_no_layer():
    assert not parse(DEBIAN, {"op": "pip_install", "packages": []})[1].makes_layer
