"""How registries are reached from this machine: mirrors, plain HTTP, certificates.

In the form of containers-registries.conf(5), which other tools of a machine use as well. The first of these counts:
the file that CONTAINERS_REGISTRIES_CONF names, ``registries.conf`` in ALIGHT_HOME, the one in /etc/containers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tomllib

from alight.builder.registry.reference import DEFAULT_HOST, Reference
from alight.wire.errors import ImageBuildError

#: Where Docker Hub really answers.
_HUB = "registry-1.docker.io"
_CERTIFICATES = ("etc/containers/certs.d", "etc/docker/certs.d")


@dataclass(frozen=True)
class Way:
    """How this machine reaches others: proxies by scheme, a file with certificates to trust, one of our own."""

    proxies: Mapping[str, str] = field(default_factory=dict)
    ca_bundle: str = ""
    client_certificate: str = ""


@dataclass(frozen=True)
class Place:
    """Where to ask: a host with its port, and the image's name there. ``own``: not a mirror, so credentials fit."""

    host: str
    repository: str
    insecure: bool = False
    own: bool = True
    certificates: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Rule:
    prefix: str
    location: str
    insecure: bool
    blocked: bool
    mirrors: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Registries:
    """What the settings say. ``file`` is where they came from, or where they would be looked for first."""

    file: str = "/etc/containers/registries.conf"
    rules: tuple[_Rule, ...] = ()
    root: str = "/"
    trouble: str = ""

    @classmethod
    def read(cls, env: Mapping[str, str], root: Path = Path("/")) -> Registries:
        """Never fails: a file that cannot be read is told of by the first image that asks a registry."""
        named, home = env.get("CONTAINERS_REGISTRIES_CONF"), env.get("ALIGHT_HOME")
        system = root / "etc/containers/registries.conf"
        own = Path(home).expanduser() / "registries.conf" if home else root / "var/lib/alight/registries.conf"
        if named:
            files = [Path(named)]
        elif own.exists():
            files = [own]
        else:
            files = [system, *sorted((root / "etc/containers/registries.conf.d").glob("*.conf"))]
        rules: dict[str, _Rule] = {}
        trouble = ""
        for file in files:
            try:
                found = _read_rules(tomllib.loads(file.read_text()))
            except FileNotFoundError:
                trouble = f"{file}: no such file" if named else trouble
                continue
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValueError) as error:
                trouble = f"{file}: {error}"
                continue
            rules.update({rule.prefix: rule for rule in found})
        shown = files[0] if named or own.exists() else own
        return cls(str(shown), tuple(rules.values()), str(root), trouble)

    def places(self, reference: Reference) -> tuple[Place, ...]:
        """Where to ask for an image, in order: its mirrors, then its own registry.

        Raises: ImageBuildError for a blocked registry, and when the settings could not be read.
        """
        if self.trouble:
            raise ImageBuildError(f"the registry settings cannot be read: {self.trouble}", hint="mend the file")
        name = f"{reference.host}/{reference.repository}"
        rule = max(
            (one for one in self.rules if _fits(one.prefix, name)), key=lambda one: len(one.prefix), default=None
        )
        if rule is None:
            return (self._place(name),)
        if rule.blocked:
            raise ImageBuildError(f"{reference} is of a registry that {self.file} blocks")
        own = replace(self._place(_moved(name, rule.prefix, rule.location)), insecure=rule.insecure)
        own = replace(own, own=own.host == self._place(name).host)
        mirrors = [
            replace(
                self._place(_moved(name, rule.prefix, str(one.get("location") or ""))),
                insecure=bool(one.get("insecure")),
                own=False,
            )
            for one in rule.mirrors
            if one.get("location") and _for_this(str(one.get("pull-from-mirror") or "all"), reference)
        ]
        return (*mirrors, own)

    def _place(self, name: str) -> Place:
        host, _, repository = name.partition("/")
        folders = (Path(self.root) / folder / host for folder in _CERTIFICATES)
        certificates = tuple(
            str(file) for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.crt"))
        )
        return Place(_HUB if host == DEFAULT_HOST else host, repository, certificates=certificates)


def _read_rules(content: Mapping[str, Any]) -> Iterable[_Rule]:
    tables = content.get("registry", [])
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        raise ValueError("write [[registry]] with two brackets (version 2 of the format)")
    for one in tables:
        prefix = str(one.get("prefix") or one.get("location") or "")
        if not prefix:
            raise ValueError("a [[registry]] has neither a prefix nor a location")
        mirrors = one.get("mirror", [])
        if not isinstance(mirrors, list) or not all(isinstance(mirror, dict) for mirror in mirrors):
            raise ValueError(f"the mirrors of {prefix} are not [[registry.mirror]] tables")
        location = str(one.get("location") or prefix)
        yield _Rule(prefix, location, bool(one.get("insecure")), bool(one.get("blocked")), tuple(mirrors))


def _fits(prefix: str, name: str) -> bool:
    if prefix.startswith("*."):
        host, slash, path = prefix[1:].partition("/")
        theirs, _, rest = name.partition("/")
        return theirs.endswith(host) and (not slash or rest == path or rest.startswith(f"{path}/"))
    return name == prefix or name.startswith(f"{prefix}/")


def _moved(name: str, prefix: str, location: str) -> str:
    if prefix.startswith("*."):
        return name if location == prefix else location + name[len(name.partition("/")[0]) :]
    return location + name[len(prefix) :]


def _for_this(kind: str, reference: Reference) -> bool:
    return kind == "all" or (kind == "digest-only") == bool(reference.digest)
