"""A locked step installs what its lock says and nothing else; what cannot be held to it is said."""

from __future__ import annotations

import pytest

from alight.builder import commands, installed, lock, recipe
from alight.builder.installs import Indexes
from alight.wire.errors import InvalidError
from alight.wire.spec import ImageSpec

BASE = {"op": "debian_slim", "python": "3.11"}
SIX = {"pip": ["six==1.16.0"], "hashes": [["sha256:" + "a" * 64]]}


def made(uv: bool = True, **op):
    _, step = recipe.parse(ImageSpec(steps=(BASE, op)))
    plain = commands.command(step, Indexes(), "/python", ("/bin/sh", "-c"), uv=uv)
    return lock.command(plain, step, "/python", "/machines.txt")


def test_an_install_takes_exactly_what_is_locked_and_checks_it():
    command = made(op="pip_install", packages=["six>=1"], extra_options="-U --no-build-isolation -c x", locked=SIX)
    assert command.argv[:7] == ("uv", "pip", "install", "--python", "/python", "--compile-bytecode", "--no-deps")
    assert "six>=1" not in command.argv
    assert "-U" not in command.argv
    assert "x" not in command.argv
    assert "--no-build-isolation" in command.argv
    assert command.files["locked.txt"].decode() == f"six==1.16.0 --hash=sha256:{'a' * 64}\n"


def test_pip_gets_all_digests_or_none():
    partly = {"pip": ["a==1", "b==2"], "hashes": [["sha256:aa"], []]}
    packages = {"op": "pip_install", "packages": ["a", "b"], "locked": partly}
    assert made(**packages).files["locked.txt"] == b"a==1 --hash=sha256:aa\nb==2\n"
    without_uv = made(uv=False, **packages)
    assert without_uv.argv[:3] == ("/python", "-m", "pip")
    assert without_uv.files["locked.txt"] == b"a==1\nb==2\n"


def test_a_lock_of_nothing_installs_nothing():
    assert made(op="pip_install", packages=["six"], locked={"pip": []}).argv == ("true",)


def test_debian_packages_are_asked_for_by_version():
    script = made(op="apt_install", packages=["jq"], locked={"apt": ["jq=1.6-2", "libjq1=1.6-2"]}).argv[-1]
    assert "install -y --allow-downgrades jq=1.6-2 libjq1=1.6-2\n" in script


def test_a_command_sees_its_lock_as_constraints_beside_the_machines_own():
    locked = {"pip": ["a==1", "b @ https://host/b.whl"]}
    command = made(op="run", command="pip install a", locked=locked)
    assert command.env["PIP_CONSTRAINT"] == command.env["UV_CONSTRAINT"]
    assert command.env["PIP_CONSTRAINT"] == "/machines.txt /opt/alight/build/locked.txt"
    assert command.files["locked.txt"] == b"a==1\n"


def test_conda_packages_come_from_their_addresses():
    command = made(op="micromamba_install", packages=["zlib"], locked={"conda": ["https://c/zlib.conda#ff"]})
    assert command.argv[-1] == "micromamba install -y -n base -f /opt/alight/build/locked.txt"
    assert command.files["locked.txt"] == b"@EXPLICIT\nhttps://c/zlib.conda#ff\n"
    other = made(op="micromamba_install", packages=["zlib"], locked={"conda": ["zlib=1.3=h1"]})
    assert other.argv[-1].endswith("--no-deps -c conda-forge zlib=1.3=h1")


def test_what_came_besides_is_said():
    before = installed.State(apt={"a": "1"})
    after = installed.State({"x": ("six", "six==2")}, {}, {"a": "1", "b": "2"})
    assert lock.differences({"pip": ["six==1"], "apt": ["b=2"]}, before, after) == [
        "not as locked (pip): +six==2, -six==1"
    ]
    assert lock.differences({"pip": ["six==2"], "apt": ["b=2"]}, before, after) == []


@pytest.mark.parametrize(
    "locked",
    [
        {"pip": ["--index-url=http://evil"]}, {"pip": ["a==1\n-r /etc/passwd"]}, {"apt": ["-o=Dpkg::x"]},
        {"hashes": [["nonsense"]]}, {"base": "latest"}, {"python": "3; rm"}, ["six"], {"bases": {"x": "y"}},
    ],
)  # fmt: skip
def test_a_lock_that_somebody_edited_cannot_smuggle_options(locked):
    with pytest.raises(InvalidError, match="lock"):
        made(op="pip_install", packages=["six"], locked=locked)


def test_digests_are_read_from_what_uv_writes():
    text = "six==1.16.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\nIdna==3 \\\n    --hash=sha256:cc\n"
    assert lock.parse_hashes(text) == {"six==1.16.0": ["sha256:aa", "sha256:bb"], "idna==3": ["sha256:cc"]}
