"""The steps and beginnings of images that this version does not build yet, with the names and parameters that scripts
use.
"""

from __future__ import annotations

import functools
import os
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    List,
    Mapping,
    NoReturn,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
    cast,
)

from alight.sdk.client import Client
from alight.sdk.surface import UNIMPLEMENTED, unimplemented
from alight.sdk.sync import dual, dual_function
from alight.wire.errors import UnimplementedError

if TYPE_CHECKING:
    from alight.sdk.image import Image

PathLike = Union[str, "os.PathLike[str]"]
F = TypeVar("F", bound=Callable[..., Any])
Env = Optional[Mapping[str, Optional[str]]]
Secrets = Optional[Sequence[Any]]


class _AutoDockerignore:
    """The default of ``ignore``: what a .dockerignore beside the Dockerfile says."""

    def __repr__(self) -> str:
        return "AUTO_DOCKERIGNORE"


AUTO_DOCKERIGNORE: Any = _AutoDockerignore()


def later(sentence: str) -> NoReturn:
    """Refuse what this version does not do yet."""
    raise UnimplementedError(f"{sentence}; this version of Alight doesn't yet")


def _later_step(sentence: str) -> Callable[[F], F]:
    """A step that can be declared, so that a script can be imported, and is refused for the functions that need it."""

    def decorate(function: F) -> F:
        UNIMPLEMENTED[function.__qualname__.replace("LaterSteps", "Image")] = sentence

        @functools.wraps(function)
        def declare(owner: Any, *_args: Any, **_kwargs: Any) -> Any:
            image = owner() if isinstance(owner, type) else owner
            return image._with({"op": "later", "sentence": sentence})  # noqa: SLF001  of its subclass

        return cast("F", declare)

    return decorate


class ImageLogs:
    """``Image.logs``: the build log of an image."""

    @unimplemented("Image.logs.fetch() would return the build log; this version shows it while the image is built")
    def fetch(self, layers: int = 1) -> Any: ...

    @unimplemented("Image.logs.tail() would return the end of the build log; this version shows it while it is built")
    def tail(self, entries: int = 100) -> Any: ...


class LaterSteps:
    """What Image will do, as names that say so."""

    @property
    def logs(self) -> ImageLogs:
        """The build log."""
        return ImageLogs()

    @classmethod
    @_later_step("Image.from_registry() would start from a container image; this version starts from debian_slim()")
    def from_registry(
        cls,
        tag: str,
        secret: Any = None,
        *,
        setup_dockerfile_commands: List[str] = [],  # noqa: B006  never changed
        force_build: bool = False,
        add_python: Optional[str] = None,
        **kwargs: Any,
    ) -> Image: ...

    @classmethod
    @_later_step("Image.from_aws_ecr() would start from an image of AWS ECR; this version starts from debian_slim()")
    def from_aws_ecr(
        cls,
        tag: str,
        secret: Any = None,
        *,
        setup_dockerfile_commands: List[str] = [],  # noqa: B006  never changed
        force_build: bool = False,
        add_python: Optional[str] = None,
        **kwargs: Any,
    ) -> Image: ...

    @classmethod
    @_later_step("Image.from_gcp_artifact_registry() would start from an image of Google's; use debian_slim()")
    def from_gcp_artifact_registry(
        cls,
        tag: str,
        secret: Any = None,
        *,
        setup_dockerfile_commands: List[str] = [],  # noqa: B006  never changed
        force_build: bool = False,
        add_python: Optional[str] = None,
        **kwargs: Any,
    ) -> Image: ...

    @classmethod
    @_later_step("Image.from_dockerfile() would build a Dockerfile; this version starts from debian_slim()")
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
    ) -> Image: ...

    @classmethod
    @_later_step("Image.micromamba() would start from a conda-style base; this version starts from debian_slim()")
    def micromamba(cls, python_version: Optional[str] = None, force_build: bool = False) -> Image: ...

    @classmethod
    @_later_step("Image.from_scratch() would start from nothing; this version starts from debian_slim()")
    def from_scratch(cls, force_build: bool = False) -> Image: ...

    @staticmethod
    @dual_function
    @unimplemented("Image.from_id() would take up an image by its id; this version builds from recipes")
    async def from_id(image_id: str, client: Optional[Client] = None) -> Image: ...

    @classmethod
    @_later_step("Image.from_name() would take up a published image; this version builds from recipes")
    def from_name(
        cls, name: str, *, environment_name: Optional[str] = None, client: Optional[Client] = None
    ) -> Image: ...

    @_later_step("Image.pip_install_private_repos() would install from private repositories; use run_commands()")
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
    ) -> Image: ...

    @_later_step("Image.uv_sync() would install a uv project; use uv_pip_install() or pip_install_from_pyproject()")
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
    ) -> Image: ...

    @_later_step("Image.poetry_install_from_file() would install a poetry project; use pip_install()")
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
    ) -> Image: ...

    @_later_step("Image.micromamba_install() would install conda packages; use pip_install() or apt_install()")
    def micromamba_install(
        self,
        *packages: Union[str, List[str]],
        spec_file: Optional[PathLike] = None,
        channels: List[str] = [],  # noqa: B006  never changed
        force_build: bool = False,
        env: Env = None,
        secrets: Secrets = None,
        gpu: Any = None,
    ) -> Image: ...

    @_later_step("Image.dockerfile_commands() would run lines of a Dockerfile; use run_commands(), env() and workdir()")
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
    ) -> Image: ...

    @_later_step("Image.run_function() would run a function while the image is built; use run_commands()")
    def run_function(  # noqa: PLR0913  the public form
        self,
        raw_f: Callable[..., Any],
        *,
        env: Env = None,
        secrets: Secrets = None,
        volumes: Mapping[Any, Any] = {},
        network_file_systems: Mapping[Any, Any] = {},
        gpu: Any = None,
        cpu: Optional[float] = None,
        memory: Optional[int] = None,
        timeout: int = 3600,
        cloud: Optional[str] = None,
        region: Any = None,
        force_build: bool = False,
        args: Tuple[Any, ...] = (),
        kwargs: Dict[str, Any] = {},  # noqa: B006  never changed
        include_source: bool = True,
    ) -> Image: ...

    @dual
    @unimplemented("Image.build() would build now; this version builds when an app that uses the image runs")
    async def build(self, app: Any = None) -> Image: ...

    @dual
    @unimplemented("Image.publish() would give the image a name; this version builds from recipes")
    async def publish(
        self,
        name: str,
        *,
        environment_name: Optional[str] = None,
        experimental_options: Any = None,
        client: Optional[Client] = None,
    ) -> None: ...

    @dual
    @unimplemented("get_dashboard_url() would link to the image's page; there is no dashboard yet")
    async def get_dashboard_url(self) -> str: ...
