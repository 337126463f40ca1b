"""Real builds: Debian, installs and interpreters, run by the tests' own runner without the node."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import http.server
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest

from alight.builder import Builder, HostConfig, digest, pythons
from alight.wire.errors import ImageBuildError
from alight.wire.spec import FileEntry, ImageSpec, digest_of, encode_tree
from tests.system import base
from tests.system.step_runner import ChrootRunner

DEBIAN = {"op": "debian_slim", "python": base.PYTHON}
TREE = [
    FileEntry("pkg/tool.py", digest=digest_of(b"print('tool')"), size=13),
    FileEntry("bin/tool", link="/pkg/tool.py"),
]


@pytest.fixture
def home():
    """A state directory that holds the base already."""
    made = base.new_home()
    yield made / "node"
    base.remove_home(made)


class Build:
    """One build with what was said of it."""

    def __init__(self, home: Path, *steps: dict, host: HostConfig | None = None, secrets: dict | None = None) -> None:
        self.events: list = []
        self.runner = ChrootRunner()
        self.builder = Builder(home, self.runner, host or HostConfig.read(), _lay)
        self.spec = ImageSpec(steps=(DEBIAN, *steps) if steps and steps[0]["op"] != "debian_slim" else steps)
        self.image = asyncio.run(self.builder.build(self.spec, secrets or {}, self.events.append))

    @property
    def log(self) -> str:
        return "\n".join(event.line for event in self.events if event.kind == "log")

    @property
    def files(self) -> set[str]:
        """What the topmost layer holds."""
        top = Path(self.image.layers[0])
        return {str(path.relative_to(top)) for path in top.rglob("*") if path.is_symlink() or not path.is_dir()}


async def _lay(tree: str, into: Path) -> None:
    assert tree == digest_of(encode_tree(TREE))
    digest.lay_tree(TREE, into, lambda _: io.BytesIO(b"print('tool')"))


def test_an_install_works_through_the_machines_settings_and_leaves_only_itself(home):
    built = Build(home, {"op": "pip_install", "tool": "pip", "packages": ["six"]})
    assert "usr/local/lib/python3.11/dist-packages/six.py" in built.files
    assert any(name.endswith("six.cpython-311.pyc") for name in built.files)
    assert all(name.startswith("usr/local/lib/python3.11/dist-packages/") for name in built.files)
    again = Build(home, {"op": "pip_install", "tool": "pip", "packages": ["six"]})
    assert not again.runner.steps
    assert again.image == built.image == again.builder.cached(again.spec)


@pytest.mark.slow
def test_a_debian_package_leaves_no_lists_or_downloads(home):
    built = Build(
        home, {"op": "apt_install", "packages": ["jq"]}, {"op": "run", "command": "echo '{\"a\":42}' | jq .a > /answer"}
    )
    assert (Path(built.image.layers[0]) / "answer").read_text() == "42\n"
    files = [path for path in Path(built.image.layers[1]).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 8_000_000
    assert not [path for path in files if path.suffix == ".deb" or "apt/lists" in str(path)]


def test_steps_see_settings_secrets_and_each_other_and_no_mount_stays(home):
    built = Build(
        home,
        {"op": "env", "vars": {"WORD": "it's here"}},
        {"op": "workdir", "path": "/srv/app"},
        {"op": "copy", "tree": digest_of(encode_tree(TREE)), "to": "/"},
        {"op": "run", "command": "python $(readlink -f /bin/tool) > out; echo $WORD >> out", "env": {"X": "1"}},
        {"op": "run", "command": 'test -n "$TOKEN" && echo "token $TOKEN" && cat out', "secrets": ["st-1"]},
        secrets={"st-1": {"TOKEN": "quite-secret"}},
    )
    assert built.log.endswith("token ****\ntool\nit's here")
    assert built.image.workdir == "/srv/app"
    assert Path(built.image.layers[-1], "bin").is_symlink()  # laying bin/tool did not replace the image's own link
    assert not built.files
    assert subprocess.run(["grep", "-rl", "quite-secret", home], capture_output=True, check=False).stdout == b""
    assert str(home) not in Path("/proc/self/mounts").read_text()


def test_a_package_that_does_not_exist_is_named(home):
    with pytest.raises(ImageBuildError, match="no-such-package-of-alight") as raised:
        Build(home, {"op": "pip_install", "tool": "pip", "packages": ["no-such-package-of-alight"]})
    assert "does not exist" in str(raised.value)
    assert not list((home / "layers").glob("tmp-*"))


@pytest.mark.slow
def test_a_local_mirror_serves_a_standalone_python(home, tmp_path):
    """The second way, without the world: uv fetches an interpreter from a server of the test's."""
    prefix = _some_python("3.12")
    with _Mirror(tmp_path, prefix) as downloads:
        built = Build(
            home,
            {"op": "debian_slim", "python": "3.12"},
            {"op": "run", "command": "python -c 'import ssl, sqlite3, sys; print(sys.version_info[:2], sys.prefix)'"},
            host=HostConfig(python_downloads=str(downloads)),
        )
    assert "from uv's standalone builds" in built.log
    assert "(3, 12) /usr/local" in built.log


