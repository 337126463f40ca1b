"""A user's exception as the user wants to read it: their frames, their lines, and where the container began.

Alight's own frames are left out unless ALIGHT_TRACEBACK=1. Frames that came from a container are ordinary frames whose
file is written `<container>:path` (the SDK makes them, so that plain Python prints them too); here a line marks where
they begin.
"""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path
from types import FrameType, TracebackType
from typing import Iterator, Optional, Set, Tuple

from alight.cli.terminal import Style, clean

_REMOTE = re.compile(r"^<(?P<container>[^<>:]+)>:(?P<path>.+)$", re.DOTALL)
_OURS = str(Path(__file__).resolve().parent.parent) + os.sep
#: Where containers find Alight, cloudpickle included.
_OURS_INSIDE = "/opt/alight/lib/"
_PLUMBING = re.compile(
    r"^<frozen |[/\\]site-packages[/\\](click|rich)[/\\]"
    r"|[/\\](asyncio|concurrent[/\\]futures)[/\\]|[/\\]contextlib\.py$"
)


def show_all() -> bool:
    """Whether the user asked to see every frame."""
    return os.environ.get("ALIGHT_TRACEBACK", "") not in ("", "0")


def render(error: BaseException, style: Style) -> str:
    """The text of an exception with its causes, ending in a newline, safe for a terminal."""
    return "".join(_chain(error, style, set()))


def user_place(error: BaseException) -> str:
    """Where in the user's own files this happened, "train.py:12 in main"; empty when no frame of theirs is in it."""
    place = ""
    for frame, line in _frames(error.__traceback__):
        if _is_own_file(frame) and not _container(frame):
            name = frame.f_code.co_name
            place = f"{_shown_path(frame.f_code.co_filename)}:{line}" + ("" if name == "<module>" else f" in {name}")
    return place


def has_user_frames(error: BaseException) -> bool:
    """Whether any code but Alight's, click's and Python's own was on the way to this error."""
    return any(_is_own_file(frame) for frame, _ in _frames(error.__traceback__))


def _chain(error: BaseException, style: Style, seen: Set[int]) -> Iterator[str]:
    seen.add(id(error))
    cause, context = error.__cause__, error.__context__
    if cause is not None and id(cause) not in seen:
        yield from _chain(cause, style, seen)
        yield "\nThe above exception was the direct cause of the following exception:\n\n"
    elif context is not None and not error.__suppress_context__ and id(context) not in seen and _worth(context):
        yield from _chain(context, style, seen)
        yield "\nDuring handling of the above exception, another exception occurred:\n\n"
    yield from _one(error, style)
    for index, inner in enumerate(getattr(error, "exceptions", ()) or ()):
        if isinstance(inner, BaseException) and id(inner) not in seen:
            yield f"\n  exception {index + 1} of the group:\n"
            yield from (_indent(text) for text in _chain(inner, style, seen))


def _worth(context: BaseException) -> bool:
    """A context without a user's frame is plumbing: an error of ours that was translated."""
    return show_all() or has_user_frames(context)


def _one(error: BaseException, style: Style) -> Iterator[str]:
    if isinstance(error, SyntaxError) and not has_user_frames(error):
        yield from (clean(text) for text in traceback.format_exception_only(type(error), error))
        return
    frames = list(_shown_frames(error.__traceback__))
    if frames:
        yield "Traceback (most recent call last):\n"
    container = ""
    summary = traceback.StackSummary.extract(iter(frames))
    for (frame, _), place in zip(frames, summary):
        here = _container(frame)
        if here != container:
            what = f"in container {here}" if here else "on this machine"
            yield style.faint(f"  ── {clean(what)} ──") + "\n"
            container = here
        path = _REMOTE.sub(r"\g<path>", place.filename) if here else _shown_path(place.filename)
        yield (
            f"  File {style.place(clean(chr(34) + path + chr(34)))}, line {style.strong(str(place.lineno))}, "
            f"in {style.strong(clean(place.name))}\n"
        )
        if place.line:
            yield f"    {clean(place.line)}\n"
    lines = traceback.format_exception_only(type(error), error)
    text = clean("".join(lines))
    head, colon, rest = text.partition(":")
    yield f"{style.bad(head)}{colon}{rest}" if colon else style.bad(text.rstrip("\n")) + "\n"


def _shown_frames(tb: Optional[TracebackType]) -> Iterator[Tuple[FrameType, int]]:
    frames = list(_frames(tb))
    if show_all():
        yield from frames
        return
    started = False
    for frame, line in frames:
        started = started or _is_own_file(frame)
        if started and not _is_ours(frame) and not _is_plumbing(frame):
            yield frame, line


def _frames(tb: Optional[TracebackType]) -> Iterator[Tuple[FrameType, int]]:
    yield from traceback.walk_tb(tb)


def _container(frame: FrameType) -> str:
    """The container that this frame stands for; empty for frames of this process."""
    found = _REMOTE.match(frame.f_code.co_filename)
    return found["container"] if found else ""


def _is_ours(frame: FrameType) -> bool:
    found = _REMOTE.match(frame.f_code.co_filename)
    return found["path"].startswith(_OURS_INSIDE) if found else frame.f_code.co_filename.startswith(_OURS)


def _is_plumbing(frame: FrameType) -> bool:
    return not _container(frame) and bool(_PLUMBING.search(frame.f_code.co_filename))


def _is_own_file(frame: FrameType) -> bool:
    """Neither Alight, nor plumbing, nor Python's standard library."""
    if _container(frame):
        return not _is_ours(frame)
    path = frame.f_code.co_filename
    return not (_is_ours(frame) or _is_plumbing(frame) or _in_standard_library(path))


def _in_standard_library(path: str) -> bool:
    return path.startswith(_STANDARD) and "-packages" not in path


_STANDARD = str(Path(os.__file__).resolve().parent) + os.sep


def _shown_path(path: str) -> str:
    """A path relative to where we are, when that is shorter to read."""
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        return path
    return path if path.startswith("<") or relative.startswith("..") else relative


def _indent(text: str) -> str:
    return "".join(f"  {line}" for line in text.splitlines(keepends=True))
