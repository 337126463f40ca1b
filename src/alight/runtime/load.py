"""Find the user's function: import its file or module by the name that the caller pickled it under, or unpickle it.

Must not catch what the user's module raises: that travels home as it is.
"""

from __future__ import annotations

import os
import sys

from alight.wire import ambient
from alight.wire.errors import DeserializationError, ExecutionError, InvalidError

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    from importlib.util import module_from_spec, spec_from_file_location
    from typing import Any, Callable, Dict, Optional
else:  # the very same, without the package around them
    from _frozen_importlib import module_from_spec
    from _frozen_importlib_external import spec_from_file_location


def checked(found: Any, function: Dict[str, Any]) -> Callable[..., Any]:
    """The raw function of what ``find`` found. Raises an Error when it is none."""
    thing = unwrap(found)
    if not callable(thing):
        qualname = function.get("qualname") or function["name"]
        raise ExecutionError(f"{qualname} is {type(thing).__name__} inside the container, not a function")
    result: Callable[..., Any] = thing
    return result


def find(function: Dict[str, Any], serialized: bytes) -> Any:
    """What the user's module has under the name of ``function`` (a FunctionSpec in plain words; its class's, if it
    has one): itself, or the SDK's handle of it.

    Raises what the user's module raises, and an Error when nothing of the name is in it.
    """
    _install_compat()
    definition = function.get("definition", "file")
    ambient.importing = True
    try:
        if definition == "serialized":
            return _unpickled(function, serialized)
        if definition == "file":
            module = _import_file(function.get("module", ""), function.get("source_path", ""))
        else:
            __import__(function["module"])
            module = sys.modules[function["module"]]
        return _find(module, function)
    finally:
        ambient.importing = False


def unwrap(thing: Any) -> Any:
    """The raw function inside an SDK handle, and inside what its decorators made."""
    while True:
        raw = getattr(thing, "_raw", None)
        if raw is None or raw is thing or not callable(raw):
            return thing
        thing = raw


def _install_compat() -> None:
    from alight.compat import install  # noqa: PLC0415  after the node said hello: what fails here must reach the user

    install()


def _import_file(name: str, path: str) -> Any:
    existing = sys.modules.get(name)
    if existing is not None:
        if _same_file(getattr(existing, "__file__", None), path):
            return existing
        raise InvalidError(
            f"{os.path.basename(path)} has the name of a module that is loaded already ({name})",
            hint=f"rename {os.path.basename(path)}",
        )
    if not os.path.exists(path):
        raise ExecutionError(
            f"{path} is not in the container", hint="is it hidden by a volume or by a file of the image?"
        )
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ExecutionError(f"{path} cannot be imported: it is not a Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _same_file(one: Optional[str], other: str) -> bool:
    return one is not None and os.path.realpath(one) == os.path.realpath(other)


def _find(module: Any, function: Dict[str, Any]) -> Any:
    thing = module
    qualname = function.get("qualname") or function.get("class_name") or function["name"]
    for part in qualname.split("."):
        thing = getattr(unwrap(thing), part, _MISSING)
        if thing is _MISSING:
            where = function.get("source_path") or function.get("module")
            raise ExecutionError(
                f"{where} has no {qualname} inside the container, though it has outside",
                hint="define it whether or not `is_local()`, at the top level of the module",
            )
    return thing


_MISSING: Any = object()


def _unpickled(function: Dict[str, Any], serialized: bytes) -> Any:
    theirs = function.get("python_version", "")
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if theirs and theirs != ours:
        raise DeserializationError(
            f"{function['name']} was serialized by Python {theirs} and this image has Python {ours}",
            hint=f"use an image of Python {theirs}, for example Image.debian_slim(python_version={theirs!r})",
        )
    if not serialized:
        raise ExecutionError(f"the code of the serialized function {function['name']} did not reach its container")
    from alight.wire import payload  # noqa: PLC0415  most functions are files

    return payload.loads(serialized, f"the function {function['name']}")
