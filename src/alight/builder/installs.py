"""Steps as commands: what pip_install, apt_install, run and copy run in their container.

Package indexes and credentials never become arguments (arguments are seen by everybody on the machine): they travel in
the environment of the step.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from alight.builder.recipe import Step
from alight.builder.steps import CACHES, LENT

#: What `uv pip install` understands of pip's options; a step with any other is run by pip itself.
# fmt: off
_UV_OPTIONS = frozenset({
    "-U", "--upgrade", "-P", "--upgrade-package", "--no-deps", "--require-hashes", "--no-build-isolation",
    "--no-binary", "--only-binary", "--prerelease", "--pre", "--resolution", "--index-strategy", "--torch-backend",
    "--no-cache", "--no-cache-dir", "--reinstall", "--force-reinstall", "--reinstall-package", "--no-build",
    "--no-build-package", "--extra", "--all-extras", "-e", "--editable", "-t", "--target", "--prefix", "--no-index",
    "-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--index", "--default-index", "-c",
    "--constraint", "--constraints", "-C", "--config-setting", "--config-settings", "--no-sources",
    "--exclude-newer", "--refresh", "--refresh-package", "--strict", "--python-version", "--python-platform",
    "--link-mode", "--keyring-provider", "--overrides", "--override", "-b", "--build-constraints", "-q", "--quiet",
    "-v", "--verbose", "--allow-insecure-host", "--trusted-host", "--offline",
})
# fmt: on


@dataclass(frozen=True)
class Command:
    """What to run. ``files`` are lent to the step under ``LENT``; ``env`` wins over this machine's settings. ``facts``
    are what the image is from then on: ``python`` (the interpreter's path), ``path`` (a directory to put first).
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    network: bool = True
    binds: tuple[tuple[str, str, bool], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Indexes:
    """Where packages come from: this machine's settings joined with the step's own."""

    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    strategy: str = ""

    def joined(self, what: Mapping[str, Any]) -> Indexes:
        """With the step's own settings: its index replaces the machine's, its others join, as in pip."""
        return Indexes(
            what.get("index_url") or self.index_url,
            _unique(_words(what.get("extra_index_url")) + self.extra_index_urls),
            _unique(_words(what.get("find_links")) + self.find_links),
            self.strategy,
        )

    def env(self) -> dict[str, str]:
        """The same for pip and for uv. uv takes the best version of all indexes, as pip does, unless told not to."""
        env: dict[str, str] = {}
        if self.index_url:
            env["PIP_INDEX_URL"] = env["UV_DEFAULT_INDEX"] = self.index_url
        if self.extra_index_urls:
            env["PIP_EXTRA_INDEX_URL"] = env["UV_EXTRA_INDEX_URL"] = " ".join(self.extra_index_urls)
        if self.find_links:
            env["PIP_FIND_LINKS"] = " ".join(self.find_links)
            env["UV_FIND_LINKS"] = ",".join(self.find_links)
        env["UV_INDEX_STRATEGY"] = self.strategy or "unsafe-best-match"
        return env


def pip_install(step: Step, indexes: Indexes, python: str, *, uv: bool = True) -> Command:
    """Install packages into the image's own Python, with bytecode, so that no container start pays for compiling.

    ``uv``: whether the image has one; where it cannot run, pip does what it would have done.
    """
    what = step.what
    files = {
        f"requirements/{number}-{_plain(one['name'])}": one["text"].encode()
        for number, one in enumerate(what.get("requirements", ()))
    }
    options = shlex.split(what.get("extra_options") or "")
    wanted = [word for name in files for word in ("-r", f"{LENT}/{name}")] + list(what.get("packages", ()))
    if what.get("tool") != "uv" and not (uv and _uv_understands(options)):
        pre = ["--pre"] if what.get("pre") else []
        argv = [python, "-m", "pip", "install", "--no-input", *pre, *options, *wanted]
    else:
        pre = ["--prerelease=allow"] if what.get("pre") else []
        argv = ["uv", "pip", "install", "--python", python, "--compile-bytecode", *pre, *_for_uv(options), *wanted]
    return Command(tuple(argv), {**indexes.joined(what).env(), "TMPDIR": f"{CACHES}/temporary"}, files)


def apt_install(step: Step) -> Command:
    """Install Debian packages. Lists and downloads go to lent directories: the layer holds what was installed only."""
    return Command(("/bin/sh", "-c", _apt_script(step.what["packages"])), apt_env())


def locked_pip(plain: Command, python: str, requirements: str, options: Sequence[str]) -> Command:
    """``plain`` with exactly these packages in place of what it would find. A lock of nothing installs nothing."""
    begin = 5 if plain.argv[0] == "/bin/sh" else 0  # a script that ends in the install
    if not requirements:
        argv: tuple[str, ...] = (*plain.argv[:begin], "true")
    elif plain.argv[begin] == "uv":
        argv = (*plain.argv[:begin], "uv", "pip", "install", "--python", python, "--compile-bytecode", "--no-deps",
                *_for_uv(options), "-r", f"{LENT}/locked.txt")  # fmt: skip
    else:
        argv = (python, "-m", "pip", "install", "--no-input", "--no-deps", *options, "-r", f"{LENT}/locked.txt")
    return replace(plain, argv=argv, files={**plain.files, "locked.txt": requirements.encode()})


def locked_apt(plain: Command, packages: Sequence[str]) -> Command:
    """``plain`` with exactly these packages, "name=version"."""
    return replace(plain, argv=("/bin/sh", "-c", _apt_script(packages, "--allow-downgrades")))


def run(step: Step, shell: Sequence[str]) -> Command:
    """Run a command of the user's through the image's shell."""
    return Command((*shell, step.what["command"]))


def copy(step: Step) -> Command:
    """Lay the lent tree into the image, from within, so that links in the image lead where they lead there.

    tar and not cp: directories that the image has keep their modes (/tmp), and links to directories stay links.
    """
    to = posixpath.normpath(step.what["to"])
    script = (
        'mkdir -p "$1" && tar -C "$0" -cf - . | '
        'tar -C "$1" --no-overwrite-dir --keep-directory-symlink --no-same-owner -xpf -'
    )
    return Command(("/bin/sh", "-c", script, f"{LENT}/tree", to), network=False)


def apt_env() -> dict[str, str]:
    """For apt_install only: with run_commands an `apt-get update` of one step must be there for the next."""
    return {"DEBIAN_FRONTEND": "noninteractive", "APT_CONFIG": f"{LENT}/apt-install.conf"}


#: What `apt_env` points to, beside this machine's settings: lists and downloads lie outside the layer.
APT_DIRECTORIES = (
    f'Dir::State::lists "{CACHES}/apt/lists";\n'
    f'Dir::Cache::archives "{CACHES}/apt/archives";\n'
    'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
)


def _apt_script(packages: Sequence[str], *options: str) -> str:
    return (
        "set -e\n"
        "apt-get -q update\n"
        f"apt-get -q -o Dpkg::Use-Pty=0 install -y {shlex.join([*options, *packages])}\n"
        "rm -rf /var/log/apt /var/log/dpkg.log /var/log/alternatives.log /var/cache/debconf/*-old /var/lib/dpkg/*-old "
        "/var/cache/ldconfig/aux-cache\n"
    )


def _uv_understands(options: Sequence[str]) -> bool:
    return all(word.split("=", 1)[0] in _UV_OPTIONS for word in options if word.startswith("-"))


def _for_uv(options: Sequence[str]) -> list[str]:
    return ["--prerelease=allow" if word == "--pre" else word for word in options]


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", posixpath.basename(name)) or "requirements.txt"


def _words(value: Any) -> tuple[str, ...]:
    if not value:
        return ()
    return tuple(value.split()) if isinstance(value, str) else tuple(str(one) for one in value)


def _unique(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
