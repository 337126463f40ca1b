"""Base images that stand in for others, where a registry cannot be reached: the setting ``image_substitutes``.

    nvidia/cuda:* = debian_slim pip:nvidia-cuda-nvcc-cu12 apt:build-essential; python:3.12-slim = debian_slim

Entries end at a semicolon. On the left a name as scripts have it, or a pattern with "*"; on the right another image of
a registry, or ``debian_slim`` with packages to install into it. Whoever runs a script is told each time.
"""

from __future__ import annotations

import fnmatch
import sys
from typing import Dict, List, Optional, Sequence, Tuple

from alight.sdk import config, image_lock, progress
from alight.sdk.image_parts import Step
from alight.wire.errors import InvalidError

SETTING = "image_substitutes"
_OURS = "debian_slim"


def parse(text: str) -> Dict[str, str]:
    """The setting as a table. Raises InvalidError for an entry that is none."""
    table: Dict[str, str] = {}
    for entry in filter(str.strip, text.replace("\n", ";").split(";")):
        # Names have no "=", and neither do patterns; the versions of packages on the right do.
        name, equals, base = (part.strip() for part in entry.partition("="))
        words = base.split()
        fits = words and (words[0] == _OURS or len(words) == 1)
        if not equals or not name or not fits or any(word[:4] not in {"pip:", "apt:"} for word in words[1:]):
            raise InvalidError(
                f"{entry.strip()!r} does not say which base image stands in for another",
                hint='write "nvidia/cuda:*=debian_slim pip:nvidia-cuda-nvcc-cu12" or "python:3.12=my.host/python:3.12"',
            )
        table.setdefault(name, base)  # the first one counts
    return table


def substituted(steps: Sequence[Step]) -> Sequence[Step]:
    """The steps of an image as they are to be built: its base replaced if the settings say so, held to the lock that is
    in force. Says so to whoever watches.
    """
    return image_lock.locked(stood_in(steps))


def stood_in(steps: Sequence[Step]) -> Sequence[Step]:
    """The steps of an image with its base replaced if the settings say so; says so to whoever watches."""
    if not steps or steps[0].op.get("op") != "registry":
        return steps
    text = str(config.load()[SETTING])
    tag = str(steps[0].op["tag"])
    base = _find(parse(text), tag) if text else None
    if base is None:
        return steps
    progress.current().warn(f"the base image {tag} is not used: {base} stands in for it ({SETTING})")
    if base.split()[0] != _OURS:
        return [Step({"op": "registry", "tag": base}), *steps[1:]]
    return _debian(base.split()[1:], steps)


def _find(table: Dict[str, str], tag: str) -> Optional[str]:
    return table.get(tag) or next((base for name, base in table.items() if fnmatch.fnmatchcase(tag, name)), None)


def _debian(packages: Sequence[str], steps: Sequence[Step]) -> List[Step]:
    """debian_slim with the Python that the image was to have, else the one that runs the script; then the packages."""
    added = next((step.op.get("version") for step in steps if step.op.get("op") == "python"), None)
    python = added or f"{sys.version_info[0]}.{sys.version_info[1]}"
    made = [Step({"op": _OURS, "python": python})]
    apt, pip = _of("apt:", packages), _of("pip:", packages)
    if apt:
        made.append(Step({"op": "apt_install", "packages": list(apt)}))
    if pip:
        made.append(Step({"op": "pip_install", "tool": "pip", "packages": list(pip)}))
    return [*made, *(step for step in steps[1:] if step.op.get("op") != "python")]


def _of(kind: str, packages: Sequence[str]) -> Tuple[str, ...]:
    return tuple(sorted(word[len(kind) :] for word in packages if word.startswith(kind)))
