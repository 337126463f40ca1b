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
    Mapping,
    NoReturn,
    Optional,
    Sequence,
    TypeVar,
    Union,
    cast,
)

from alight.sdk.client import Client
from alight.sdk.image_parts import Steps
from alight.sdk.surface import UNIMPLEMENTED, unimplemented
from alight.sdk.sync import dual
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


class LaterSteps(Steps):
    """What Image will do, as names that say so."""

    @property
    def logs(self) -> ImageLogs:
        """The build log."""
        return ImageLogs()

    @classmethod
    @_later_step("Image.from_name() would take up a published image; this version builds from recipes")
    def from_name(
        cls, name: str, *, environment_name: Optional[str] = None, client: Optional[Client] = None
    ) -> Image: ...

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
