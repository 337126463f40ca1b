"""Which web function a request is for: by the name of its host, or by its path where hosts have no names. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote

from alight.wire.urls import INSIDE

PATHS = b"/_/"  # /_/<environment>/<app>/<function>/…
SITE = "alight"  # the label of the server's own pages: no function ever has it
_MOST_KEPT = 1024  # clients choose what they ask for


@dataclass(frozen=True)
class Target:
    """A web function, or a web method of a class, as requests see it.

    ``name`` is for people, ``endpoint`` the method's name. ``slots``: requests that a container has at a time;
    ``aim``: how many of them scaling aims at; ``most`` and ``scaleup`` as ``pools.Pool`` has them. ``timeout``: seconds
    for a request. ``held``: why nothing of it may begin for now, as whoever asks for it is told.
    """

    function_id: str
    name: str
    kind: str = "asgi_app"
    endpoint: str = ""
    port: int = 0
    protected: bool = False
    timeout: float = 300.0
    slots: int = 1
    aim: int | None = None
    single_use: bool = False
    sessioned: bool = False
    most: int = 0
    scaleup: float = 0.0
    held: str = ""


class Found(NamedTuple):
    """A target and what of the path is its own to read."""

    target: Target
    path: bytes
    root: bytes = b""


@dataclass(frozen=True)
class Names:
    """Names that this machine answers to. ``base``: labels are below it, and below localhost.

    ``hosts`` may use the path form, as addresses and localhost may. Others may not: a page that has its own name lead
    here could otherwise read what only this machine's users should.
    """

    base: str = ""
    hosts: frozenset[str] = frozenset()


class Table:
    """Targets by label, by path and by domain."""

    def __init__(self, names: Names = Names()) -> None:
        self._names = names
        # What was found out about hosts and beginnings of paths, which takes longer than all else about a request.
        self._hosts: dict[str, tuple[str, bool]] = {}
        self._begun: dict[tuple[bytes, ...], tuple[Target, bytes]] = {}
        self._labels: Mapping[str, Target] = {}
        self._paths: Mapping[tuple[str, str, str], Target] = {}
        self._domains: Mapping[str, Target] = {}

    def fill(
        self,
        labels: Mapping[str, Target],
        paths: Mapping[tuple[str, str, str], Target],
        domains: Mapping[str, Target],
    ) -> None:
        """What there is from now on. ``paths`` are by environment, app and function."""
        self._labels, self._paths = {label: one for label, one in labels.items() if label != SITE}, paths
        self._domains = domains
        self._begun.clear()

    @property
    def names(self) -> Names:
        """Names that this machine answers to."""
        return self._names

    @names.setter
    def names(self, names: Names) -> None:
        self._names = names
        self._hosts.clear()

    def known(self) -> list[str]:
        """The paths of all there are."""
        return sorted("/_/" + "/".join(one) for one in self._paths)

    def find(self, host: str, path: bytes) -> Found | None:
        """Who serves a path on a host (a name in lower case, without port). None: nobody."""
        known = self._hosts.get(host)
        if known is None:
            if len(self._hosts) >= _MOST_KEPT:
                self._hosts.clear()
            known = self._hosts[host] = self._label_of(host), self.takes_paths(host)
        label, takes_paths = known
        if label:
            target = self._labels.get(label)
            return Found(target, path) if target is not None else None
        if host in self._domains:
            return Found(self._domains[host], path)
        return self._by_path(path) if takes_paths else None

    def takes_paths(self, host: str) -> bool:
        """Whether a host may be used with paths that name the function."""
        if host in {"", "localhost", INSIDE, self._names.base} or host in self._names.hosts:
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True

    def is_site(self, host: str) -> bool:
        """Whether a host is that of the server's own pages. Code in containers has no name for it."""
        return host == f"{SITE}.localhost" or (bool(self._names.base) and host == f"{SITE}.{self._names.base}")

    def is_known(self, host: str) -> bool:
        """Whether requests for a host can be meant for this machine at all."""
        return bool(self._label_of(host)) or host in self._domains or self.takes_paths(host)

    def _label_of(self, host: str) -> str:
        for base in ("localhost", INSIDE, self._names.base):
            if base and host.endswith("." + base):
                return host[: -len(base) - 1]
        return ""

    def _by_path(self, path: bytes) -> Found | None:
        if not path.startswith(PATHS):
            return None
        parts = path.split(b"/", 5)
        if len(parts) < 5:
            return None
        begun = tuple(parts[2:5])
        known = self._begun.get(begun)
        if known is None:
            environment, app, function = (unquote(part.decode("latin-1")) for part in begun)
            target = self._paths.get((environment, app, function))
            if target is None:
                return None
            if len(self._begun) >= _MOST_KEPT:
                self._begun.clear()
            known = self._begun[begun] = target, b"/".join(parts[:5])
        target, root = known
        return Found(target, path[len(root) :] or b"/", root)
