"""Why a step was made again: the difference to what stood in its place, in one line."""

from __future__ import annotations

import pytest

from alight.builder.explain import ELSEWHERE, why
from alight.builder.inventory import Inventory

SIX = {"op": "pip_install", "packages": ["six"]}


@pytest.mark.parametrize(
    ("new", "old", "said"),
    [
        ({**SIX, "packages": ["idna", "six"]}, SIX, "packages changed (+idna)"),
        (SIX, {**SIX, "packages": ["idna"]}, "packages changed (+six, -idna)"),
        ({**SIX, "pre": True}, SIX, "pre was not there and is True"),
        ({"op": "run", "command": "b"}, {"op": "run", "command": "a"}, "command was 'a' and is 'b'"),
        ({"op": "copy", "tree": "b"}, {"op": "copy", "tree": "a"}, "the content of its files changed"),
        ({"op": "run", "env": {"A": "2"}}, {"op": "run", "env": {"A": "1"}}, "env changed (A)"),
        (
            {"op": "pip_install", "requirements": [{"name": "r.txt", "text": "six\nidna==2\n"}]},
            {"op": "pip_install", "requirements": [{"name": "r.txt", "text": "six\nidna==1\n"}]},
            "r.txt changed (-idna==1, +idna==2)",
        ),
    ],
)
def test_the_change_is_named(new, old, said):
    assert why(new, [old]) == f"not cached: {said}"


def test_the_nearest_of_several_is_compared_and_other_kinds_of_steps_are_not():
    far = {"op": "pip_install", "packages": ["torch"], "pre": True}
    assert why({**SIX, "packages": ["six", "idna"]}, [far, SIX, {"op": "run"}]).endswith("(+idna)")
    assert why(SIX, [{"op": "run", "command": "x"}]) == ""


def test_a_step_that_is_as_it_was_on_an_image_that_is_not(tmp_path):
    (tmp_path / "layers").mkdir()
    inventory = Inventory(tmp_path)
    step = {"op": "run", "command": "make"}
    inventory.remember("below", "one", step, [])
    assert inventory.explain("changed", "two", step) == ELSEWHERE
    assert inventory.explain("changed", "two", {**step, "command": "other"}) == ""
    assert inventory.explain("below", "one", step) == ""  # made again because it was asked for
    assert "command was" in inventory.explain("below", "three", {**step, "command": "other"})
