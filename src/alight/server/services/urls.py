"""Names of web functions: which label, which path and which custom domain means which function. Pure.

What is printed and what the gateway routes come from the same three tables (``assign``, ``paths``, ``domains``), so
that they cannot differ. A deployed function keeps its label for as long as it is deployed; ephemeral ones have labels
that end in ``-dev``, and the newest takes one that several want.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

from alight.wire import errors
from alight.wire.spec import FunctionSpec
from alight.wire.states import AppState
from alight.wire.urls import INSIDE, INSIDE_PORT, WebUrl

LABEL_MOST = 63  # characters of a part of a host name
_KEPT = 56  # of a label that is too long, before the hash
DEV = "-dev"
OURS = "alight"  # the dashboard's label, see ``gateway.table.SITE``
MAIN = "main"  # the environment that labels do not name
PATH_PREFIX = "/_/"
_OTHERS = re.compile(r"[^a-z0-9]")
_DOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+")


class AppLike(Protocol):
    """What labels follow from, of an app that lives."""

    app_id: str
    name: str
    description: str
    environment: str
    state: str
    owner: str
    created_at: float


class FunctionLike(Protocol):
    """A published function of one."""

    function_id: str
    app_id: str
    base: str
    gone: str
    spec: FunctionSpec


@dataclass(frozen=True)
class Endpoint:
    """One web function, or one web method of a class, of an app that lives. ``web`` is as FunctionSpec has it.

    ``function`` is "f", "Class.method" (``method`` is its last part), or "Class" for one that is a server itself.
    """

    function_id: str
    method: str
    app_id: str
    app: str
    environment: str
    function: str
    owner: str
    deployed: bool
    since: float
    web: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return str(self.web.get("kind", ""))

    @property
    def given(self) -> str:
        """The label that its author asked for."""
        return str(self.web.get("label") or "")

    @property
    def port(self) -> int:
        """Of a ``web_server``; 0 for all others."""
        return int(self.web.get("port") or 0)

    @property
    def requires_proxy_auth(self) -> bool:
        return bool(self.web.get("requires_proxy_auth"))

    @property
    def custom_domains(self) -> tuple[str, ...]:
        return tuple(str(one).lower() for one in self.web.get("custom_domains") or ())

    @property
    def what(self) -> str:
        """As sentences name it."""
        where = f" in the environment {self.environment!r}" if self.environment != MAIN else ""
        return f"{self.function} of the app {self.app!r}{where}"

    @property
    def label(self) -> str:
        """The label that it has if nobody else wants it. In other environments than main the environment is in it."""
        app, given = self.app, self.given
        if self.environment != MAIN:
            app, given = f"{self.environment}--{app}", f"{self.environment}--{given}" if given else ""
        return label_of(app, self.function, given, dev=not self.deployed)

    @property
    def is_cut(self) -> bool:
        """Whether its label would be longer."""
        text = self.given or f"{self.app}-{self.function}"
        spared = 0 if self.environment == MAIN else len(self.environment) + 2
        return len(text) + spared + (0 if self.deployed else len(DEV)) > LABEL_MOST

    @property
    def second_label(self) -> str:
        """The label that it has when somebody else has the first one."""
        return _cut(self.label, f"{self.environment}/{self.app}/{self.function}")


def label_of(app: str, function: str, given: str = "", *, dev: bool) -> str:
    """The part of the host name that stands for a function: what its author gave, or made of the names.

    Lower case, hyphens for everything that is no letter or digit; one over 63 characters is cut and hashed.
    """
    text = given or f"{app}-{function}"
    label = _OTHERS.sub("-", text.lower()).strip("-") or "app"
    if dev:
        label += DEV
    return label if len(label) <= LABEL_MOST else _cut(label, label)


def endpoints(functions: Iterable[FunctionLike], apps: Mapping[str, AppLike]) -> list[Endpoint]:
    """Everything that answers requests, of apps that live. Variants share the URLs of what they are variants of."""
    found: list[Endpoint] = []
    for one in functions:
        app = apps.get(one.app_id)
        if app is not None and not one.gone and not one.base:
            found += of_spec(one.spec, app, one.function_id)
    return found


def of_spec(spec: FunctionSpec, app: AppLike, function_id: str, *, deployed: bool | None = None) -> list[Endpoint]:
    """What of one function, or of one class, answers requests. ``deployed``: as if the app were, or were not."""
    if not spec.web:
        return []
    parts: dict[str, Any] = {"": spec.web}
    if spec.name.endswith(".*"):
        parts = {name: web for name, web in spec.web.items() if isinstance(web, Mapping)}
    return [
        Endpoint(
            function_id,
            method,
            app.app_id,
            app.name or app.description or app.app_id,
            app.environment,
            f"{spec.name[:-2]}.{method}" if method else spec.name.removesuffix(".*"),
            app.owner,
            app.state == AppState.DEPLOYED if deployed is None else deployed,
            app.created_at,
            web,
        )
        for method, web in parts.items()
    ]


def assign(found: Iterable[Endpoint]) -> dict[str, Endpoint]:
    """Who has which label.

    Deployed ones first: those that were asked for by name, then the oldest. Then ephemeral ones, the newest app first.
    Who comes too late gets a label with a hash at its end, which nobody else can want; an ephemeral one whose label a
    newer run has taken goes without.
    """
    table: dict[str, Endpoint] = {}
    deployed = sorted((one for one in found if one.deployed), key=lambda one: (not one.given, one.since, one.function))
    for one in deployed:
        table[_free(table, one)] = one
    fleeting = sorted(
        (one for one in found if not one.deployed), key=lambda one: (-one.since, one.app_id, one.function)
    )
    for one in fleeting:
        holder = table.get(one.label)
        if holder is None or holder.deployed or holder.app_id == one.app_id:
            table[_free(table, one)] = one
    return table


def paths(found: Sequence[Endpoint]) -> dict[tuple[str, str, str], Endpoint]:
    """By environment, app (name or id) and function: of two apps of a name the deployed one, then the newest."""
    table: dict[tuple[str, str, str], Endpoint] = {}
    for one in sorted(found, key=lambda one: (one.deployed, one.since, one.app_id)):
        table[one.environment, one.app, one.function] = one
    for one in found:
        table[one.environment, one.app_id, one.function] = one
    return table


def domains(found: Iterable[Endpoint]) -> dict[str, Endpoint]:
    """By custom domain. Of several that want one, the deployed one that is oldest has it."""
    table: dict[str, Endpoint] = {}
    for one in sorted(found, key=lambda one: (not one.deployed, one.since, one.function)):
        for domain in one.custom_domains:
            table.setdefault(domain, one)
    return table


@dataclass(frozen=True)
class Base:
    """What URLs begin with. ``address`` is where the gateway listens, "" for nowhere; labels stand before ``domain``,
    or before localhost where there is none. ``tls``: the port speaks it; ``proxied``: somebody before us does.
    """

    address: str = ""
    hostname: str = "localhost"
    domain: str = ""
    tls: bool = False
    proxied: bool = False

    @property
    def _host(self) -> str:
        """A host by which the gateway is reached from where it is meant to be reached."""
        if self.domain:
            return self.domain
        host = self.address.rpartition(":")[0].strip("[]")
        if host in {"0.0.0.0", "::", ""}:  # noqa: S104  what it listens on, not what we bind
            return self.hostname
        if host in {"127.0.0.1", "::1"}:
            return "localhost"
        return f"[{host}]" if ":" in host else host

    def _origin(self, host: str) -> str:
        if self.proxied:
            return f"https://{host}"
        port = self.address.rpartition(":")[2]
        scheme, usual = ("https", "443") if self.tls else ("http", "80")
        return f"{scheme}://{host}" if port == usual else f"{scheme}://{host}:{port}"

    def label(self, label: str) -> str:
        """The URL of a label."""
        return self._origin(f"{label}.{self.domain or 'localhost'}")

    def path(self, endpoint: Endpoint, *, by_id: bool = False) -> str:
        """The URL of a path."""
        return self._origin(self._host) + path_of(endpoint, by_id=by_id)


def path_of(endpoint: Endpoint, *, by_id: bool = False) -> str:
    """The path form's path: the application's root path."""
    app = endpoint.app_id if by_id else endpoint.app
    return PATH_PREFIX + "/".join(quote(one, safe="") for one in (endpoint.environment, app, endpoint.function))


def url_of(endpoint: Endpoint, base: Base, found: Sequence[Endpoint]) -> WebUrl:
    """What people are told of an endpoint, among all there are (``found`` holds it)."""
    labels = assign(found)
    label = next((label for label, one in labels.items() if one == endpoint), "")
    mine = paths(found).get((endpoint.environment, endpoint.app, endpoint.function)) == endpoint
    path = path_of(endpoint, by_id=not mine)
    path_url = base.path(endpoint, by_id=not mine)
    if not base.address:
        path_url = ""
    note = ""
    wanted = endpoint.label
    if not label:
        note = f"{wanted} is the label of {labels[wanted].what}, which is newer"
    elif wanted == OURS:
        note = f"{OURS} is the label of the dashboard"
    elif label != wanted:
        note = f"{wanted} is the label of {labels[wanted].what}"
    elif endpoint.is_cut:
        note = "the label was shortened: a part of a host name has at most 63 characters"
    return WebUrl(
        (base.label(label) if base.address else "") if label else path_url,
        path_url,
        f"http://{label}.{INSIDE}:{INSIDE_PORT}" if label else f"http://{INSIDE}:{INSIDE_PORT}{path}",
        endpoint.method,
        endpoint.requires_proxy_auth,
        endpoint.custom_domains,
        note,
    )


def check(wanted: Sequence[Endpoint], others: Iterable[Endpoint]) -> None:
    """Whether an app may have these beside what other apps have.

    Raises InvalidError for two of the app that want one label or domain, ConflictError for what another deployed app
    has.
    """
    labels: dict[str, Endpoint] = {}
    seen: dict[str, Endpoint] = {}
    for one in wanted:
        if one.label == OURS:
            raise errors.InvalidError(
                f"{one.function} wants the label {OURS!r}, which is the dashboard's", hint="choose another label"
            )
        twin = labels.setdefault(one.label, one)
        if twin is not one and (one.given or twin.given):
            raise errors.InvalidError(
                f"{twin.function} and {one.function} want the same label: {one.given or twin.given!r}",
                hint="give each web function a label of its own, or none",
            )
        for domain in one.custom_domains:
            if not _DOMAIN.fullmatch(domain):
                raise errors.InvalidError(
                    f"{one.function}: {domain!r} is not the name of a domain", hint="for example api.example.com"
                )
            if seen.setdefault(domain, one) is not one:
                raise errors.InvalidError(f"{seen[domain].function} and {one.function} want the same domain: {domain}")
    theirs = [one for one in others if one.deployed]
    held = assign(theirs)
    named = domains(theirs)
    for one in wanted:
        holder = held.get(one.label)
        if one.deployed and one.given and holder is not None:
            raise errors.ConflictError(
                f"{one.function} wants the label {one.given!r}, which is that of {holder.what}",
                hint="choose another label, or stop the other app",
            )
        for domain in one.custom_domains:
            if domain in named:
                raise errors.ConflictError(f"{one.function} wants {domain}, which is that of {named[domain].what}")


def _free(table: Mapping[str, Endpoint], one: Endpoint) -> str:
    return one.label if one.label not in table and one.label != OURS else one.second_label


def _cut(label: str, hashed: str) -> str:
    return f"{label[:_KEPT]}-{hashlib.sha256(hashed.encode()).hexdigest()[:6]}"
