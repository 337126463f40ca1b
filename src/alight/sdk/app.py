"""Apps: a name, functions with what they need, and ``run()``, which lets them be called.

Declaring talks to nobody. What a run does, step by step, is in `run.py`.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Dict, List, Mapping, NoReturn, Optional, Sequence, Set

from alight.sdk import app_more, options, resources, shaping
from alight.sdk import run as running_app
from alight.sdk.client import Client, default_client
from alight.sdk.function import Function
from alight.sdk.handle import check_retries
from alight.sdk.image import Image
from alight.sdk.object import checked_name, environment_or_default
from alight.sdk.options import Options
from alight.sdk.running import RunningApp
from alight.sdk.sync import dual, dual_context, dual_function
from alight.wire import ambient, errors, messages

if TYPE_CHECKING:
    from alight.sdk.cls import Cls
    from alight.sdk.deploying import Deployed
    from alight.wire.billing import BudgetSet


class LocalEntrypoint:
    """A function that runs here and may call the app's functions. Made by ``@app.local_entrypoint``."""

    def __init__(self, app: App, name: str, raw: Callable[..., Any]) -> None:
        self._app = app
        self._name = name
        self._raw = raw
        self.__wrapped__ = raw
        self.__name__ = getattr(raw, "__name__", name)
        self.__doc__ = raw.__doc__
        self.__module__ = raw.__module__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._raw(*args, **kwargs)

    def __repr__(self) -> str:
        return f"LocalEntrypoint({self._name!r})"


