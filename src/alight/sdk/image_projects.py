"""Steps that install what a project file lists or a private repository holds."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence

from alight.sdk.image_parts import Files, How, PathLike, Steps, absolute, flat, pip_op
from alight.wire.errors import InvalidError

if TYPE_CHECKING:
    from alight.sdk.image import Image

Env = Optional[Mapping[str, Optional[str]]]
Secrets = Optional[Sequence[Any]]


class ProjectSteps(Steps):
    """A part of ``Image``."""

    def uv_sync(  # noqa: PLR0913  the public form
        self,
        uv_project_dir: PathLike = "./",
        *,
        force_build: bool = False,
        groups: Optional[List[str]] = None,
        extras: Optional[List[str]] = None,
        frozen: bool = True,
        extra_options: str = "",
        uv_version: Optional[str] = None,
        env: Env = None,
        secrets: Secrets = None,
        gpu: Any = None,
    ) -> Image:
        """Install the dependencies of a uv project into /.uv/.venv, which is the image's Python from then on.

        The project itself is not installed. ``frozen`` takes uv.lock as it is; without, uv may change it for the image.
        """
        del uv_version  # Alight's own
        folder = absolute(uv_project_dir)
        op: Dict[str, Any] = {"op": "uv_sync", "name": str(uv_project_dir), "frozen": frozen}
        op.update(_some(groups=groups, extras=extras, extra_options=extra_options))
        return self._with(op, How(force_build, env, secrets, gpu), context=lambda: _uv_project(folder, locked=frozen))

    def poetry_install_from_file(  # noqa: PLR0913  the public form
        self,
        poetry_pyproject_toml: PathLike,
        poetry_lockfile: Optional[PathLike] = None,
        *,
        ignore_lockfile: bool = False,
        force_build: bool = False,
        with_: List[str] = [],  # noqa: B006  never changed
        without: List[str] = [],  # noqa: B006  never changed
        only: List[str] = [],  # noqa: B006  never changed
        poetry_version: Optional[str] = "latest",
        old_installer: bool = False,
        env: Env = None,
        secrets: Secrets = None,
        gpu: Any = None,
    ) -> Image:
        """Install the dependencies that a poetry project locks; ``ignore_lockfile`` locks them anew.

        Without ``poetry_lockfile`` it is the poetry.lock beside the project file. The project itself is not installed.
        """
        if old_installer:
            warnings.warn("old_installer= has no effect: uv installs what poetry locked", stacklevel=2)
        file = absolute(poetry_pyproject_toml)
        lock = None if poetry_lockfile is None else absolute(poetry_lockfile)
        op: Dict[str, Any] = {"op": "poetry_install", "name": file.name, "frozen": not ignore_lockfile}
        op.update(_some(version=poetry_version, without=without, only=only, **{"with": with_}))
        return self._with(
            op, How(force_build, env, secrets, gpu), context=lambda: _poetry_project(file, lock, ignore=ignore_lockfile)
        )

    def pip_install_private_repos(  # noqa: PLR0913  the public form
        self,
        *repositories: str,
        git_user: str,
        find_links: Optional[str] = None,
        index_url: Optional[str] = None,
        extra_index_url: Optional[str] = None,
        pre: bool = False,
        extra_options: str = "",
        gpu: Any = None,
        env: Env = None,
        secrets: Secrets = None,
        force_build: bool = False,
    ) -> Image:
        """Install packages from private repositories, each "github.com/owner/name@reference" (or gitlab.com).

        ``secrets`` hold GITHUB_TOKEN or GITLAB_TOKEN; git gets it when it asks, and the image never holds it.
        """
        if not secrets:
            raise InvalidError(
                "Image.pip_install_private_repos() needs a token",
                hint='secrets=[Secret.from_name("…")] with GITHUB_TOKEN or GITLAB_TOKEN in it',
            )
        names = flat(repositories, "pip_install_private_repos")
        wrong = [name for name in names if not name.startswith(("github.com/", "gitlab.com/")) or "://" in name]
        if wrong:
            raise InvalidError(
                f"Image.pip_install_private_repos({wrong[0]!r}): repositories are of github.com or gitlab.com",
                hint='write for example "github.com/owner/name@main"',
            )
        if not names:
            return self._itself()
        op = pip_op("uv", names, find_links, index_url, extra_index_url, pre, extra_options)
        op.update(op="pip_private", git_user=git_user)
        del op["tool"]
        return self._with(op, How(force_build, env, secrets, gpu))


def _some(**given: Any) -> Dict[str, Any]:
    return {name: list(value) if isinstance(value, (list, tuple)) else value for name, value in given.items() if value}


def _uv_project(folder: Path, *, locked: bool) -> Files:
    project, lock = folder / "pyproject.toml", folder / "uv.lock"
    if not project.is_file():
        raise InvalidError(f"Image.uv_sync(): there is no {project}", hint="uv_project_dir names a uv project's folder")
    if locked and not lock.is_file():
        raise InvalidError(
            f"Image.uv_sync(): there is no {lock}", hint="run `uv lock` in the project, or say frozen=False"
        )
    if b"[tool.uv.workspace]" in project.read_bytes():
        raise InvalidError(
            f"Image.uv_sync(): {project} is a workspace, which cannot be installed",
            hint="name the folder of one project",
        )
    found = {"pyproject.toml": project, "uv.lock": lock, ".python-version": folder / ".python-version"}
    return {name: path for name, path in found.items() if path.is_file() and name != ".python-version"}


def _poetry_project(file: Path, lock: Optional[Path], *, ignore: bool) -> Files:
    if not file.is_file():
        raise InvalidError(f"Image.poetry_install_from_file(): there is no {file}")
    files: Dict[str, Path] = {"pyproject.toml": file}
    if not ignore:
        lock = lock or file.parent / "poetry.lock"
        if not lock.is_file():
            raise InvalidError(
                f"Image.poetry_install_from_file(): there is no {lock}",
                hint="run `poetry lock`, or say ignore_lockfile=True",
            )
        files["poetry.lock"] = lock
    return files
