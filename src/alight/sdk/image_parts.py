"""What steps of images are made of: the record of one, and checks that many methods share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union, cast

from alight.sdk.source import LocalFiles
from alight.wire.errors import InvalidError
from alight.wire.record import dataclass, field

if TYPE_CHECKING:
    from alight.sdk.image import Image

PathLike = Union[str, "os.PathLike[str]"]
#: Files by the path that a step sees them at: their bytes, a file of this machine, or a whole directory of it.
Files = Mapping[str, Union[bytes, Path, LocalFiles]]

#: The op of a step that stands for all those of another image. It is replaced when an app runs; no builder knows it.
FROM_ID = "from_id"


@dataclass(frozen=True)
class Step:
    """One step as declared. ``op`` is what the recipe says; the rest is filled in when an app runs."""

    op: Dict[str, Any]
    files: Optional[Callable[[], LocalFiles]] = None  # copied into the image
    requirements: Tuple[Path, ...] = ()
    secrets: Tuple[Any, ...] = ()
    context: Optional[Callable[[], Files]] = None  # files that the step sees and that decide what it makes
    lent: Optional[Callable[[], Files]] = None  # files that it sees and that decide nothing
    volumes: Mapping[str, Any] = field(default_factory=dict)
    late: Optional[Callable[[], Dict[str, Any]]] = None  # more of ``op``, known when an app runs


@dataclass(frozen=True)
class How:
    """How a step is built: keywords that many methods share."""

    force_build: bool = False
    env: Optional[Mapping[str, Optional[str]]] = None
    secrets: Optional[Sequence[Any]] = None
    gpu: Any = None
    op: Dict[str, Any] = field(default_factory=dict)


PLAINLY = How()


class Steps:
    """What the parts of ``Image`` stand on."""

    def _with(self, op: Dict[str, Any], how: How = PLAINLY, **parts: Any) -> Image:
        raise NotImplementedError

    def _itself(self) -> Image:
        return cast("Image", self)


def flat(items: Sequence[Any], where: str) -> List[str]:
    """Texts in lists of lists, in order. Raises InvalidError for anything else."""
    found: List[str] = []
    for item in items:
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, (list, tuple)):
            found += flat(item, where)
        else:
            raise InvalidError(f"Image.{where}() takes text, not {type(item).__name__}: {item!r}")
    return found


def package_names(packages: Sequence[Any], where: str) -> List[str]:
    """Names of packages, sorted. Raises InvalidError for options and empty ones."""
    names = flat(packages, where)
    for name in names:
        if name.startswith("-"):
            raise InvalidError(
                f"Image.{where}({name!r}): options are not packages",
                hint="use index_url=, find_links=, pre= or extra_options="
                if "pip" in where
                else "run_commands() takes any command",
            )
        if not name.strip():
            raise InvalidError(f"Image.{where}() was given an empty name")
    return sorted(names)


def word_list(words: Any, where: str) -> List[str]:
    """A list of text. Raises InvalidError for anything else."""
    if not isinstance(words, (list, tuple)) or not all(isinstance(word, str) for word in words):
        raise InvalidError(f"Image.{where}() takes a list of text", hint=f'Image.{where}(["/bin/bash", "-c"])')
    return list(words)


def pip_op(  # noqa: PLR0913, PLR0917  the public form
    tool: str,
    names: List[str],
    find_links: Optional[str],
    index_url: Optional[str],
    extra_index_url: Optional[str],
    pre: bool,
    extra_options: str,
) -> Dict[str, Any]:
    """A step that installs Python packages."""
    op: Dict[str, Any] = {"op": "pip_install", "tool": tool, "packages": sorted(names)}
    given = {"find_links": find_links, "index_url": index_url, "extra_index_url": extra_index_url}
    op.update({name: value for name, value in given.items() if value})
    if pre:
        op["pre"] = True
    if extra_options:
        op["extra_options"] = extra_options
    return op


def absolute(path: PathLike) -> Path:
    """A path of this machine, in full."""
    # Relative to where the script is started, now: the directory may change before the app runs.
    return Path(os.path.expanduser(os.fspath(path))).absolute()
