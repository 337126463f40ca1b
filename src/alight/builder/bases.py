"""Debian as the first layer of an image, made by mmdebstrap from any Debian mirror; no registry needed.

Runs on the machine itself, as the node's own work: no byte of a user's is executed here. What comes out has no package
lists, no manuals and no settings of this machine; the mirror's address without its credentials is the one exception.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import platform
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from alight.builder import trouble
from alight.builder.hostconfig import HostConfig
from alight.builder.layers import Workspace
from alight.wire.errors import ImageBuildError

#: The Python that each suite of Debian brings, and the glibc (2.x) that it runs on.
SUITES = {"bullseye": ("3.9", 31), "bookworm": ("3.11", 36), "trixie": ("3.13", 41)}

#: The same of suites that are not released: what they hold changes from day to day, so they are asked last.
TESTING = {"forky": ("3.14", 43)}

#: What an image of another Python stands on, the first that its interpreter can run on.
FOR_OTHER_PYTHONS = ("bookworm", "trixie")

#: The public keys of Debian's archive, as its package debian-archive-keyring has them: another distribution's copy of
#: that package may be older than the suite (Ubuntu 22.04's has no key of bookworm's).
_DEBIAN_KEYS = Path(__file__).with_name("debian-archive-keyring.gpg")

_MIRROR = "http://deb.debian.org/debian"
_SECURITY_MIRROR = "http://deb.debian.org/debian-security"

_APT_CONF = """\
// Written by Alight: images keep no package lists, translations or downloads that apt can fetch again.
Acquire::Languages "none";
Acquire::GzipIndexes "true";
APT::Keep-Downloaded-Packages "false";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""
_DPKG_CONF = """\
# Written by Alight: no manuals and translations; no marker that would keep pip and uv from installing.
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/lib/python3*/EXTERNALLY-MANAGED
force-unsafe-io
"""
#: pip and setuptools as ordinary packages of /usr/local, so that any installer can replace them.
_IN_CHROOT = """\
set -e
ln -s /usr/bin/python{minor} /usr/local/bin/python
ln -s /usr/bin/python{minor} /usr/local/bin/python3
env HOME=/root UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never UV_NO_CONFIG=1 uv pip install -q --offline --no-index \
    --find-links /usr/share/python-wheels --compile-bytecode --python /usr/local/bin/python pip setuptools
"""
_UNNEEDED = (
    "etc/apt/apt.conf.d/99mmdebstrap", "etc/dpkg/dpkg.cfg.d/99mmdebstrap", "etc/machine-id", "var/lib/dbus/machine-id",
    "var/log", "var/lib/apt/lists", "var/cache/apt", "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old", "var/lib/dpkg/status-old", "var/lib/dpkg/diversions-old",
    "var/cache/ldconfig/aux-cache", "etc/apt/sources.list", "etc/apt/sources.list.d", "tmp", "run", "dev",
)  # fmt: skip
_FOLDERS = {
    "tmp": 0o1777, "run": 0o755, "dev": 0o755, "proc": 0o555, "sys": 0o555, "root": 0o700, "var/log": 0o755,
    "var/lib/apt/lists/partial": 0o755, "var/cache/apt/archives/partial": 0o755, "run/alight": 0o755,
    "opt/alight/lib": 0o755, "opt/alight/build": 0o755, "opt/alight/cache/uv": 0o755, "opt/alight/cache/pip": 0o755,
    "opt/alight/cache/apt": 0o755, "opt/alight/cache/temporary": 0o755, "etc/apt/sources.list.d": 0o755,
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One line of an apt sources list. ``signed_by`` is a path on this machine, or a key in text, or nothing."""

    uri: str
    suite: str
    signed_by: str = ""
    trusted: bool = False

    def line(self, keyring: str) -> str:
        options = [f"signed-by={keyring}"] if keyring else []
        options += ["trusted=yes"] if self.trusted else []
        return f"deb {'[' + ' '.join(options) + '] ' if options else ''}{self.uri} {self.suite} main"


def suite_for(minor: str) -> str | None:
    """The suite of Debian whose own Python is ``minor``."""
    return next((suite for suite, (python, _) in SUITES.items() if python == minor), None)


def testing_for(minor: str) -> str | None:
    """The suite of Debian that is not released yet and whose own Python is ``minor``."""
    return next((suite for suite, (python, _) in TESTING.items() if python == minor), None)


def _python_of(suite: str) -> str:
    return {**SUITES, **TESTING}[suite][0]


def python_version(root: Path, suite: str) -> str:
    """The whole version of the Python in a Debian that was made: "3.11.2"."""
    minor = _python_of(suite)
    status = (root / "var/lib/dpkg/status").read_text(errors="replace")
    package = rf"^Package: python{re.escape(minor)}\n(?:.+\n)*?Version: (\d+\.\d+\.\d+)"
    found = re.search(package, status, re.MULTILINE)
    return found[1] if found else minor


def find_uv() -> str:
    """The uv binary of this installation. Raises ImageBuildError when there is none."""
    with contextlib.suppress(ImportError, OSError):
        return str(importlib.import_module("uv").find_uv_bin())
    found = shutil.which("uv")
    if not found:
        raise ImageBuildError("images cannot be built: there is no uv on this machine", hint="pip install uv")
    return found


async def make_debian(suite: str, workspace: Workspace, host: HostConfig, on_output: Callable[[bytes], None]) -> int:
    """Fill the workspace's upper directory with a minimal Debian of that suite, its Python, pip and uv.

    Returns mmdebstrap's exit status (0 = done). Raises ImageBuildError when mmdebstrap is missing.
    """
    if not shutil.which("mmdebstrap"):
        raise ImageBuildError(
            "images cannot be built: there is no mmdebstrap on this machine",
            hint="apt install mmdebstrap, or alight doctor --fix",
        )
    minor = _python_of(suite)
    sources = debian_sources(suite, host)
    keyrings = [_keyring(source, workspace.scratch / f"key-{number}") for number, source in enumerate(sources)]
    lines = "".join(source.line(keyring) + "\n" for source, keyring in zip(sources, keyrings, strict=True))
    (workspace.scratch / "chroot.sh").write_text(_IN_CHROOT.format(minor=minor))
    status = await _run(_arguments(suite, workspace, host), lines.encode(), on_output)
    if status == 0:
        await asyncio.to_thread(_tidy, workspace.upper, sources, keyrings)
    return status


def debian_sources(suite: str, host: HostConfig, root: Path = Path("/")) -> tuple[Source, ...]:
    """Where packages of ``suite`` come from: the setting, else this machine's mirror if it is Debian, else Debian's."""
    wanted = (suite, f"{suite}-updates", f"{suite}-security")
    standard = {name: Source(_SECURITY_MIRROR if name.endswith("-security") else _MIRROR, name) for name in wanted}
    if host.debian_mirror:
        security = host.debian_security_mirror or re.sub(r"/debian/?$", "/debian-security", host.debian_mirror)
        return tuple(
            replace(one, uri=security if name.endswith("-security") else host.debian_mirror)
            for name, one in standard.items()
        )
    codename = _debian_codename(root)
    if codename:
        for source in _read_sources(root / "etc/apt"):
            name, _, rest = source.suite.partition("-")
            ours = suite + ("-" + rest if rest else "")
            if name == codename and ours in standard and urlsplit(source.uri).scheme in ("http", "https"):
                standard[ours] = replace(source, suite=ours)
    return tuple(standard.values())


def _arguments(suite: str, workspace: Workspace, host: HostConfig) -> list[str]:
    packages = ["python3", "python3-venv", "ca-certificates"]
    packages += ["python3-distutils"] if suite in ("bullseye", "bookworm") else []  # uv asks that Python for it
    upper, uv = shlex.quote(str(workspace.upper)), shlex.quote(find_uv())
    chroot_script = shlex.quote(str(workspace.scratch / "chroot.sh"))
    apt = [f'{name} "{value}"' for name, value in host.apt_options]
    apt += ['Acquire::Languages "none"', 'APT::Install-Recommends "false"', 'APT::Sandbox::User "root"']
    if host.ca_bundle:
        apt.append(f'Acquire::https::CAInfo "{host.ca_bundle}"')
    if host.apt_auth:
        auth = workspace.scratch / "apt-auth.conf"
        auth.write_text(host.apt_auth)
        auth.chmod(0o600)
        apt.append(f'Dir::Etc::netrc "{auth}"')
    dpkg = [line for line in _DPKG_CONF.splitlines() if not line.startswith("#")]
    return [
        # Its own mount namespace: whatever ends it, no mount stays behind.
        "unshare", "--mount", "--propagation", "private", "--",
        "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory",
        f"--include={','.join(packages)}",
        *(f"--aptopt={option}" for option in apt),
        *(f"--dpkgopt={option}" for option in dpkg),
        f"--customize-hook=install -m 755 {uv} {upper}/usr/local/bin/uv",
        f'--customize-hook=chroot "$1" /bin/sh < {chroot_script}',
        suite, str(workspace.upper), "-",
    ]  # fmt: skip


async def _run(argv: list[str], stdin: bytes, on_output: Callable[[bytes], None]) -> int:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "PYTHON"))}
    env.update(LC_ALL="C.UTF-8", DEBIAN_FRONTEND="noninteractive", PATH=_root_path())
    process = await asyncio.create_subprocess_exec(
        *argv, env=env, start_new_session=True, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(stdin)
        process.stdin.close()
        while line := await process.stdout.readline():
            if not line.startswith(b"I: running --customize-hook"):  # ours, and of no use to who reads the log
                on_output(line)
        return await process.wait()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _root_path() -> str:
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _tidy(root: Path, sources: tuple[Source, ...], keyrings: list[str]) -> None:
    for name in _UNNEEDED:
        path = root / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for name, mode in _FOLDERS.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(mode)
    for name in ("etc/resolv.conf", "etc/hosts", "etc/hostname"):  # mount points, so that no step has to make them
        (root / name).unlink(missing_ok=True)
        (root / name).touch(mode=0o644)
    (root / "etc/apt/apt.conf.d/50alight").write_text(_APT_CONF)
    (root / "etc/dpkg/dpkg.cfg.d/50alight").write_text(_DPKG_CONF)
    lines = []
    for number, (source, keyring) in enumerate(zip(sources, keyrings, strict=True)):
        signed_by = keyring
        if keyring and not (root / keyring.lstrip("/")).exists():
            kept = f"etc/apt/keyrings/mirror-{number}{Path(keyring).suffix}"
            (root / kept).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(keyring, root / kept)
            signed_by = f"/{kept}"
        lines.append(replace(source, uri=_without_credentials(source.uri)).line(signed_by) + "\n")
    (root / "etc/apt/sources.list").write_text("".join(lines))


def _keyring(source: Source, place: Path) -> str:
    if not source.signed_by and not source.trusted and not _debian_codename(Path("/")):
        return str(_DEBIAN_KEYS)  # what another distribution's apt trusts by itself are its own keys
    if "BEGIN PGP" not in source.signed_by:
        return source.signed_by if Path(source.signed_by).is_file() else ""
    path = place.with_suffix(".asc")
    path.write_text(source.signed_by)
    return str(path)


def _without_credentials(uri: str) -> str:
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _debian_codename(root: Path) -> str:
    try:
        text = (root / "etc/os-release").read_text()
    except OSError:
        return ""
    facts = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    is_debian = facts.get("ID", "").strip('"') == "debian"
    return facts.get("VERSION_CODENAME", "").strip('"') if is_debian else ""


def _read_sources(folder: Path) -> list[Source]:
    found: list[Source] = []
    for path in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*.list"))]:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for line in path.read_text().splitlines():
                found += _one_line_source(line)
    for path in sorted((folder / "sources.list.d").glob("*.sources")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for stanza in re.split(r"\n[ \t]*\n", path.read_text()):
                found += _stanza_sources(stanza)
    return found


def _one_line_source(line: str) -> list[Source]:
    match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+(.+)", line)
    if not match or "main" not in match[4].split("#")[0].split():
        return []
    options = dict(one.split("=", 1) for one in (match[1] or "").split() if "=" in one)
    return [Source(match[2], match[3], options.get("signed-by", ""), options.get("trusted") == "yes")]


def _stanza_sources(stanza: str) -> list[Source]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t"):
            # deb822 writes an empty line of a key as " ."
            fields[name] = fields.get(name, "") + "\n" + ("" if line.strip() == "." else line.strip())
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    if "deb" not in fields.get("types", "").split() or "main" not in fields.get("components", "").split():
        return []
    if fields.get("enabled", "yes").lower() == "no":
        return []
    trusted = fields.get("trusted", "").lower() == "yes"
    return [
        Source(uri, suite, fields.get("signed-by", "").strip(), trusted)
        for uri in fields.get("uris", "").split()
        for suite in fields.get("suites", "").split()
    ]


def failed(title: str, suite: str, status: int, output: trouble.Output) -> ImageBuildError:
    """The error for a base that could not be made."""
    text = "\n".join(output.tail)
    if re.search(r"NO_PUBKEY|not signed|EXPKEYSIG", text):
        return ImageBuildError(
            f"the base of {title} (Debian {suite}) could not be made: this machine lacks the key of its mirror",
            hint="apt install debian-archive-keyring (a recent one)",
            step=title,
            exit_status=status,
            tail=list(output.tail),
        )
    cause, hint = trouble.explain(text)
    return ImageBuildError(
        f"the base of {title} (Debian {suite}) could not be made: mmdebstrap ended with exit status {status}{cause}",
        hint=hint or "ALIGHT_DEBIAN_MIRROR names another mirror",
        step=title,
        exit_status=status,
        tail=list(output.tail),
    )


def machine() -> str:
    """The processor's name, part of a base's digest: "x86_64", "aarch64"."""
    return platform.machine()
