"""Base images that stand in for others, where a registry cannot be reached: the setting ``image_substitutes``.

    nvidia/cuda:* = debian_slim pip:nvidia-cuda-nvcc-cu12 apt:build-essential; python:3.12-slim = debian_slim

Entries end at a semicolon. On the left a name as scripts have it, or a pattern with "*"; on the right another image of
a registry, or ``debian_slim`` with packages to install into it. It holds for ``from_registry`` and for the FROM lines
of Dockerfiles. Whoever runs a script is told each time.
"""

from __future__ import annotations

import fnmatch
import re
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from alight.sdk import config, image_lock, progress
from alight.sdk.image_parts import Step
from alight.wire.errors import InvalidError
from alight.wire.record import replace

SETTING = "image_substitutes"
_OURS = "debian_slim"
_FROM = re.compile(r"^\s*FROM\s+(?:--platform=\S+\s+)?(\S+)", re.IGNORECASE | re.MULTILINE)
_ARG = re.compile(r"^\s*ARG\s+(\w+)=(\S*)", re.IGNORECASE | re.MULTILINE)
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


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
    if not steps or steps[0].op.get("op") not in {"registry", "from_dockerfile"}:
        return steps
    text = str(config.load()[SETTING])
    if not text:
        return steps
    table = parse(text)
    if steps[0].op["op"] == "from_dockerfile":
        return [_in_dockerfile(table, steps), *steps[1:]]
    tag = str(steps[0].op["tag"])
    base = _found(table, tag)
    if base is None:
        return steps
    rest = steps[1:]
    if base.split(maxsplit=1)[0] == _OURS:
        rest = [step for step in rest if step.op.get("op") != "python"]
    return [*(Step(op) for op in _made(base, steps)), *rest]


def _in_dockerfile(table: Dict[str, str], steps: Sequence[Step]) -> Step:
    """The step with recipes of what stands in for images that the Dockerfile's FROM lines name."""
    step = steps[0]
    found = {}
    for name in _named(step):
        base = _found(table, name)
        if base is not None:
            found[name] = _made(base, steps)
    return replace(step, op={**step.op, "stand_ins": found}) if found else step


def _named(step: Step) -> List[str]:
    """The images of a Dockerfile's FROM lines, with its arguments filled in."""
    file = step.context().get("Dockerfile") if step.context is not None else None
    text = file.read_text(encoding="utf-8") if isinstance(file, Path) else ""
    given = step.op.get("build_args", {})
    known = {name: given.get(name, value.strip("\"'")) for name, value in _ARG.findall(text)}
    return [_VARIABLE.sub(lambda match: known.get(match[1], ""), name) for name in _FROM.findall(text)]


def _found(table: Dict[str, str], tag: str) -> Optional[str]:
    base = table.get(tag) or next((base for name, base in table.items() if fnmatch.fnmatchcase(tag, name)), None)
    if base is not None:
        progress.current().warn(f"the base image {tag} is not used: {base} stands in for it ({SETTING})")
    return base


def _made(base: str, steps: Sequence[Step]) -> List[Dict[str, Any]]:
    """The steps that make what stands in: an image of a registry, or debian_slim with the Python that the image was to
    have (else the one that runs the script) and with packages.
    """
    if base.split(maxsplit=1)[0] != _OURS:
        return [{"op": "registry", "tag": base}]
    added = next((step.op.get("version") for step in steps if step.op.get("op") == "python"), None)
    made = [{"op": _OURS, "python": added or f"{sys.version_info[0]}.{sys.version_info[1]}"}]
    packages = base.split()[1:]
    apt, pip = _of("apt:", packages), _of("pip:", packages)
    if apt:
        made.append({"op": "apt_install", "packages": list(apt)})
    if pip:
        made.append({"op": "pip_install", "tool": "pip", "packages": list(pip)})
    return made


def _of(kind: str, packages: Sequence[str]) -> Tuple[str, ...]:
    return tuple(sorted(word[len(kind) :] for word in packages if word.startswith(kind)))
