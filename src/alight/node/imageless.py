"""What stands in for images where containers are bare processes: this machine's Python, and a loud word about it.

Nothing is built and nothing is installed. Whoever asked for an image hears each time that nothing is isolated, which
Python runs instead, and which steps of the recipe were left out; a missing package is then the user's own ImportError.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from alight.link.peer import Stream
from alight.wire.commands import BuildImage, ImageBuilt
from alight.wire.messages import AppEvent
from alight.wire.spec import ImageSpec

#: Steps that mean something without an image. ``debian_slim`` chooses a Python, which is looked at by itself.
_HONOURED = {"debian_slim", "env", "workdir", "entrypoint", "cmd", "shell"}


async def serve_build(stream: Stream, asked: BuildImage) -> None:
    """Answer ``node.build`` where there are no images."""
    if not asked.only_cached:
        event = AppEvent("system", image_id=asked.image_id, text=sentence(asked.image), time=time.time())
        await stream.send(event)
    await stream.send(ImageBuilt(asked.image_id))


def sentence(spec: ImageSpec) -> str:
    """What a person has to know before their code runs."""
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    said = f"nothing is isolated: functions run as plain processes of this user, with this machine's Python {minor}"
    wanted = [str(step["python"]) for step in spec.steps if step.get("op") == "debian_slim" and step.get("python")]
    if wanted and wanted[-1] != minor:
        said += f" (the image asks for {wanted[-1]})"
    left_out = [_words(step) for step in spec.steps if step.get("op") not in _HONOURED]
    if left_out:
        said += f"; left out of the image: {', '.join(left_out)}"
    return said


def _words(step: dict[str, Any]) -> str:
    packages = step.get("packages")
    return f"{step.get('op')}({', '.join(map(str, packages))})" if packages else str(step.get("op"))
