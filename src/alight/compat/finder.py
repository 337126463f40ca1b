"""The import hook behind `install()`: which module a `modal.…` name is.

A name is the very module of Alight where one exists, so that `modal.exception.NotFoundError` and
`alight.exception.NotFoundError` are one class. Old module names that scripts import from (`modal.functions`) are
facades over the public names. Everything else is a ModuleNotFoundError: Alight's own packages must not be reachable
twice.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing and importlib.abc cost more than all of this; checkers know the name
if TYPE_CHECKING:
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Optional, Sequence
else:
    from _frozen_importlib import ModuleSpec

    Loader = object
    ModuleType = type(sys)

NAME = "modal"

#: Names that are modules of Alight's public face.
SAME = frozenset({"config", "exception", "experimental", "gpu", "types"})

#: Old module names, each with the places where its names are looked for, in order.
FACADES = {
    "app": ("alight",),
    "call_graph": ("alight.types", "alight"),
    "client": ("alight",),
    "cloud_bucket_mount": ("alight",),
    "cls": ("alight",),
    "container_process": ("alight.sdk.sandbox",),
    "dict": ("alight", "alight.types"),
    "environments": ("alight", "alight.sdk.environment"),
    "file_pattern_matcher": ("alight", "alight.sdk.image_patterns"),
    "functions": ("alight", "alight.types"),
    "image": ("alight", "alight.sdk.image_patterns"),
    "io_streams": ("alight.sdk.sandbox",),
    "mount": ("alight",),
    "network_file_system": ("alight",),
    "object": ("alight.sdk.object",),
    "output": ("alight",),
    "partial_function": ("alight",),
    "proxy": ("alight",),
    "queue": ("alight", "alight.types"),
    "retries": ("alight",),
    "running_app": ("alight",),
    "sandbox": ("alight", "alight.sdk.sandbox"),
    "schedule": ("alight",),
    "secret": ("alight", "alight.types"),
    "server": ("alight",),
    "stream_type": ("alight.sdk.sandbox",),
    "volume": ("alight", "alight.types"),
    "workspace": ("alight",),
}


class Finder:
    """A meta path finder for one name and what is below it."""

    def find_spec(
        self, fullname: str, path: Optional[Sequence[str]] = None, target: Any = None
    ) -> Optional[ModuleSpec]:
        """The spec of `modal` and its submodules; None for every other name."""
        del path, target
        if fullname != NAME and not fullname.startswith(NAME + "."):
            return None
        below = fullname[len(NAME) + 1 :]
        if below and below not in SAME and below not in FACADES and below.split(".")[0] != "experimental":
            raise ModuleNotFoundError(
                f"No module named {fullname!r}: it means Alight here, which has no {below!r}", name=fullname
            )
        return ModuleSpec(fullname, _Loader(below), is_package=not below)


class _Loader(Loader):
    """Hands out an existing module, or a facade, under another name."""

    def __init__(self, below: str) -> None:
        self._below = below
        self._own_spec: Any = None

    def create_module(self, _spec: ModuleSpec) -> ModuleType:
        if self._below in FACADES:
            return _Facade(self._below)
        module = _module(f"alight.{self._below}" if self._below else "alight")
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has written the borrowed name's spec into the module; it keeps its own.
        if self._own_spec is not None:
            module.__spec__ = self._own_spec


class _Facade(ModuleType):
    """An old module name: each attribute is looked up among the public names when a script asks for it."""

    def __init__(self, below: str) -> None:
        super().__init__(f"{NAME}.{below}", f"The names that scripts import from {NAME}.{below}.")
        self.__dict__["_places"] = FACADES[below]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        for place in self.__dict__["_places"]:
            try:
                return getattr(_module(place), name)
            except AttributeError:
                continue
        raise AttributeError(f"{self.__name__} has no {name!r} in Alight")


def _module(name: str) -> ModuleType:
    __import__(name)
    return sys.modules[name]
