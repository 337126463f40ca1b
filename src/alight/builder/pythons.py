"""A Python that Debian's suite does not bring: from uv's standalone builds, or copied from this machine.

Either way it becomes a layer of its own under /usr/local, on top of Debian. Debian's own Python stays below for
Debian's own tools. Interpreters of other people's home directories are never run: the node may be root.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from alight.builder import bases
from alight.builder.hostconfig import HostConfig
from alight.builder.recipe import minor_of
from alight.wire.errors import ImageBuildError

#: Longest that a download of a standalone build may take, seconds.
DOWNLOAD_TIMEOUT = 600.0

_PROBE = (
    "import json,platform,sys,sysconfig;"
    "print(json.dumps([platform.python_version(),sys.prefix,sys.base_prefix,sys.implementation.name,"
    "bool(sysconfig.get_config_var('Py_GIL_DISABLED'))]))"
)
#: What a Python without is not one that users' scripts expect; those that were there must be there after the move.
_ESSENTIAL = ("ssl", "sqlite3", "ctypes", "zlib", "bz2", "lzma", "hashlib", "readline", "uuid", "decimal", "curses")
_LIBRARIES = "usr/local/lib/alight-python-libs"
_GLIBC = re.compile(r"^(ld-linux.*|lib(c|m|dl|pthread|rt|util|resolv|nsl|anl|mvec|thread_db))\.so")


@dataclass(frozen=True)
class Found:
    """An interpreter to lay into an image: its ``prefix`` on this machine, and the suite of Debian that it runs on."""

    prefix: Path
    version: str
    origin: str
    suite: str
    libraries: tuple[tuple[str, Path], ...] = ()  # (soname, file), without glibc's
    modules: tuple[str, ...] = _ESSENTIAL

    @property
    def minor(self) -> str:
        return minor_of(self.version)


async def find(
    asked: str, host: HostConfig, scratch: Path, note: Callable[[str], None], *, standalone_only: bool = False
) -> Found | None:
    """The asked Python, by the second or third way; None with ``standalone_only`` and no standalone build.

    Raises: ImageBuildError that names the three ways, when none of them has it.
    """
    minor = minor_of(asked)
    reasons = [f"Debian's suites bring {', '.join(python for python, _ in bases.SUITES.values())}"]
    for version in dict.fromkeys((asked,) if standalone_only else (asked, minor)):
        prefix, reason = await _download(version, host, scratch / f"python-{version}")
        if prefix is not None:
            return await asyncio.to_thread(_inspect, prefix, minor, "uv's standalone builds")
        reasons.append(f"uv has no standalone build: {reason}")
    if standalone_only:
        note(reasons[-1])
        return None
    candidates = await asyncio.to_thread(_on_this_machine, minor)
    for prefix, version in sorted(candidates.items(), key=lambda one: (one[1] != asked, _newest_first(one[1]))):
        with contextlib.suppress(_Unfit):
            return await asyncio.to_thread(_inspect, prefix, minor, str(prefix))
        note(f"Python {version} of {prefix} cannot be moved into an image")
    raise ImageBuildError(
        f"Python {asked} is not to be had on this machine: {reasons[0]}; {reasons[-1]}; and no interpreter of {minor} "
        "that belongs to root or to the node's user was found (uv-managed, pyenv, /usr/local, /opt)",
        hint=f"use one of Debian's versions, make uv's builds reachable (UV_PYTHON_INSTALL_MIRROR names a mirror), or "
        f"install Python {minor} on the machine that builds (uv python install {minor}, or pyenv)",
        asked=asked,
    )


def lay(found: Found, upper: Path, has_library: Callable[[str], bool]) -> None:
    """Copy the interpreter under ``upper``/usr/local, with the libraries that the image below does not have."""
    target = upper / "usr/local"
    for folder in (upper / "usr", target, target / "bin", target / "lib", target / "include"):
        folder.mkdir(mode=0o755, exist_ok=True)
        folder.chmod(0o755)
    name = f"python{found.minor}"
    _copy(found.prefix / "bin" / name, target / "bin" / name)
    for config in (f"{name}-config",):
        if (found.prefix / "bin" / config).is_file():
            _copy(found.prefix / "bin" / config, target / "bin" / config)
    shutil.copytree(found.prefix / "lib" / name, target / "lib" / name, symlinks=True, ignore=_unneeded(name))
    (target / "lib" / name / "site-packages").mkdir()
    if (found.prefix / "include" / name).is_dir():
        shutil.copytree(found.prefix / "include" / name, target / "include" / name, symlinks=True)
    for library in sorted((found.prefix / "lib").glob("libpython3*.so*")):
        if found.minor in library.name or library.name == "libpython3.so":
            _copy(library, target / "lib" / library.name)
    _rename_prefix(found, target, name)
    missing = [(soname, file) for soname, file in found.libraries if not has_library(soname)]
    if missing:
        folder = upper / _LIBRARIES
        folder.mkdir()
        for soname, file in missing:
            shutil.copyfile(file, folder / soname)
            (folder / soname).chmod(0o755)
        listing = upper / "etc/ld.so.conf.d"
        listing.mkdir(parents=True)
        (listing / "zz-alight-python.conf").write_text(f"/{_LIBRARIES}\n")
    _give_to_root(upper)


def finishing_script(found: Found) -> str:
    """What is left to do in a container: find libraries, prove the interpreter whole, put its names first on PATH."""
    name = f"python{found.minor}"
    imports = ", ".join(found.modules)
    return f"""\
