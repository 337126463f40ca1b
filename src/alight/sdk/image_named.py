"""Images with names, and what their builds said."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, List, Optional, Tuple

from alight.sdk import config
from alight.sdk.client import Client, default_client
from alight.sdk.image_parts import FROM_ID, Steps
from alight.sdk.sync import dual, run
from alight.wire.built import ImageWork, ImageWorked
from alight.wire.errors import InvalidError
from alight.wire.ids import check_environment, check_name

if TYPE_CHECKING:
    from alight.sdk.image import Image

LATEST = "latest"
_TITLE = "── "  # before the name of each step in a log


class ImageLogs:
    """``Image.logs``: what the steps of an image said when they were built."""

    def __init__(self, image: Image) -> None:
        self._image = image

    def fetch(self, layers: Optional[int] = 1) -> List[str]:
        """The lines of the last ``layers`` steps, the oldest first; None: of all. The image must have an id: of
        ``build()``, or by ``from_id()``.
        """
        if layers is not None and layers < 1:
            raise InvalidError(f"Image.logs.fetch(layers={layers}): at least one")
        found: ImageWorked = run(
            default_client().call("image.work", ImageWork("log", self._image.object_id), ImageWorked)
        )
        lines = list(found.log)
        begins = [number for number, line in enumerate(lines) if line.startswith(_TITLE)]
        return lines[begins[-layers] :] if layers is not None and layers < len(begins) else lines

    def tail(self, entries: int = 100) -> List[str]:
        """The last lines of all of them."""
        if entries < 1:
            raise InvalidError(f"Image.logs.tail(entries={entries}): at least one")
        return self.fetch(None)[-entries:]


class NamedImages(Steps):
    """A part of ``Image``."""

    @property
    def logs(self) -> ImageLogs:
        """What the steps of this image said when they were built."""
        return ImageLogs(self._itself())

    @classmethod
    def from_name(cls, name: str, *, environment_name: Optional[str] = None, client: Optional[Client] = None) -> Image:
        """The image that ``publish()`` gave this name, "[environment/]name[:tag]". Looked up when an app runs."""
        del client  # the app's own is asked
        environment, plain, tag = _parts(name, environment_name)
        asked = f"{environment or config.load().environment}/{plain}:{tag}"
        image: Image = cls()._with({"op": FROM_ID, "image_id": asked})  # noqa: SLF001  of its kind
        return image

    @dual
    async def publish(
        self,
        name: str,
        *,
        environment_name: Optional[str] = None,
        experimental_options: Any = None,
        client: Optional[Client] = None,
    ) -> None:
        """Give the image a name, "name[:tag]"; it is built first if it is not there. A name that another image has
        means this one from then on.
        """
        del experimental_options, client
        environment, plain, tag = _parts(name, environment_name)
        # By name: what runs apps needs images, and an image that is only declared needs no network.
        now = importlib.import_module("alight.sdk.image_now")
        await now.build(self, None, name=f"{plain}:{tag}", environment=environment or None)

    @dual
    async def get_dashboard_url(self) -> str:
        """The address of the image's page at the dashboard. Raises ConflictError where the server has none, and
        AttributeError before the image has an id.
        """
        from alight.sdk.object import page_of  # noqa: PLC0415  images are declared without it

        image: Any = self
        return await page_of(default_client(), str(image.object_id))


def _parts(text: str, environment_name: Optional[str]) -> Tuple[str, str, str]:
    """Environment, name and tag. Raises InvalidError."""
    environment, slash, rest = text.rpartition("/")
    if slash and environment_name:
        raise InvalidError(
            f"{text!r} names an environment, and so does environment_name={environment_name!r}", hint="give one of them"
        )
    environment = environment or environment_name or ""
    if environment:
        check_environment(environment)
    name, colon, tag = rest.partition(":")
    return environment, check_name(name, "image"), check_name(tag if colon else LATEST, "tag of an image")