class App(app_more.LaterApp):
    """Functions that belong together and share defaults."""

    def __init__(
        self,
        name: Optional[str] = None,
        *,
        tags: Optional[Mapping[str, str]] = None,
        image: Optional[Image] = None,
        secrets: Sequence[Any] = [],
        volumes: Mapping[Any, Any] = {},
        include_source: bool = True,
    ) -> None:
        super().__init__()
        if name is not None:
            checked_name(name, "app")
        if image is not None and not isinstance(image, Image):
            raise errors.InvalidError(f"App(image=…) is {type(image).__name__}, not an Image")
        self._name = name
        self._tags = dict(tags or {})
        self._image = image
        self._secrets = options.secrets(secrets, "the app")
        self._volumes = resources.volumes(volumes, "the app")
        self._include_source = include_source
        self._functions: Dict[str, Function] = {}
        self._classes: Dict[str, Cls] = {}
        self._entrypoints: Dict[str, LocalEntrypoint] = {}
        self._running: Optional[RunningApp] = None
        self._deployed: Optional[Deployed] = None
        self._app_id: Optional[str] = None
        self._description: Optional[str] = name

    @property
    def name(self) -> Optional[str]:
        """The name that it was given."""
        return self._name

    @property
    def app_id(self) -> Optional[str]:
        """The id of the run in progress or of the last one; None before."""
        if self._app_id is None and ambient.container is not None:
            return ambient.container.app_id
        return self._app_id

    @property
    def description(self) -> Optional[str]:
        """Its name, or what stands for it while it runs."""
        return self._description

    # declaring

    def function(  # noqa: PLR0913  the public form
        self,
        *,
        image: Optional[Image] = None,
        schedule: Any = None,
        env: Optional[Mapping[str, Optional[str]]] = None,
        secrets: Optional[Sequence[Any]] = None,
        gpu: Any = None,
        gpu_memory: Any = None,
        serialized: bool = False,
        network_file_systems: Mapping[Any, Any] = {},
        volumes: Mapping[Any, Any] = {},
        cpu: Any = None,
        memory: Any = None,
        ephemeral_disk: Optional[int] = None,
        min_containers: Optional[int] = None,
        max_containers: Optional[int] = None,
        buffer_containers: Optional[int] = None,
        scaledown_window: Optional[int] = None,
        proxy: Any = None,
        retries: Any = None,
        timeout: int = 300,
        startup_timeout: Optional[int] = None,
        name: Optional[str] = None,
        is_generator: Optional[bool] = None,
        cloud: Optional[str] = None,
        region: Any = None,
        routing_region: Optional[str] = None,
        nonpreemptible: bool = False,
        enable_memory_snapshot: bool = False,
        block_network: bool = False,
        restrict_modal_access: bool = False,
        single_use_containers: bool = False,
        i6pn: Optional[bool] = None,
        include_source: Optional[bool] = None,
        experimental_options: Optional[Mapping[str, Any]] = None,
        _experimental_restrict_output: bool = False,
        max_inputs: Optional[int] = None,
        **old: Any,
    ) -> Callable[[Any], Function]:
        """Make a function one that runs in containers.

        ``gpu`` "TYPE[:count]", "TYPE:0.5" for a part of one, or a list in order of preference; ``gpu_memory`` ("20GB")
        asks for so much of one GPU; ``cpu`` cores and ``memory`` MiB, each a request or a
        pair of request and limit; ``timeout`` seconds of one attempt; ``secrets`` later ones win, ``env`` wins over
        them; ``volumes`` {absolute path: Volume}. Raises InvalidError for what cannot be.
        """
        given = {key: value for key, value in locals().items() if key not in {"self", "old", "name"}}

        def decorate(thing: Any) -> Function:
            shape, raw = shaping.of(thing), shaping.raw_of(thing)
            _check_function(raw, serialized=serialized)
            tag = checked_name(name, "function") if name is not None else raw.__qualname__
            where = f"the function {tag}"
            checked = options.check(given, old, where, shape)
            options.check_scheduled(checked.schedule, raw, where)
            function = Function(self, tag, raw, self._with_defaults(checked, where), shape)
            check_retries(tag, checked.retries, function.traits["is_generator"], shape.web)
            self._register(tag, self._functions, function)
            return function

        return decorate

    def cls(  # noqa: PLR0913  the public form
        self,
        *,
        image: Optional[Image] = None,
        env: Optional[Mapping[str, Optional[str]]] = None,
        secrets: Optional[Sequence[Any]] = None,
        gpu: Any = None,
        gpu_memory: Any = None,
        serialized: bool = False,
        network_file_systems: Mapping[Any, Any] = {},
        volumes: Mapping[Any, Any] = {},
        cpu: Any = None,
        memory: Any = None,
        ephemeral_disk: Optional[int] = None,
        min_containers: Optional[int] = None,
        max_containers: Optional[int] = None,
        buffer_containers: Optional[int] = None,
        scaledown_window: Optional[int] = None,
        proxy: Any = None,
        retries: Any = None,
        timeout: int = 300,
        startup_timeout: Optional[int] = None,
        cloud: Optional[str] = None,
        region: Any = None,
        routing_region: Optional[str] = None,
        nonpreemptible: bool = False,
        enable_memory_snapshot: bool = False,
        block_network: bool = False,
        restrict_modal_access: bool = False,
        single_use_containers: bool = False,
        i6pn: Optional[bool] = None,
        include_source: Optional[bool] = None,
        experimental_options: Optional[Mapping[str, Any]] = None,
        _experimental_restrict_output: bool = False,
        max_inputs: Optional[int] = None,
        **old: Any,
    ) -> Callable[[Any], Cls]:
        """Make a class one whose methods run in containers, all methods in the same ones."""
        given = {key: value for key, value in locals().items() if key not in {"self", "old"}}
        from alight.sdk.cls import made_from  # noqa: PLC0415  a container without classes pays for none of it

        def decorate(thing: Any) -> Cls:
            shape, raw = shaping.of(thing), shaping.raw_of(thing)
            if not isinstance(raw, type):
                raise TypeError(f"@app.cls() is for classes; {raw!r} is none: use @app.function()")
            where = f"the class {raw.__name__}"
            checked = options.check(given, old, where, shape)
            made = made_from(self, raw, self._with_defaults(checked, where), shape)
            self._register(raw.__qualname__, self._classes, made)
            return made

        return decorate

    def local_entrypoint(
        self, *args: Any, name: Optional[str] = None
    ) -> Callable[[Callable[..., Any]], LocalEntrypoint]:
        """Make a function one that ``alight run`` starts here, with the app running around it."""
        if args:
            raise errors.InvalidError("@app.local_entrypoint needs parentheses", hint="@app.local_entrypoint()")

        def decorate(raw: Callable[..., Any]) -> LocalEntrypoint:
            if isinstance(raw, Function):
                raise errors.InvalidError(
                    f"{raw.info_name} cannot be a function and a local entrypoint of its app at once"
                )
            tag = name or raw.__qualname__
            if tag in self._entrypoints:
                raise errors.InvalidError(
                    f"the app has a local entrypoint {tag!r} already", hint="give one another name="
                )
            entrypoint = self._entrypoints[tag] = LocalEntrypoint(self, tag, raw)
            return entrypoint

        return decorate

    def include(self, other_app: App, inherit_tags: bool = True) -> App:
        """Take over the functions and classes of another app, so that they run with this one."""
        if not isinstance(other_app, App):
            raise errors.InvalidError(f"App.include() takes an App, not {type(other_app).__name__}")
        for tag, function in other_app._functions.items():
            self._register(tag, self._functions, function)
        for tag, made in other_app._classes.items():
            self._register(tag, self._classes, made)
        self._included.append(other_app)
        if inherit_tags:
            self._tags = {**other_app._tags, **self._tags}
        return self

    @staticmethod
    @dual_function
    async def lookup(
        name: str,
        *,
        client: Optional[Client] = None,
        environment_name: Optional[str] = None,
        create_if_missing: bool = False,
    ) -> App:
        """The app of this name or id, without its functions: ``Function.from_name`` finds these. NotFoundError when
        there is none, unless ``create_if_missing``, which makes an empty deployed one."""
        from alight.sdk import deploying  # noqa: PLC0415  only who looks

        found = await deploying.find(name, client, environment_name, create=create_if_missing)
        app = App(found.name or None)
        app._app_id, app._description = found.app_id, found.description
        return app

    # running

    @dual_context
    async def run(
        self,
        *,
        name: Optional[str] = None,
        client: Optional[Client] = None,
        detach: bool = False,
        interactive: bool = False,
        environment_name: Optional[str] = None,
        _needed: Optional[Set[str]] = None,
        _gpu: Optional[str] = None,
        _budget: Optional[BudgetSet] = None,
    ) -> AsyncIterator[App]:
        """Let the app's functions be called within this block; it is stopped at its end, unless ``detach``.

        Silent unless within ``enable_output()`` or `alight run`; ``interactive`` needs one of them, and a terminal,
        which it lends to ``interact()`` and ``breakpoint()``. Raises what keeps it from running: a volume or
        secret that does not exist, a file that is missing, a server that cannot be reached. ``_needed`` names the
        functions and methods that are sure to be called: their images are built now, others at their first call.
        """
        _check_may_run(self, interactive=interactive, detach=detach)
        description = name or self._name or _main_script()
        plan = running_app.Plan(
            client=client or default_client(),
            name=name or self._name or "",
            description=description,
            environment=environment_or_default(environment_name),
            tags=self._tags,
            detach=detach,
            interactive=interactive,
            needed=None if _needed is None else {self._published_as(name) for name in _needed},
            gpu=_gpu,
            budget=_budget,
        )
        classes = {made._service.info_name: made._service for made in self._classes.values()}  # noqa: SLF001
        run = running_app.Run(plan, {**self._functions, **classes})
        # Handles reach their ids by way of the apps that declared them.
        apps = [self, *self._all_included()]
        try:
            running = await run.begin()
            self._description = description
            for app in apps:
                app._running, app._app_id = running, running.app_id  # noqa: SLF001  of this class
            await run.prepare()
            yield self
        except BaseException as error:
            await run.end(error)
            raise
        else:
            await run.end(None)
        finally:
            for app in apps:
                app._running = None  # noqa: SLF001

    @dual
    async def stop(self, *, client: Optional[Client] = None) -> None:
        """Stop the run in progress, the last one or what was deployed, wherever it lives. Its name is free then."""
        if self.app_id is None:
            raise errors.ExecutionError("the app is neither running nor deployed: there is nothing to stop")
        await (client or default_client()).do("app.stop", messages.AppStop(self.app_id, "stopped by App.stop()"))

    # inside

    def _with_defaults(self, checked: Options, where: str) -> Options:
        """The app's defaults below what a function was given."""
        changes: Dict[str, Any] = {}
        if checked.image is None:
            changes["image"] = self._image
        if self._secrets:
            changes["secrets"] = (*self._secrets, *checked.secrets)
        if self._volumes:
            changes["volumes"] = resources.volumes({**self._volumes, **checked.volumes}, where)
        if checked.include_source is None:
            changes["include_source"] = self._include_source
        made = options.replaced(checked, changes)
        # Of all functions that the module declares, this container runs one; imports of other images may fail.
        if made.image is not None and _runs_here(where):
            made.image.raise_missed()
        return made

    def _published_as(self, name: str) -> str:
        """The name of what has to be there for ``name`` to be called: of a method, its class's."""
        class_name = name.rpartition(".")[0]
        made = None if name in self._functions else self._classes.get(class_name)
        return name if made is None else made._service.info_name  # noqa: SLF001  of this package

    def _register(self, tag: str, registry: Dict[str, Any], thing: Any) -> None:
        if tag in registry and registry[tag] is not thing:
            warnings.warn(f"{tag} is declared twice in one app; the last one counts", stacklevel=4)
        registry[tag] = thing

    def _all_included(self) -> List[App]:
        found: List[App] = []
        for app in self._included:
            found += [app, *app._all_included()]  # noqa: SLF001  of this class
        return found

    @property
    def _included(self) -> List[App]:
        included: List[App] = self.__dict__.setdefault("_included_apps", [])
        return included

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise TypeError("an App is not called: decorate functions with @app.function()")

    def __getstate__(self) -> Dict[str, Any]:
        # Where an app arrives in a pickle, it is a name: its functions find their siblings by it.
        return {"_name": self._name}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__init__(state["_name"])  # type: ignore[misc]  # a fresh one of that name

    def __repr__(self) -> str:
        return f"App({self._name!r})"


def _check_function(raw: Any, *, serialized: bool) -> None:
    if isinstance(raw, type):
        raise TypeError(f"@app.function() is for functions; {raw.__name__} is a class: use @app.cls()")
    if isinstance(raw, (Function, LocalEntrypoint)):
        raise errors.InvalidError(f"{raw.__name__} is decorated twice: it is {raw!r} already")
    if isinstance(raw, (staticmethod, classmethod)) or not callable(raw) or not hasattr(raw, "__qualname__"):
        raise errors.InvalidError(f"@app.function() is for plain functions, and {raw!r} is none")
    name = raw.__qualname__
    if "<locals>" in name and not serialized:
        raise errors.InvalidError(
            f"{name.rpartition('.')[2]} is defined within another function, where a container cannot find it",
            hint="move it to the top of the module, or declare it with serialized=True",
        )
    if name == "<lambda>" and not serialized:
        raise errors.InvalidError(
            "a lambda has no name that a container could find", hint="use def, or serialized=True"
        )
    code = getattr(raw, "__code__", None)
    if code is not None and code.co_argcount and code.co_varnames[0] == "self":
        raise errors.InvalidError(
            f"{name} takes self: @app.function() is not for methods",
            hint="decorate the class with @app.cls(), it with @alight.method()",
        )


def _runs_here(where: str) -> bool:
    """Whether this is the container of what is called so in messages."""
    if ambient.container is None:
        return False
    name = ambient.container.function_name
    return where == (f"the class {name[:-2]}" if name.endswith(".*") else f"the function {name}")


def _check_may_run(app: App, *, interactive: bool, detach: bool) -> None:
    if app._running is not None:  # noqa: SLF001  of this file
        raise errors.ExecutionError("the app is running already", hint="one `with app.run():` at a time")
    if ambient.importing:
        raise errors.ExecutionError(
            "app.run() was called while the script is imported: the container imports it, too, and would run it again",
            hint='put it under `if __name__ == "__main__":`, or in a function with @app.local_entrypoint()',
        )
    if interactive and detach:
        raise errors.InvalidError(
            "an app cannot be interactive and detached: it could go on without the terminal that it uses",
            hint="leave one of the two away",
        )
    if interactive:
        from alight.sdk import terminal  # noqa: PLC0415  only runs that lend one

        terminal.check()


def _main_script() -> str:
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None) or (sys.argv[0] if sys.argv else "")
    return Path(file).name or "app"
