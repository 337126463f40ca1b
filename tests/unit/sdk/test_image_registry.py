"""Bases from elsewhere: what is declared, what is refused where it is written, and what stands in for what."""

from __future__ import annotations

import sys

import pytest

import alight
from alight.sdk import image_substitutes, progress
from alight.wire.errors import InvalidError


def ops(steps):
    return [step.op for step in steps]


def test_a_registry_image_is_a_base_and_a_python():
    image = alight.Image.from_registry("nvidia/cuda:12.8.1-devel-ubuntu24.04", add_python="3.12").pip_install("six")
    assert ops(image.steps)[:2] == [
        {"op": "registry", "tag": "nvidia/cuda:12.8.1-devel-ubuntu24.04"},
        {"op": "python", "version": "3.12"},
    ]
    secret = alight.Secret.from_dict({"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "x"})
    own = alight.Image.from_registry("host:5000/a/b", secret, force_build=True)
    assert ops(own.steps) == [{"op": "registry", "tag": "host:5000/a/b", "force": True}, {"op": "python"}]
    assert own.steps[0].secrets == (secret,)
    assert own.steps[1].secrets == ()


def test_set_up_commands_come_before_the_python_is_looked_for():
    image = alight.Image.from_registry("debian:12", setup_dockerfile_commands=["RUN apt-get install -y python3"])
    assert [op["op"] for op in ops(image.steps)] == ["registry", "dockerfile", "python"]


def test_cloud_registries_need_a_secret():
    secret = alight.Secret.from_dict({})
    for method, auth in (("from_aws_ecr", "aws"), ("from_gcp_artifact_registry", "gcp")):
        make = getattr(alight.Image, method)
        assert make("host.example/a/b:1", secret).steps[0].op["auth"] == auth
        with pytest.raises(InvalidError, match=f"{method}.* needs a secret"):
            make("host.example/a/b:1")


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: alight.Image.from_registry("https://ghcr.io/a/b"), InvalidError, "not the name of an image"),
        (lambda: alight.Image.from_registry(""), InvalidError, "not the name of an image"),
        (lambda: alight.Image.from_registry("a", add_python=3.10), TypeError, "loses zeros"),
        (lambda: alight.Image.from_registry("a", add_python="2.7"), InvalidError, "not a Python version"),
        (lambda: alight.Image.from_registry("a", tagg="x"), TypeError, "no parameter 'tagg'"),
        (lambda: alight.Image.from_id("fu-1"), InvalidError, "not the id of an image"),
    ],
)
def test_what_cannot_be_is_said_where_it_is_written(call, error, said):
    with pytest.raises(error, match=said):
        call()


def test_an_image_by_its_id_can_be_built_on():
    image = alight.Image.from_id("im-1").env({"A": "1"})
    assert ops(image.steps)[0] == {"op": "from_id", "image_id": "im-1"}
    assert alight.Image.from_id("im-1").object_id == "im-1"


class Warned(progress.Silent):
    def __init__(self):
        self.said = []

    def warn(self, text):
        self.said.append(text)


@pytest.fixture
def substitute(monkeypatch):
    """The steps of an image under a setting, and what was said."""

    def substitute(setting, image):
        monkeypatch.setenv("ALIGHT_IMAGE_SUBSTITUTES", setting)
        renderer = Warned()
        with progress.showing(renderer):
            return ops(image_substitutes.substituted(image.steps)), renderer.said

    return substitute


def test_debian_and_packages_stand_in_for_an_image(substitute):
    image = alight.Image.from_registry("nvidia/cuda:12.8.1", add_python="3.12").pip_install("torch")
    setting = "python:3=x/y:1; nvidia/cuda:*=debian_slim pip:nvidia-cuda-nvcc-cu12==12.8.* apt:build-essential apt:git"
    found, said = substitute(setting, image)
    assert found == [
        {"op": "debian_slim", "python": "3.12"},
        {"op": "apt_install", "packages": ["build-essential", "git"]},
        {"op": "pip_install", "tool": "pip", "packages": ["nvidia-cuda-nvcc-cu12==12.8.*"]},
        {"op": "pip_install", "tool": "pip", "packages": ["torch"]},
    ]
    assert len(said) == 1
    assert "nvidia/cuda:12.8.1 is not used: debian_slim" in said[0]


def test_without_add_python_it_is_the_callers(substitute):
    found, _ = substitute("a:1=debian_slim", alight.Image.from_registry("a:1"))
    assert found == [{"op": "debian_slim", "python": f"{sys.version_info[0]}.{sys.version_info[1]}"}]


def test_another_registrys_image_keeps_the_python_step(substitute):
    found, said = substitute("a:1=mirror.example/a:1", alight.Image.from_registry("a:1", add_python="3.12"))
    assert found == [{"op": "registry", "tag": "mirror.example/a:1"}, {"op": "python", "version": "3.12"}]
    assert said


@pytest.mark.parametrize("image", [alight.Image.debian_slim("3.11"), alight.Image.from_registry("b:1"), alight.Image()])
def test_what_nobody_named_stays(substitute, image):
    found, said = substitute("a:1=debian_slim; c:*=debian_slim", image)
    assert (found, said) == (ops(image.steps), [])


@pytest.mark.parametrize("text", ["a:1", "a:1=", "=debian_slim", "a:1=b c", "a:1=debian_slim torch", "a:1=b:1 pip:x"])
def test_a_setting_that_says_nothing_is_refused(text):
    with pytest.raises(InvalidError, match="does not say which base image"):
        image_substitutes.parse(text)


def test_the_first_entry_for_a_name_counts():
    assert image_substitutes.parse("a=b:1; a=c:1;\n x=y ;") == {"a": "b:1", "x": "y"}


def test_from_lines_of_a_dockerfile_are_substituted_with_their_arguments_filled_in(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGHT_IMAGE_SUBSTITUTES", "nvidia/cuda:12.*=debian_slim pip:torch; python:3=my.host/python:3")
    file = tmp_path / "Dockerfile"
    file.write_text("ARG TAG=11.0\nFROM nvidia/cuda:$TAG AS build\nFROM --platform=linux/amd64 python:3\nFROM build\n")

    def stand_ins(**more):
        image = alight.Image.from_dockerfile(file, context_dir=tmp_path, add_python="3.12", **more)
        return image_substitutes.substituted(image.steps)[0].op.get("stand_ins")

    registry = {"python:3": [{"op": "registry", "tag": "my.host/python:3"}]}
    assert stand_ins() == registry
    assert stand_ins(build_args={"TAG": "12.8"}) == {
        "nvidia/cuda:12.8": [
            {"op": "debian_slim", "python": "3.12"},
            {"op": "pip_install", "tool": "pip", "packages": ["torch"]},
        ],
        **registry,
    }
