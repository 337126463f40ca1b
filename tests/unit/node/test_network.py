"""Names, addresses and messages of container networks, without making any."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Network

import pytest

from alight.node import netlink
from alight.node.dns import failure, nameservers
from alight.node.firewall import dropping_chains, ruleset
from alight.node.netlink import Netlink, Route
from alight.node.network import Names, _base36, free_subnets


def route(text):
    return Route(IPv4Network(text), 4)


def test_a_subnet_that_is_routed_or_holds_a_nameserver_is_not_taken():
    assert str(free_subnets([], [])[0]) == "10.89.0.0/16"
    taken = [route("10.89.3.7/32"), route("10.213.0.0/24"), route("0.0.0.0/0")]
    assert str(free_subnets(taken, ["172.29.0.10"])[0]) == "198.18.0.0/16"
    assert free_subnets([route("0.0.0.0/1"), route("128.0.0.0/1")], []) == []


def test_two_instances_share_no_name():
    one, other = Names.of("/var/lib/alight"), Names.of("/home/me")
    assert Names.of("/var/lib/alight") == one
    assert {one.prefix, one.table, one.group}.isdisjoint({other.prefix, other.table, other.group})
    assert len(one.prefix) == len(other.prefix)


def test_device_names_fit_into_the_kernels_fifteen_bytes():
    assert len(Names.of("x").prefix + _base36(36**6 - 1)) <= 15
    assert [_base36(one) for one in (0, 35, 36)] == ["0", "z", "10"]


def test_the_ruleset_replaces_the_table_as_a_whole():
    names = Names.of("x")
    text = ruleset(names, "10.89.0.0/16")
    assert text.startswith(f"table inet {names.table} {{}}\ndelete table inet {names.table}\n")
    assert "169.254.0.0/16 reject" in text
    assert f'iifname "{names.prefix}*" reject' in text


def test_only_foreign_forward_chains_that_drop_need_rules():
    chain = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}
    listing = [
        chain,
        {**chain, "policy": "accept"},
        {**chain, "hook": "input"},
        {**chain, "family": "ip6"},
        {**chain, "table": "ours"},
        {"family": "ip", "table": "filter", "name": "helper"},
    ]
    assert dropping_chains(listing, "ours") == [chain]


class FakeSocket:
    """Takes what is sent, and gives the answers that it was made with."""

    def __init__(self, *answers):
        self.sent = []
        self.answers = list(answers)

    def send(self, data):
        self.sent.append(data)

    def recv(self, _):
        return self.answers.pop(0)

    def close(self):
        pass


def spoken(*answers):
    link = Netlink.__new__(Netlink)
    link._socket = FakeSocket(*answers)
    link._sequence = 0
    return link


def message(kind, body):
    return netlink._HEAD.pack(netlink._HEAD.size + len(body), kind, 0, 1, 0) + body


def acknowledged(number=0):
    return message(netlink._ERROR, struct.pack("=i", -number) + bytes(16))


def test_every_acknowledgement_is_waited_for():
    index = message(netlink._NEWLINK, netlink._LINK.pack(0, 0, 7, 0, 0))
    link = spoken(index, acknowledged() * 3, acknowledged())
    link.wire_inside("10.89.0.2", "10.89.0.1")
    assert link._socket.answers == []
    assert socket.inet_aton("10.89.0.1") in link._socket.sent[1]


def test_a_refusal_is_an_error_with_its_number():
    link = spoken(acknowledged(17))
    with pytest.raises(FileExistsError):
        link.add_veth("al-1", 3, 1500)


def test_routes_of_other_tables_are_not_ours():
    def entry(prefix, table, address, device):
        head = netlink._ROUTE.pack(socket.AF_INET, prefix, 0, 0, table, 3, 0, 1, 0)
        return message(
            netlink._NEWROUTE, head + netlink._attribute(1, socket.inet_aton(address)) + netlink._number(4, device)
        )

    dump = entry(16, 254, "10.1.0.0", 2) + entry(32, 255, "10.1.0.1", 2) + message(netlink._DONE, bytes(4))
    assert spoken(dump).routes() == [Route(IPv4Network("10.1.0.0/16"), 2)]


def test_nameservers_are_read_in_order():
    assert nameservers("# x\nsearch lab\nnameserver 10.0.0.1\nnameserver\nnameserver fd00::1 # y\n") == [
        "10.0.0.1",
        "fd00::1",
    ]


def test_a_failure_answers_the_question_that_was_asked():
    question = bytes.fromhex("abcd01000001000000000000") + b"\x01a\x00\x00\x01\x00\x01"
    answer = failure(question)
    assert answer[:2] == question[:2]
    assert answer[2] & 0x80
    assert answer[3] & 0x0F == 2
    assert failure(b"short") == b"short"
