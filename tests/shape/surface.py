"""Which of the public names that users' scripts may use exist here, and which of those work.

``surface.json`` holds the names, their parameters and whether they have an ``.aio`` twin. A name exists when it can be
reached with every parameter that a script may pass. It works unless its body does nothing but raise UnimplementedError,
or it belongs to a class whose constructors do. Whether it works *well* is for the other tests.

Run it (``scripts/surface``, ``--list`` for the names) or ask ``survey()``.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
import sys
import textwrap
import typing
from dataclasses import dataclass, field
from pathlib import Path

FACTS = Path(__file__).with_name("surface.json")
SUBMODULES = ("exception", "experimental", "types")
_MISSING = object()


@dataclass(frozen=True)
class Parameter:
    """One parameter of a name in the facts."""

    name: str
    kind: str  # "any", "kw", "pos", "*", "**"
    deprecated: bool


@dataclass(frozen=True)
class Fact:
    """One public name, as the facts describe it."""

    path: str
    kind: str
    aio: bool
    deprecated: bool
    optional: bool
    parameters: tuple[Parameter, ...] | None


@dataclass
class Survey:
    """What was found. Lists hold paths, or ``path: parameter``."""

    names: int = 0
    missing: list[str] = field(default_factory=list)
    missing_parameters: list[str] = field(default_factory=list)
    missing_aio: list[str] = field(default_factory=list)
    unimplemented: list[str] = field(default_factory=list)

    @property
    def exist(self) -> int:
        return self.names - len(self.missing)

    @property
    def work(self) -> int:
        return self.exist - len(self.unimplemented)


def facts() -> list[Fact]:
    """Every name of the facts file, optional ones left out."""
    names = json.loads(FACTS.read_text())["names"]
    return [fact for fact in (_parse(path, text) for path, text in names.items()) if not fact.optional]


def public_names() -> list[str]:
    """The names that ``alight`` itself exports, by the facts."""
    return sorted({fact.path for fact in facts() if "." not in fact.path})


def survey() -> Survey:
    """Look for every name in the installed package."""
    found = Survey()
    dead_classes: set[str] = set()
    for fact in facts():
        found.names += 1
        thing = _look_up(fact.path)
        if thing is _MISSING:
            found.missing.append(fact.path)
            continue
        if fact.parameters is not None:
            found.missing_parameters += [f"{fact.path}: {name}" for name in _lacking(thing, fact.parameters)]
        if fact.aio and not callable(getattr(thing, "aio", None)):
            found.missing_aio.append(fact.path)
        if fact.kind == "class" and isinstance(thing, type) and _is_dead_class(thing):
            dead_classes.add(fact.path)
        if _is_unimplemented(thing) or fact.path in dead_classes:
            found.unimplemented.append(fact.path)
    return found


def main(arguments: list[str]) -> int:
    """Print the count, and with ``--list`` the names behind it."""
    found = survey()
    print(f"surface: {found.exist} of {found.names} public names exist, {found.work} work")
    if "--list" in arguments:
        for title, paths in (
            ("missing", found.missing),
            ("missing parameters", found.missing_parameters),
            ("without .aio", found.missing_aio),
            ("unimplemented", found.unimplemented),
        ):
            print(f"{title} ({len(paths)}):", *(f"\n  {path}" for path in paths))
    return 0


def _parse(path: str, text: str) -> Fact:
    head, _, rest = text.partition(" (")
    kind = head.rstrip("!~?")
    parameters = None
    if rest:
        parameters = tuple(_parse_parameter(word) for word in rest.rstrip(")").split())
    return Fact(path, kind, "!" in head, "~" in head, "?" in head, parameters)


def _parse_parameter(word: str) -> Parameter:
    deprecated = word.startswith("~")
    word = word.lstrip("~").rstrip("=")
    for mark, kind in (("**", "**"), ("*", "*"), (".", "kw"), ("/", "pos")):
        if word.startswith(mark):
            return Parameter(word[len(mark) :], kind, deprecated)
    return Parameter(word, "any", deprecated)


def _look_up(path: str) -> object:
    """What is at ``path``; a namespace on the way is the class that a property promises to return."""
    parts = path.split(".")
    thing: object = importlib.import_module("alight")
    if parts[0] in SUBMODULES:
        try:
            thing = importlib.import_module(f"alight.{parts.pop(0)}")
        except ModuleNotFoundError:
            return _MISSING
    for index, part in enumerate(parts):
        thing = _member(thing, part)
        if thing is _MISSING:
            return _MISSING
        if index < len(parts) - 1:
            thing = _namespace(thing)
    return thing


def _member(owner: object, name: str) -> object:
    if isinstance(owner, type):
        static = inspect.getattr_static(owner, name, _MISSING)
        if isinstance(static, (property, functools.cached_property)):
            return static
        if static is _MISSING and any(name in vars(base).get("__annotations__", {}) for base in owner.__mro__):
            return name  # a field without a default
    try:
        return getattr(owner, name, _MISSING)
    except ModuleNotFoundError:  # a name on the list whose module is still to come
        return _MISSING
    except TypeError:  # a descriptor that serves instances only
        return inspect.getattr_static(owner, name, _MISSING)


def _namespace(thing: object) -> object:
    getter = thing.fget if isinstance(thing, property) else getattr(thing, "func", None)
    if getter is None:
        return thing
    try:
        promised = typing.get_type_hints(getter).get("return", thing)
    except NameError:  # a hint for type checkers only
        name = str(getattr(getter, "__annotations__", {}).get("return", "")).strip("'\"")
        promised = getattr(sys.modules[getter.__module__], name, thing)
    return typing.get_origin(promised) or promised


def _lacking(thing: object, wanted: tuple[Parameter, ...]) -> list[str]:
    """The parameters that a call could not pass."""
    try:
        have = inspect.signature(thing).parameters if callable(thing) else {}
    except (TypeError, ValueError):
        return []
    rest = any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in have.values())
    keywords = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in have.values())
    lacking = []
    for parameter in wanted:
        if parameter.kind == "*":
            present = rest
        elif parameter.kind == "**":
            present = keywords
        elif parameter.kind == "pos":
            present = parameter.name in have or rest
        else:
            present = parameter.name in have
        if not present:
            lacking.append(parameter.name)
    return lacking


def _is_unimplemented(thing: object) -> bool:
    """Whether a callable or property is registered as not working yet, or its own body only raises that."""
    if isinstance(thing, type):
        return False
    target = thing.fget if isinstance(thing, property) else thing
    target = inspect.unwrap(getattr(target, "__func__", target))  # type: ignore[arg-type]
    registry = getattr(importlib.import_module("alight.sdk.surface"), "UNIMPLEMENTED", {})
    if getattr(target, "__qualname__", None) in registry:
        return True
    return inspect.isfunction(target) and _only_raises(target)


def _is_dead_class(kind: type) -> bool:
    """Whether no object of a class can be had: every constructor of its own only raises."""
    if issubclass(kind, BaseException):
        return False
    makers = [vars(kind)[name] for name in ("__init__", "__new__") if name in vars(kind)]
    makers += [member for name, member in vars(kind).items() if name.startswith(("from_", "create", "ephemeral"))]
    return bool(makers) and all(_is_unimplemented(maker) for maker in makers)


@functools.cache
def _only_raises(function: typing.Callable[..., object]) -> bool:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        return False
    body = getattr(tree.body[0], "body", [])
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    statements = [node for node in body if not isinstance(node, (ast.Import, ast.ImportFrom, ast.Delete))]
    return (
        bool(statements)
        and "nimplemented" in ast.unparse(statements[0])
        and isinstance(statements[0], (ast.Raise, ast.Return, ast.Expr))
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
