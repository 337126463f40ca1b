"""This machine's package settings, lent to build steps: pip, uv, apt, certificates, netrc, proxies.

They reach a step as build secrets do, in its environment and in borrowed files. They are in no layer, digest, record or
log, so an image stays the same when the index moves. Nothing here knows any machine's paths: all are read.
"""

from __future__ import annotations

import configparser
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import tomllib

from alight.builder.installs import Indexes
from alight.builder.registry.settings import Registries, Way
from alight.builder.steps import CACHES, LENT

_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # Alpine
)
#: How many pages of a local index are read to find out where its files lie.
_PAGES = 50
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
#: apt's settings that concern how to reach a mirror; the rest of a machine's apt settings are its own business.
_APT_PREFIXES = ("Acquire::http::", "Acquire::https::", "Acquire::ftp::")
_APT_NAMES = ("Acquire::Check-Valid-Until", "Acquire::Check-Date", "Acquire::Retries", "Acquire::Max-ValidTime")


@dataclass(frozen=True)
class HostConfig:
    """What `read` found. Files are host paths; ``env`` holds what needs no translation."""

    indexes: Indexes = field(default_factory=Indexes)
    no_index: bool = False
    constraints: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    timeout: int | None = None
    ca_bundle: str = ""
    client_cert: str = ""
    netrc: str = ""
    proxies: Mapping[str, str] = field(default_factory=dict)
    extra_env: Mapping[str, str] = field(default_factory=dict)  # credentials that tools read by name
    apt_options: tuple[tuple[str, str], ...] = ()
    apt_auth: str = ""
    python_mirror: str = ""
    python_downloads: str = ""  # a JSON of downloads for uv, path or URL
    debian_mirror: str = ""  # overrides the machine's own
    debian_security_mirror: str = ""
    micromamba: str = ""  # where its program is had, an address or a path
    condarc: str = ""
    registries: Registries = field(default_factory=Registries)

    @classmethod
    def read(cls, env: Mapping[str, str] | None = None, root: Path = Path("/")) -> HostConfig:
        """This machine's settings as they are now. ``root`` is for tests. Files that cannot be read count as absent."""
        env = os.environ if env is None else env
        pip = _read_pip(env, root)
        uv = _read_uv(env, root)
        named = uv.get("index", [])
        default = next((one["url"] for one in named if one.get("default")), "")
        others = [one["url"] for one in named if not one.get("default") and not one.get("explicit")]
        return cls(
            indexes=Indexes(
                default or _text(uv.get("index-url")) or _text(pip.get("index-url")),
                _unique([*others, *_list(uv.get("extra-index-url")), *_list(pip.get("extra-index-url"))]),
                _unique([*_list(uv.get("find-links")), *_list(pip.get("find-links"))]),
                _text(uv.get("index-strategy")),
            ),
            no_index=_text(pip.get("no-index")).lower() in ("1", "true", "yes", "on") or uv.get("no-index") is True,
            constraints=_unique([*_list(uv.get("constraint")), *_list(pip.get("constraint"))]),
            trusted_hosts=_unique([*_list(uv.get("allow-insecure-host")), *_list(pip.get("trusted-host"))]),
            timeout=_number(_text(uv.get("http-timeout")) or _text(pip.get("timeout") or pip.get("default-timeout"))),
            ca_bundle=_ca_bundle(env, pip, root),
            client_cert=_existing(env.get("SSL_CLIENT_CERT") or _text(pip.get("client-cert"))),
            netrc=_existing(env.get("NETRC") or str(_home(env, root) / ".netrc")),
            proxies={name: env[name] for lower in _PROXIES for name in (lower, lower.upper()) if env.get(name)},
            extra_env={
                name: value
                for name, value in env.items()
                if name.startswith("UV_INDEX_") and name.endswith(("_USERNAME", "_PASSWORD"))
            },
            apt_options=_read_apt_options() if root == Path("/") else (),
            apt_auth=_read_apt_auth(root),
            python_mirror=_text(uv.get("python-install-mirror")),
            python_downloads=_text(uv.get("python-downloads-json-url")),
            micromamba=env.get("ALIGHT_MICROMAMBA", ""),
            condarc=_condarc(env, root),
            debian_mirror=env.get("ALIGHT_DEBIAN_MIRROR", ""),
            debian_security_mirror=env.get("ALIGHT_DEBIAN_SECURITY_MIRROR", ""),
            registries=Registries.read(env, root),
        )

    def step_env(self) -> dict[str, str]:
        """The environment that makes pip, uv, apt, curl, git and requests in a step work as they do on this machine."""
        env = {**self.proxies, **self.extra_env, **self.indexes.env()}
        env.update(
            PIP_CACHE_DIR=f"{CACHES}/pip",
            UV_CACHE_DIR=f"{CACHES}/uv",
            UV_LINK_MODE="copy",  # the cache is another filesystem than the layer: links cannot work
            UV_SYSTEM_PYTHON="1",
            UV_PYTHON_DOWNLOADS="never",
            UV_NO_PROGRESS="1",
            PIP_DISABLE_PIP_VERSION_CHECK="1",
            PIP_ROOT_USER_ACTION="ignore",
            PIP_PROGRESS_BAR="off",
            APT_CONFIG=f"{LENT}/apt.conf",
            DEBIAN_FRONTEND="noninteractive",
        )
        if self.no_index:
            env.update(PIP_NO_INDEX="1", UV_NO_INDEX="1")
        if self.constraints:
            names = " ".join(self._lent_constraints())
            env.update(PIP_CONSTRAINT=names, UV_CONSTRAINT=names)
        if self.trusted_hosts:
            env.update(PIP_TRUSTED_HOST=" ".join(self.trusted_hosts), UV_INSECURE_HOST=" ".join(self.trusted_hosts))
        if self.timeout is not None:
            env.update(PIP_DEFAULT_TIMEOUT=str(self.timeout), UV_HTTP_TIMEOUT=str(self.timeout))
        if self.ca_bundle:
            for name in (
                "SSL_CERT_FILE",
                "PIP_CERT",
                "REQUESTS_CA_BUNDLE",
                "CURL_CA_BUNDLE",
                "GIT_SSL_CAINFO",
                "NODE_EXTRA_CA_CERTS",
            ):
                env[name] = f"{LENT}/ca.pem"
        if self.client_cert:
            env["PIP_CLIENT_CERT"] = env["SSL_CLIENT_CERT"] = f"{LENT}/client.pem"
        if self.condarc:
            env["CONDARC"] = env["MAMBARC"] = f"{LENT}/condarc"
        if self.netrc:
            env["NETRC"] = f"{LENT}/netrc"
        return env

    def own_env(self) -> dict[str, str]:
        """The environment of a uv that this machine runs itself, to ask package indexes."""
        env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        env.update(self.proxies, **self.extra_env)
        if self.trusted_hosts:
            env["UV_INSECURE_HOST"] = " ".join(self.trusted_hosts)
        files = {"SSL_CERT_FILE": self.ca_bundle, "SSL_CLIENT_CERT": self.client_cert, "NETRC": self.netrc}
        return {**env, **{name: path for name, path in files.items() if path}}

    def step_files(self) -> dict[str, bytes]:
        """Files that the environment names, by their path under ``LENT``."""
        files = {"apt.conf": self._apt_conf().encode()}
        if self.apt_auth:
            files["apt-auth.conf"] = self.apt_auth.encode()
        lent = zip(self._lent_constraints(), self.constraints, strict=True)
        sources = [(name, path) for name, path in lent if name.startswith(LENT)]
        for source, path in (
            ("ca.pem", self.ca_bundle),
            ("client.pem", self.client_cert),
            ("netrc", self.netrc),
            ("condarc", self.condarc),
        ):
            if path:
                sources.append((f"{LENT}/{source}", path))
        for name, path in sources:
            files[name[len(LENT) + 1 :]] = Path(path).read_bytes()
        return files

    def step_binds(self) -> tuple[tuple[str, str, bool], ...]:
        """Local package folders, read-only and at the same path, since settings name them by path.

        This machine's own settings only: a recipe that names a host path does not get to read it.
        """
        urls = (*self.indexes.extra_index_urls, self.indexes.index_url)
        indexes = [path for url in urls if (path := _local_path(url))]
        paths = [path for place in self.indexes.find_links if (path := _local_path(place))]
        paths = list(_unique([*paths, *indexes, *(folder for index in indexes for folder in _linked_folders(index))]))
        return tuple((path, path, True) for path in paths if path != "/" and Path(path).exists())

    def way(self) -> Way:
        """How this machine reaches registries."""
        return Way(self.proxies, self.ca_bundle, self.client_cert)

    def secrets(self) -> list[str]:
        """Texts that must not be shown."""
        values = [value for name, value in self.extra_env.items() if name.endswith("_PASSWORD")]
        for url in (self.indexes.index_url, *self.indexes.extra_index_urls, *self.proxies.values(), self.debian_mirror):
            password = urlsplit(url).password if "://" in url else None
            if password:
                values += [password, unquote(password)]
        return values

    def _lent_constraints(self) -> list[str]:
        return [
            one if "://" in one else f"{LENT}/constraints-{number}.txt" for number, one in enumerate(self.constraints)
        ]

    def _apt_conf(self) -> str:
        lines = [f'{name} "{value}";\n' for name, value in self.apt_options if "CAInfo" not in name]
        if self.ca_bundle:
            lines.append(f'Acquire::https::CAInfo "{LENT}/ca.pem";\n')
        if self.apt_auth:
            lines.append(f'Dir::Etc::netrc "{LENT}/apt-auth.conf";\n')
        lines.append('APT::Sandbox::User "root";\n')  # its own user could not read what is lent to root
        return "".join(lines)


