"""A remote exception becomes a local one: its own type where it can be had, with a traceback that shows the remote
lines.

The frames are real code objects named after the container's files, with the source text put where tracebacks look for
it, so that any printer of tracebacks (Python's own, a debugger's, a test runner's) shows them.
"""

from __future__ import annotations

import ast
import builtins
import linecache
import sys
import types
from typing import Any, List, Optional

from alight.sdk import sync
from alight.wire import errors, payload
from alight.wire.failure import Failure, FailureFrame


def to_exception(failure: Failure, body: bytes, container: str, *, show_all: bool = False) -> BaseException:
    """The exception to raise. Its traceback holds the remote frames (the user's own, unless ``show_all``)."""
    error = _unpickled(failure, body)
    if error is None:
        error = errors.RemoteError(
            f"{_short_type(failure)}: {failure.message}" if failure.message else _short_type(failure),
            hint="the exception could not be pickled; this is its text" if not failure.pickled else None,
            type=failure.type,
        )
    _dress(error, failure, container, show_all, depth=0)
    sync.show_plainly(error)
    return error


def _unpickled(failure: Failure, body: bytes) -> Optional[BaseException]:
    if not failure.pickled or not body:
        return None
    try:
        error = payload.loads(body, f"the exception {failure.type}")
    except errors.DeserializationError as problem:
        module = failure.type.rpartition(".")[0]
        raised = errors.ExecutionError(
            f"the function raised {failure.type}: {failure.message}", hint=f"its class is not known here: {problem}"
        )
        del module
        return raised
    return error if isinstance(error, BaseException) else None


def _dress(error: BaseException, failure: Failure, container: str, show_all: bool, depth: int) -> None:
    """Give ``error`` its remote traceback, notes and causes."""
    frames = [frame for frame in failure.frames if frame.user or show_all] or list(failure.frames)
    error.__traceback__ = _traceback(frames, container)
    if failure.notes and not getattr(error, "__notes__", None):
        error.__notes__ = list(failure.notes)  # type: ignore[attr-defined,unused-ignore]  # Python 3.11 shows them
    if failure.cause is None or depth > 20:
        return
    cause = error.__cause__ or error.__context__
    if cause is None:
        cause = _stand_in(failure.cause)
    _dress(cause, failure.cause, container, show_all, depth + 1)
    if failure.context_suppressed:
        error.__cause__ = cause
    else:
        error.__context__ = cause


def _stand_in(failure: Failure) -> BaseException:
    """For a cause, of which only words travelled: an exception that is printed, and caught, as the real one would be.

    Caught by type only where Python has the type built in; others are RemoteErrors of the right name.
    """
    module, _, name = failure.type.rpartition(".")
    real = getattr(builtins, name, None) if module == "builtins" else None
    if isinstance(real, type) and issubclass(real, BaseException):
        # Without __init__, whose arguments are unknown: a KeyError would quote its message once more.
        kind: Any = type(name, (real,), {"__module__": "builtins", "__str__": lambda _: failure.message})
        try:
            error: BaseException = kind.__new__(kind)
        except TypeError:  # groups of exceptions want what is in them
            pass
        else:
            error.args = (failure.message,)
            return error
    own = type(name, (errors.RemoteError,), {"__module__": module or "builtins"})
    stand_in: errors.RemoteError = own(failure.message, type=failure.type)
    return stand_in


def _short_type(failure: Failure) -> str:
    return failure.type.removeprefix("builtins.")


def _traceback(frames: List[FailureFrame], container: str) -> Optional[types.TracebackType]:
    traceback: Optional[types.TracebackType] = None
    for frame in reversed(frames):
        file = f"<{container}>:{frame.file}" if container else frame.file
        _remember_line(file, frame)
        traceback = types.TracebackType(traceback, _frame(file, frame), -1, frame.line)
    return traceback


def _remember_line(file: str, frame: FailureFrame) -> None:
    """Put the source line where traceback printers look, among those of the same file that are there already."""
    if not frame.text:
        return
    entry = linecache.cache.get(file)
    lines = list(entry[2]) if entry is not None and len(entry) == 4 else []
    lines += ["\n"] * (frame.line - len(lines))
    lines[frame.line - 1] = frame.text.rstrip("\n") + "\n"
    linecache.cache[file] = (sum(map(len, lines)), None, lines, file)


def _frame(file: str, frame: FailureFrame) -> types.FrameType:
    """A frame that looks as if this line of that function ran."""
    tree = ast.parse("_here()")
    for node in ast.walk(tree):
        if hasattr(node, "lineno"):
            # Columns of -1 mean "not known": printers draw no carets under what they cannot know.
            node.lineno = node.end_lineno = max(frame.line, 1)  # type: ignore[attr-defined]
            node.col_offset = node.end_col_offset = -1  # type: ignore[attr-defined]
    code = _compile(tree, file)
    names: Any = {"co_name": frame.name or "<module>", "co_firstlineno": max(frame.line, 1)}
    if sys.version_info >= (3, 11):
        names["co_qualname"] = frame.name or "<module>"
    caught: List[types.FrameType] = []
    scope = {"_here": lambda: caught.append(sys._getframe(1)), "__name__": "remote", "__file__": file}  # noqa: SLF001
    exec(code.replace(**names), scope)  # noqa: S102  a call of our own, to have its frame
    return caught[0]


def _compile(tree: ast.Module, file: str) -> types.CodeType:
    try:
        return compile(tree, file, "exec")
    except (ValueError, TypeError):  # a Python that insists on columns: it may draw carets
        for node in ast.walk(tree):
            if hasattr(node, "col_offset"):
                node.col_offset = node.end_col_offset = 0  # type: ignore[attr-defined]
        return compile(tree, file, "exec")
