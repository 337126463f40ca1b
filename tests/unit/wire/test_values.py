"""Payloads, errors, ids and versions: what users see of the wire."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest

from alight.wire import errors, ids, payload, version


class Local:
    """By reference for the C pickler, since this module can be imported by name."""

    def __eq__(self, other):
        return isinstance(other, Local)

    __hash__ = None


@pytest.mark.parametrize("value", [None, 5, "x" * 10, {"a": [1, 2.5]}, b"raw", [()], {1, 2}])
def test_plain_values_come_back_equal(value):
    assert payload.loads(payload.dumps_bytes(value)) == value


def test_what_the_c_pickler_refuses_travels_too():
    offset = 3
    assert payload.loads(payload.dumps_bytes(lambda x: x + offset))(4) == 7


def test_arrays_are_views_while_sending_and_writable_on_arrival():
    array = np.arange(100_000)
    parts = payload.dumps({"a": array})
    assert any(isinstance(part, memoryview) and part.nbytes == array.nbytes for part in parts)
    arrived = payload.loads(bytearray(b"".join(parts)))["a"]
    arrived[0] = 7
    assert (arrived[1:] == array[1:]).all()


def test_an_unpicklable_value_is_named():
    with pytest.raises(errors.SerializationError, match=r"the argument 'lock' of f\(\) cannot be pickled"):
        payload.dumps(sys._getframe(), "the argument 'lock' of f()")


def test_a_missing_module_is_named():
    bad = b"cnosuchmodule\nThing\n."
    raw = payload._COUNT.pack(1) + payload._LENGTH.pack(len(bad)) + bad
    with pytest.raises(errors.DeserializationError, match="nosuchmodule"):
        payload.loads(raw)
    with pytest.raises(errors.DeserializationError, match="damaged"):
        payload.loads(b"xy")


def test_every_error_crosses_the_wire_as_itself():
    kinds = list(errors._by_code() or {}) and list(errors._CODES.values())
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        there = errors.from_wire(errors.to_wire(kind("a sentence", hint="do this", limit=3)))
        assert (type(there), str(there), there.hint, there.details) == (kind, "a sentence", "do this", {"limit": 3})
    assert type(errors.from_wire({"code": "of_tomorrow", "message": "m"})) is errors.Error


def test_errors_pickle_with_their_hint():
    error = pickle.loads(pickle.dumps(errors.NotFoundError("no such volume", hint="create it", name="x")))
    assert (str(error), error.hint, error.details) == ("no such volume", "create it", {"name": "x"})


def test_ids_are_typed_unique_and_sort_by_age():
    made = [ids.new_id(ids.CALL) for _ in range(100)]
    assert len(set(made)) == 100
    assert all(ids.is_id(one, "fc") and not ids.is_id(one, "ap") for one in made)


@pytest.mark.parametrize("name", ["", "a/b", "x" * 65, "..", "a\n", "ap-" + "0" * 22])
def test_names_that_break_the_rules_are_refused_with_the_rule(name):
    with pytest.raises(errors.InvalidError, match="cannot be the name of a volume"):
        ids.check_name(name, "volume")


@pytest.mark.parametrize("wire", [version.WIRE_VERSION, version.WIRE_VERSION - 1])
def test_neighbouring_versions_talk(wire):
    version.check_peer(wire, "0", "server")


@pytest.mark.parametrize("wire", [version.WIRE_VERSION + 1, version.WIRE_VERSION - 2])
def test_others_get_one_sentence_that_says_whom_to_update(wire):
    with pytest.raises(errors.VersionError) as caught:
        version.check_peer(wire, "9.9", "server")
    assert "\n" not in str(caught.value)
    assert "update" in (caught.value.hint or "")


def test_large_bytes_travel_beside_the_pickle_and_arrive_as_what_they_were():
    large, changing = b"x" * 100_000, bytearray(b"y" * 100_000)
    parts = payload.dumps(((large, 1), {"data": changing}))
    assert [len(part) for part in parts[1:]] == [100_000, 100_000]
    (arrived, one), named = payload.loads(bytearray(b"".join(parts)))
    assert (arrived, one, named) == (large, 1, {"data": changing})
    assert (type(arrived), type(named["data"])) == (bytes, bytearray)


def _by_parts(data):
    asked = []

    def read(offset, length, writable):
        asked.append((length, writable))
        return bytearray(data[offset : offset + length]) if writable else data[offset : offset + length]

    return payload.loads_by(read, len(data)), asked


def test_a_file_is_read_part_by_part_and_bytes_are_not_copied_again():
    large = b"x" * 100_000
    value, asked = _by_parts(payload.dumps_bytes({"a": large, "b": bytearray(large), "c": 1}))
    assert value == {"a": large, "b": bytearray(large), "c": 1}
    assert (len(large), False) in asked
    assert (len(large), True) in asked


def test_many_parts_do_not_fit_the_first_look():
    values = [b"%d" % index * 70_000 for index in range(600)]
    value, _ = _by_parts(payload.dumps_bytes(tuple(values)))
    assert list(value) == values


def test_a_file_that_ends_early_is_refused():
    data = payload.dumps_bytes(b"x" * 100_000)
    for end in (0, 3, 8, 50, len(data) - 1):
        with pytest.raises(errors.DeserializationError, match="damaged"):
            _by_parts(data[:end])
