"""Images of a real registry, built by the tests' own runner and run through the command line."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from alight.builder import Builder, HostConfig, pythons
from alight.wire.errors import ImageBuildError
from alight.wire.spec import ImageSpec
from tests.system import base
from tests.system.registry import PASSWORD, USER, Registry, debian
from tests.system.step_runner import ChrootRunner
from tests.unit.builder.archives import entry, image, index, tar

LOGIN = {"REGISTRY_USERNAME": USER, "REGISTRY_PASSWORD": PASSWORD}

#: What takes the Python out of the test's Debian.
NO_PYTHON = tar(
    *(entry(f"usr/local/bin/.wh.{name}") for name in ("python", "python3", "uv")),
    *(entry(f"usr/bin/.wh.{name}") for name in ("python3", "python3.11")),
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory, base_layers):
    """Open to everybody, with the test's Debian in it: as it is, and without a Python."""
    with Registry(tmp_path_factory.mktemp("registry") / "open") as served:
        served.push("team/debian:1", debian(base_layers, Env=["PATH=/opt/x:/usr/bin:/bin", "WORD=there"]))
        served.push("team/bare:1", debian(base_layers, NO_PYTHON, WorkingDir="/srv", User="nobody", Cmd=["x"]))
        yield served


@pytest.fixture
def home():
    made = base.new_home()
    yield made / "node"
    base.remove_home(made)


def host(registry: Registry, home: Path) -> HostConfig:
    file = home / "registries.conf"
    file.write_text(f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n')
    return HostConfig.read({**os.environ, "CONTAINERS_REGISTRIES_CONF": str(file)})


class Build:
    """One build with what was said of it."""

    def __init__(self, home: Path, registry: Registry, *steps: dict, secrets: dict | None = None) -> None:
        self.said: list[str] = []
        self.runner = ChrootRunner()
        self.builder = Builder(home, self.runner, host(registry, home), _no_trees)
        self.spec = ImageSpec(steps=steps)
        self.image = asyncio.run(self.builder.build(self.spec, secrets or {}, lambda one: self.said.append(one.line)))

    @property
    def log(self) -> str:
        return "\n".join(self.said)


async def _no_trees(digest: str, into: Path) -> None:
    raise AssertionError(digest)


def start(registry: Registry, name: str, **more: object) -> dict:
    return {"op": "registry", "tag": f"{registry.host}/{name}", **more}


@pytest.mark.slow
def test_an_image_with_a_python_of_its_own_takes_installs(home, registry):
    built = Build(
        home,
        registry,
        start(registry, "team/debian:1"),
        {"op": "python"},
        {"op": "pip_install", "tool": "pip", "packages": ["six"]},
        {"op": "run", "command": "python -c 'import six, os; print(os.environ[\"WORD\"])'; command -v uv"},
    )
    assert "there\n" in built.log
    assert built.image.python_version.startswith("3.11.")
    assert built.image.env["PATH"] == "/usr/local/bin:/opt/x:/usr/bin:/bin"
    (record,) = [
        content for file in (home / "images").glob("*.json") if (content := json.loads(file.read_text())).get("base")
    ]
    assert record["base"]["tag"] == f"{registry.host}/team/debian:1"
    assert record["base"]["digest"].startswith("sha256:")
    again = Builder(home, ChrootRunner(), HostConfig(), _no_trees).cached(built.spec)
    assert again == built.image  # and nobody asked a registry


@pytest.mark.slow
def test_two_images_share_what_they_have_in_common(home, registry):
    one = Build(home, registry, start(registry, "team/debian:1"))
    two = Build(home, registry, start(registry, "team/bare:1"))
    assert one.image.layers == two.image.layers[1:]
    assert "1 to download" in two.log
    assert (two.image.workdir, two.image.cmd) == ("/srv", ("x",))


@pytest.mark.slow
def test_an_image_without_a_python_says_how_to_add_one(home, registry):
    with pytest.raises(ImageBuildError, match="team/bare:1 has no python on its PATH") as raised:
        Build(home, registry, start(registry, "team/bare:1"), {"op": "python"})
    assert "add_python" in raised.value.hint


@pytest.mark.slow
def test_a_python_is_added(home, registry):
    if not pythons._on_this_machine("3.12"):
        pytest.skip("no movable Python 3.12 on this machine")
    built = Build(
        home,
        registry,
        start(registry, "team/bare:1"),
        {"op": "python", "version": "3.12"},
        {"op": "pip_install", "tool": "pip", "packages": ["six"]},
        {"op": "run", "command": "python -c 'import six, ssl, sqlite3, sys; print(sys.version)'; pip --version"},
    )
    assert "\n3.12." in built.log
    assert built.image.python_path == "/usr/local/bin/python"
    assert built.image.python_version.startswith("3.12.")
    assert built.image.env["PATH"].startswith("/usr/local/bin:")


@pytest.mark.slow
def test_a_tag_that_moved_is_seen_with_force_only(home, registry):
    registry.push("moving:1", image(tar(entry("one", b""))))
    first = Build(home, registry, start(registry, "moving:1"))
    registry.push("moving:1", image(tar(entry("two", b""))))
    assert Build(home, registry, start(registry, "moving:1")).image == first.image
    forced = Build(home, registry, start(registry, "moving:1", force=True))
    assert [path.name for path in Path(forced.image.layers[0]).iterdir()] == ["two"]


@pytest.mark.slow
def test_by_digest_and_through_an_index(home, registry):
    ours, theirs = image(tar(entry("ours", b""))), image(tar(entry("theirs", b"")), architecture="arm64")
    registry.push("many:1", ours, theirs, index(arm64=theirs, amd64=ours))
    both = [Build(home, registry, start(registry, name)).image.layers for name in ("many:1", f"many@{ours.digest}")]
    assert both[0] == both[1]
    assert (Path(both[0][0]) / "ours").exists()


@pytest.mark.slow
def test_zstd_layers(home, registry):
    zstd = pytest.importorskip("backports.zstd")
    plain = tar(entry("file", b"content"))
    registry.push("squeezed:1", image(plain, packed=[zstd.compress(plain)]))
    built = Build(home, registry, start(registry, "squeezed:1"))
    assert (Path(built.image.layers[0]) / "file").read_bytes() == b"content"


@pytest.mark.slow
@pytest.mark.parametrize("auth", ["htpasswd", "token"])
def test_credentials_come_from_a_secret(home, tmp_path, auth):
    with Registry(tmp_path / "registry", auth) as closed:
        closed.push("private/x:1", image(tar(entry("file", b""))))
        with pytest.raises(ImageBuildError, match="does not let everybody have private/x"):
            Build(home, closed, start(closed, "private/x:1"))
        wrong = {"st-1": {**LOGIN, "REGISTRY_PASSWORD": "wrong"}}
        with pytest.raises(ImageBuildError, match="does not let the user 'reader'"):
            Build(home, closed, start(closed, "private/x:1", secrets=["st-1"]), secrets=wrong)
        built = Build(home, closed, start(closed, "private/x:1", secrets=["st-1"]), secrets={"st-1": LOGIN})
        assert (Path(built.image.layers[0]) / "file").exists()
        assert PASSWORD not in built.log


@pytest.mark.slow
def test_what_the_registry_lacks_is_named(home, registry):
    said = f"{registry.host} has no image team/debian:no-such-tag: manifest unknown"
    with pytest.raises(ImageBuildError, match=said):
        Build(home, registry, start(registry, "team/debian:no-such-tag"))
