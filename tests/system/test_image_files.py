"""Images as files: what one machine wrote, another runs; what was tampered with is refused, and nothing of it stays."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from alight.builder import layerfile, portable
from alight.builder.exchange import Exchange
from alight.builder.inventory import Inventory
from alight.builder.layers import LayerStore
from alight.wire.errors import InvalidError

pytestmark = pytest.mark.skipif(shutil.which("mkfs.erofs") is None, reason="erofs-utils is not installed")

SCRIPT = """
import os
import alight

app = alight.App("files")
image = (
    alight.Image.debian_slim("3.11").pip_install("six").env({"WORD": "kept"}).workdir("/srv")
    .run_commands("rm /etc/motd; mkdir -p /srv; echo made > /srv/made; chmod 640 /srv/made; chown 33 /srv/made")
)
if "IMPORTED" in os.environ:
    image = alight.Image.from_id(os.environ["IMPORTED"]).run_commands("echo more >> /srv/made")


@app.function(image=image)
def look():
    import six

    info = os.stat("/srv/made")
    return [os.getcwd(), os.environ["WORD"], six.__name__, open("/srv/made").read(), oct(info.st_mode), info.st_uid,
            os.path.exists("/etc/motd")]


@app.local_entrypoint()
def main():
    print("SAW", look.remote())
"""


@pytest.fixture
def layer(tmp_path):
    """A layer as overlayfs writes it: a whiteout, an opaque directory, owners, links, attributes."""
    root = tmp_path / "layer"
    (root / "folder/below").mkdir(parents=True)
    (root / "folder/file").write_text("text\n")
    os.chown(root / "folder/file", 33, 34)
    os.utime(root / "folder/file", (1, 2))
    os.link(root / "folder/file", root / "folder/twin")
    (root / "link").symlink_to("/etc/passwd")
    (root / "tool").write_bytes(b"x" * 100_000)
    (root / "tool").chmod(0o4755)
    os.mknod(root / "gone", 0o20000, os.makedev(0, 0))
    os.setxattr(root / "folder/below", "trusted.overlay.opaque", b"y")
    return root


def test_a_layer_comes_back_as_it_was_and_its_file_is_always_the_same(layer, tmp_path):
    packed = layerfile.pack(layer, tmp_path / "one.erofs")
    assert layerfile.pack(layer, tmp_path / "two.erofs") == packed
    (tmp_path / "at").mkdir()
    (tmp_path / "back").mkdir()
    layerfile.unpack(tmp_path / "one.erofs", packed, tmp_path / "at", tmp_path / "back")
    back = tmp_path / "back"
    assert layerfile.content_of(back) == layerfile.content_of(layer) == packed.content
    assert os.stat(back / "folder/twin").st_ino == os.stat(back / "folder/file").st_ino
    assert os.stat(back / "folder/file").st_mtime == 2
    assert os.getxattr(back / "folder/below", "trusted.overlay.opaque") == b"y"
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


def test_a_layers_file_can_be_the_lower_of_an_overlay_without_being_unpacked(layer, tmp_path):
    """What a cluster may do with it later: the kernel mounts it, whiteouts work, writes go elsewhere."""
    layerfile.pack(layer, tmp_path / "top.erofs")
    for name in ("low", "high", "up", "work", "all"):
        (tmp_path / name).mkdir()
    (tmp_path / "low/gone").write_text("hidden")
    (tmp_path / "low/stays").write_text("seen")
    script = (
        f"cd {tmp_path}; mount -t erofs -o ro top.erofs high || mount -t erofs -o ro,loop top.erofs high; "
        "mount -t overlay x -o lowerdir=high:low,upperdir=up,workdir=work all; "
        "cat all/stays; test ! -e all/gone; echo new > all/folder/file; cat high/folder/file"
    )
    done = subprocess.run(["unshare", "-m", "sh", "-ec", script], capture_output=True, text=True, check=False)
    assert done.stdout == "seentext\n", done.stderr


def test_any_change_to_a_layer_changes_its_content(layer):
    before = layerfile.content_of(layer)
    for change in (
        lambda: (layer / "tool").chmod(0o755),
        lambda: os.utime(layer / "folder/file", (1, 3)),
        lambda: os.setxattr(layer / "tool", "user.x", b"1"),
        lambda: (layer / "tool").write_bytes(b"y" * 100_000),
        lambda: (layer / "gone").unlink(),
    ):
        change()
        after = layerfile.content_of(layer)
        assert after != before
        before = after


def test_device_files_are_refused(layer):
    os.mknod(layer / "disk", 0o60600, os.makedev(8, 0))
    with pytest.raises(InvalidError, match="device file 'disk'"):
        layerfile.content_of(layer)


@pytest.mark.parametrize("harm", ["file", "size", "content", "manifest", "absent"])
def test_what_was_tampered_with_is_refused_and_leaves_nothing(harm, layer, tmp_path):
    file = tmp_path / "one.erofs"
    packed = layerfile.pack(layer, file)
    if harm == "file":
        with file.open("r+b") as opened:
            opened.seek(3000)
            opened.write(b"harm")
    said = portable.Layer(
        packed.digest, packed.size + (harm == "size"), "0" * 64 if harm == "content" else packed.content
    )
    manifest = portable.Manifest(os.uname().machine, (said,), python="/usr/bin/python3").encoded()
    name = portable.name_of(manifest)
    home = tmp_path / "home"
    store = LayerStore(home)
    exchange = Exchange(home, store, Inventory(home))

    def take() -> None:
        with exchange.taking(name, manifest + b" " * (harm == "manifest")) as taking:
            if harm != "absent":
                with taking.arriving() as arriving:
                    shutil.copy(file, arriving.file)
                    taking.lay_out(said, arriving)
            taking.finish()

    with pytest.raises(InvalidError):
        take()
    assert not [path for path in (home / "layers").iterdir() if path.suffix != ".lock"]


@pytest.mark.slow
def test_an_image_of_one_machine_runs_on_another(machine, fresh_machine, tmp_path):
    script = tmp_path / "files.py"
    script.write_text(SCRIPT)
    assert "kept" in machine.run("run", script).stdout
    (built,) = [one for one in machine.json("image", "list") if "echo made" in one["title"]][:1]
    archive = tmp_path / "image.tar"
    digest = machine.run("image", "export", built["ids"][0], archive).stdout.strip()
    again = machine.run("image", "export", built["ids"][0], tmp_path).stdout.strip()
    assert digest == again
    with tarfile.open(archive) as opened:
        names = opened.getnames()
    assert sorted(names[1:]) == sorted(f"layers/{path.name}" for path in (tmp_path / "layers").iterdir())

    other = fresh_machine
    refused = other.run("image", "import", archive, "--digest", "sha256:" + "0" * 64, status=1)
    assert digest in refused.stderr
    image_id = other.run("image", "import", archive).stdout.strip()
    saw = other.run("run", script, IMPORTED=image_id).stdout
    assert "SAW ['/srv', 'kept', 'six', 'made\\nmore\\n', '0o100640', 33, False]" in saw
    told = other.run("image", "import", tmp_path)
    assert told.stdout.strip() == image_id
    assert "0 of" in told.stderr

    damaged = json.loads((tmp_path / "manifest.json").read_bytes())
    damaged["layers"][0]["digest"] = "../../../../etc/shadow"
    (tmp_path / "manifest.json").write_text(json.dumps(damaged))
    assert "no image of Alight's" in other.run("image", "import", tmp_path, status=1).stderr
