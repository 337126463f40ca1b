"""Which function is meant: `train.py::fit`, `train.py::app.fit`, and the obvious one when none is named.

Says in one sentence what is wrong with a reference when something is, and what there is instead.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from alight.cli.errors import UsageError
from alight.cli.loading import Reference
from alight.sdk.app import App, LocalEntrypoint
from alight.sdk.cls import Cls
from alight.sdk.function import Function


@dataclass(frozen=True)
class Runnable:
    """What `alight run` can run: a local entrypoint, a function, or a method of a class."""

    name: str
    kind: str  # "entrypoint" | "function" | "method"
    target: Any
    app: App
    method: str = ""

    @property
    def signatures(self) -> List[Callable[..., Any]]:
        """The callables whose parameters become options."""
        if self.kind == "method":
            return [_constructor(self.target), _without_self(self.target._methods[self.method])]  # noqa: SLF001
        return [_raw(self.target)]


def find(module: ModuleType, reference: Reference) -> Runnable:
    """The one thing that the reference means. Raises UsageError, naming what there is, when it is none or many."""
    if reference.thing:
        return _named(module, reference)
    apps = find_apps(module)
    if not apps:
        raise _no_app(module, reference)
    for tier in _tiers(module, apps):
        if len(tier) == 1:
            return tier[0]
        if tier:
            raise _ambiguous(module, reference, apps, tier)
    raise UsageError(
        f"{reference.place} has an app, and no function or local entrypoint in it",
        hint="decorate one with @app.function() or @app.local_entrypoint()",
    )


def find_apps(module: ModuleType) -> Dict[str, App]:
    """The apps that a module's names stand for, by name, each once."""
    apps: Dict[str, App] = {}
    for name, value in vars(module).items():
        if isinstance(value, App) and all(value is not known for known in apps.values()):
            apps[name] = value
    for value in list(vars(module).values()):
        owner = getattr(value, "_app", None) if isinstance(value, (Function, LocalEntrypoint, Cls)) else None
        if isinstance(owner, App) and all(owner is not known for known in apps.values()):
            apps[owner.name or f"app{len(apps)}"] = owner
    return apps


# which one is meant


def _named(module: ModuleType, reference: Reference) -> Runnable:
    first, _, rest = reference.thing.partition(".")
    value = vars(module).get(first)
    if isinstance(value, App):
        if not rest:
            tiers = _registered(value)
            for tier in tiers:
                if len(tier) == 1:
                    return tier[0]
                if tier:
                    raise _ambiguous(module, reference, {first: value}, tier)
        apps = {first: value}
        wanted = rest
    else:
        apps = find_apps(module)
        wanted = reference.thing
        found = _of_value(value, rest)
        if found is not None:
            return _check_runnable(found, reference)
    for app in apps.values():
        for tier in _registered(app):
            for runnable in tier:
                if runnable.name == wanted:
                    return _check_runnable(runnable, reference)
    if not apps:
        raise _no_app(module, reference)
    names = _names(module, apps)
    close = difflib.get_close_matches(wanted, names, n=1)
    raise UsageError(
        f"{reference.place} has no function {wanted!r}",
        hint=f"did you mean {reference.place}::{close[0]}?" if close else f"it has: {', '.join(names) or 'none'}",
    )


def _of_value(value: Any, rest: str) -> Optional[Runnable]:
    if isinstance(value, (Function, LocalEntrypoint)) and not rest:
        return _runnable(value)
    if isinstance(value, Cls):
        methods = _methods(value)
        if rest:
            return next((one for one in methods if one.method == rest), None)
        if len(methods) == 1:
            return methods[0]
        names = ", ".join(one.name for one in methods) or "none"
        raise UsageError(f"{_name(value)} has {len(methods)} methods, and none was named", hint=f"it has: {names}")
    return None


def _tiers(module: ModuleType, apps: Dict[str, App]) -> Iterator[List[Runnable]]:
    """Candidates, the most obvious first: visible entrypoints, visible functions, then the apps' own."""
    entrypoints: List[Runnable] = []
    functions: List[Runnable] = []
    for value in list(vars(module).values()):
        if isinstance(value, LocalEntrypoint):
            entrypoints.append(_runnable(value))
        elif isinstance(value, Function):
            functions.append(_runnable(value))
        elif isinstance(value, Cls):
            functions.extend(_methods(value))
    yield _distinct(entrypoints)
    yield _distinct([one for one in functions if not _is_web(one)])
    registered = [_registered(app) for app in apps.values()]
    yield _distinct([one for tiers in registered for one in tiers[0]])
    yield _distinct([one for tiers in registered for one in tiers[1] if not _is_web(one)])
    web = [one for tiers in registered for one in tiers[1] if _is_web(one)]
    if web:
        raise _web_only(web[0])


