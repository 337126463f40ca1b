"""The dashboard's files: libraries are what was published, nothing is parsed as HTML, every import leads somewhere."""

from __future__ import annotations

import hashlib
import re
import subprocess

import pytest
import tomllib

from tests.shape import tree

STATIC = tree.SOURCE / "alight" / "dashboard" / "static"
VENDOR = STATIC / "vendor"
SCRIPTS = sorted((STATIC / "js").rglob("*.js"))
LISTS = {"vendor.toml", "digests.toml"}
PARSED = re.compile(
    r"innerHTML|outerHTML\s*=|insertAdjacentHTML|document\.write|dangerouslySetInnerHTML|\beval\(|new Function"
)


def libraries():
    return tomllib.loads((VENDOR / "vendor.toml").read_text())["library"]


def test_libraries_are_what_their_digests_say():
    digests = tomllib.loads((VENDOR / "digests.toml").read_text())
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir()}
    assert {name: digest for name, digest in found.items() if name not in LISTS} == digests, "run scripts/vendor"


def test_every_library_brings_its_licence():
    for library in libraries():
        kept = [name for name in library["files"].values() if name.endswith("-LICENSE.txt")]
        assert kept, library["name"]
        assert all((VENDOR / name).stat().st_size > 500 for name in kept)
        assert library["licence"] in {"MIT", "Apache-2.0", "OFL-1.1"}


def test_what_was_replaced_is_gone():
    for library in libraries():
        scripts = [VENDOR / name for name in library["files"].values() if name.endswith(".mjs")]
        for old in library.get("replaced", {}):
            assert not [path.name for path in scripts if old in path.read_text()], old


def test_no_file_is_ignored_by_git():
    """What git does not see is in no wheel."""
    done = subprocess.run(
        ["git", "check-ignore", *STATIC.rglob("*")], cwd=tree.REPOSITORY, capture_output=True, text=True, check=False
    )
    assert not done.stdout


def test_the_page_has_nothing_inline():
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\bsrc=)", page)
    assert "http" not in re.sub(r"<!--.*?-->", "", page), "nothing comes from elsewhere"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(STATIC)))
class TestScripts:
    def test_it_says_why_it_exists(self, script):
        assert script.read_text().startswith("// ")

    def test_it_can_be_read_at_one_sitting(self, script):
        assert len(script.read_text().splitlines()) <= 400

    def test_nothing_is_parsed_as_html(self, script):
        assert not PARSED.search(script.read_text())

    def test_every_import_leads_somewhere(self, script):
        for path in re.findall(r"""(?:from|import\()\s*"([^"]+)""", script.read_text()):
            target = STATIC / path.removeprefix("/static/") if path.startswith("/") else script.parent / path
            assert target.resolve().is_file(), path

    def test_every_name_that_is_imported_is_exported(self, script):
        pattern = re.compile(r"""import \{([^}]+)\} from "(\.[^"]+\.js)";""")
        for names, path in pattern.findall(script.read_text()):
            text = (script.parent / path).read_text()
            for name in (one.split(" as ")[0].strip() for one in names.split(",") if one.strip()):
                exported = rf"export (?:async )?(?:function|const|class) {name}\b|export \{{[^}}]*\b{name}\b"
                assert re.search(exported, text), f"{path} has no {name}"
