"""What a container reaches and what it does not."""

# ruff: noqa: F811 fixtures are imported and then asked for by name
from __future__ import annotations

import asyncio
import configparser
import contextlib
import os
import socket
import subprocess
import textwrap
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from alight.node.dns import Forwarder, Resolvers
from alight.node.network import Names
from tests.system.forked_lab import lab  # noqa: F401 a fixture
from tests.system.lab import CONNECT, serving

REFUSED = ("ConnectionRefusedError", "No route to host", "OSError")


def test_another_container_cannot_be_reached(lab):
    other, address = serving(lab)
    text = lab.ask(lab.python(f"{CONNECT}\nreach('{address}', 8000)"))
    assert "reached" not in text
    assert any(word in text for word in REFUSED)
    # It was there all the time: the node reaches it through a socket of its own network.
    with lab.run(lab.engine.netns_socket(other, socket.AF_INET, socket.SOCK_STREAM)) as ours:
        ours.settimeout(5)
        ours.connect(("127.0.0.1", 8000))
        assert ours.recv(2) == b"hi"
    lab.run(lab.engine.remove(other))


def host_addresses() -> list[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.77", 9))
        return [probe.getsockname()[0]]


def test_ports_of_the_host_cannot_be_reached(lab):
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        plan = lab.python(
            f"""
            import subprocess
            {CONNECT.replace(chr(10), chr(10) + " " * 12)}
            routes = [one.split() for one in open("/proc/net/route")]
            gateway = next(bytes.fromhex(one[2])[::-1] for one in routes if one[1] == "00000000")
            reach(socket.inet_ntoa(gateway), {port})
            for one in {host_addresses()!r}:
                reach(one, {port})
            """
        )
        text = lab.ask(plan)
    assert "reached" not in text
    assert text.count("\n") == 2
    assert text.count("ConnectionRefused") + text.count("No route") + text.count("unreachable") == 2


def test_the_metadata_address_cannot_be_reached(lab):
    started = time.monotonic()
    text = lab.ask(lab.python(f"{CONNECT}\nreach('169.254.169.254', 80)"))
    assert "reached" not in text
    assert "imed" not in text, "it should be refused, not run into a timeout"
    assert time.monotonic() - started < 3


def dropped(lab) -> int:
    """How many packets of this instance were dropped for their sender."""
    table = Names.of(str(lab.home)).table
    listing = subprocess.run(
        ["nft", "list", "chain", "inet", table, "origin"], capture_output=True, text=True, check=True
    )
    return int(listing.stdout.partition("counter packets ")[2].split()[0])


def test_a_forged_sender_is_dropped(lab):
    before = dropped(lab)
    code = """
        import socket
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        head = bytes.fromhex("4500001c0001000040110000")
        for sender in "10.1.2.3", "127.0.0.1", "192.0.2.1":
            addresses = socket.inet_aton(sender) + socket.inet_aton("192.0.2.77")
            raw.sendto(head + addresses + bytes.fromhex("0035003500080000"), ("192.0.2.77", 0))
    """
    assert lab.ask(lab.python(code)) == "[0]"
    assert dropped(lab) >= before + 2


def test_without_a_network_there_is_loopback_only(lab):
    code = """
        import os, socket
        print(sorted(os.listdir("/sys/class/net")), open("/etc/resolv.conf").read() == "")
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
            print("itself")
    """
    plan = lab.python(textwrap.dedent(code) + CONNECT + "\nreach('192.0.2.1', 53)", network="none")
    text = lab.ask(plan)
    assert text.startswith("['lo'] True\nitself\n")
    assert "Network is unreachable" in text


def test_a_name_is_resolved(lab):
    """Over UDP and TCP, by a resolver of the host that only the host can reach."""

    async def main():
        answers = _FakeResolver()
        port = await answers.start()
        config = lab.home / "resolv.conf"
        config.write_text("nameserver 127.0.0.1\n")
        plan = lab.python(
            """
            import socket, struct
            print(socket.gethostbyname("anything.example"), flush=True)
            question = bytes.fromhex("beef01000001000000000000") + b"\\x01a\\x00\\x00\\x01\\x00\\x01"
            with socket.create_connection(("127.0.0.53", 53)) as tcp:
                tcp.send(struct.pack("!H", len(question)) + question)
                tcp.recv(2); print(tcp.recv(500)[:2].hex())
            """
        )
        await lab.engine.start(plan)
        sockets = await lab.engine.dns_sockets(plan.id)
        assert sockets is not None
        forwarder = Forwarder(*sockets, Resolvers(str(config), port))
        await forwarder.start()
        state = await lab.engine.wait(plan.id)
        await forwarder.close()
        await answers.close()
        text = lab.printed(plan.id)
        await lab.engine.remove(plan.id)
        return state.exit_code, text

    assert lab.run(main()) == (0, "203.0.113.7\nbeef\n")


def test_a_package_index_is_reached(lab):
    """The way out, by whatever index this machine's pip is configured for."""
    index = next((one for one in indexes() if urlsplit(one).scheme in {"http", "https"}), None)
    if index is None:
        pytest.skip("pip on this machine uses no index over the network")
    parts = urlsplit(index)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]

    async def main():
        plan = lab.python(
            f"""
            import socket
            with socket.create_connection(({parts.hostname!r}, {port}), 20):
                print("reached")
            """
        )
        await lab.engine.start(plan)
        sockets = await lab.engine.dns_sockets(plan.id)
        forwarder = Forwarder(*sockets, Resolvers())
        await forwarder.start()
        await lab.engine.wait(plan.id)
        await forwarder.close()
        text = lab.printed(plan.id)
        await lab.engine.remove(plan.id)
        return text

    try:
        socket.create_connection((parts.hostname, port), 5).close()
    except OSError:
        pytest.skip("the index does not answer the host either")
    assert lab.run(main()) == "reached\n"


def indexes() -> list[str]:
    found = [
        os.environ[name] for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL") if name in os.environ
    ]
    for path in (Path("/etc/pip.conf"), Path.home() / ".config/pip/pip.conf", Path.home() / ".pip/pip.conf"):
        parser = configparser.ConfigParser(interpolation=None)
        with contextlib.suppress(configparser.Error):
            parser.read(path)
        for key in ("index-url", "extra-index-url"):
            found += parser.get("global", key, fallback="").split()
    return [*found, "https://pypi.org/simple"]


class _FakeResolver:
    """Answers every question with 203.0.113.7."""

    async def start(self) -> int:
        loop = asyncio.get_running_loop()
        outer = self

        class Datagrams(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.transport = transport

            def datagram_received(self, data, addr):
                self.transport.sendto(outer.answer(data), addr)

        self.udp, _ = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
        port = self.udp.get_extra_info("sockname")[1]
        self.tcp = await asyncio.start_server(self._stream, "127.0.0.1", port)
        return port

    async def close(self) -> None:
        self.udp.close()
        self.tcp.close()

    async def _stream(self, reader, writer):
        length = int.from_bytes(await reader.readexactly(2), "big")
        answer = self.answer(await reader.readexactly(length))
        writer.write(len(answer).to_bytes(2, "big") + answer)
        await writer.drain()
        writer.close()

    def answer(self, question: bytes) -> bytes:
        body = question[12 : question.index(0, 12) + 5]
        record = bytes.fromhex("c00c000100010000003c0004") + socket.inet_aton("203.0.113.7")
        return question[:2] + bytes.fromhex("81800001000100000000") + body + record
