"""The short way to JSON says and reads what ``json`` does."""

from __future__ import annotations

import json

import pytest

from alight.runtime import quick_json

VALUES = [{}, [], "", 'é\n"\\\u2028', 0, -1, 2**70, 1.5, 1e300, None, True, {"a": [{"b": [1, None]}], "c": "d"}]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_both_ways_agree(value):
    text = quick_json.encode(value)
    assert text == json.dumps(value, separators=(",", ":"))
    assert quick_json.decode(text) == json.loads(text) == value


@pytest.mark.parametrize("text", ["", "{", "[1,", "nonsense", '{"a":1}x', '"open'])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        quick_json.decode(text)


def test_what_is_no_plain_data_is_refused():
    with pytest.raises(TypeError):
        quick_json.encode({"a": object()})
