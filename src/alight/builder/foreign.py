"""A Python in images that others made: the image's own, found on its PATH, or one that is laid on top.

What an image answers is not trusted: it is read as data, in bounded amounts, through no link.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from alight.builder.steps import CACHES, LENT
from alight.wire.errors import ImageBuildError

OLDEST = (3, 9)

#: Where scripts leave their answers; a lent directory that is no part of the layer.
_ANSWERS = f"{CACHES}/temporary"
_SMALL = 1 << 20

#: Without quotes of either kind: it stands between some in a script.
_PROBE = (
    "import json,platform,sys;print(json.dumps([platform.python_version(),sys.executable,sys.implementation.name]))"
)
#: uv as on every other image, where it runs. What the distribution says about packages of others is meant for people
#: who share a machine with it.
_UV = f"""\
PATH=$PATH:/usr/local/bin
if ! command -v uv >/dev/null 2>&1; then
  mkdir -p /usr/local/bin
  cp {LENT}/uv /usr/local/bin/uv
  chmod 755 /usr/local/bin/uv
  /usr/local/bin/uv --version >/dev/null 2>&1 || rm -f /usr/local/bin/uv
fi
if command -v uv >/dev/null 2>&1; then echo yes >{_ANSWERS}/uv; fi
"""
_FIND = f"""\
best=
for name in python python3; do
  if command -v $name >/dev/null 2>&1 && $name -I -c '{_PROBE}' >{_ANSWERS}/found 2>/dev/null; then
    if $name -I -c 'import sys; sys.exit(sys.version_info < {OLDEST})'; then best=$name; break; fi
    cp {_ANSWERS}/found {_ANSWERS}/old
    rm -f {_ANSWERS}/found
  fi
done
test -n "$best" || {{ rm -f {_ANSWERS}/found; exit 0; }}
set -e
marker=$($best -I -c 'import os,sysconfig; print(os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED"))')
rm -f "$marker"
if [ $best = python3 ]; then
  mkdir -p /usr/local/bin
  ln -sf "$(command -v python3)" /usr/local/bin/python
fi
$best -I -m pip --version >/dev/null 2>&1 || $best -I -m ensurepip >/dev/null 2>&1 || true
"""
LIBRARIES = f"PATH=$PATH:/usr/sbin:/sbin; ldconfig -p >{_ANSWERS}/libraries 2>/dev/null || rm -f {_ANSWERS}/libraries\n"


@dataclass(frozen=True)
class Own:
    """The Python that an image brings."""

    version: str
    path: str
    uv: bool


def finding_script() -> str:
    """Finds the image's Python, makes `python` mean it, brings uv. `found` reads what it answers."""
    return _FIND + _UV


def uv_script() -> str:
    """Brings uv where another script has brought a Python."""
    return _UV


def found(answers: Path, tag: str) -> Own:
    """What `finding_script` left. Raises ImageBuildError when the image has no Python that would do."""
    uv = _answer(answers, "uv") is not None
    raw = _answer(answers, "found")
    if raw is None:
        old = _parsed(_answer(answers, "old") or b"")
        what = f"no Python newer than {old[0]}" if old else "no python on its PATH"
        raise ImageBuildError(
            f"the image {tag} has {what}, and functions need one of {OLDEST[0]}.{OLDEST[1]} or newer",
            hint='Image.from_registry(…, add_python="3.12") adds one',
        )
    parsed = _parsed(raw)
    if parsed is None:
        raise ImageBuildError(f"the python of the image {tag} is not one that Alight can use", hint="add_python=…")
    version, path, implementation = parsed
    if implementation != "cpython":
        raise ImageBuildError(
            f"the python of the image {tag} is {implementation}, and functions need CPython",
            hint='Image.from_registry(…, add_python="3.12") adds one',
        )
    return Own(version, path, uv)


def libraries(answers: Path, tag: str) -> frozenset[str]:
    """The shared libraries that the image's loader finds, after ``LIBRARIES``. Raises ImageBuildError without glibc."""
    names = re.findall(r"^\s+(\S+) \(", (_answer(answers, "libraries") or b"").decode("utf-8", "replace"), re.MULTILINE)
    if "libc.so.6" not in names:
        raise ImageBuildError(
            f"add_python cannot add a Python to the image {tag}: it does not stand on glibc (Alpine does not)",
            hint="choose a tag that is made of Debian, Ubuntu or another glibc system, or one that has a Python",
        )
    return frozenset(names)


def has_uv(answers: Path) -> bool:
    """Whether there is a uv in the image after one of the scripts."""
    return _answer(answers, "uv") is not None


def _parsed(raw: bytes) -> tuple[str, str, str] | None:
    try:
        version, path, implementation = json.loads(raw)
    except (ValueError, TypeError, RecursionError):
        return None
    fits = isinstance(version, str) and re.fullmatch(r"\d+\.\d+\.\d+\S*", version)
    if not fits or not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        return None
    return version, path, str(implementation)


def _answer(answers: Path, name: str) -> bytes | None:
    try:
        handle = os.open(answers / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        return file.read(_SMALL)
