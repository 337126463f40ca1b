"""A recipe's steps: checked, and printed as the user wrote them.

Only shape is checked here; whether a package exists is for the step to find out. Nothing here touches the machine.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alight.builder.registry import reference
from alight.builder.steps import Needs
from alight.wire.errors import ImageBuildError, InvalidError
from alight.wire.spec import ImageSpec

#: Ops that only change how later steps and containers run; they make no layer.
CONFIG_OPS = frozenset({"env", "workdir", "entrypoint", "cmd", "shell"})
#: Ops that make a layer out of the layers below.
LAYER_OPS = frozenset(
    {
        "pip_install",
        "pip_private",
        "poetry_install",
        "uv_sync",
        "apt_install",
        "micromamba",
        "micromamba_install",
        "run",
        "run_function",
        "copy",
        "python",
        "dockerfile",
    }
)
#: Ops that begin an image.
BASE_OPS = frozenset({"debian_slim", "registry", "scratch", "from_dockerfile", "imported"})
#: Keys of a step that say how it is built, not what: another of these does not make another layer.
HOW = frozenset({"force", "ignore", "secrets", "lent", "needs"})

DEFAULT_PYTHON = "3.11"

_PYTHON = re.compile(r"3\.\d{1,2}(\.\d{1,3})?")


@dataclass(frozen=True)
class Step:
    """One step. ``what`` decides the layer's digest; ``force``, ``env`` and ``secrets`` are how it is built.

    The build-time environment is part of ``what`` (it changes what a command does); secrets are not, by value or by id,
    so that a rotated secret rebuilds nothing. ``lent`` is a tree of files that the step sees and that decides nothing;
    a tree that decides is ``what["context"]``.
    """

    op: str
    what: Mapping[str, Any]
    title: str
    force: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    lent: str = ""
    ignore: bool = False  # ALIGHT_IGNORE_CACHE: made anew for whoever asked, what others find stays as it is
    needs: Needs = field(default_factory=Needs)

    @property
    def makes_layer(self) -> bool:
        """Whether building it takes more than remembering a setting."""
        if self.op == "pip_install":
            return bool(self.what.get("packages") or self.what.get("requirements"))
        if self.op == "apt_install":
            return bool(self.what.get("packages"))
        return self.op not in CONFIG_OPS


def parse(spec: ImageSpec) -> tuple[Step, ...]:
    """The steps of ``spec``; an empty recipe is ``debian_slim()``.

    Raises: ImageBuildError for an op that this version doesn't build, InvalidError for a step that cannot be.
    """
    raw = spec.steps or ({"op": "debian_slim", "python": None},)
    steps = tuple(_parse_step(one) for one in raw)
    for number, step in enumerate(steps):
        if (step.op in BASE_OPS) != (number == 0):
            raise InvalidError(
                f"{step.title} cannot be step {number + 1} of an image: "
                + ("an image starts with one base" if number else "an image starts with a base such as debian_slim()")
            )
    return steps


def minor_of(python: str) -> str:
    """The minor of a version: 3.11 of 3.11.4."""
    return ".".join(python.split(".")[:2])


def _parse_step(raw: Mapping[str, Any]) -> Step:
    op = str(raw.get("op", ""))
    if op not in CONFIG_OPS | LAYER_OPS | BASE_OPS:
        raise ImageBuildError(
            f"an image step {op!r} cannot be built by this version of Alight",
            hint="the machine that builds has an older Alight than the script: update it",
        )
    what = {key: value for key, value in raw.items() if key not in HOW and not _is_empty(value)}
    if op in ("debian_slim", "micromamba"):
        what.setdefault("python", DEFAULT_PYTHON)
    _CHECKS[op](what)
    _check_locked(what)
    for steps in (what.get("stand_ins") or {}).values():
        parse(ImageSpec(tuple(steps)))
    env = {str(name): str(value) for name, value in (raw.get("env") or {}).items()}
    return Step(
        op,
        what,
        _title(op, what),
        bool(raw.get("force")),
        env,
        tuple(raw.get("secrets") or ()),
        str(raw.get("lent") or ""),
        bool(raw.get("ignore")),
        _needs(raw),
    )


def _needs(raw: Mapping[str, Any]) -> Needs:
    given = raw.get("needs") or {}
    return Needs(
        tuple((str(one[0]), str(one[1]), bool(one[2]), str(one[3])) for one in given.get("volumes") or ()),
        tuple(raw.get("gpu") or ()),
        given.get("cpu"),
        given.get("memory"),
        given.get("timeout"),
    )


def _is_empty(value: Any) -> bool:
    # So that a field added later with an empty default leaves today's digests alone.
    return value is None or value is False or value in ("", [], {}, ())


def _check_debian(what: Mapping[str, Any]) -> None:
    python = what.get("python")
    if python is not None and not (isinstance(python, str) and _PYTHON.fullmatch(python)):
        raise InvalidError(
            f"python_version={python!r} is not a Python version", hint='give it as text: "3.12" or "3.12.4"'
        )


def _check_registry(what: Mapping[str, Any]) -> None:
    reference.parse(str(what.get("tag", "")))
    if what.get("auth", "") not in ("", "aws", "gcp"):
        raise InvalidError(f"{what['auth']!r} is no way to log in to a registry")


def _check_added_python(what: Mapping[str, Any]) -> None:
    version = what.get("version")
    if version is not None and not (isinstance(version, str) and _PYTHON.fullmatch(version)):
        raise InvalidError(f"add_python={version!r} is not a Python version", hint='give it as text: "3.12"')


def _check_packages(what: Mapping[str, Any]) -> None:
    for package in what.get("packages", ()):
        if not isinstance(package, str) or not package.strip() or package.startswith("-"):
            raise InvalidError(
                f"{package!r} is not a package", hint="options go into extra_options, index_url and the like"
            )


def _check_run(what: Mapping[str, Any]) -> None:
    if not isinstance(what.get("command"), str):
        raise InvalidError("an image step 'run' needs a command")


def _check_path(what: Mapping[str, Any]) -> None:
    path = what.get("to" if what["op"] == "copy" else "path")
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise InvalidError(f"{path!r} is not an absolute path in the image")
    if what["op"] == "copy" and not re.fullmatch(r"[0-9a-f]{64}", str(what.get("tree"))):
        raise InvalidError("an image step 'copy' needs the digest of its files")


def _check_env(what: Mapping[str, Any]) -> None:
    for name in what.get("vars", {}):
        if not name or "=" in name or "\0" in name:
            raise InvalidError(f"{name!r} is not a name for an environment variable")


def _check_context(what: Mapping[str, Any]) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", str(what.get("context"))):
        raise InvalidError(f"an image step {what['op']!r} needs the digest of its files")


def _check_function(what: Mapping[str, Any]) -> None:
    if not isinstance(what.get("name"), str) or not isinstance(what.get("code"), str):
        raise InvalidError("an image step 'run_function' needs a name and the digest of its code")


def _check_locked(what: Mapping[str, Any]) -> None:
    """A lock comes from a file that anybody may have edited: nothing of it may be read as an option."""
    locked = what.get("locked", {})
    if not isinstance(locked, Mapping):
        raise InvalidError("the lock of an image step is no table")
    for kind in ("pip", "apt", "conda"):
        for one in locked.get(kind, ()):
            if not isinstance(one, str) or not re.fullmatch(r"[A-Za-z0-9][^\s\0]*(?: @ [a-z][^\s\0]*)?", one):
                raise InvalidError(f"the lock of an image has {one!r} for a package")
    for digests in locked.get("hashes", ()):
        if not all(re.fullmatch(r"sha\d{3}:[0-9a-f]+", str(one)) for one in digests):
            raise InvalidError("the lock of an image has a hash that is none")
    for base in (locked.get("base"), *(locked.get("bases") or {}).values()):
        if base is not None and not re.fullmatch(r"sha256:[0-9a-f]{64}", str(base)):
            raise InvalidError(f"the lock of an image has {base!r} for the digest of a base")
    python = locked.get("python")
    if python is not None and not _PYTHON.fullmatch(str(python)):
        raise InvalidError(f"the lock of an image has {python!r} for a version of Python")


def _check_imported(what: Mapping[str, Any]) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", str(what.get("digest"))):
        raise InvalidError(f"{what.get('digest')!r} is not the digest of an image")


def _check_nothing(what: Mapping[str, Any]) -> None:
    del what


_CHECKS = {
    "debian_slim": _check_debian,
    "registry": _check_registry,
    "scratch": _check_nothing,
    "imported": _check_imported,
    "python": _check_added_python,
    "pip_install": _check_packages,
    "apt_install": _check_packages,
    "micromamba": _check_debian,
    "from_dockerfile": _check_context,
    "dockerfile": _check_context,
    "uv_sync": _check_context,
    "poetry_install": _check_context,
    "pip_private": _check_packages,
    "micromamba_install": _check_packages,
    "run_function": _check_function,
    "run": _check_run,
    "copy": _check_path,
    "workdir": _check_path,
    "env": _check_env,
    "entrypoint": _check_nothing,
    "cmd": _check_nothing,
    "shell": _check_nothing,
}


def _title(op: str, what: Mapping[str, Any]) -> str:
    """The step in the words of the user's script."""
    if op in ("debian_slim", "micromamba"):
        return f"Image.{op}({_arguments(python_version=what.get('python'))})"
    if op == "from_dockerfile":
        return f"Image.from_dockerfile({what.get('name', 'Dockerfile')!r})"
    if op in _WRITTEN:
        return _WRITTEN[op](what)
    if op == "registry":
        return f"Image.from_registry({what['tag']!r})"
    if op == "imported":
        return f"image imported as {what['digest'][:12]}"
    if op == "scratch":
        return "Image.from_scratch()"
    if op == "python":
        return f"add_python={what['version']!r}" if "version" in what else "the image's own Python"
    if op == "pip_install":
        name = "uv_pip_install" if what.get("tool") == "uv" else "pip_install"
        requirements = [one["name"] for one in what.get("requirements", ())]
        if requirements and not what.get("packages") and what.get("tool") != "uv":
            return f".pip_install_from_requirements({', '.join(map(repr, requirements))})"
        extra = f", requirements={requirements!r}" if requirements else ""
        return f".{name}({_quoted(what.get('packages', ()))}{extra})"
    if op == "apt_install":
        return f".apt_install({_quoted(what.get('packages', ()))})"
    if op == "run":
        return f".run_commands({_short(repr(what.get('command')))})"
    if op == "env":
        return f".env({_short(', '.join(what.get('vars', {})))})"
    if op == "copy":
        return f".add_local files at {what.get('to')}"
    if op == "workdir":
        return f".workdir({what.get('path')!r})"
    return f".{op}({_quoted(what.get('args', ()))})"


_WRITTEN: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "uv_sync": lambda what: f".uv_sync({what.get('name', '')!r})",
    "poetry_install": lambda what: f".poetry_install_from_file({what.get('name', '')!r})",
    "pip_private": lambda what: f".pip_install_private_repos({_quoted(what.get('packages', ()))})",
    "micromamba_install": lambda what: f".micromamba_install({_quoted(what.get('packages', ()))})",
    "run_function": lambda what: f".run_function({what.get('name')})",
    "dockerfile": lambda what: f".dockerfile_commands({_short(repr(what.get('first', '')))})",
}


def _arguments(**given: Any) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)


def _quoted(words: Iterable[Any]) -> str:
    return _short(", ".join(f'"{word}"' for word in words))


def _short(text: str, limit: int = 160) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def normal_path(path: str) -> str:
    """``path`` without doubled or trailing slashes."""
    return posixpath.normpath(path)
