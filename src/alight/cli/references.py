"""Object references: `train.py::fit`, `-m pkg.mod::app.fit`, `-`; and which function is meant when none is named.

Loads the user's script, finds what can be run in it, and says in one sentence what is wrong with the reference when
something is. Runs nothing of it and talks to no server.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import sys
import tempfile
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from alight.cli.errors import UsageError, UserCodeError
from alight.sdk.app import App, LocalEntrypoint
from alight.sdk.cls import Cls
from alight.sdk.function import Function
from alight.wire import ambient
from alight.wire.errors import Error


@dataclass(frozen=True)
class Reference:
    """What a user typed, taken apart. ``place`` is a path, a module's name, or "-"."""

    place: str
    thing: str = ""
    is_module: bool = False

    def __str__(self) -> str:
        return self.place + (f"::{self.thing}" if self.thing else "")


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


def parse(text: str, *, module: bool) -> Reference:
    """Take a reference apart. Raises UsageError for one that cannot be."""
    place, colons, thing = text.partition("::")
    if colons and not thing:
        raise UsageError(f"{text!r} names nothing after `::`", hint=f"leave `::` out, or write {place}::function")
    single = place.find(":", 2)  # a drive letter is no reference
    if not colons and single > 0:
        raise UsageError(f"{text!r} has one colon", hint=f"write {place[:single]}::{place[single + 1 :]}")
    if module and place == "-":
        raise UsageError("`-m` wants the name of a module, not a script on standard input")
    if module and (place.endswith(".py") or "/" in place):
        raise UsageError(f"`-m` wants the name of a module, and {place!r} is a path", hint=f"leave `-m` out: {text}")
    return Reference(place, thing, module)


def load(reference: Reference) -> ModuleType:
    """Import the user's script or module.

    Raises UsageError when it is not there, UserCodeError when its own code raises.
    """
    if reference.place == "-":
        return _load_file(_script_on_stdin())
    if reference.is_module:
        return _load_module(reference.place)
    path = Path(reference.place)
    if not path.exists():
        raise _missing(reference)
    if path.is_dir():
        raise UsageError(f"{path} is a directory", hint=f"name a script in it, or a module with `-m {path.name}`")
    if path.suffix != ".py":
        raise UsageError(f"{path} is not a Python script: its name does not end in .py")
    if "." in path.stem:
        raise UsageError(
            f"{path.name} cannot be imported: the dot in {path.stem!r} would name a package",
            hint=f"rename it, for example to {path.stem.replace('.', '_')}.py",
        )
    return _load_file(path)


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


# loading


def _load_file(path: Path) -> ModuleType:
    path = path.resolve()
    name = inspect.getmodulename(str(path)) or path.stem
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) != str(path):
        raise UsageError(
            f"{path.name} has the name of a module that Python needs itself", hint="give the script another name"
        )
    _put_first(str(Path.cwd()))
    _put_first(str(path.parent))
    # Not imported but compiled and run, so that no bytecode file appears beside the user's script.
    loader = SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, str(path), loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _importing(str(path)):
        exec(loader.source_to_code(path.read_bytes(), str(path)), module.__dict__)  # noqa: S102  the user asked for it
    return module


def _load_module(name: str) -> ModuleType:
    _put_first(str(Path.cwd()))
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError) as error:
        missing = getattr(error, "name", None)
        if isinstance(error, ImportError) and missing and not (name == missing or name.startswith(missing + ".")):
            raise UserCodeError(error) from error
        spec = None
    if spec is None:
        raise UsageError(
            f"there is no module {name!r} here", hint="it must be importable from this directory, like `python -m`"
        )
    with _importing(name):
        return importlib.import_module(name)


@contextlib.contextmanager
def _importing(place: str) -> Iterator[None]:
    """While the user's code is imported: `app.run()` is refused there, and what it raises is the user's."""
    ambient.importing = True
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except ModuleNotFoundError as error:
        hint = None
        if error.name and error.name.split(".")[0] not in sys.modules:
            hint = (
                f"`{error.name}` is not installed on this machine; if only the container needs it, import it inside "
                "the function, or under `with image.imports():`"
            )
        raise UserCodeError(error, hint=hint) from error
    except Error as error:
        raise UserCodeError(error) from error
    except BaseException as error:
        raise UserCodeError(error) from error
    finally:
        ambient.importing = False
        del place


def _put_first(directory: str) -> None:
    with contextlib.suppress(ValueError):
        sys.path.remove(directory)
    sys.path.insert(0, directory)


def _script_on_stdin() -> Path:
    """The script that came on standard input, as a file, since its source goes along to the container."""
    folder = tempfile.mkdtemp(prefix="alight-stdin-")
    import atexit  # noqa: PLC0415  this form only
    import shutil  # noqa: PLC0415  this form only

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "script.py"
    path.write_bytes(sys.stdin.buffer.read())
    return path


# what is wrong with a reference


def _missing(reference: Reference) -> UsageError:
    path = Path(reference.place)
    if path.suffix != ".py" and Path(f"{reference.place}.py").exists():
        return UsageError(f"there is no file {reference.place}", hint=f"did you mean {reference.place}.py?")
    if path.suffix != ".py" and "/" not in reference.place:
        with contextlib.suppress(ImportError, ValueError):
            _put_first(str(Path.cwd()))
            if importlib.util.find_spec(reference.place) is not None:
                return UsageError(f"{reference.place!r} is a module", hint=f"write `-m {reference}`")
    try:
        names = [entry.name for entry in (path.parent).iterdir() if entry.suffix == ".py"]
    except OSError:
        names = []
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    hint = f"did you mean {path.parent / close[0]}?" if close else f"looked in {path.parent.absolute()}"
    return UsageError(f"there is no file {reference.place}", hint=hint)


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
