"""What `alight doctor` says of the programs that only some images need."""

from __future__ import annotations

import os
import subprocess

import pytest

from alight.node import doctor


@pytest.fixture
def kernel(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/filesystems").write_text("nodev\tproc\n\terofs\n")
    return tmp_path


@pytest.mark.parametrize(
    ("here", "level", "words"),
    [
        ({"buildah", "mkfs.erofs"}, doctor.OK, []),
        ({"buildah"}, doctor.WARNING, ["mkfs.erofs", "exported"]),
        (set(), doctor.WARNING, ["Dockerfiles cannot be built", "cannot be exported"]),
    ],
)
def test_what_is_lacking_is_named_with_what_it_is_for(monkeypatch, kernel, here, level, words):
    monkeypatch.setattr(
        doctor, "_run", lambda name, *_: subprocess.CompletedProcess([name], 0, "1", "") if name in here else None
    )
    check = doctor._image_tools(kernel)
    assert check.level == level
    assert all(word in check.sentence for word in words), check.sentence
    assert bool(check.fix) == bool(words)


def test_a_kernel_without_erofs_is_said_and_a_module_counts(tmp_path):
    assert not doctor._knows_erofs(tmp_path)
    modules = tmp_path / "lib/modules" / os.uname().release
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text("kernel/fs/erofs/erofs.ko.xz: kernel/lib/lz4.ko.xz\n")
    assert doctor._knows_erofs(tmp_path)