set -e
ldconfig
cd /usr/local/bin
rm -f python python3 pip pip3
ln -s {name} python3
ln -s {name} python
./{name} -I -c 'import {imports}'
PIP_ROOT_USER_ACTION=ignore ./{name} -m ensurepip >/dev/null
test -e pip || ln -s pip{found.minor} pip
rm -f /usr/local/lib/{name}/EXTERNALLY-MANAGED
./{name} -I -m compileall -q -j 0 -x 'bad_coding|badsyntax|lib2to3/tests' /usr/local/lib/{name} || true
rm -f /var/cache/ldconfig/aux-cache
"""


async def _download(version: str, host: HostConfig, into: Path) -> tuple[Path | None, str]:
    """(prefix, "") of a standalone build that uv fetched, or (None, why not). Without a network it fails at once."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PYTHON", "VIRTUAL_ENV"))}
    env.update(host.proxies)
    env.update(
        UV_PYTHON_INSTALL_DIR=str(into), UV_NO_CONFIG="1", UV_HTTP_RETRIES="0", UV_HTTP_CONNECT_TIMEOUT="10",
        UV_NO_PROGRESS="1", UV_NO_CACHE="1",
    )  # fmt: skip
    if host.python_mirror:
        env["UV_PYTHON_INSTALL_MIRROR"] = host.python_mirror
    if host.python_downloads:
        env["UV_PYTHON_DOWNLOADS_JSON_URL"] = host.python_downloads
    if host.ca_bundle:
        env["SSL_CERT_FILE"] = host.ca_bundle
    process = await asyncio.create_subprocess_exec(
        bases.find_uv(), "python", "install", "--no-bin", f"cpython-{version}", env=env,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        _, errors = await asyncio.wait_for(process.communicate(), DOWNLOAD_TIMEOUT)
    except asyncio.TimeoutError:
        return None, f"the download took longer than {DOWNLOAD_TIMEOUT:.0f} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    prefix = await asyncio.to_thread(_installed, into, minor_of(version))
    if process.returncode == 0 and prefix is not None:
        return prefix, ""
    lines = [line.strip() for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    return None, re.sub(r"^(?:error|cause):\s*", "", lines[-1]) if lines else f"exit status {process.returncode}"


def _installed(into: Path, minor: str) -> Path | None:
    # Beside it lies a link of the minor's name.
    return next((path for path in sorted(into.glob(f"cpython-{minor}*")) if not path.is_symlink()), None)


def _on_this_machine(minor: str) -> dict[Path, str]:
    """Prefixes of interpreters of that minor, with their versions; those of one's own or root's only."""
    found: dict[Path, str] = {}
    for python in _candidates(minor):
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
            real = python.resolve(strict=True)
            if real.stat().st_uid not in (0, os.geteuid()) or (python.parent.parent / "pyvenv.cfg").exists():
                continue
            out = subprocess.run(
                [str(real), "-I", "-c", _PROBE], capture_output=True, text=True, timeout=10, check=True, cwd="/",
                env={"PATH": os.defpath},
            ).stdout  # fmt: skip
            version, prefix, base_prefix, implementation, free_threaded = json.loads(out)
            whole = prefix == base_prefix and implementation == "cpython" and not free_threaded
            # The distribution's own lives all over /usr; conda's is tied to its environment.
            movable = prefix not in ("/usr", "/") and not (Path(prefix) / "conda-meta").exists()
            if whole and movable and minor_of(version) == minor:
                found.setdefault(Path(prefix), version)
    return found


def _candidates(minor: str) -> Iterator[Path]:
    home = Path.home()
    name = f"python{minor}"
    uv_managed = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or home / ".local/share/uv/python")
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv") / "versions"
    for place in (uv_managed.glob(f"cpython-{minor}.*"), pyenv.glob(f"{minor}*"), [Path("/usr/local")]):
        yield from (prefix / "bin" / name for prefix in sorted(place) if (prefix / "bin" / name).exists())
    for pattern in (f"*/bin/{name}", f"*/*/bin/{name}"):
        yield from sorted(Path("/opt").glob(pattern))


class _Unfit(Exception):
    """This interpreter cannot be moved."""


def _inspect(prefix: Path, minor: str, origin: str) -> Found:
    """What moving the interpreter takes. Raises _Unfit when Debian's glibc is too old for it or a part is missing."""
    python = prefix / "bin" / f"python{minor}"
    modules = prefix / "lib" / f"python{minor}" / "lib-dynload"
    present = [name for name in _ESSENTIAL if _runs(python, f"import {name}")]
    try:
        version = subprocess.run(
            [str(python), "-I", "-c", "import platform; print(platform.python_version())"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise _Unfit from error
    binaries = [python, *(prefix / "lib").glob(f"libpython{minor}*.so*"), *modules.glob("*.so")]
    binaries = [path for path in binaries if not path.name.startswith(("_tkinter", "_test"))]
    libraries = _needed(binaries, prefix)
    needs = max(map(_glibc_of, [*binaries, *(file for _, file in libraries)]), default=0)
    suite = next((suite for suite in bases.FOR_OTHER_PYTHONS if bases.SUITES[suite][1] >= needs), None)
    if suite is None:
        raise _Unfit
    return Found(prefix, version, origin, suite, libraries, tuple(present))


def _runs(python: Path, code: str) -> bool:
    done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, timeout=20, check=False)
    return done.returncode == 0


def _needed(binaries: Iterable[Path], prefix: Path) -> tuple[tuple[str, Path], ...]:
    """Every shared library that the binaries load, but for glibc's and the interpreter's own."""
    out = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, timeout=60, check=False).stdout
    found: dict[str, Path] = {}
    for soname, file in re.findall(r"^\s+(\S+) => (/\S+)", out, re.MULTILINE):
        if not _GLIBC.match(soname) and not Path(file).resolve().is_relative_to(prefix.resolve()):
            found[soname] = Path(file)
    return tuple(sorted(found.items()))


def _glibc_of(path: Path) -> int:
    """The x of the newest GLIBC_2.x that a binary names. Reading names is enough: they are in its string table."""
    return max((int(one) for one in re.findall(rb"GLIBC_2\.(\d+)", path.read_bytes())), default=0)


def has_library(base: Path, soname: str) -> bool:
    """Whether a Debian in the directory ``base`` brings a shared library."""
    return any(True for folder in ("usr/lib", "lib") for _ in (base / folder).glob(f"*-linux-gnu/{soname}"))


def _unneeded(name: str) -> Callable[[str, list[str]], set[str]]:
    def ignore(folder: str, names: list[str]) -> set[str]:
        at_top = folder.endswith(f"/lib/{name}")
        dropped = {one for one in names if one == "__pycache__" or one.endswith(".a") or one.startswith("_tkinter.")}
        if at_top:
            dropped |= {"site-packages", "test", "idlelib", "turtledemo", "EXTERNALLY-MANAGED"} & set(names)
        return dropped

    return ignore


def _rename_prefix(found: Found, target: Path, name: str) -> None:
    """The build settings name the old prefix; extensions are compiled with them."""
    files = [target / "bin" / f"{name}-config", *(target / "lib" / name).glob("_sysconfigdata_*.py")]
    files += list((target / "lib" / name).glob("config-*/Makefile"))
    for file in files:
        if file.is_file():
            file.write_bytes(file.read_bytes().replace(str(found.prefix).encode(), b"/usr/local"))


def _copy(source: Path, target: Path) -> None:
    if source.is_symlink() and source.readlink().parent == Path():
        target.symlink_to(source.readlink())
    else:
        shutil.copy2(source, target)


def _give_to_root(root: Path) -> None:
    if os.geteuid() != 0:
        return
    for folder, _, files in os.walk(root):
        os.chown(folder, 0, 0)
        for name in files:
            os.chown(Path(folder) / name, 0, 0, follow_symlinks=False)


def _newest_first(version: str) -> tuple[int, ...]:
    return tuple(-int(part) for part in re.findall(r"\d+", version))
