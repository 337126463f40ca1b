"""Images as public training scripts define them, with small packages in the place of large ones: their lines are taken
literally, because it is the spelling that scripts share.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

HEAD = """
from pathlib import Path
import modal
from modal import App, Image as ModalImage, Secret, Volume

app = App("seeds", secrets=[Secret.from_dict({"HF_TOKEN": "x"})])
volume = Volume.from_name("seed-data", create_if_missing=True)
HERE = Path(__file__).parent
"""

#: nanoGPT: packages, a local repository copied in, a working directory.
COPIED = """
IMAGE = (
    ModalImage.debian_slim(python_version="3.11")
    .pip_install("six", "tqdm")
    .add_local_dir(local_path=HERE / "nanoGPT", remote_path="/root/nanoGPT", copy=True)
    .workdir("/root/nanoGPT")
)

@app.function(image=IMAGE, volumes={"/data": volume}, timeout=60 * 60)
def train():
    import subprocess, six, tqdm
    return subprocess.run(["python", "train.py"], capture_output=True, text=True).stdout
"""

#: A vendor's base with a Python added, uv from pip, installs into the system, as scripts for GPUs spell it.
LITERAL = """
cuda_version, flavor, operating_sys = "12.8.1", "devel", "ubuntu24.04"
tag = f"{cuda_version}-{flavor}-{operating_sys}"

IMAGE = (
    ModalImage.from_registry(f"nvidia/cuda:{tag}", add_python="3.11")
    .apt_install("jq")
    .pip_install("uv")
    .run_commands("uv pip install six idna --system")
    .run_commands([
        "pip install --upgrade pip",
        "pip install uv",
        "uv pip install --no-deps -U docutils --system",
        "uv pip install --no-build-isolation packaging --system",
    ])
    .env({"HF_HOME": "/model_cache", "HF_HUB_ENABLE_HF_TRANSFER": "1"})
)

with IMAGE.imports():
    import docutils
    import six

@app.function(image=IMAGE, gpu=None, volumes={"/data": volume})
def train(steps: int = 3):
    import importlib.metadata, os, shutil, sys
    versions = {name: importlib.metadata.version(name) for name in ("six", "idna", "docutils", "packaging")}
    pip = tuple(map(int, importlib.metadata.version("pip").split(".")[:2]))
    return sys.version_info[:2], sorted(versions), pip > (23, 1), bool(shutil.which("uv")), os.environ["HF_HOME"], steps
"""

MAIN = """

@app.local_entrypoint()
def main():
    print("SAW", train.remote())
"""


@pytest.fixture
def script(tmp_path: Path):
    (tmp_path / "nanoGPT").mkdir()
    (tmp_path / "nanoGPT/train.py").write_text("print('trained here')\n")

    def write(body: str) -> Path:
        path = tmp_path / "seed.py"
        path.write_text(textwrap.dedent(HEAD) + body + MAIN)
        return path

    return write


def test_a_local_repository_is_part_of_the_image_and_its_working_directory(machine, script):
    assert "SAW trained here" in machine.run("run", script(COPIED)).stdout


@pytest.mark.slow
def test_the_lines_of_gpu_scripts_work_on_a_base_that_stands_in(machine, script):
    path = script(LITERAL)
    assert "--steps" in machine.run("run", f"{path}::train", "--help").stdout
    done = machine.run("run", "--substitute-base", "nvidia/cuda:*=debian_slim", path)
    assert "SAW ((3, 11), ['docutils', 'idna', 'packaging', 'six'], True, True, '/model_cache', 3)" in done.stdout
    assert "the base image nvidia/cuda:12.8.1-devel-ubuntu24.04 is not used" in done.stderr