def _read_pip(env: Mapping[str, str], root: Path) -> dict[str, str]:
    """pip's settings in pip's order: system, user, site, named file, environment; later ones win."""
    found: dict[str, str] = {}
    named = env.get("PIP_CONFIG_FILE", "")
    if named != os.devnull:
        home = _home(env, root)
        config = Path(env["XDG_CONFIG_HOME"]) if env.get("XDG_CONFIG_HOME") else home / ".config"
        files = [root / "etc/xdg/pip/pip.conf", root / "etc/pip.conf", home / ".pip/pip.conf", config / "pip/pip.conf"]
        if root == Path("/"):
            files.append(Path(sys.prefix) / "pip.conf")
        for file in [*files, *([Path(named)] if named else [])]:
            found.update(_read_pip_file(file))
    for name, value in env.items():
        if name.startswith("PIP_") and name != "PIP_CONFIG_FILE" and value:
            found[name[4:].lower().replace("_", "-")] = value
    return found


def _read_pip_file(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text())
    except (OSError, UnicodeDecodeError, configparser.Error):
        return {}
    found: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found.update({name.replace("_", "-"): value for name, value in parser.items(section)})
    return found


def _read_uv(env: Mapping[str, str], root: Path) -> dict[str, Any]:
    """uv's settings: system file, user file, environment; later ones win."""
    found: dict[str, Any] = {}
    config = Path(env["XDG_CONFIG_HOME"]) if env.get("XDG_CONFIG_HOME") else _home(env, root) / ".config"
    named = env.get("UV_CONFIG_FILE")
    files = [Path(named)] if named else [root / "etc/uv/uv.toml", config / "uv/uv.toml"]
    for file in files if not env.get("UV_NO_CONFIG") else []:
        try:
            content = tomllib.loads(file.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            continue
        found.update({key: value for key, value in content.items() if key != "pip"})
        found.update(content.get("pip", {}))
    from_env = {
        "index-url": env.get("UV_DEFAULT_INDEX") or env.get("UV_INDEX_URL"),
        "extra-index-url": _list(env.get("UV_INDEX")) + _list(env.get("UV_EXTRA_INDEX_URL")),
        "find-links": [one for one in (env.get("UV_FIND_LINKS") or "").split(",") if one],
        "constraint": _list(env.get("UV_CONSTRAINT")),
        "allow-insecure-host": _list(env.get("UV_INSECURE_HOST")),
        "index-strategy": env.get("UV_INDEX_STRATEGY"),
        "http-timeout": env.get("UV_HTTP_TIMEOUT"),
        "python-install-mirror": env.get("UV_PYTHON_INSTALL_MIRROR"),
        "python-downloads-json-url": env.get("UV_PYTHON_DOWNLOADS_JSON_URL"),
    }
    found.update({name: value for name, value in from_env.items() if value})
    if from_env["index-url"]:
        found["index"] = [one for one in found.get("index", []) if not one.get("default")]
    return found


def _ca_bundle(env: Mapping[str, str], pip: Mapping[str, str], root: Path) -> str:
    named = (
        env.get("SSL_CERT_FILE"),
        _text(pip.get("cert")),
        env.get("REQUESTS_CA_BUNDLE"),
        env.get("CURL_CA_BUNDLE"),
        *(str(root / bundle.lstrip("/")) for bundle in _SYSTEM_BUNDLES),
    )
    return next((found for one in named if one and (found := _existing(one))), "")


def _read_apt_options() -> tuple[tuple[str, str], ...]:
    try:
        dump = subprocess.run(
            ["apt-config", "dump", "--format", "%f %v%n"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()  # not a machine with apt
    found = []
    for line in dump.splitlines():
        name, _, value = line.partition(" ")
        wanted = name in _APT_NAMES or (name.startswith(_APT_PREFIXES) and name.split("::")[2] in _APT_REACH)
        if wanted and value and '"' not in value and not name.endswith("::"):
            found.append((name, value))
    return tuple(found)


_APT_REACH = frozenset({"Proxy", "Timeout", "Verify-Peer", "Verify-Host", "CAInfo"})


def _read_apt_auth(root: Path) -> str:
    files = [root / "etc/apt/auth.conf", *sorted((root / "etc/apt/auth.conf.d").glob("*.conf"))]
    return "\n".join(text for file in files if (text := _text_of(file)))


def _local_path(place: str) -> str:
    """The path on this machine that an index or a find-links entry means, or "" for one elsewhere."""
    if place.startswith("file:"):
        path = unquote(urlsplit(place).path)
    elif "://" in place or not place:
        return ""
    else:
        path = place
    return os.path.normpath(path) if path.startswith("/") else ""


def _linked_folders(index: str) -> list[str]:
    """The folders that a local index's pages point to, which is where its files lie: often beside it."""
    found: dict[Path, None] = {}
    beside = Path(index).parent
    for page in itertools.islice(sorted(Path(index).glob("*/index.html")), _PAGES):
        for link in re.findall(r"""href\s*=\s*["']([^"'#]+)""", _text_of(page)):
            path = unquote(urlsplit(link).path)
            if link.startswith("file:") or "://" not in link:
                folder = Path(os.path.normpath(page.parent / path)).parent
                inside = folder.relative_to(beside).parts[:1] if folder.is_relative_to(beside) else ()
                found[beside.joinpath(*inside) if inside else folder] = None
    return [str(folder) for folder in found if folder.is_dir() and str(folder) not in (index, str(beside), "/")]


def _home(env: Mapping[str, str], root: Path) -> Path:
    return root / env.get("HOME", "/root").lstrip("/")


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _existing(path: str) -> str:
    return path if path and Path(path).is_file() and os.access(path, os.R_OK) else ""


def _condarc(env: Mapping[str, str], root: Path) -> str:
    named = (env.get("CONDARC", ""), env.get("MAMBARC", ""), str(_home(env, root) / ".condarc"))
    system = (str(root / "etc/conda/.condarc"), str(root / "etc/conda/condarc"))
    return next((found for one in (*named, *system) if (found := _existing(one))), "")


def _list(value: Any) -> list[str]:
    if not value:
        return []
    return value.split() if isinstance(value, str) else [str(one) for one in value]


def _text(value: Any) -> str:
    return str(value).strip() if value is not None else ""


def _number(value: str) -> int | None:
    try:
        return int(float(value)) if value else None
    except ValueError:
        return None


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
