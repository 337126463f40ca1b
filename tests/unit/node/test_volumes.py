"""Volumes: what may be mounted, and that what was mounted is what was meant."""

from __future__ import annotations

import os

import pytest

from alight.node.volumes import Volumes, same_directory
from alight.wire import errors

VOLUME = "vo-0000000000000000000001"


def test_a_sub_path_is_made_and_stays_inside(tmp_path):
    volumes = Volumes(tmp_path)
    data = volumes.data(VOLUME)
    assert volumes.mount(VOLUME, None) == str(data)
    assert volumes.mount(VOLUME, "/") == str(data)
    assert volumes.mount(VOLUME, "a/b") == str(data / "a/b")
    assert (data / "a/b").is_dir()
    (data / "out").symlink_to("/etc")
    (data / "file").touch()
    for path in ("out", "../../x", "file", "out/x"):
        with pytest.raises(errors.InvalidError):
            volumes.mount(VOLUME, path)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "x" * 100])
def test_ids_that_would_lead_elsewhere(tmp_path, name):
    with pytest.raises(errors.InvalidError):
        Volumes(tmp_path).data(name)


def test_only_the_node_may_traverse_their_root(tmp_path):
    Volumes(tmp_path)
    assert (tmp_path / "volumes").stat().st_mode & 0o777 == 0o711


def test_an_exchanged_directory_is_noticed(tmp_path):
    real, other = tmp_path / "real", tmp_path / "other"
    real.mkdir()
    other.mkdir()
    assert same_directory(os.getpid(), str(real), str(real))
    assert not same_directory(os.getpid(), str(other), str(real))
    assert not same_directory(os.getpid(), str(tmp_path / "missing"), str(real))
    (tmp_path / "link").symlink_to(real)
    assert same_directory(os.getpid(), str(tmp_path / "link"), str(real)), "images may reach a mount through a link"
