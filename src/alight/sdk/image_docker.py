"""Steps and beginnings in the words of other tools: Dockerfiles and conda packages."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Union

from alight.sdk.image_parts import Files, How, PathLike, Steps, absolute, flat, package_names
from alight.sdk.image_patterns import FilePatternMatcher, as_matcher
from alight.sdk.source import LocalFiles
from alight.wire.errors import InvalidError

if TYPE_CHECKING:
    from alight.sdk.image import Image

Env = Optional[Mapping[str, Optional[str]]]
Secrets = Optional[Sequence[Any]]


class _AutoDockerignore:
    """The default of ``ignore``: what a .dockerignore beside the Dockerfile says."""

    def __repr__(self) -> str:
        return "AUTO_DOCKERIGNORE"


AUTO_DOCKERIGNORE: Any = _AutoDockerignore()


class DockerSteps(Steps):
    """A part of ``Image``."""

    @classmethod
    def from_dockerfile(  # noqa: PLR0913  the public form
        cls,
        path: PathLike,
        *,
        force_build: bool = False,
        context_dir: Optional[PathLike] = None,
        ignore: Any = AUTO_DOCKERIGNORE,
        build_args: Dict[str, str] = {},  # noqa: B006  never changed
        registry_secret: Any = None,
        secrets: Secrets = None,
        env: Env = None,
        gpu: Any = None,
        add_python: Optional[str] = None,
    ) -> Image:
        """Build a Dockerfile and start from what it makes. ``context_dir`` (default: here) is what COPY copies from.

        Without ``add_python`` the image's own Python is used.
        """
        file = absolute(path)
        context = absolute(context_dir or os.curdir)
        op: Dict[str, Any] = {"op": "from_dockerfile", "name": file.name}
        op.update(_given(build_args=_texts(build_args)))
        given = (*(secrets or ()), *((registry_secret,) if registry_secret is not None else ()))
        image = cls()._with(op, How(force_build, env, given, gpu), context=lambda: _dockerfile(file, context, ignore))  # noqa: SLF001
        return image._with({"op": "python", **_given(version=add_python)})  # noqa: SLF001  of its kind

    def dockerfile_commands(  # noqa: PLR0913  the public form
        self,
        *dockerfile_commands: Union[str, List[str]],
        context_files: Dict[str, str] = {},  # noqa: B006  never changed
        env: Env = None,
        secrets: Secrets = None,
        gpu: Any = None,
        context_dir: Optional[PathLike] = None,
        force_build: bool = False,
        ignore: Any = AUTO_DOCKERIGNORE,
        build_args: Dict[str, str] = {},  # noqa: B006  never changed
    ) -> Image:
        """Lines of a Dockerfile on top of the image so far. ``context_files`` are local files by their name in COPY."""
        lines = [line for text in flat(dockerfile_commands, "dockerfile_commands") for line in text.split("\n")]
        if not any(line.strip() for line in lines):
            return self._itself()
        named = {str(name): absolute(local) for name, local in context_files.items()}
        context = None if context_dir is None else absolute(context_dir)
        copies = any(line.split(None, 1)[:1] and line.split(None, 1)[0].upper() in {"COPY", "ADD"} for line in lines)
        if context is None and copies and not named:
            context = absolute(os.curdir)
        op: Dict[str, Any] = {"op": "dockerfile", "first": lines[0]}
        op.update(_given(build_args=_texts(build_args)))
        text = ("\n".join(lines) + "\n").encode()
        return self._with(op, How(force_build, env, secrets, gpu), context=lambda: _lines(text, named, context, ignore))

    @classmethod
    def micromamba(cls, python_version: Optional[str] = None, force_build: bool = False) -> Image:
        """Debian with a conda environment made by micromamba, whose Python is the image's."""
        if python_version is not None and not isinstance(python_version, str):
            raise TypeError(f'python_version={python_version} is not text: write "{python_version}"')
        minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
        image = cls()._with({"op": "debian_slim", "python": "3.11"}, How(force_build))  # noqa: SLF001  of its kind
        image = image._with({"op": "micromamba", "python": python_version or minor})  # noqa: SLF001
        return image.env({"MAMBA_ROOT_PREFIX": "/opt/conda"})

    def micromamba_install(
        self,
        *packages: Union[str, List[str]],
        spec_file: Optional[PathLike] = None,
        channels: List[str] = [],  # noqa: B006  never changed
        force_build: bool = False,
        env: Env = None,
        secrets: Secrets = None,
        gpu: Any = None,
    ) -> Image:
        """Install conda packages; ``spec_file`` is an environment.yml or a list of packages."""
        names = package_names(packages, "micromamba_install")
        if not names and spec_file is None:
            return self._itself()
        op: Dict[str, Any] = {"op": "micromamba_install", "packages": names}
        op.update(_given(channels=list(channels)))
        parts: Dict[str, Callable[[], Files]] = {}
        if spec_file is not None:
            file = absolute(spec_file)
            op["name"] = file.name
            parts["context"] = lambda: {file.name: _file(file, "micromamba_install")}
        return self._with(op, How(force_build, env, secrets, gpu), **parts)


def _dockerfile(file: Path, context: Path, ignore: Any) -> Files:
    return {"Dockerfile": _file(file, "from_dockerfile"), "files": _context(context, ignore, file)}


def _lines(text: bytes, named: Mapping[str, Path], context: Optional[Path], ignore: Any) -> Files:
    files: Dict[str, Any] = {"Dockerfile": text}
    if context is not None:
        files["files"] = _context(context, ignore, None)
    for name, local in named.items():
        place = "files/" + name.lstrip("/")
        files[place] = LocalFiles(local, "/") if local.is_dir() else _file(local, "dockerfile_commands")
    return files


def _context(folder: Path, ignore: Any, dockerfile: Optional[Path]) -> LocalFiles:
    """The context without what is ignored: as the caller says, else Dockerfile.dockerignore or .dockerignore."""
    if not folder.is_dir():
        raise InvalidError(f"there is no directory {folder} to copy from", hint="context_dir names it")
    if ignore is not AUTO_DOCKERIGNORE:
        return LocalFiles(folder, "/", as_matcher(ignore) if callable(ignore) or list(ignore) else None)
    beside = [dockerfile.with_name(dockerfile.name + ".dockerignore")] if dockerfile is not None else []
    for file in (*beside, folder / ".dockerignore"):
        if file.is_file():
            return LocalFiles(folder, "/", FilePatternMatcher.from_file(file))
    return LocalFiles(folder, "/")


def _file(path: Path, where: str) -> Path:
    if not path.is_file():
        raise InvalidError(f"Image.{where}(): there is no file {path}")
    return path


def _texts(values: Mapping[Any, Any]) -> Dict[str, str]:
    for name, value in values.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidError(f"build_args are text: {name!r} is {value!r}", hint=f'{{"{name}": "{value}"}}')
    return dict(values)


def _given(**values: Any) -> Dict[str, Any]:
    return {name: value for name, value in values.items() if value}
