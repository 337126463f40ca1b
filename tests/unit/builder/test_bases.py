"""Where Debian comes from: the machine's own mirror for any suite, without its credentials in the image."""

from __future__ import annotations

import pytest

from alight.builder import HostConfig, bases

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.lab/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/lab.gpg

Types: deb
URIs: http://mirror.lab/security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://elsewhere/other
Suites: bookworm
Components: main
Enabled: no
"""


@pytest.fixture
def debian(tmp_path):
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_CODENAME="bookworm"\n')
    return tmp_path


def uris(root, suite="bookworm", **host):
    return {source.suite: source.uri for source in bases.debian_sources(suite, HostConfig(**host), root)}


def test_a_machine_that_is_not_debian_uses_debians_own_mirror(tmp_path):
    assert uris(tmp_path)["bookworm"] == "http://deb.debian.org/debian"
    assert uris(tmp_path)["bookworm-security"] == "http://deb.debian.org/debian-security"


def test_the_mirror_of_a_debian_machine_serves_every_suite(debian):
    (debian / "etc/apt/sources.list.d/debian.sources").write_text(DEB822)
    assert uris(debian, "trixie") == {
        "trixie": "http://mirror.lab/debian",
        "trixie-updates": "http://mirror.lab/debian",
        "trixie-security": "http://mirror.lab/security",
    }
    assert bases.debian_sources("trixie", HostConfig(), debian)[0].signed_by == "/usr/share/keyrings/lab.gpg"


def test_one_line_sources_are_read_too(debian):
    (debian / "etc/apt/sources.list").write_text(
        "# deb http://commented/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/k.gpg trusted=yes] https://user:pw@one/debian bookworm main non-free # x\n"
        "deb cdrom:[Debian]/ bookworm-updates main\n"
        "deb http://third/party stable main\n"
    )
    first = bases.debian_sources("bookworm", HostConfig(), debian)[0]
    assert (first.uri, first.signed_by, first.trusted) == ("https://user:pw@one/debian", "/k.gpg", True)
    assert first.line("/k.gpg") == "deb [signed-by=/k.gpg trusted=yes] https://user:pw@one/debian bookworm main"
    assert uris(debian)["bookworm-updates"] == "http://deb.debian.org/debian"


def test_a_key_in_the_source_itself_is_kept_whole(debian):
    (debian / "etc/apt/sources.list.d/x.sources").write_text(
        "Types: deb\nURIs: http://lab/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n"
        " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n"
    )
    key = bases.debian_sources("bookworm", HostConfig(), debian)[0].signed_by
    assert key == "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----"


def test_the_setting_wins(debian):
    (debian / "etc/apt/sources.list.d/debian.sources").write_text(DEB822)
    found = uris(debian, debian_mirror="http://set/debian/")
    assert (found["bookworm"], found["bookworm-security"]) == ("http://set/debian/", "http://set/debian-security")


@pytest.mark.parametrize(
    ("minor", "suite"), [("3.9", "bullseye"), ("3.11", "bookworm"), ("3.13", "trixie"), ("3.12", None), ("3.14", None)]
)
def test_each_python_of_debian_has_its_suite(minor, suite):
    assert bases.suite_for(minor) == suite


def test_what_is_not_released_is_no_suite_but_the_last_resort():
    assert bases.testing_for("3.14") == "forky"
    assert bases.testing_for("3.15") is None


def test_the_whole_version_is_read_from_the_package_list(tmp_path):
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(
        "Package: python3.11-minimal\nVersion: 9.9.9-1\n\nPackage: python3.11\nStatus: x\nVersion: 3.11.2-6+deb12u6\n\n"
    )
    assert bases.python_version(tmp_path, "bookworm") == "3.11.2"
