"""The gateway's names in DNS: its own questions are answered, all others left alone, and no bytes make it fail."""

import os
import socket
import struct

import pytest

from alight.node import own_names

ADDRESS = "127.0.0.53"


def question(name, kind=1, number=7, flags=0x0100, extra=b"", questions=1):
    parts = b"".join(bytes((len(part),)) + part.encode() for part in name.split(".")) + b"\0"
    return (
        struct.pack("!6H", number, flags, questions, 0, 0, 1 if extra else 0)
        + parts
        + struct.pack("!2H", kind, 1)
        + extra
    )


@pytest.mark.parametrize(
    "name", ["alight.internal", "shop-page.alight.internal", "SHOP.Alight.Internal", "a.b.alight.internal"]
)
def test_names_of_the_gateway_are_ours(name):
    assert own_names.is_ours(question(name))


@pytest.mark.parametrize(
    "name", ["example.com", "internal", "notalight.internal", "alight.internal.com", "alight", "xalight.internal"]
)
def test_all_others_are_not(name):
    assert not own_names.is_ours(question(name))


def test_an_address_is_answered_to_who_asks_for_one():
    edns = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)
    asked = question("x.alight.internal", extra=edns)
    said = own_names.answer(asked, ADDRESS)
    number, flags, questions, answers, _, additional = struct.unpack_from("!6H", said)
    assert (number, questions, answers, additional) == (7, 1, 1, 0)
    assert flags & 0x8000
    assert flags & 0x0100
    assert flags & 0xF == 0
    assert said.endswith(socket.inet_aton(ADDRESS))
    assert edns not in said


def test_another_kind_of_record_is_answered_with_none():
    flags, _, answers = struct.unpack_from("!3H", own_names.answer(question("x.alight.internal", kind=28), ADDRESS), 2)
    assert answers == 0
    assert flags & 0xF == 0  # the name exists: who asks for both kinds must not take it for missing


def test_where_the_gateway_cannot_be_reached_the_answer_is_a_failure():
    flags, _, answers = struct.unpack_from("!3H", own_names.answer(question("x.alight.internal"), ""), 2)
    assert (flags & 0xF, answers) == (2, 0)


def test_what_is_no_question_is_left_alone():
    assert not own_names.is_ours(b"")
    assert not own_names.is_ours(question("x.alight.internal", flags=0x8180))
    assert not own_names.is_ours(question("x.alight.internal", questions=2))
    assert not own_names.is_ours(question("x.alight.internal")[:-3])
    whole = question("x.alight.internal")
    for cut in range(len(whole)):
        own_names.is_ours(whole[:cut])
    for _ in range(2_000):
        noise = os.urandom(40)
        if own_names.is_ours(noise):
            own_names.answer(noise, ADDRESS)