def _registered(app: App) -> Tuple[List[Runnable], List[Runnable]]:
    """The entrypoints and the functions of an app, under the names that it knows them by."""
    entrypoints = [
        Runnable(name, "entrypoint", entrypoint, app)
        for name, entrypoint in app._entrypoints.items()  # noqa: SLF001  the CLI is the SDK's face
    ]
    functions = [
        Runnable(name, "function", function, app)
        for name, function in app._functions.items()  # noqa: SLF001
    ]
    for cls in app._classes.values():  # noqa: SLF001
        functions.extend(_methods(cls))
    return entrypoints, functions


def _runnable(value: Any) -> Runnable:
    kind = "entrypoint" if isinstance(value, LocalEntrypoint) else "function"
    return Runnable(_name(value), kind, value, value._app)  # noqa: SLF001


def _methods(cls: Cls) -> List[Runnable]:
    return [
        Runnable(f"{_name(cls)}.{method}", "method", cls, cls._app, method)  # type: ignore[arg-type,unused-ignore]
        for method in cls._methods
    ]


def _distinct(candidates: Sequence[Runnable]) -> List[Runnable]:
    """The same function under two names is one candidate."""
    seen: Dict[Tuple[int, str], Runnable] = {}
    for candidate in candidates:
        seen.setdefault((id(candidate.target), candidate.method), candidate)
    return list(seen.values())


def _check_runnable(runnable: Runnable, reference: Reference) -> Runnable:
    if _is_web(runnable):
        raise _web_only(runnable, str(reference))
    return runnable


def _is_web(runnable: Runnable) -> bool:
    return bool(getattr(runnable.target, "_web", None))


def _raw(target: Any) -> Callable[..., Any]:
    raw: Callable[..., Any] = target._raw  # noqa: SLF001
    return raw


def _constructor(cls: Cls) -> Callable[..., Any]:
    """Something with the signature of the class's parameters."""
    hints = getattr(cls._raw, "__annotations__", {})
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=one.default if one.has_default else inspect.Parameter.empty,
            annotation=hints.get(name, inspect.Parameter.empty),
        )
        for name, one in cls._parameters.items()
        if one.init
    ]
    return _described(cls._raw, parameters)


def _without_self(method: Callable[..., Any]) -> Callable[..., Any]:
    return _described(method, list(inspect.signature(method).parameters.values())[1:])


def _described(origin: Any, parameters: Sequence[inspect.Parameter]) -> Callable[..., Any]:
    """A stand-in with this signature, whose annotations are looked up where the original's are."""

    def stand_in() -> None: ...

    stand_in.__doc__ = origin.__doc__
    stand_in.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    stand_in.__annotations__ = {one.name: one.annotation for one in parameters}
    names = vars(sys.modules.get(origin.__module__, ModuleType("gone")))
    stand_in.__wrapped__ = SimpleNamespace(__globals__=names)  # type: ignore[attr-defined]  # typing looks there
    return stand_in


def _name(value: Any) -> str:
    return str(value._name)  # noqa: SLF001


# what is wrong with a reference


def _no_app(module: ModuleType, reference: Reference) -> UsageError:
    del module
    return UsageError(
        f"there is no app in {reference.place}",
        hint="make one at the top of the file: `app = alight.App()`, then decorate functions with @app.function()",
    )


def _ambiguous(module: ModuleType, reference: Reference, apps: Dict[str, App], tier: Sequence[Runnable]) -> UsageError:
    kind = "local entrypoints" if tier[0].kind == "entrypoint" else "functions"
    return UsageError(
        f"{reference.place} has {len(tier)} {kind}, and none was named",
        hint=f"write {reference.place}::NAME, where NAME is one of: {', '.join(_names(module, apps))}",
    )


def _web_only(runnable: Runnable, reference: str = "") -> UsageError:
    return UsageError(
        f"{runnable.name} is a web function: it answers requests and cannot be run",
        hint=f"`alight serve {reference}`".rstrip() + " will serve it",
    )


def _names(module: ModuleType, apps: Dict[str, App]) -> List[str]:
    del module
    names: List[str] = []
    for app in apps.values():
        for tier in _registered(app):
            names.extend(one.name for one in tier if one.name not in names and not _is_web(one))
    return names
