"""``Image.run_function``: a function that runs while the image is built, and what decides whether it runs again."""

from __future__ import annotations

import json
import pickle
import sys
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from alight.sdk import resources
from alight.sdk.image_parts import Files, How, Steps
from alight.sdk.source import Definition, definition_of
from alight.wire import payload
from alight.wire.errors import InvalidError

if TYPE_CHECKING:
    from alight.sdk.image import Image

_ARGUMENTS_MOST = 2 << 20


class FunctionSteps(Steps):
    """A part of ``Image``."""

    def run_function(  # noqa: PLR0913  the public form
        self,
        raw_f: Callable[..., Any],
        *,
        env: Optional[Mapping[str, Optional[str]]] = None,
        secrets: Optional[Sequence[Any]] = None,
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
    ) -> Image:
        """Run a function while the image is built; what it changes in the file system is part of the image.

        It runs again when its source, its arguments or a global value that it names changes. It has what the image has
        so far, with ``volumes``, ``secrets`` and ``gpu`` for this step alone.
        """
        del cloud, region
        if not hasattr(raw_f, "__qualname__"):
            raise InvalidError(f"Image.run_function() takes a function, not {type(raw_f).__name__}")
        if raw_f.__name__ == "<lambda>":
            raise InvalidError("Image.run_function() cannot run a lambda", hint="give the function a name with def")
        if network_file_systems:
            raise InvalidError("Image.run_function() uses network_file_systems", hint="use volumes={path: Volume}")
        what = f"the function {raw_f.__qualname__} of Image.run_function()"
        arguments = payload.dumps_bytes((tuple(args), dict(kwargs)), f"the arguments of {what}")
        if len(arguments) > _ARGUMENTS_MOST:
            raise InvalidError(
                f"the arguments of {what} are {len(arguments) >> 20} MiB",
                hint="2 MiB is the most: put files in a volume",
            )
        step = _FunctionStep(raw_f, arguments, include_source, what)
        op: Dict[str, Any] = {"op": "run_function", "name": f"{raw_f.__module__}.{raw_f.__qualname__}"}
        wanted = resources.resources(cpu, memory, None, None)
        op["needs"] = {"cpu": wanted.cpu, "memory": wanted.memory, "timeout": float(timeout)}
        return self._with(
            op,
            How(force_build, env, secrets, gpu),
            volumes=resources.volumes(volumes, "Image.run_function()"),
            lent=step.files,
            late=step.key,
        )


class _FunctionStep:
    """The function as it is when the app runs: declaring an image reads no source."""

    def __init__(self, raw: Callable[..., Any], arguments: bytes, include_source: bool, what: str) -> None:
        self._raw = raw
        self._arguments = arguments
        self._include_source = include_source
        self._what = what

    def key(self) -> Dict[str, Any]:
        import hashlib  # noqa: PLC0415  loads a cryptographic library: for those who build, not for a container

        parts = [_source(self._raw), *(f"{name} = ".encode() + text for name, text in _globals(self._raw))]
        key = hashlib.sha256()
        for part in (*parts, self._arguments):
            key.update(len(part).to_bytes(8, "big") + part)
        return {"code": key.hexdigest()}

    def files(self) -> Files:
        function: Dict[str, Any] = {
            "name": self._raw.__qualname__,
            "qualname": self._raw.__qualname__,
            "python_version": f"{sys.version_info[0]}.{sys.version_info[1]}",
        }
        files: Dict[str, Any] = {"arguments": self._arguments}
        definition = self._definition()
        if definition is None:
            function["definition"] = "serialized"
            files["code"] = payload.dumps_bytes(self._raw, self._what, by_value=True)
        else:
            function.update(
                definition=definition.definition, module=definition.module, source_path=definition.source_path
            )
            for one in definition.files:
                files["files" + one.remote] = one
        files["function.json"] = json.dumps(function).encode()
        return files

    def _definition(self) -> Optional[Definition]:
        """None: it lies inside another function or in no file, and travels by value."""
        if "<locals>" in self._raw.__qualname__:
            return None
        try:
            found = definition_of(self._raw, include_source=self._include_source, what=self._what)
        except InvalidError:
            return None
        return found


def _source(raw: Callable[..., Any]) -> bytes:
    import inspect  # noqa: PLC0415  for those who build, not for a container
    import textwrap  # noqa: PLC0415

    try:
        return textwrap.dedent(inspect.getsource(raw)).encode()
    except (OSError, TypeError):
        return payload.dumps_bytes(raw, "the function of Image.run_function()", by_value=True)


def _globals(raw: Callable[..., Any]) -> List[Tuple[str, bytes]]:
    """Values of globals that the function names. What is code, or belongs to Alight, or cannot be pickled, is left out:
    it is no setting.
    """
    names: Set[str] = set()
    waiting = [raw.__code__] if hasattr(raw, "__code__") else []
    while waiting:
        code = waiting.pop()
        names.update(code.co_names)
        waiting += [one for one in code.co_consts if hasattr(one, "co_names")]
    found = []
    values = getattr(raw, "__globals__", {})
    for name in sorted(names & set(values)):
        value = values[name]
        kind = type(value)
        if callable(value) or hasattr(value, "__path__") or kind.__name__ == "module" or _is_ours(kind):
            continue
        try:
            plain = sorted(map(repr, value)) if isinstance(value, (set, frozenset)) else value
            found.append((name, pickle.dumps(plain, protocol=4)))
        except Exception:  # noqa: BLE001, S112  pickling runs anybody's code
            continue
    return found


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in {"alight", "modal"}
