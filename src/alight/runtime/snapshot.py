"""What a template has brought up, and what a fork finds of it.

Level 1: the runtime. Level 2: also the user's module, its environment, and for a class the instance with its hooks of
``@enter(snap=True)``.
"""

from __future__ import annotations

import os
import sys
import time

from alight.runtime import context, load, pools
from alight.runtime.stages import Stages
from alight.wire.errors import ConnectionError as NotReached
from alight.wire.errors import ExecutionError, PermissionDeniedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Tuple

#: What a plain container imports before its first input, or nearly always: our own modules by name, then names of
#: ``alight`` that scripts declare their functions with. What each costs is in docs/templates.md.
_MODULES = (
    "alight.compat",
    "alight.runtime.asgi",
    "alight.runtime.endpoints",
    "alight.runtime.failures",
    "alight.runtime.instance",
    "alight.runtime.outputs",
    "alight.runtime.runner",
    "alight.runtime.serve",
    "alight.runtime.slow_imports",
    "alight.runtime.spool",
    "alight.runtime.tasks",
    "alight.runtime.threads",
    "alight.runtime.web",
    "alight.runtime.webserver",
    "alight.runtime.wsgi",
    "alight.wire.payload",
    "cloudpickle",
)
_NAMES = ("App", "Image", "Secret", "Volume", "asgi_app", "concurrent", "enter", "method")
_WHICH = ("definition", "module", "qualname", "class_name", "source_path", "serialized", "parameters")


class Snapshot:
    """Made in the template (``take``), looked at in each fork."""

    def __init__(self, level: int, places: Tuple[str, str]) -> None:
        self.level = level
        self.stages = Stages()
        self._places = places
        self._function: Dict[str, Any] = {}
        self._found: Any = None
        self._instance: Any = None
        self._set: Dict[str, str] = {}  # by user code
        self._unset: Tuple[str, ...] = ()
        self._directory = ""  # where user code went to

    def take(self, start: Dict[str, Any], serialized: bytes) -> None:
        """Bring everything up. Raises what user code raises, NotForkable for what it asks of Alight."""
        before = set(sys.modules)
        for name in _MODULES:
            try:
                __import__(name)
            except ModuleNotFoundError as error:
                if error.name != name:
                    raise  # else it is cloudpickle, which whoever needs it will miss by name
        alight = sys.modules["alight"]
        for name in _NAMES:
            getattr(alight, name)
        sys.modules["alight.runtime.web"].preload()
        if self.level > 1:
            self._take_code(start, serialized)
            return
        self._ours = {name.partition(".")[0] for name in set(sys.modules) - before} - {"alight"}

    def wake(self, env: Dict[str, str], directory: str) -> None:
        """In the fork, before anything else: where it is now."""
        _replace_environment({**env, **self._set}, self._unset)
        os.chdir(self._directory or directory)
        # Directories look different here, though they may have the same times.
        sys.path_importer_cache.clear()
        if self.level == 1:
            self._uncover(directory)

    def enter(self, start: Dict[str, Any], on_waiting: Any) -> None:
        """In the fork: become the container that ``start`` describes (``context.enter``)."""
        if self.level == 1:
            context.enter(start, self._places, on_waiting)
            return
        _replace_environment({**os.environ, **start.get("env", {}), **self._set}, self._unset)
        context.become(start, on_waiting)

    def find(self, function: Dict[str, Any]) -> Any:
        """Level 2: what ``load.find`` found in the template."""
        if any(function.get(name) != self._function.get(name) for name in _WHICH):
            raise ExecutionError(
                f"this container is a fork of a template of {self._function['name']}, and was started for "
                f"{function['name']}"
            )
        return self._found

    def instance(self) -> Any:
        """An ``Instance`` whose hooks before the snapshot have run; None when there is none."""
        if self._instance is not None:
            self._instance.bind()  # to who the container is now
        return self._instance

    def _take_code(self, start: Dict[str, Any], serialized: bytes) -> None:
        function = self._function = start["function"]
        context.surround(start, self._places)
        context.identify(start)
        said = pools.hold()
        before, directory = dict(os.environ), os.getcwd()
        try:
            with self.stages.importing():
                self._found = load.find(function, serialized)
                if not function.get("class_name"):
                    load.checked(self._found, function)
                if function.get("web"):
                    from alight.runtime import web  # noqa: PLC0415  only for web functions

                    web.prepare(function)
            if function.get("class_name"):
                self._take_instance(function)
        except (NotReached, PermissionDeniedError) as error:
            if not _is_of_client(error):
                raise
            raise NotForkable(
                f"{function['name']} uses Alight itself (a call, a volume, a queue …) before the snapshot, where "
                "nobody can be asked; use @enter() without snap=True for that, or do it in the function"
            ) from error
        after = dict(os.environ)
        self._set = {name: value for name, value in after.items() if before.get(name) != value}
        self._unset = tuple([name for name in before if name not in after])
        pools.let_go(said)
        if os.getcwd() != directory:
            self._directory = os.getcwd()

    def _take_instance(self, function: Dict[str, Any]) -> None:
        from alight.runtime import instance, tasks  # noqa: PLC0415  only for classes

        made: Optional[Any] = None

        def loop() -> Any:
            nonlocal made
            if made is None:
                import asyncio  # noqa: PLC0415  only where hooks are async

                made = asyncio.new_event_loop()
                asyncio.set_event_loop(made)
            return made

        one = self._instance = instance.Instance(function, self._found)
        with self.stages.measured("enter"):
            try:
                one.enter_before_snapshot(loop)
            finally:
                if made is not None:
                    tasks.close_loop(made)

    def _uncover(self, directory: str) -> None:
        """A user's file of the name of a module that is loaded for every container must be found, as in a plain one."""
        for place in {self._places[0], directory} - {""}:
            try:
                names = os.listdir(place)
            except OSError:
                continue  # it is not there
            for name in self._ours & {name.partition(".")[0] for name in names}:
                if name in sys.modules and not _lies_in(sys.modules[name], place):
                    for loaded in [one for one in sys.modules if one == name or one.startswith(name + ".")]:
                        del sys.modules[loaded]


class NotForkable(ExecutionError):
    """User code did something before the snapshot that only a container can do."""


def _is_of_client(error: Optional[BaseException]) -> bool:
    """Whether the SDK's client raised it or its cause, also while it dials, and not user code for its own reasons."""
    while error is not None:
        step = error.__traceback__
        while step is not None:
            if step.tb_frame.f_globals.get("__name__") in {"alight.sdk.client", "alight.sdk.dialing"}:
                return True
            step = step.tb_next
        error = error.__cause__ or error.__context__
    return False


def _replace_environment(env: Dict[str, str], unset: Tuple[str, ...]) -> None:
    zone = os.environ.get("TZ")
    for name in [name for name in os.environ if name not in env or name in unset]:
        del os.environ[name]
    for name, value in env.items():
        if name not in unset and os.environ.get(name) != value:
            os.environ[name] = value
    if os.environ.get("TZ") != zone:
        time.tzset()


def _lies_in(module: Any, place: str) -> bool:
    return str(getattr(module, "__file__", None) or "").startswith(place + os.sep)
