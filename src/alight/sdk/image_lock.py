"""Image locks: what was installed when the images of a script were built, in a file beside it, so that they are built
the same again.

    train.py → train.image-lock.json

The file beside the script that runs is used without being asked for: whoever has the script has it, as with any lock.
``ALIGHT_IMAGE_LOCK`` names another file, or is "none". A recipe that changed since is an error that names the step;
what each step is held to is the builder's affair.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from alight.sdk import config, progress
from alight.sdk.image_parts import FROM_ID, Step
from alight.wire.errors import InvalidError
from alight.wire.record import replace

VARIABLE = "ALIGHT_IMAGE_LOCK"
OFF = "none"
_FORMAT = 1
#: Parts of a step that say how it is built, or that only files decide, which a lock of packages does not hold.
_NOT_ASKED = frozenset({"force", "gpu", "locked", "env", "needs", "code", "ignore", "tree", "context", "lent"})
_said: List[str] = []


def beside(script: str) -> Path:
    """The lock of a script."""
    path = Path(script)
    return path.with_name(f"{path.stem}.image-lock.json")


def in_force() -> Optional[Path]:
    """The lock that this process is to keep to, if any. Raises InvalidError when the named one is not there."""
    named = os.environ.get(VARIABLE, "")
    if named == OFF or config.in_container():
        return None
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise InvalidError(
                f"{VARIABLE} names {named}, and there is no such file", hint=f"{VARIABLE}={OFF}: no lock"
            )
        return path
    script = sys.argv[0] if sys.argv else ""
    found = beside(script) if script.endswith(".py") else None
    return found if found is not None and found.is_file() else None


def asked(step: Step) -> Dict[str, Any]:
    """What of a step decides what is installed: what a lock is held against."""
    found = {name: value for name, value in step.op.items() if name not in _NOT_ASKED}
    if step.requirements:
        found["requirements"] = [_text_of(path) for path in step.requirements]
    plain: Dict[str, Any] = json.loads(_without_credentials(json.dumps(found, default=str)))
    return plain


def written(images: Sequence[Tuple[Sequence[str], Sequence[Step], Sequence[Mapping[str, Any]]]], whole: bool) -> str:
    """The content of a lock. ``images``: names of functions, the steps, and what each step brought."""
    rows = [
        {
            "functions": sorted(names),
            "steps": [
                {"step": words(asked(step)), "asked": asked(step), **({"locked": brought} if brought else {})}
                for step, brought in zip(steps, found)
            ],
        }
        for names, steps, found in images
    ]
    content = {"image_lock": _FORMAT, "whole": whole, "images": rows}
    return _without_credentials(json.dumps(content, indent=1, sort_keys=True)) + "\n"


def locked(steps: Sequence[Step]) -> Sequence[Step]:
    """The steps of an image, held to the lock that is in force.

    Raises InvalidError for a lock that cannot be read or does not fit, naming the first step that changed.
    """
    path = in_force()
    if path is None or not steps or steps[0].op.get("op") == FROM_ID:
        return steps  # an image by its id is what it is
    content = _read(path)
    mine = [asked(step) for step in steps]
    images = [image["steps"] for image in content["images"]]
    for image in images:
        if [row["asked"] for row in image] == mine:
            _say(f"images are built as {path} says")
            return [_held(step, row.get("locked")) for step, row in zip(steps, image)]
    sentence = _what_changed(path, mine, images)
    if not content.get("whole", True):
        _say(f"{sentence}: it is built without a lock")
        return steps
    raise InvalidError(sentence, hint=f"`alight image lock SCRIPT` writes it anew; {VARIABLE}={OFF} goes on without it")


def words(what: Mapping[str, Any]) -> str:
    """A step as a script has it, more or less."""
    op = str(what.get("op"))
    for name in ("packages", "args"):
        if what.get(name):
            return f".{op}({', '.join(repr(one) for one in what[name])})"
    for name in ("command", "tag", "python", "version", "path", "to", "name"):
        if what.get(name):
            return f".{op}({what[name]!r})"
    if what.get("requirements"):
        return f".{op}({', '.join(repr(one['name']) for one in what['requirements'])})"
    return f".{op}()"


def _held(step: Step, brought: Any) -> Step:
    return replace(step, op={**step.op, "locked": brought}) if brought else step


def _what_changed(path: Path, mine: List[Dict[str, Any]], images: List[List[Dict[str, Any]]]) -> str:
    """Against the image of the lock that agrees the longest."""
    best, nearest = -1, []  # type: int, List[Dict[str, Any]]
    for image in images:
        same = 0
        while same < min(len(image), len(mine)) and image[same]["asked"] == mine[same]:
            same += 1
        if same > best:
            best, nearest = same, [row["asked"] for row in image]
    if not images:
        return f"{path} holds no images"
    if best >= len(mine):
        return f"an image no longer fits {path}: step {best + 1}, {words(nearest[best])}, is gone"
    title = f"step {best + 1}, {words(mine[best])},"
    if best >= len(nearest):
        return f"an image no longer fits {path}: {title} is new"
    return f"an image no longer fits {path}: {title} changed ({_difference(nearest[best], mine[best])})"


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    if old.get("op") != new.get("op"):
        return f"it was {words(old)}"
    said = []
    for name in sorted({*old, *new}):
        before, now = old.get(name), new.get(name)
        if before == now:
            continue
        if isinstance(before, list) and isinstance(now, list) and all(isinstance(one, str) for one in before + now):
            said += [f"+{one}" for one in now if one not in before] + [f"-{one}" for one in before if one not in now]
        elif name == "requirements":
            said.append("a requirements file")
        else:
            said.append(f"{name} was {before!r}")
    return ", ".join(said[:5]) or "the order of its packages"


def _read(path: Path) -> Dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidError(f"the image lock {path} cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("image_lock") != _FORMAT:
        raise InvalidError(
            f"{path} is no image lock that this version knows", hint="`alight image lock SCRIPT` writes it anew"
        )
    images = content.get("images")
    whole = isinstance(images, list) and all(
        isinstance(image, dict)
        and isinstance(image.get("steps"), list)
        and all(isinstance(row, dict) and isinstance(row.get("asked"), dict) for row in image["steps"])
        for image in images
    )
    if not whole:
        raise InvalidError(f"the image lock {path} is damaged", hint="`alight image lock SCRIPT` writes it anew")
    return content


def _text_of(path: Path) -> Dict[str, str]:
    try:
        return {"name": path.name, "text": path.read_text(encoding="utf-8")}
    except OSError as error:
        raise InvalidError(f"{path} could not be read: {error.strerror}") from error


def _without_credentials(text: str) -> str:
    return re.sub(r"(://)[^/@\s\"']+@", r"\1", text)


def _say(line: str) -> None:
    if line not in _said:  # once a process, however many images there are
        _said.append(line)
        progress.current().warn(line)
