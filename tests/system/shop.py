"""An app that tests deploy, change and call."""

from __future__ import annotations

import contextlib
import re
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAD = """
import os, time, uuid
import alight

app = alight.App("{name}", tags={tags}, image=alight.Image.debian_slim(python_version="3.11"))
ME = uuid.uuid4().hex  # tells containers apart
"""
SHOP = """
VERSION = {version}

@app.function({options})
def price(x):
    print("price of", x, flush=True)
    time.sleep(0.02)
    return VERSION, x, ME
"""


class Shop:
    """A deployed app that tests change: a folder with its script, and programs that call it."""

    def __init__(self, machine, folder: Path, name: str) -> None:
        self.machine, self.folder, self.name = machine, folder, name
        self.script = folder / f"{name}.py"
        self.tags: dict[str, str] = {}

    def write(self, body: str) -> None:
        self.script.write_text(HEAD.format(name=self.name, tags=self.tags) + textwrap.dedent(body))

    def deploy(self, body: str | None = None, *words: str, **how):
        if body is not None:
            self.write(body)
        return self.machine.run("deploy", self.script, *words, **how)

    def version(self, number: int, options: str = "", *words: str, **how):
        return self.deploy(SHOP.format(version=number, options=options), *words, **how)

    def python(self, body: str, **how):
        file = self.folder / "program.py"
        file.write_text(f"import json, time\nimport alight\nname = {self.name!r}\n" + textwrap.dedent(body))
        return self.machine.python(file, **how)

    def price(self, x: int = 1):
        said = self.python(f"print(*alight.Function.from_name(name, 'price').remote({x}))").stdout.split()
        return int(said[0]), said[2]

    def history(self):
        return self.machine.json("app", "history", self.name)


@contextlib.contextmanager
def opened(machine, folder: Path, test: str) -> Iterator[Shop]:
    """A shop with a name made of the test's; stopped in the end."""
    name = re.sub(r"[^a-z]", "-", test.removeprefix("test_"))[:40].strip("-")
    try:
        yield Shop(machine, folder, name)
    finally:
        machine.run("app", "stop", name, "--yes", status=None)
