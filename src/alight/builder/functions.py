"""A step that runs a user's function: what it changes in the file system is the layer.

The function is imported (or unpickled) as the runtime would, from files that are lent: its source is no part of the
layer, and a changed line elsewhere in the script makes nothing again.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import alight
from alight.builder.installs import Command
from alight.builder.recipe import Step
from alight.builder.steps import LENT

LIBRARY = "/opt/alight/lib"

#: Python 3.9 and newer, in the image. ``ALIGHT_IS_REMOTE`` is what makes `is_local()` false in its children, too.
_SCRIPT = f"""\
import asyncio, inspect, json, sys
sys.path.append({LIBRARY!r})
lent = {LENT + "/source"!r}
sys.path.insert(0, lent + "/files/root")
from alight.runtime import load
from alight.wire import ambient, payload
with open(lent + "/function.json") as file:
    function = json.load(file)
with open(lent + "/arguments", "rb") as file:
    arguments = file.read()
serialized = b""
if function["definition"] == "serialized":
    with open(lent + "/code", "rb") as file:
        serialized = file.read()
if function.get("source_path"):
    function["source_path"] = lent + "/files" + function["source_path"]
ambient.container = ambient.Container("", "", "", "", "", function["name"], "")
raw = load.checked(load.find(function, serialized), function)
args, kwargs = payload.loads(arguments, "the arguments of run_function()")
result = raw(*args, **kwargs)
if inspect.isawaitable(result):
    async def wait():
        return await result
    asyncio.run(wait())
sys.stdout.flush()
"""


def run_function(step: Step, python: str) -> Command:
    """Run the function that lies in the step's lent files, with Alight importable as in any container."""
    del step
    env = {"ALIGHT_IS_REMOTE": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    script = {"run_function.py": _SCRIPT.encode()}
    return Command((python, f"{LENT}/run_function.py"), env, script, binds=_library())


def _library() -> tuple[tuple[str, str, bool], ...]:
    """Alight and cloudpickle as they lie on this machine."""
    binds = [(str(Path(alight.__file__).parent), f"{LIBRARY}/alight", True)]
    spec = importlib.util.find_spec("cloudpickle")
    if spec is not None and spec.origin is not None:
        binds.append((str(Path(spec.origin).parent), f"{LIBRARY}/cloudpickle", True))
    return tuple(binds)
