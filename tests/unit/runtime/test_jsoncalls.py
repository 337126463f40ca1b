"""Calls with JSON: what a body must look like, and what is said of values that JSON lacks."""

import asyncio
import datetime
import decimal
import json

import pytest

from alight.runtime import jsoncalls
from alight.runtime.runner import Target
from alight.wire import payload
from alight.wire.errors import InvalidError, SerializationError


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"", ([], {})),
        (b"{}", ([], {})),
        (b'{"args": [1, "a", null]}', ([1, "a", None], {})),
        (b'{"kwargs": {"x": [true]}}', ([], {"x": [True]})),
        ('{"args": ["ä"]}'.encode(), (["ä"], {})),
    ],
)
def test_arguments_are_read(body, found):
    assert jsoncalls.arguments(body, "the arguments of f()") == found


@pytest.mark.parametrize("body", [b"[1]", b"1", b'{"args": 1}', b'{"kwargs": []}', b'{"x": 1}', b"{", b"\xff"])
def test_what_is_no_such_body_is_refused(body):
    with pytest.raises(InvalidError, match=r"the arguments of f\(\)"):
        jsoncalls.arguments(body, "the arguments of f()")


@pytest.mark.parametrize("value", [None, 1, 1.5, "ä\n", [1, (2, 3)], {"a": {"b": [True]}}])
def test_values_leave_as_json_and_not_as_a_pickle(value):
    (data,) = payload.dumps(jsoncalls.encoded(value, "f"))
    assert json.loads(data) == json.loads(json.dumps(value))


class Point:
    pass


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (datetime.date(2026, 1, 1), r"the result of f\(\) is of type datetime\.date, which JSON lacks"),
        ({"a": [1, {2, 3}]}, r"\[1\] in \['a'\] in the result of f\(\) is of type set"),
        ([Point()], r"\[0\] in the result of f\(\) is of type .*Point"),
        (float("nan"), r"is nan, which JSON lacks"),
        ({"x": float("-inf")}, r"\['x'\] in the result of f\(\) is -inf"),
        ({(1, 2): 3}, r"a key in the result of f\(\) is of type tuple"),
        (b"bytes", r"of type bytes"),
        (decimal.Decimal(1), r"of type decimal\.Decimal"),
    ],
)
def test_what_json_lacks_is_named_with_its_place(value, said):
    with pytest.raises(SerializationError, match=said):
        jsoncalls.encoded(value, "f")


def test_a_value_that_holds_itself_is_said_and_not_followed_for_ever():
    loop = []
    loop.append(loop)
    with pytest.raises(SerializationError, match="JSON lacks"):
        jsoncalls.encoded(loop, "f")


def test_plain_and_async_functions_answer_in_json():
    async def later(x):
        return {"x": x}

    plain, coroutine = jsoncalls.target(Target(lambda x: [x], "f")), jsoncalls.target(Target(later, "g"))
    assert not plain.is_async
    assert payload.dumps(plain.call(1)) == [b"[1]"]
    assert coroutine.is_async
    assert payload.dumps(asyncio.run(coroutine.call(2))) == [b'{"x":2}']
