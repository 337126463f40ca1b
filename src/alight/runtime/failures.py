"""An exception of the user's code in plain words (a wire Failure) and, where possible, pickled.

Must never raise itself: whatever a user's exception does in `__str__` or `__reduce__`, something readable goes home.
Plain dicts are made instead of the dataclasses of `wire.failure`, whose import a container doesn't need.
"""

from __future__ import annotations

import os
import sys

from alight.wire.codec import MAX_INLINE
from alight.wire.errors import Error, InputCancellation, RemoteError, to_wire
from alight.wire.states import ResultStatus

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

#: A traceback longer than this keeps its two ends (a recursion without end has a thousand equal lines).
MAX_FRAMES = 120
MAX_CHAIN = 12
MAX_MESSAGE = 100_000

_OWN = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + os.sep


def describe(error: BaseException) -> Tuple[Dict[str, Any], List[Any]]:
    """The failure in plain words, and the parts of the pickled exception (empty when it cannot be pickled)."""
    parts = _pickled(error)
    failure = _plain(error, set(), 0)
    if parts:
        failure["pickled"] = True
    return failure, parts


def outcome(error: BaseException, name: str, *, leaving: str, cancelled: bool) -> Tuple[Dict[str, Any], bytes]:
    """What an exception of ``name`` means as an output: an ``Output`` in plain words, and its body.

    ``leaving`` is the signal that told the container to end; ``cancelled`` says that the exception is what a
    cancellation raised.
    """
    if cancelled or isinstance(error, InputCancellation):
        gone = RemoteError(f"this input of {name}() was cancelled")
        return {"status": ResultStatus.CANCELLED, "error": to_wire(gone)}, b""
    if leaving and not isinstance(error, Exception):
        gone = RemoteError(f"{name}() was interrupted: its container was told to end ({leaving})")
        return {"status": ResultStatus.TERMINATED, "error": to_wire(gone)}, b""
    head, body = in_words(error, f"{name}()")
    head["status"] = ResultStatus.EXCEPTION
    return head, body


def note(error: BaseException, text: str) -> None:
    """Add a note to an exception, if it takes any; any Python since 3.9 carries it, and 3.11 prints it."""
    try:
        error.__notes__ = [*getattr(error, "__notes__", ()), text]  # type: ignore[attr-defined,unused-ignore]
    except Exception:  # noqa: BLE001  a user's class may refuse
        return


def in_words(error: BaseException, what: str) -> Tuple[Dict[str, Any], bytes]:
    """The failure (and the error, if it is one of ours) in plain words; the exception, pickled. ``what`` raised it."""
    sentence = exit_sentence(error, what)
    if sentence is not None:
        trace = error.__traceback__
        notes = getattr(error, "__notes__", ())
        error = RemoteError(sentence)
        error.__traceback__ = trace
        for text in notes:
            note(error, text)
    failure, parts = describe(error)
    head: Dict[str, Any] = {"failure": failure}
    if isinstance(error, Error):
        head["error"] = to_wire(error)
    body = b"".join(parts)
    if len(body) > MAX_INLINE:  # words are enough of an exception that carries megabytes
        failure.pop("pickled", None)
        return head, b""
    return head, body


def exit_sentence(error: BaseException, name: str) -> Optional[str]:
    """What to say of an exception that means "leave" to a program, and is only a failure to a function."""
    if isinstance(error, SystemExit):
        code = 0 if error.code is None else error.code
        return f"{name} called exit({code!r}), which ends a program; a function returns or raises"
    if isinstance(error, KeyboardInterrupt):
        return f"{name} was interrupted: KeyboardInterrupt was raised in its container"
    if isinstance(error, GeneratorExit):
        return f"{name} raised GeneratorExit"
    return None


def _pickled(error: BaseException) -> List[Any]:
    from alight.wire import payload  # noqa: PLC0415  paid by failures only
    from alight.wire.errors import DeserializationError, SerializationError  # noqa: PLC0415

    # An exception whose __init__ wants other arguments than its args pickles well and never unpickles.
    for form in (error, _Rebuilt(error)):
        try:
            parts = payload.dumps(form, "the exception")
            back = payload.loads(b"".join(bytes(part) for part in parts), "the exception")
        except (SerializationError, DeserializationError, RecursionError):
            continue
        if type(back) is type(error) or not isinstance(form, _Rebuilt):
            return parts
    return []


class _Rebuilt:
    """Pickles as the exception that it holds, made anew without calling its constructor."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> Any:
        from alight.wire.failure import rebuild  # noqa: PLC0415  exceptions that need it are rare

        return rebuild, (type(self._error), self._error.args, dict(self._error.__dict__))


def _plain(error: BaseException, seen: Any, depth: int) -> Dict[str, Any]:
    seen.add(id(error))
    kind = type(error)
    plain: Dict[str, Any] = {"type": f"{kind.__module__}.{kind.__qualname__}", "message": _message(error)}
    frames = _frames(error)
    if frames:
        plain["frames"] = frames
    if error.__suppress_context__:
        plain["context_suppressed"] = True
    cause = error.__cause__ if error.__suppress_context__ else error.__context__
    if cause is not None and id(cause) not in seen and depth < MAX_CHAIN:
        plain["cause"] = _plain(cause, seen, depth + 1)
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list):
        plain["notes"] = [str(note) for note in notes]
    return plain


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001  a user's __str__ may raise anything
        return f"<its __str__ raised {type(broken).__name__}>"
    return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + f"… ({len(text)} characters)"


def _frames(error: BaseException) -> List[Dict[str, Any]]:
    places: List[Tuple[str, int, str, Any]] = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        places.append((code.co_filename, step.tb_lineno or 0, code.co_name, step.tb_frame.f_globals))
        step = step.tb_next
    if len(places) > MAX_FRAMES:
        half = MAX_FRAMES // 2
        places = places[:half] + places[-half:]
    frames = [_frame(*place) for place in places]
    if isinstance(error, SyntaxError) and error.filename:
        # Where the syntax is wrong no frame ever ran.
        place = _frame(error.filename, error.lineno or 0, "<module>", None)
        place["text"] = (error.text or "").strip() or place.get("text", "")
        frames.append(place)
    return frames


def _frame(file: str, line: int, name: str, variables: Any) -> Dict[str, Any]:
    import linecache  # noqa: PLC0415  compiles patterns; paid by failures only

    frame: Dict[str, Any] = {"file": file, "line": line, "name": name}
    text = linecache.getline(file, line, variables).strip()
    if text:
        frame["text"] = text
    if _is_ours(file):
        frame["user"] = False
    return frame


def _is_ours(file: str) -> bool:
    if file.startswith("<frozen importlib"):
        return True
    return file.startswith(_OWN) or os.path.realpath(file).startswith(_OWN) if file[:1] != "<" else False


def print_local(error: BaseException) -> None:
    """The traceback on the container's own stderr, without the runtime's frames: logs should tell the story alone."""
    import traceback  # noqa: PLC0415  paid by failures only

    step = error.__traceback__
    while step is not None and _is_ours(step.tb_frame.f_code.co_filename):
        step = step.tb_next
    try:
        traceback.print_exception(type(error), error, step, file=sys.stderr)
    except (OSError, ValueError):
        return  # user code closed stderr
