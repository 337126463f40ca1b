"""Images: an immutable chain of steps. Every method returns a new Image; nothing is read, sent or built until an app
runs.

Arguments are checked where the script writes them, files are looked at when the app runs, the server builds.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import sys
import warnings
from pathlib import Path, PurePosixPath
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

from alight.sdk import resources
from alight.sdk.client import Client
from alight.sdk.image_docker import DockerSteps
from alight.sdk.image_function import FunctionSteps
from alight.sdk.image_named import NamedImages
from alight.sdk.image_parts import FROM_ID, PLAINLY, How, Step, absolute, flat, package_names, pip_op, word_list
from alight.sdk.image_patterns import NON_PYTHON_FILES, Ignore, as_matcher
from alight.sdk.image_projects import ProjectSteps
from alight.sdk.image_registry import RegistryBases
from alight.sdk.source import LocalFiles, python_source
from alight.sdk.sync import dual, dual_function
from alight.wire import ambient, ids
from alight.wire.errors import InvalidError, ModuleNotMountable
from alight.wire.record import dataclass

PathLike = Union[str, "os.PathLike[str]"]

_PYTHON = re.compile(r"^3\.\d{1,2}(\.\d{1,3})?$")
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


@dataclass(frozen=True)
class _Chain:
    """What an Image is made of. ``added`` are files that are laid on top without a build, so nothing can follow
    them.
    """

    steps: Tuple[Step, ...] = ()
    added: Tuple[Callable[[], LocalFiles], ...] = ()


class Image(RegistryBases, FunctionSteps, ProjectSteps, DockerSteps, NamedImages):
    """The file system that functions run in, as a chain of steps."""

    def __init__(self) -> None:
        super().__init__()
        self._chain = _Chain()
        self._missed: Optional[ImportError] = None  # of imports(), in a container
        self._object_id: Optional[str] = None

    # beginnings

    @staticmethod
    def debian_slim(python_version: Any = None, force_build: bool = False) -> Image:
        """Debian with this Python ("3.12" or "3.12.4"; None: the minor version that runs this script)."""
        if isinstance(python_version, float):
            raise TypeError(f'python_version={python_version} is a number, which loses zeros: write "{python_version}"')
        if python_version is not None and not (isinstance(python_version, str) and _PYTHON.match(python_version)):
            raise InvalidError(
                f"python_version={python_version!r} is not a Python version", hint='write "3.12" or "3.12.4"'
            )
        minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return Image()._with({"op": "debian_slim", "python": python_version or minor}, How(force_build))  # noqa: SLF001  of this class

    @staticmethod
    @dual_function
    async def from_id(image_id: str, client: Optional[Client] = None) -> Image:
        """The image of this id, as ``object_id`` gave it. The server is asked when an app that uses it runs.

        It is known by its recipe: a machine that lost it builds it anew.
        """
        del client  # the app's own is asked
        if not str(image_id).startswith(f"{ids.IMAGE}-"):
            raise InvalidError(f"{image_id!r} is not the id of an image", hint=f"ids of images begin with {ids.IMAGE}-")
        image = Image()._with({"op": FROM_ID, "image_id": image_id})  # noqa: SLF001  of this class
        image._object_id = image_id  # noqa: SLF001
        return image

    # packages

    def pip_install(  # noqa: PLR0913  the public form
        self,
        *packages: Union[str, Sequence[str]],
        find_links: Optional[str] = None,
        index_url: Optional[str] = None,
        extra_index_url: Optional[str] = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: Optional[Mapping[str, Optional[str]]] = None,
        secrets: Optional[Sequence[Any]] = None,
        gpu: Any = None,
    ) -> Image:
        """Install Python packages. Build secrets and ``env`` are there while it installs and not afterwards."""
        names = package_names(packages, "pip_install")
        op = pip_op("pip", names, find_links, index_url, extra_index_url, pre, extra_options)
        return self._with(op, How(force_build, env, secrets, gpu)) if names else self

    def pip_install_from_requirements(  # noqa: PLR0913  the public form
        self,
        requirements_txt: PathLike,
        find_links: Optional[str] = None,
        *,
        index_url: Optional[str] = None,
        extra_index_url: Optional[str] = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: Optional[Mapping[str, Optional[str]]] = None,
        secrets: Optional[Sequence[Any]] = None,
        gpu: Any = None,
    ) -> Image:
        """Install what a requirements file lists. Its content decides whether it is installed anew."""
        op = pip_op("pip", [], find_links, index_url, extra_index_url, pre, extra_options)
        return self._with(op, How(force_build, env, secrets, gpu), requirements=(absolute(requirements_txt),))

    def pip_install_from_pyproject(  # noqa: PLR0913  the public form
        self,
        pyproject_toml: PathLike,
        optional_dependencies: Sequence[str] = (),
        *,
        find_links: Optional[str] = None,
        index_url: Optional[str] = None,
        extra_index_url: Optional[str] = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: Optional[Mapping[str, Optional[str]]] = None,
        secrets: Optional[Sequence[Any]] = None,
        gpu: Any = None,
    ) -> Image:
        """Install the dependencies of a pyproject.toml ([project] alone), with the named groups of optional ones."""
        op = pip_op("pip", [], find_links, index_url, extra_index_url, pre, extra_options)
        op["pyproject_groups"] = list(optional_dependencies)
        return self._with(op, How(force_build, env, secrets, gpu), requirements=(absolute(pyproject_toml),))

    def uv_pip_install(  # noqa: PLR0913  the public form
        self,
        *packages: Union[str, Sequence[str]],
        requirements: Optional[Sequence[str]] = None,
        find_links: Optional[str] = None,
        index_url: Optional[str] = None,
        extra_index_url: Optional[str] = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        uv_version: Optional[str] = None,
        env: Optional[Mapping[str, Optional[str]]] = None,
        secrets: Optional[Sequence[Any]] = None,
        gpu: Any = None,
    ) -> Image:
        """Install Python packages with uv. ``requirements`` are requirements files; ``uv_version`` is Alight's own."""
        del uv_version
        if isinstance(requirements, str):
            raise InvalidError("requirements= takes a list of files", hint=f"requirements=[{requirements!r}]")
        names = package_names(packages, "uv_pip_install")
        files = tuple(absolute(file) for file in requirements or ())
        op = pip_op("uv", names, find_links, index_url, extra_index_url, pre, extra_options)
        return self._with(op, How(force_build, env, secrets, gpu), requirements=files) if names or files else self

    def apt_install(
        self,
        *packages: Union[str, Sequence[str]],
        force_build: bool = False,
        env: Optional[Mapping[str, Optional[str]]] = None,
        secrets: Optional[Sequence[Any]] = None,
        gpu: Any = None,
    ) -> Image:
        """Install Debian packages."""
        names = package_names(packages, "apt_install")
        return (
            self._with({"op": "apt_install", "packages": names}, How(force_build, env, secrets, gpu)) if names else self
        )

    # commands and settings

    def run_commands(
        self,
        *commands: Union[str, Sequence[str]],
        env: Optional[Mapping[str, Optional[str]]] = None,
        secrets: Optional[Sequence[Any]] = None,
        volumes: Optional[Mapping[Any, Any]] = None,
        gpu: Any = None,
        force_build: bool = False,
    ) -> Image:
        """Run shell commands while the image is built, each a step of its own."""
        mounts = resources.volumes(volumes, "Image.run_commands()")
        image = self
        for command in flat(commands, "run_commands"):
            op = {"op": "run", "command": command}
            image = image._with(op, How(force_build, env, secrets, gpu), volumes=mounts)
        return image

    def env(self, vars: Mapping[Any, Any]) -> Image:  # noqa: A002  the public name
        """Set environment variables for later steps and for containers."""
        for name, value in vars.items():
            if not isinstance(value, str):
                raise InvalidError(
                    f"Image.env(): {name} is {type(value).__name__}, not text", hint=f'write {{"{name}": "{value}"}}'
                )
            if not isinstance(name, str) or not _VARIABLE.match(name):
                raise InvalidError(f"Image.env(): {name!r} cannot be the name of an environment variable")
        return self._with({"op": "env", "vars": dict(vars)}) if vars else self

    def workdir(self, path: Union[str, PurePosixPath]) -> Image:
        """The directory that later steps and containers start in."""
        text = str(path)
        if not text.startswith("/"):
            raise InvalidError(f"Image.workdir({text!r}): the path must be absolute", hint=f"Image.workdir('/{text}')")
        return self._with({"op": "workdir", "path": text})

    def entrypoint(self, entrypoint_commands: List[str]) -> Image:
        """The image's ENTRYPOINT; it must end by running its arguments."""
        return self._with({"op": "entrypoint", "args": word_list(entrypoint_commands, "entrypoint")})

    def shell(self, shell_commands: List[str]) -> Image:
        """The shell that later ``run_commands`` use."""
        return self._with({"op": "shell", "args": word_list(shell_commands, "shell")})

    def cmd(self, cmd: List[str]) -> Image:
        """The image's CMD."""
        return self._with({"op": "cmd", "args": word_list(cmd, "cmd")})

    # files

    def add_local_file(
        self, local_path: PathLike, remote_path: Union[str, PurePosixPath], *, copy: bool = False
    ) -> Image:
        """Add a file of this machine. Without ``copy`` it is laid on top when containers start, and no build step may
        follow.
        """
        local = absolute(local_path)
        remote = _remote(remote_path, "add_local_file")
        if str(remote_path).endswith("/"):
            remote = f"{remote.rstrip('/')}/{local.name}"
        return self._adding(lambda: _must_be(LocalFiles(local, remote), directory=False), copy=copy)

    def add_local_dir(
        self,
        local_path: PathLike,
        remote_path: Union[str, PurePosixPath],
        *,
        copy: bool = False,
        ignore: Ignore = (),
    ) -> Image:
        """Add the contents of a directory of this machine at ``remote_path``; ``ignore`` leaves files out."""
        local = absolute(local_path)
        remote = _remote(remote_path, "add_local_dir")
        matcher = as_matcher(ignore) if callable(ignore) or list(ignore) else None
        return self._adding(lambda: _must_be(LocalFiles(local, remote, matcher), directory=True), copy=copy)

    def add_local_python_source(self, *modules: str, copy: bool = False, ignore: Ignore = NON_PYTHON_FILES) -> Image:
        """Add importable modules and packages of this machine, so that they can be imported in containers."""
        matcher = as_matcher(ignore)
        image = self
        for module in modules:
            if not isinstance(module, str):
                raise InvalidError(
                    f"add_local_python_source() takes names of modules, not {type(module).__name__}",
                    hint='for example add_local_python_source("mypackage")',
                )
            image = image._adding(functools.partial(_module, module, matcher), copy=copy)
        return image

    # the rest

    def pipe(self, func: Callable[..., Image], *args: Any, **kwargs: Any) -> Image:
        """``func(image, …)``, for chains."""
        made = func(self, *args, **kwargs)
        if not isinstance(made, Image):
            raise InvalidError(f"the function given to Image.pipe() returned {type(made).__name__}, not an Image")
        return made

    @contextlib.contextmanager
    def imports(self) -> Iterator[None]:
        """``with image.imports():`` — import what only the image has. Here a failing import is passed over; in a
        container it is raised for the functions that use this image, and passed over for those of other images.
        """
        try:
            yield
        except ImportError as error:
            if not ambient.is_local():
                self._missed = error
        except Exception as error:  # what an import raises besides belongs to the imported package
            if ambient.is_local():
                raise
            warnings.warn(f"an import in image.imports() raised {type(error).__name__}: {error}", stacklevel=3)

    def raise_missed(self) -> None:
        """Raise what an import in ``imports()`` raised in this container, if something did. For the function that the
        container runs.
        """
        if self._missed is not None:
            raise self._missed

    @dual
    async def build(self, app: Any = None) -> Image:
        """Build now, and not when an app runs. ``app`` is one that runs; without, one is run for the build alone."""
        # By name: what runs apps needs images, and an image that is only declared needs no network.
        await importlib.import_module("alight.sdk.image_now").build(self, app)
        return self

    @dual
    async def hydrate(self, client: Optional[Client] = None) -> Image:
        """An image has no id before an app that uses it runs; this is for symmetry with other handles."""
        del client
        return self

    @property
    def object_id(self) -> str:
        """The id that ``build()`` gave it, for ``from_id()``. AttributeError before that."""
        if self._object_id is None:
            raise AttributeError("an image is known by what it is made of, and has no object_id before build()")
        return self._object_id

    @property
    def client(self) -> Optional[Client]:
        return None

    @property
    def steps(self) -> Tuple[Step, ...]:
        """What is built."""
        return self._chain.steps

    @property
    def added(self) -> Tuple[Callable[[], LocalFiles], ...]:
        """What is laid on top without a build."""
        return self._chain.added

    def _adding(self, files: Callable[[], LocalFiles], *, copy: bool) -> Image:
        if copy:
            return self._with({"op": "copy"}, files=files)
        image = Image()
        image._chain = _Chain(self._chain.steps, (*self._chain.added, files))
        return image

    def _with(
        self,
        op: Dict[str, Any],
        how: How = PLAINLY,
        **parts: Any,
    ) -> Image:
        """One more step. ``parts`` are fields of ``Step`` besides its op and its secrets."""
        if self._chain.added:
            raise InvalidError(
                f"an image step ({op['op']}) follows add_local_* without copy=True",
                hint="add local files last, or add them with copy=True, which makes them part of the image",
            )
        if how.force_build:
            op["force"] = True
        build_env = {name: value for name, value in (how.env or {}).items() if value is not None}
        if build_env:
            op["env"] = build_env
        if how.gpu:
            op["gpu"] = list(resources.gpus(how.gpu))
        image = Image()
        step = Step(op, secrets=tuple(how.secrets or ()), **parts)
        image._chain = _Chain((*self._chain.steps, step))
        return image

    def __getstate__(self) -> Dict[str, Any]:
        return {}  # in a container an image is a name and no more: its local files are not there

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self._chain = _Chain()
        self._missed = None

    def __repr__(self) -> str:
        return "Image(" + " → ".join(str(step.op["op"]) for step in self._chain.steps) + ")"


def _remote(path: Union[str, PurePosixPath], where: str) -> str:
    text = str(path)
    if not text.startswith("/"):
        raise InvalidError(f"Image.{where}(): the remote path {text!r} must be absolute", hint=f"'/root/{text}'")
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise InvalidError(f"Image.{where}(): the remote path {text!r} leaves its directory")
    return "/" + "/".join(parts)


def _must_be(files: LocalFiles, *, directory: bool) -> LocalFiles:
    if files.local.exists() and files.local.is_dir() != directory:
        other = "add_local_dir" if not directory else "add_local_file"
        raise InvalidError(
            f"{files.local} is a {'file' if directory else 'directory'}", hint=f"use Image.{other}() for it"
        )
    return files


def _module(module: str, matcher: Callable[[Path], bool]) -> LocalFiles:
    try:
        return python_source(module, matcher)
    except ModuleNotMountable as error:
        raise InvalidError(
            f"add_local_python_source({module!r}): {error}",
            hint="it must be importable where the script starts; add_local_dir() takes any directory",
        ) from error