@pytest.mark.slow
def test_an_interpreter_of_this_machine_is_moved_with_what_it_needs(home):
    _some_python("3.12")
    built = Build(
        home,
        {"op": "debian_slim", "python": "3.12"},
        {"op": "pip_install", "tool": "pip", "packages": ["six"]},
        {
            "op": "run",
            "command": "set -e; test ! -e /usr/local/lib/python3.12/EXTERNALLY-MANAGED; pip --version; uv pip list; "
            "for p in python python3; do $p -c 'import six, ssl, sqlite3, lzma, sys; print(sys.version)'; done",
        },
        host=HostConfig.read({**os.environ, "UV_PYTHON_DOWNLOADS_JSON_URL": "/nowhere.json"}),
    )
    assert built.image.python_version.startswith("3.12.")
    assert built.log.count("\n3.12.") == 2
    assert "(python 3.12)" in built.log
    assert "EXTERNALLY" not in str(built.files)


def test_a_python_that_nobody_has_names_the_three_ways(home):
    with pytest.raises(ImageBuildError) as raised:
        Build(home, {"op": "debian_slim", "python": "3.99"}, host=HostConfig(python_downloads="/nowhere.json"))
    for way in ("Debian's suites", "standalone build", "pyenv"):
        assert way in str(raised.value)
    assert raised.value.hint


def test_a_patch_version_that_is_not_to_be_had_is_said(home):
    built = Build(home, {"op": "debian_slim", "python": "3.11.99"}, host=HostConfig(python_downloads="/nowhere.json"))
    assert "Python 3.11.99 is not to be had here: taking Debian's 3.11." in built.log


def test_a_killed_build_is_swept(home):
    builder = Builder(home, ChrootRunner(), HostConfig.read(), _lay)
    pid = os.fork()
    if pid == 0:
        spec = ImageSpec(steps=(DEBIAN, {"op": "run", "command": "echo ready; sleep 60"}))
        try:
            asyncio.run(builder.build(spec, {}, lambda event: event.line == "ready" and os.kill(os.getpid(), 9)))
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == 9
    assert list((home / "layers").glob("tmp-*"))
    assert builder.sweep() == 1
    assert not list((home / "layers").glob("tmp-*"))


def _some_python(minor: str) -> Path:
    found = pythons._on_this_machine(minor)
    if not found:
        pytest.skip(f"no movable Python {minor} on this machine")
    return next(iter(found))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class _Mirror:
    """A directory served on localhost, holding the interpreter as uv's are packed, and uv's list of builds."""

    def __init__(self, folder: Path, prefix: Path) -> None:
        self.folder = folder
        self.archive = folder / "cpython.tar.gz"
        minor = pythons.minor_of(pythons._on_this_machine("3.12")[prefix])
        kept = folder / "python"
        (kept / "bin").mkdir(parents=True)
        (kept / "lib").mkdir()
        shutil.copy2(prefix / "bin" / f"python{minor}", kept / "bin")
        for library in (prefix / "lib").glob("libpython3*.so*"):
            shutil.copy2(library, kept / "lib", follow_symlinks=False)
        without_tests = shutil.ignore_patterns("test", "site-packages", "__pycache__", "*.a")
        shutil.copytree(prefix / "lib" / f"python{minor}", kept / "lib" / f"python{minor}", ignore=without_tests)
        (kept / "lib" / f"python{minor}" / "EXTERNALLY-MANAGED").touch()
        with tarfile.open(self.archive, "w:gz", compresslevel=1) as tar:
            tar.add(kept, "python")
        self.version = pythons._on_this_machine("3.12")[prefix]

    def __enter__(self) -> Path:
        handler = functools.partial(_Quiet, directory=str(self.folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        major, minor, patch = map(int, self.version.split("."))
        key = f"cpython-{self.version}-linux-{platform.machine()}-gnu"
        entry = {
            "name": "cpython",
            "arch": {"family": platform.machine(), "variant": None},
            "os": "linux",
            "libc": "gnu",
            "major": major,
            "minor": minor,
            "patch": patch,
            "prerelease": "",
            "url": f"http://127.0.0.1:{self.server.server_port}/{self.archive.name}",
            "sha256": hashlib.sha256(self.archive.read_bytes()).hexdigest(),
            "variant": None,
            "build": "20260101",
        }
        listing = self.folder / "downloads.json"
        listing.write_text(json.dumps({key: entry}))
        return listing

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
