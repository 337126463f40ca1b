"""A remote exception arrives as itself, with the remote lines in its traceback."""

from __future__ import annotations

import traceback

import pytest

from alight.sdk import failures
from alight.wire import payload
from alight.wire.errors import ExecutionError, RemoteError
from alight.wire.failure import Failure, FailureFrame

FRAMES = (
    FailureFrame("/opt/alight/lib/alight/runtime/runner.py", 9, "run", "call()", user=False),
    FailureFrame("/root/script.py", 41, "outer", "    inner(1)"),
    FailureFrame("/root/script.py", 7, "inner", "    raise ValueError('bad')"),
)


def told(error, **more):
    failure = Failure(type="builtins.ValueError", message="bad", frames=FRAMES, pickled=True, **more)
    return failures.to_exception(failure, payload.dumps_bytes(error), "ta-1")


def test_the_exception_keeps_its_type_and_shows_the_remote_lines():
    error = told(ValueError("bad"))
    assert type(error) is ValueError
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    assert 'File "<ta-1>:/root/script.py", line 41, in outer\n    inner(1)\n' in text
    assert "line 7, in inner\n    raise ValueError('bad')" in text
    assert "runner.py" not in text
    assert "^^^" not in text


def test_every_frame_can_be_had():
    failure = Failure(type="builtins.ValueError", message="bad", frames=FRAMES, pickled=True)
    error = failures.to_exception(failure, payload.dumps_bytes(ValueError("bad")), "ta-1", show_all=True)
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names == ["run", "outer", "inner"]


def test_causes_travel_as_words_and_print_as_themselves():
    cause = Failure(type="builtins.KeyError", message="'nope'", frames=FRAMES[1:2])
    error = told(ValueError("bad"), cause=cause, context_suppressed=True)
    assert isinstance(error.__cause__, KeyError)
    assert str(error.__cause__) == "'nope'"
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    assert "KeyError: 'nope'\n" in text
    assert "RemoteError" not in text
    assert "direct cause" in text
    during = told(ValueError("bad"), cause=cause)
    text = "".join(traceback.format_exception(type(during), during, during.__traceback__))
    assert "During handling of the above exception" in text


def test_an_exception_that_could_not_be_pickled_is_its_text():
    failure = Failure(type="mine.Odd", message="very", frames=FRAMES[1:])
    error = failures.to_exception(failure, b"", "ta-1")
    assert type(error) is RemoteError
    assert str(error) == "mine.Odd: very"


def test_a_class_that_is_not_here_is_named():
    body = payload.dumps_bytes(ValueError("x")).replace(b"builtins", b"nothere1").replace(b"ValueError", b"WrongError")
    failure = Failure(type="nothere1.WrongError", message="x", frames=FRAMES[1:], pickled=True)
    error = failures.to_exception(failure, body, "ta-1")
    assert type(error) is ExecutionError
    assert "nothere1.WrongError: x" in str(error)


def test_notes_travel():
    error = told(ValueError("bad"), notes=("look at row 3",))
    assert error.__notes__ == ["look at row 3"]
    with pytest.raises(ValueError, match="bad"):
        raise error


@pytest.mark.parametrize("kind", ["ExceptionGroup", "OSError", "UnicodeDecodeError", "SystemExit", "print", "nosuch"])
def test_a_cause_of_any_name_can_be_told(kind):
    error = told(ValueError("bad"), cause=Failure(type=f"builtins.{kind}", message="words"), context_suppressed=True)
    assert str(error.__cause__) == "words"
    assert type(error.__cause__).__name__ == kind
