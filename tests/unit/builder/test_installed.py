"""What is installed in layers is read from their files, whatever those are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from alight.builder import installed

SITE = "usr/local/lib/python3.11/dist-packages"


def package(layer: Path, name: str, version: str, **files: str) -> Path:
    folder = layer / SITE / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file.replace("_json", ".json")).write_text(text)
    return folder


def status(layer: Path, *packages: tuple[str, str]) -> None:
    file = layer / "var/lib/dpkg/status"
    file.parent.mkdir(parents=True)
    blocks = [f"Package: {name}\nStatus: install ok installed\nVersion: {version}\n" for name, version in packages]
    removed = "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n"
    file.write_text("\n".join([*blocks, removed]))


@pytest.fixture
def layers(tmp_path):
    made = [tmp_path / name for name in ("low", "high")]
    for one in made:
        one.mkdir()
    return made


def test_packages_of_each_kind_are_found(layers):
    low, _ = layers
    package(low, "Foo.Bar", "1.0")
    commit = {"url": "https://host/own/repo", "vcs_info": {"vcs": "git", "commit_id": "abc123"}}
    package(low, "mine", "2", direct_url_json=json.dumps(commit))
    status(low, ("jq", "1.6-2"), ("libc6", "2.36"))
    conda = low / "opt/conda/conda-meta"
    conda.mkdir(parents=True)
    (conda / "zlib-1.3-h1_0.json").write_text(json.dumps({"name": "zlib", "url": "https://c/zlib.conda", "md5": "ff"}))
    assert installed.packages([low]) == {
        "pip": ["foo-bar==1.0", "mine @ git+https://host/own/repo@abc123"],
        "apt": ["jq=1.6-2", "libc6=2.36"],
        "conda": ["https://c/zlib.conda#ff"],
    }


def test_what_a_layer_adds_is_what_was_not_there_before(layers):
    low, high = layers
    package(low, "six", "1.16.0")
    package(high, "six", "1.17.0")
    status(low, ("a", "1"), ("b", "1"))
    status(high, ("a", "1"), ("b", "2"))
    before = installed.after([low])
    assert installed.added(before, installed.after([low, high])) == {
        "pip": ["six==1.17.0"],
        "apt": ["b=2"],
        "conda": [],
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts are device files")
def test_what_a_layer_takes_away_is_gone(layers):
    low, high = layers
    package(low, "six", "1.16.0")
    (high / SITE).mkdir(parents=True)
    os.mknod(high / SITE / "six-1.16.0.dist-info", 0o20644, os.makedev(0, 0))
    assert installed.packages([high, low])["pip"] == []


def test_links_of_a_user_lead_nowhere(layers, tmp_path):
    low, _ = layers
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"url": "https://host/secret", "vcs_info": {"commit_id": "secret"}}))
    (package(low, "six", "1") / "direct_url.json").symlink_to(secret)
    (low / "var/lib").mkdir(parents=True)
    (low / "var/lib/dpkg").symlink_to(tmp_path)
    (tmp_path / "status").write_text("Package: outside\nStatus: install ok installed\nVersion: 1\n")
    (low / "opt").symlink_to("/usr")
    assert installed.packages([low]) == {"pip": ["six==1"], "apt": [], "conda": []}


def test_it_is_read_once(layers):
    low, _ = layers
    package(low, "six", "1")
    assert installed.packages([low])["pip"] == ["six==1"]
    (low / SITE / "six-1.dist-info").rmdir()
    assert installed.packages([low])["pip"] == ["six==1"]
