"""Frames and heads: what one side writes the other reads, whatever way the bytes are cut, by either codec."""

from __future__ import annotations

import dataclasses
import inspect
import typing

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alight.wire import admission, codec, commands, errors, failure, messages, spec, stored
from alight.wire.codec import FrameReader, encode_frame

MESSAGES = [
    kind
    for module in (admission, messages, stored, commands, spec, failure)
    for _name, kind in inspect.getmembers(module, dataclasses.is_dataclass)
    if kind.__module__ == module.__name__
]


@given(
    frames=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=40), st.binary())),
    cut=st.integers(1, 50),
)
@settings(max_examples=100, deadline=None)
def test_frames_survive_any_cutting(frames, cut):
    raw = b"".join(b"".join(bytes(piece) for piece in encode_frame(*frame)) for frame in frames)
    reader = FrameReader()
    seen = [frame for start in range(0, len(raw), cut) for frame in reader.feed(raw[start : start + cut])]
    assert [tuple(frame) for frame in seen] == frames
    assert reader.pending == 0


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" * 40, b"\x00\x00\x00\x01\x00\x00\x00\x01\xff" * 9]
)
def test_what_is_not_ours_is_refused_and_never_kept_for_ever(garbage):
    with pytest.raises(errors.InternalError):
        FrameReader().feed(garbage)


def test_a_frame_over_the_limit_is_refused_before_it_is_sent():
    with pytest.raises(errors.InternalError):
        encode_frame(1, 1, b"", bytes(codec.MAX_FRAME + 1))


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_both_codecs_read_what_either_wrote(kind):
    """The container decodes with the standard library, servers with msgspec: one definition, two codecs."""
    for filled in (False, True):
        value = example(kind, filled=filled)
        for head in (codec.dumps_head(value), msgspec.json.encode(value)):
            assert codec.loads_head(kind, head) == value
            assert msgspec.json.decode(head, type=kind) == value


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_a_newer_peers_field_is_ignored(kind):
    plain = codec.to_plain(example(kind, filled=True))
    plain["field_of_tomorrow"] = {"x": 1}
    assert codec.from_plain(kind, plain) == example(kind, filled=True)


def test_a_head_that_does_not_fit_is_one_error_never_a_key_error():
    for head in (b"{", b"[]", b'{"kind": 3'):
        with pytest.raises(errors.InternalError):
            codec.loads_head(messages.AppStop, head)
    with pytest.raises(errors.InternalError):
        codec.loads_head(messages.AppStop, b"{}")


def example(kind, *, filled):
    """An instance with every field set (or only those that must be)."""
    hints = typing.get_type_hints(kind)
    values = {}
    for field in dataclasses.fields(kind):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if filled or needed:
            values[field.name] = example_of(hints[field.name], kind)
    return kind(**values)


def example_of(hint, owner):
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union:
        inner = next(arg for arg in args if arg is not type(None))
        return None if inner is owner else example_of(inner, owner)
    if origin is tuple:
        if args[-1] is not Ellipsis:
            return tuple(example_of(arg, owner) for arg in args)
        return (example_of(args[0], owner),)
    if origin is dict:
        return {"key": example_of(args[1], owner)}
    if dataclasses.is_dataclass(hint):
        return example(hint, filled=True)
    return {str: "text", int: 7, float: 1.5, bool: True}.get(hint, "any")
