"""Which functions of a new version are tried: those in use, and of the others one for each thing they import. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from alight.server.services.published import Published
from alight.wire.spec import FunctionSpec

#: Kinds of web functions whose factory makes an application: what it raises is as bad as an import that fails.
_FACTORIES = ("asgi_app", "wsgi_app", "fastapi_endpoint")


def to_try(functions: Iterable[Published], used: Callable[[str], bool]) -> set[str]:
    """Which of these new versions are tried whether or not anybody uses them: those that have containers, and of
    those that import the same in the same image one, the cheapest, unless one of them is tried already."""
    found = list(functions)
    tried = {one.function_id for one in found if used(one.function_id)}
    seen = {_imports(one.spec) for one in found if one.function_id in tried}
    for one in sorted(found, key=lambda one: _cost(one.spec)):
        what = _imports(one.spec)
        if what not in seen:
            seen.add(what)
            tried.add(one.function_id)
    return tried


def _imports(spec: FunctionSpec) -> tuple[Any, ...]:
    """What the start of a container does before anything of the function itself: equal for those that fail together."""
    own = spec.name if not spec.class_name and spec.web.get("kind") in _FACTORIES else ""
    return (
        own,
        spec.image.digest,
        spec.python_version,
        spec.module,
        spec.source_path,
        spec.serialized,
        spec.files,
        spec.secrets,
        tuple(sorted(spec.env.items())),
        spec.volumes,
    )


def _cost(spec: FunctionSpec) -> tuple[int, bool, bool, int]:
    """By what a container is dear: GPUs, hooks of a class, a server of its own, memory."""
    own_server = spec.web.get("kind") == "web_server"
    return len(spec.resources.gpus), bool(spec.class_name), own_server, spec.resources.memory or 0
