"""Steps for conda packages: micromamba, its environment in /opt/conda, and what is installed into it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from alight.builder import bases
from alight.builder.installs import Command
from alight.builder.recipe import Step
from alight.builder.steps import CACHES, LENT

ROOT = "/opt/conda"
CHANNEL = "conda-forge"

#: Where the program comes from unless the machine names another place (``ALIGHT_MICROMAMBA``, an address or a path).
DOWNLOAD = "https://github.com/mamba-org/micromamba-releases/releases/latest/download/micromamba-{platform}"
_GIVEN = "/opt/alight/micromamba"
_PLATFORMS = {"x86_64": "linux-64", "aarch64": "linux-aarch64", "ppc64le": "linux-ppc64le"}

# The release is the program itself or, from the project's own site, an archive that holds it.
_FETCH = """\
import bz2, io, os, shutil, sys, tarfile, urllib.error, urllib.request
source, target = sys.argv[1:]
try:
    if "://" in source:
        with urllib.request.urlopen(source, timeout=120) as answer:
            data = answer.read()
    else:
        with open(source, "rb") as file:
            data = file.read()
except (OSError, urllib.error.URLError) as error:
    sys.exit(f"micromamba could not be fetched from {source}: {error}")
if data[:3] == b"BZh":
    with tarfile.open(fileobj=io.BytesIO(bz2.decompress(data))) as archive:
        data = archive.extractfile("bin/micromamba").read()
with open(target, "wb") as file:
    file.write(data)
os.chmod(target, 0o755)
"""
_BEGIN = """\
set -e
python="$1"; source="$2"; shift 2
"$python" "$0" "$source" /usr/local/bin/micromamba
micromamba install -y -n base "$@"
test -x /opt/conda/bin/python || { echo "the conda environment has no Python" >&2; exit 1; }
"""


def micromamba(step: Step, place: str, python: str) -> Command:
    """The program and an environment with the asked Python, which is the image's from then on."""
    asked = str(step.what["python"])
    platform = _PLATFORMS.get(bases.machine(), bases.machine())
    source = (place or DOWNLOAD).format(platform=platform)
    binds = () if "://" in source else ((source, _GIVEN, True),)
    wanted = (f"python={asked}", "pip", "-c", CHANNEL)
    argv = ("/bin/sh", "-c", _BEGIN, f"{LENT}/fetch.py", python, _GIVEN if binds else source, *wanted)
    facts = {"python": f"{ROOT}/bin/python", "path": f"{ROOT}/bin", "python_version": asked}
    return Command(argv, _env(), {"fetch.py": _FETCH.encode()}, binds=binds, facts=facts)


def install(step: Step) -> Command:
    """Packages, by name or from a file, into that environment."""
    what = step.what
    file = ("-f", f"{LENT}/context/{PurePosixPath(what['name']).name}") if what.get("name") else ()
    channels = what.get("channels") or (() if file else (CHANNEL,))
    named = tuple(word for channel in channels for word in ("-c", channel))
    words = ("micromamba", "install", "-y", "-n", "base", *named, *file, *what.get("packages", ()))
    return Command(("/bin/sh", "-c", shlex.join(words)), _env())


def locked_install(plain: Command, packages: Sequence[str], *, begins: bool) -> Command:
    """``plain`` with exactly these packages: by their addresses if all have one. ``begins``: the environment is new."""
    if all("://" in one for one in packages):
        text = "\n".join(["@EXPLICIT", *packages, ""])
        wanted: tuple[str, ...] = ("-f", f"{LENT}/locked.txt")
        files = {**plain.files, "locked.txt": text.encode()}
    else:
        wanted, files = ("--no-deps", "-c", CHANNEL, *packages), dict(plain.files)
    if begins:
        return replace(plain, argv=(*plain.argv[:6], *wanted), files=files)
    words = ("micromamba", "install", "-y", "-n", "base", *wanted)
    return replace(plain, argv=("/bin/sh", "-c", shlex.join(words)), files=files)


def _env() -> dict[str, str]:
    # Downloads lie outside the layer; what is installed is copied, not linked, from there.
    return {"MAMBA_ROOT_PREFIX": ROOT, "CONDA_PKGS_DIRS": f"{CACHES}/temporary/conda", "TMPDIR": f"{CACHES}/temporary"}
