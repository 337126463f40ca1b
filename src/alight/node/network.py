"""Networks of containers: a namespace with loopback only, or one with a routed address of its own.

No bridge: a device per container lets firewall rules name the container by a name that it cannot forge. The namespace
is held by a descriptor in the spawner and has no name in the file system; the kernel removes everything in it when
the last holder is gone. Never delete a device: that waits for the kernel (36 ms), closing the descriptor does not.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import socket
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address
from pathlib import Path

from alight.node import kernel
from alight.node.netlink import LOOPBACK_INDEX, Netlink, Route

DNS_ADDRESS = ("127.0.0.53", 53)
# Seldom what others take. Each instance on a machine needs one of its own: as many as anybody runs at once.
_CANDIDATES = tuple(
    f"{start}.0.0/16"
    for start in (
        *("10.89", "10.213", "172.29", "198.18", "10.147", "172.22", "10.61", "10.173", "172.27", "198.19"),
        *("10.102", "10.232", "172.24", "10.38", "10.117", "10.194", "10.76", "10.158"),
    )
)
_LOCKS = Path("/run/alight")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_NAME_ROOM = 36**6


@dataclass(frozen=True)
class Names:
    """What one instance calls its things on a machine that it may share with other instances."""

    prefix: str
    """Of its network devices. All prefixes have one length, so that none begins with another."""
    table: str
    """Its nft table, and the mark of its rules in tables of others."""
    group: str
    """Its control group."""

    @classmethod
    def of(cls, instance: str) -> Names:
        digest = hashlib.sha256(instance.encode()).hexdigest()
        return cls(f"al{digest[:6]}-", f"alight_{digest[:12]}", f"/alight-{digest[:12]}")


@dataclass
class Space:
    """One container's network. The descriptors keep it alive."""

    namespace: int
    device: str | None
    address: str | None
    dns: tuple[socket.socket, socket.socket] | None

    def close(self) -> None:
        os.close(self.namespace)
        for one in self.dns or ():
            one.close()


class Network:
    """Makes networks. Single-threaded by need: it moves the whole process between namespaces for a moment."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._netlink = Netlink()
        routes = self._netlink.routes()
        self.subnet, self._lock = _claim_subnet(routes, _nameservers())
        default = next((one.device for one in routes if one.network.prefixlen == 0), LOOPBACK_INDEX)
        self.mtu = 1500 if default == LOOPBACK_INDEX else self._netlink.mtu(default)
        self._gateway = str(self.subnet[1])
        self._taken: set[int] = set()
        self._next_host = 2
        self._next_name = 0

    def create(self, *, full: bool, namespace: int | None = None) -> Space:
        """A new network, in the namespace of a descriptor that is ours from now on, or in a new one of the host's.

        Without ``full`` only loopback is in it.
        """
        namespace, inside, dns = self._in_namespace(namespace, full=full)
        try:
            if not full:
                return Space(namespace, None, None, None)
            address, device = self._take_address(), self._wire(namespace)
            self._netlink.add_address(socket.if_nametoindex(device), self._gateway, address)
            inside.wire_inside(address, self._gateway)
            return Space(namespace, device, address, dns)
        except OSError:
            os.close(namespace)
            raise
        finally:
            inside.close()

    def release(self, space: Space) -> None:
        """Let a network go. The kernel removes it a few milliseconds later."""
        space.close()
        if space.address is not None:
            self._taken.discard(int(ip_address(space.address)) - int(self.subnet.network_address))

    def socket_in(self, space: Space, family: int, kind: int) -> socket.socket:
        """A socket that lives in that network for all its life."""
        kernel.setns(space.namespace, kernel.CLONE_NEWNET)
        try:
            return socket.socket(family, kind | socket.SOCK_CLOEXEC)
        finally:
            self._return()

    def _in_namespace(
        self, given: int | None, *, full: bool
    ) -> tuple[int, Netlink, tuple[socket.socket, socket.socket] | None]:
        if given is None:
            kernel.unshare(kernel.CLONE_NEWNET)
        else:
            kernel.setns(given, kernel.CLONE_NEWNET)
        try:
            namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC) if given is None else given
            inside = Netlink()
            inside.loopback_up()
            with contextlib.suppress(OSError):
                # Everybody in it may ping, without a raw socket.
                Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 2147483647", encoding="ascii")
            return namespace, inside, _dns_listeners() if full else None
        finally:
            self._return()

    def _return(self) -> None:
        try:
            kernel.setns(self._home, kernel.CLONE_NEWNET)
        except OSError:
            # Every later socket and device would be made in a container's network: dying is the safer end.
            os.abort()

    def _take_address(self) -> str:
        room = self.subnet.num_addresses - 2
        if len(self._taken) >= room - 2:
            raise OSError(errno.EADDRNOTAVAIL, f"all addresses of {self.subnet} are in use")
        while self._next_host in self._taken:
            self._next_host = self._next_host + 1 if self._next_host < room else 2
        host = self._next_host
        self._taken.add(host)
        self._next_host = host + 1 if host < room else 2
        return str(self.subnet[host])

    def _wire(self, namespace: int) -> str:
        while True:
            # Names are used once: a device goes a moment after its container, and rules may still name it.
            name = self._prefix + _base36(self._next_name % _NAME_ROOM)
            self._next_name += 1
            try:
                self._netlink.add_veth(name, namespace, self.mtu)
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
            else:
                return name


def free_subnets(routes: list[Route], nameservers: list[str]) -> list[IPv4Network]:
    """The candidates that overlap no route and hold no nameserver, best first."""
    used = [one.network for one in routes if one.network.prefixlen]
    servers = [ip_address(one) for one in nameservers]
    candidates = [IPv4Network(one) for one in _CANDIDATES]
    return [
        one
        for one in candidates
        if not any(one.overlaps(other) for other in used) and not any(server in one for server in servers)
    ]


def _claim_subnet(routes: list[Route], nameservers: list[str]) -> tuple[IPv4Network, int]:
    # Another instance without a container has no route to be seen, so it holds a lock for as long as it lives.
    _LOCKS.mkdir(exist_ok=True)
    for subnet in free_subnets(routes, nameservers):
        lock = os.open(_LOCKS / f"subnet-{subnet.network_address}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return subnet, lock
    raise OSError(
        errno.EADDRNOTAVAIL,
        f"no network is left for containers: all of {', '.join(_CANDIDATES)} are routed or used by other instances",
    )


def _nameservers() -> list[str]:
    try:
        text = Path("/etc/resolv.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    words = [line.split() for line in text.splitlines()]
    return [one[1] for one in words if len(one) > 1 and one[0] == "nameserver" and one[1].count(".") == 3]


def _dns_listeners() -> tuple[socket.socket, socket.socket]:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    udp.bind(DNS_ADDRESS)
    tcp.bind(DNS_ADDRESS)
    tcp.listen(64)
    return udp, tcp


def _base36(number: int) -> str:
    digits = ""
    while number or not digits:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits
