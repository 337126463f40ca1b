"""A lock beside a script is kept to, and a recipe that it does not fit any more is an error that names the step."""

from __future__ import annotations

import json
import sys

import pytest

import alight
from alight.sdk import image_lock
from alight.wire.errors import InvalidError

IMAGE = alight.Image.debian_slim("3.11").pip_install("six", "idna").workdir("/srv")
BROUGHT = [{"apt": ["a=1"]}, {"pip": ["six==1", "idna==3"]}, {}]


@pytest.fixture
def script(tmp_path, monkeypatch):
    path = tmp_path / "train.py"
    monkeypatch.setattr(sys, "argv", [str(path)])
    monkeypatch.delenv(image_lock.VARIABLE, raising=False)

    def write(image=IMAGE, brought=BROUGHT, whole=True):
        image_lock.beside(str(path)).write_text(image_lock.written([(["f"], image.steps, brought)], whole))
        return path

    return write


def held(image):
    return [step.op.get("locked") for step in image_lock.locked(image.steps)]


def test_the_file_beside_the_script_is_used_and_can_be_left_out(script, monkeypatch):
    assert held(IMAGE) == [None, None, None]
    script()
    assert held(IMAGE) == [{"apt": ["a=1"]}, {"pip": ["six==1", "idna==3"]}, None]
    monkeypatch.setenv(image_lock.VARIABLE, "none")
    assert held(IMAGE) == [None, None, None]
    monkeypatch.setenv(image_lock.VARIABLE, "/nowhere.json")
    with pytest.raises(InvalidError, match="no such file"):
        held(IMAGE)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (alight.Image.debian_slim("3.11").pip_install("six"), "step 2, .pip_install('six'), changed (-idna)"),
        (IMAGE.run_commands("true"), "step 4, .run('true'), is new"),
        (alight.Image.debian_slim("3.11").pip_install("six", "idna"), "step 3, .workdir('/srv'), is gone"),
        (alight.Image.debian_slim("3.12"), "step 1, .debian_slim('3.12'), changed (python was '3.11')"),
    ],
)
def test_a_recipe_that_changed_names_the_step(script, image, words):
    script()
    with pytest.raises(InvalidError) as raised:
        held(image)
    assert words in str(raised.value)
    assert "alight image lock" in raised.value.hint


def test_a_changed_requirements_file_is_a_change_and_how_it_is_built_is_none(script, tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("six\n")
    image = alight.Image.debian_slim("3.11").pip_install_from_requirements(file)
    script(image, [{}, {"pip": ["six==1"]}])
    forced = alight.Image.debian_slim("3.11").pip_install_from_requirements(file, force_build=True, env={"A": "1"})
    assert held(forced) == held(image) == [None, {"pip": ["six==1"]}]
    file.write_text("six<2\n")
    with pytest.raises(InvalidError, match="a requirements file"):
        held(image)


def test_a_lock_of_one_function_leaves_others_alone(script):
    script(whole=False)
    assert held(alight.Image.debian_slim("3.12")) == [None]


def test_credentials_are_not_written(script):
    image = alight.Image.debian_slim("3.11").pip_install("six", index_url="https://user:secret@host/simple")
    path = script(image, [{}, {"pip": ["six @ https://user:secret@host/six.whl"]}])
    text = image_lock.beside(str(path)).read_text()
    assert "secret" not in text
    assert held(image)[1] == {"pip": ["six @ https://host/six.whl"]}


@pytest.mark.parametrize("text", ["", "[]", '{"image_lock": 7}', '{"image_lock": 1, "images": [{"steps": [1]}]}'])
def test_a_damaged_lock_is_said(script, text):
    image_lock.beside(str(script())).write_text(text)
    with pytest.raises(InvalidError, match=r"image.lock"):
        held(IMAGE)


def test_the_file_is_stable(script):
    path = image_lock.beside(str(script()))
    first = path.read_text()
    script()
    assert path.read_text() == first
    assert json.loads(first)["images"][0]["functions"] == ["f"]
