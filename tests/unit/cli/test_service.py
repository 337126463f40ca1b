"""Protects the services of systemd: units that it can read, and what `doctor` says of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alight.cli import doctor, service
from alight.sdk import config
from alight.wire.errors import Error


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(service, "UNITS", tmp_path)
    return tmp_path


def write(folder, home=service.HOME):
    for name, text in service.units(home, "").items():
        (folder / name).write_text(text)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
@pytest.mark.parametrize("home", ["/var/lib/alight", "/srv/a folder of 100%/alight"])
def test_systemd_understands_them(folder, home):
    write(folder, Path(home))
    files = [str(path) for path in folder.iterdir()]
    done = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True, check=False)
    about = [line for line in done.stderr.splitlines() if "alight" in line]
    assert (done.returncode, about) == (0, []), done.stderr


def test_the_python_that_they_start_is_found_again(folder, monkeypatch):
    write(folder)
    assert service.python() == Path(sys.executable)
    monkeypatch.setattr(sys, "executable", "/opt/a place with 100%/bin/python")
    write(folder)
    assert service.python() == Path(sys.executable)


def test_doctor_says_whether_apps_come_back(folder, monkeypatch):
    monkeypatch.setattr(config, "home", lambda: service.HOME)
    assert "`sudo alight server install` has systemd do it" in doctor._boot().sentence
    write(folder)
    monkeypatch.setattr(service, "state", lambda: dict.fromkeys(service.units(service.HOME, ""), "enabled"))
    assert doctor._boot().level == "ok"
    monkeypatch.setattr(service, "state", lambda: dict.fromkeys(service.units(service.HOME, ""), "disabled"))
    assert "does not start the services at boot" in doctor._boot().sentence
    monkeypatch.setattr(sys, "executable", "/opt/removed/bin/python")
    write(folder)
    assert "/opt/removed/bin/python, which does not exist any more" in doctor._boot().sentence
    monkeypatch.setattr(config, "home", lambda: Path("/elsewhere"))
    assert "/elsewhere" in doctor._boot().sentence


def test_only_root_with_systemd_installs(folder, monkeypatch):
    monkeypatch.setattr(service.os, "geteuid", lambda: 1000)
    with pytest.raises(Error, match="needs root"):
        service.check_can_install()
    monkeypatch.setattr(service.os, "geteuid", lambda: 0)
    monkeypatch.setattr(service.shutil, "which", lambda name: None)
    with pytest.raises(Error, match="not started by systemd"):
        service.check_can_install()


def test_settings_of_the_services_are_read_as_systemd_reads_them(tmp_path, monkeypatch):
    file = tmp_path / "alight"
    monkeypatch.setattr(service, "SETTINGS", file)
    assert service.settings() == {}
    file.write_text("# ALIGHT_A=1\nALIGHT_VOLUMES=/srv/volumes\nALIGHT_B='of two words'\nPATH=/x\nALIGHT_C=\"open\n")
    assert service.settings() == {"ALIGHT_VOLUMES": "/srv/volumes", "ALIGHT_B": "of two words"}
