"""Which web function a request is for: by the name of its host, or by its path where hosts have no names. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

PATHS = b"/_/"  # /_/<environment>/<app>/<function>/…


@dataclass(frozen=True)
class Target:
    """A web function, or a web method of a class, as requests see it.

    ``endpoint`` is the method's name. ``order``: who is newer takes a label that two want. ``slots``: requests that a
    container has at a time, 0 where the scheduler counts them; ``aim``: how many scaling aims at.
    """

    function_id: str
    app_id: str
    environment: str
    app: str
    name: str
    kind: str = "asgi_app"
    endpoint: str = ""
    label: str = ""
    domains: tuple[str, ...] = ()
    port: int = 0
    protected: bool = False
    timeout: float = 300.0
    slots: int = 1
    aim: int | None = None
    single_use: bool = False
    order: float = 0.0

    @property
    def path(self) -> str:
        """Where it is on hosts that are not its own."""
        return f"/_/{self.environment}/{self.app}/{self.name}"


@dataclass(frozen=True)
class Found:
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
    """Targets by label, by domain and by path."""

    def __init__(self, names: Names = Names()) -> None:
        self.names = names
        self._by_function: dict[str, tuple[Target, ...]] = {}
        self._labels: dict[str, Target] = {}
        self._domains: dict[str, Target] = {}
        self._paths: dict[tuple[str, str, str], Target] = {}

    def put(self, function_id: str, targets: Iterable[Target]) -> None:
        """What a function serves from now on; nothing, when there are no targets."""
        fresh = tuple(targets)
        if self._by_function.get(function_id, ()) == fresh:
            return
        if fresh:
            self._by_function[function_id] = fresh
        else:
            self._by_function.pop(function_id, None)
        self._labels, self._domains, self._paths = {}, {}, {}
        every = [one for targets in self._by_function.values() for one in targets]
        for one in sorted(every, key=lambda one: one.order):
            self._labels[one.label] = one
            self._domains.update(dict.fromkeys(one.domains, one))
            self._paths[one.environment, one.app, one.name] = one

    def of(self, function_id: str) -> tuple[Target, ...]:
        """What a function serves."""
        return self._by_function.get(function_id, ())

    def functions(self) -> list[str]:
        """The ids of all that serve."""
        return list(self._by_function)

    def known(self) -> list[Target]:
        """All there are, by app and name."""
        every = (one for targets in self._by_function.values() for one in targets)
        return sorted(every, key=lambda one: (one.environment, one.app, one.name))

    def find(self, host: str, path: bytes) -> Found | None:
        """Who serves a path on a host (a name in lower case, without port). None: nobody."""
        label = self._label_of(host)
        if label:
            target = self._labels.get(label)
            return Found(target, path) if target is not None else None
        if host in self._domains:
            return Found(self._domains[host], path)
        return self._by_path(path) if self.takes_paths(host) else None

    def takes_paths(self, host: str) -> bool:
        """Whether a host may be used with paths that name the function."""
        if not host or host == "localhost" or host in self.names.hosts or host == self.names.base:
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True

    def is_known(self, host: str) -> bool:
        """Whether requests for a host can be meant for this machine at all."""
        return bool(self._label_of(host)) or host in self._domains or self.takes_paths(host)

    def _label_of(self, host: str) -> str:
        for base in ("localhost", self.names.base):
            if base and host.endswith("." + base):
                return host[: -len(base) - 1]
        return ""

    def _by_path(self, path: bytes) -> Found | None:
        if not path.startswith(PATHS):
            return None
        parts = path.decode("latin-1").split("/", 5)
        if len(parts) < 5:
            return None
        target = self._paths.get((parts[2], parts[3], parts[4]))
        if target is None:
            return None
        root = "/".join(parts[:5]).encode("latin-1")
        return Found(target, path[len(root) :] or b"/", root)
