"""Options from a function's signature: `def train(steps: int = 20)` becomes `--steps INTEGER`.

Every parameter is an option; underscores become dashes; without a default it is required. What cannot be typed on a
command line is an error that names the parameter, before anything else has happened.
"""

from __future__ import annotations

import datetime as dt
import inspect
import typing
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import click

from alight.wire.errors import InvalidError


@dataclass(frozen=True)
class Arguments:
    """What a command line gave to a function: keywords, or (for a bare ``*args``) the words as they are."""

    positional: Tuple[str, ...] = ()
    named: Optional[Dict[str, Any]] = None


def parse(functions: Sequence[Callable[..., Any]], name: str, words: Sequence[str], usage: str) -> Optional[Arguments]:
    """Parse words for one callable, or for a class's parameters and its method (later ones win).

    None when the words asked for help, which has then been printed. Raises InvalidError for a signature that has no
    command line, and click's UsageError for words that do not fit it.
    """
    command = make_command(functions, name)
    given: List[Arguments] = []

    def take(**values: Any) -> None:
        rest = values.pop(_PASSTHROUGH, None)
        if rest is not None:
            given.append(Arguments(positional=tuple(rest)))
            return
        context = click.get_current_context()
        named = {}
        for option in command.params:
            if not isinstance(option, _Synthesized) or option.name is None:
                continue
            if context.get_parameter_source(option.name) is not click.core.ParameterSource.DEFAULT:
                named[option.python_name] = values[option.name]
        given.append(Arguments(named=named))

    command.callback = take
    try:
        command.main(list(words), prog_name=usage, standalone_mode=False)
    except click.exceptions.Exit as leave:
        if leave.exit_code:
            raise
    return given[0] if given else None


def make_command(functions: Sequence[Callable[..., Any]], name: str) -> click.Command:
    """The sub-command of a function: its options and its docstring, without anything that runs."""
    parameters: Dict[str, Tuple[inspect.Parameter, Any]] = {}
    for function in functions:
        hints = _hints(function)
        for parameter in inspect.signature(function).parameters.values():
            parameters[parameter.name] = (parameter, hints.get(parameter.name, parameter.annotation))
    kinds = {parameter.kind for parameter, _ in parameters.values()}
    params: List[click.Parameter] = []
    settings: Dict[str, Any] = {}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        offender = next(p.name for p, _ in parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD)
        raise InvalidError(
            f"{name}() takes `**{offender}`, which has no command line",
            hint="name its parameters, or take `*args` alone to get the words as they are",
        )
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        if len(parameters) > 1:
            raise InvalidError(
                f"{name}() mixes `*args` with named parameters, which has no command line",
                hint="take either named parameters, or `*args` alone to get the words as they are",
            )
        params.append(click.Argument([_PASSTHROUGH], nargs=-1, type=click.UNPROCESSED))
        settings = {"ignore_unknown_options": True, "allow_interspersed_args": False}
    else:
        params.extend(_option(parameter, hint, name) for parameter, hint in parameters.values())
    main = functions[-1] if functions else None
    text = _help(main.__doc__) if main is not None and main.__doc__ else None
    return click.Command(
        name, params=params, help=text, context_settings={**settings, "help_option_names": ["-h", "--help"]}
    )


_PASSTHROUGH = "alight_words"


class _Synthesized(click.Option):
    """An option that remembers which parameter it stands for."""

    python_name: str = ""


def _option(parameter: inspect.Parameter, hint: Any, function: str) -> click.Parameter:
    kind = _click_type(hint, parameter.name, function)
    dashed = "--" + parameter.name.strip("_").replace("_", "-")
    declaration = f"{dashed}/--no-{dashed[2:]}" if kind is bool else dashed
    required = parameter.default is inspect.Parameter.empty
    options: Dict[str, Any] = {"required": required}
    if kind is not bool:
        options["type"] = kind
    if not required:
        options["default"] = None
        shown = _shown_default(parameter.default)
        if shown:
            options["help"] = f"[default: {shown}]"
    # click's own name of the option must not collide with a keyword or a method of ours
    option = _Synthesized([f"p_{parameter.name.lower()}", declaration], **options)
    option.python_name = parameter.name
    return option


def _shown_default(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (str, int, float, dt.datetime)):
        return str(value)
    return ""


def _click_type(hint: Any, name: str, function: str) -> Any:
    if hint in (inspect.Parameter.empty, Any):
        return str
    inner = _inside_optional(hint)
    if inner is not None:
        if typing.get_origin(inner) is typing.Literal:
            raise _unsupported(hint, name, function, "an optional Literal has no command line; give it a default")
        return _click_type(inner, name, function)
    if typing.get_origin(hint) is typing.Literal:
        return _choice(hint, name, function)
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    raise _unsupported(hint, name, function, "use str, int, float, bool, datetime or Literal, or take `*args` alone")


_SIMPLE: Dict[Any, Any] = {
    str: str,
    int: int,
    float: float,
    bool: bool,
    dt.datetime: click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]),
}


def _choice(hint: Any, name: str, function: str) -> click.ParamType:  # type: ignore[type-arg,unused-ignore]
    values = typing.get_args(hint)
    if values and all(type(value) is str for value in values):
        return click.Choice(list(values))
    if values and all(type(value) is int for value in values):
        return _IntChoice(values)
    raise _unsupported(hint, name, function, "the values of a Literal must all be str or all be int")


class _IntChoice(click.Choice):  # type: ignore[type-arg,unused-ignore]
    """A choice among whole numbers."""

    def __init__(self, values: Sequence[int]) -> None:
        super().__init__([str(value) for value in values])

    def convert(self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]) -> Any:
        return int(super().convert(str(value), param, ctx))


def _inside_optional(hint: Any) -> Any:
    """T of ``Optional[T]`` and ``T | None``; None when it is neither."""
    origin = typing.get_origin(hint)
    if origin is Union or getattr(origin, "__name__", "") == "UnionType":  # the latter is not in Python 3.9
        rest = [item for item in typing.get_args(hint) if item is not type(None)]
        if len(rest) == 1 and len(rest) < len(typing.get_args(hint)):
            return rest[0]
    return None


def _unsupported(hint: Any, name: str, function: str, advice: str) -> InvalidError:
    shown = getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint).replace("typing.", "")
    return InvalidError(f"the parameter '{name}' of {function}() is a {shown}, which has no command line", hint=advice)


def _hints(function: Callable[..., Any]) -> Dict[str, Any]:
    """Resolved annotations. One that cannot be resolved (a name that only type checkers import) stays as written."""
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError, SyntaxError):
        return {key: _by_name(value) for key, value in getattr(function, "__annotations__", {}).items()}


def _by_name(hint: Any) -> Any:
    simple = {"str": str, "int": int, "float": float, "bool": bool, "Any": Any}
    return simple.get(hint, hint) if isinstance(hint, str) else hint


def _help(doc: str) -> str:
    """A docstring for click, which joins the lines of a paragraph. One that is laid out ("Args:") keeps its lines."""
    paragraphs = inspect.cleandoc(doc).split("\n\n")
    return "\n\n".join(
        f"\b\n{one}" if any(line[:1].isspace() for line in one.splitlines()) else one for one in paragraphs
    )
