#!/usr/bin/python3
"""A stand-in for micromamba: `install` of archives in a file channel, which is all that the tests ask of it."""

import json
import os
import sys
import tarfile
from pathlib import Path

root = Path(os.environ["MAMBA_ROOT_PREFIX"])
words = sys.argv[2:]  # after "install"
channels, names = [], []
while words:
    word = words.pop(0)
    if word == "-c":
        channels.append(Path(words.pop(0).replace("file://", "")) / "noarch")
    elif word == "-n":
        words.pop(0)
    elif not word.startswith("-"):
        names.append(word.split("=")[0])
for name in names:
    if name in ("python", "pip"):
        (root / "bin").mkdir(parents=True, exist_ok=True)
        if name == "python":
            (root / "bin/python").symlink_to("/usr/local/bin/python")
        continue
    for channel in filter(Path.is_dir, channels):
        packages = json.loads((channel / "repodata.json").read_text())["packages"]
        found = [file for file, package in packages.items() if package["name"] == name]
        if found:
            with tarfile.open(channel / found[0]) as archive:
                archive.extractall(root, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(root)
            break
    else:
        sys.exit(f"nothing provides {name}")
