"""Locks and names of images, from a script to containers and back."""

from __future__ import annotations

import json

import pytest

SCRIPT = """
import alight

app = alight.App("locked")
image = alight.Image.debian_slim("3.11").pip_install("six").run_commands("pip install idna")


@app.function(image=image)
def versions():
    import idna, six
    return six.__version__, idna.__version__


@app.local_entrypoint()
def main():
    print("SAW", *versions.remote())
"""

NAMED = """
import alight

app = alight.App("named")


@app.function(image=alight.Image.from_name("of-the-team:1"))
def version():
    import six
    return six.__version__


@app.local_entrypoint()
def main():
    print("SAW", version.remote())


if __name__ == "__main__":
    image = alight.Image.debian_slim("3.11").pip_install("six==1.16.0")
    image.publish("of-the-team:1")
    image.build()
    print("LOG", *image.logs.fetch())
"""


@pytest.mark.slow
def test_what_is_locked_is_what_is_built_until_the_recipe_changes(machine, tmp_path):
    script = tmp_path / "locked.py"
    script.write_text(SCRIPT)
    said = machine.run("image", "lock", script).stderr
    lock = tmp_path / "locked.image-lock.json"
    assert "Wrote" in said
    content = json.loads(lock.read_text())
    base, six, idna = content["images"][0]["steps"]
    assert base["locked"]["python"].startswith("3.11.")
    assert any(one.startswith("libc6=") for one in base["locked"]["apt"])
    assert six["locked"]["hashes"][0][0].startswith("sha256:")

    # As if it had been locked when these were the newest.
    six["locked"] = {"pip": ["six==1.15.0"]}
    idna["locked"] = {"pip": ["idna==3.4"]}
    lock.write_text(json.dumps(content))
    done = machine.run("run", script)
    assert "SAW 1.15.0 3.4" in done.stdout
    assert "images are built as" in done.stderr
    assert "not as locked" not in done.stderr

    script.write_text(SCRIPT.replace('"six")', '"six", "docutils")'))
    refused = machine.run("run", script, status=1).stderr
    assert "step 2, .pip_install('docutils', 'six'), changed (+docutils)" in refused
    assert "no longer fits" in machine.run("image", "lock", "--check", script, status=1).stderr
    assert "SAW 1.15.0" not in machine.run("run", script, ALIGHT_IMAGE_LOCK="none").stdout


def test_an_image_is_found_by_its_name_until_that_is_taken_away(machine, tmp_path):
    script = tmp_path / "named.py"
    script.write_text(NAMED)
    assert "there is no image of-the-team:1" in machine.run("run", script, status=1).stderr
    assert "six==1.16.0" in machine.python(script).stdout
    assert "SAW 1.16.0" in machine.run("run", script).stdout
    # Another file's test may have given names on this machine.
    assert any("of-the-team:1" in name.values() for name in machine.json("image", "names", "list"))
    machine.run("image", "names", "delete", "of-the-team:1", "-y")
    assert "there is no image of-the-team:1" in machine.run("run", script, status=1).stderr
