"""Commands and Python in the documents are ones that exist: parsed as the command line and Python parse them."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import alight
from alight.cli.main import main
from tests.shape import tree

PAGES = sorted([*tree.REPOSITORY.glob("*.md"), *(tree.REPOSITORY / "docs").glob("*.md")])
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4,}(?:[A-Z_]+=\S* +|\$ )*(?:sudo )?(alight .*)$", re.MULTILINE)
#: Classes with what belongs to them, and functions that are called.
NAME = re.compile(r"(?<![\w./-])(?:alight|modal)\.((?:[A-Z]\w*|exception)(?:\.[A-Za-z_]\w*)*|[a-z_]\w*(?=\())")
INLINE = re.compile(r"`(alight [^`]+)`")
#: What ends a command in a shell, or begins a remark behind it.
_ENDS = {"|", ">", ">>", "<", "&&", ";", "#", "2>", "…", "/"}


def commands(text: str) -> Iterator[tuple[list[str], bool]]:
    """Each command of a page as words, and whether it stands as a line of its own, to be typed as it is."""
    text = re.sub(r"^```python\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for found in INDENTED.findall(text):
        yield words(re.split(r"  +", found)[0]), True
    for found in INLINE.findall(re.sub(r"\n *", " ", text)):
        yield words(found), False


def words(line: str) -> list[str]:
    """The words of one command, without what follows it in its line and the brackets of what may be left out."""
    try:
        split = shlex.split(re.sub(r"[][]", " ", line.strip()), comments=True)
    except ValueError:
        split = line.split()
    for at, word in enumerate(split):
        if word in _ENDS:
            return split[:at]
    return split


def resolve(line: list[str]) -> tuple[click.Command, list[str], list[str]]:
    """The command that the words name, its name, and what is left for it. Raises KeyError for one that is not there."""
    command: click.Command = main
    context = click.Context(command, info_name="alight")
    name, rest = [line[0]], line[1:]
    while isinstance(command, click.Group) and rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
        child = command.get_command(context, rest[0])
        if child is None:
            raise KeyError(" ".join([*name, rest[0]]))
        command, context = child, click.Context(child, info_name=rest[0], parent=context)
        name.append(rest[0])
        rest = rest[1:]
    return command, name, rest


def trouble(line: list[str], *, typed: bool) -> str:
    """What is wrong with a command as it is written; "" when nothing is."""
    try:
        command, name, rest = resolve(line)
    except KeyError as error:
        return f"there is no command {error.args[0]!r}"
    if isinstance(command, click.Group):
        return ""
    context = click.Context(command, info_name=name[-1], **command.context_settings)
    rest = [word for word in rest if word != "OPTIONS"]
    try:
        given, left, _ = command.make_parser(context).parse_args(rest)
    except click.NoSuchOption as error:
        return f"{' '.join(name)}: {error.message}"
    except click.UsageError as error:
        return f"{' '.join(name)}: {error.message}" if typed else ""
    absent = [
        one.name
        for one in command.get_params(context)
        if isinstance(one, click.Argument) and one.required and not isinstance(given.get(one.name or ""), (str, tuple))
    ]
    if typed and left and not context.allow_extra_args:
        return f"{' '.join(name)}: {left} is too much"
    return f"{' '.join(name)}: {absent} is missing" if typed and absent else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_the_documents_can_be_typed(page: Path) -> None:
    wrong = [
        f"{' '.join(line)}: {said}"
        for line, typed in commands(page.read_text())
        if (said := trouble(line, typed=typed))
    ]
    assert not wrong, wrong


def test_wrong_commands_are_noticed() -> None:
    page = "\n    alight app lst\n    alight app stop --hard x\n    alight volume create\n\n`alight runn x`"
    found = [trouble(line, typed=typed) for line, typed in commands(page)]
    assert len(found) == 4
    assert all(found), found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_piece_of_python_compiles(page: Path) -> None:
    for language, code in FENCED.findall(page.read_text()):
        if language == "python":
            alone = code.splitlines()[-1].startswith("@")  # decorators want something to stand on
            ast.parse(textwrap.dedent(code) + "def f(): ..." * alone)  # a SyntaxError says where


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_of_ours_in_the_documents_exists(page: Path) -> None:
    wrong = [found for found in NAME.findall(page.read_text()) if not there(found)]
    assert not wrong, f"{page.name} speaks of {wrong}"


def there(name: str) -> bool:
    """Whether ``x.y`` of ``alight.x.y`` exists."""
    value: object = alight
    for part in name.split("."):
        if isinstance(value, property) or not hasattr(value, part):
            return isinstance(value, property)  # what it returns is not known here
        value = getattr(value, part)
    return True


def test_wrong_names_are_noticed() -> None:
    found = NAME.findall("`alight.Volume.from_nme(x)`, alight.fonction(), alight.App and server/alight.db")
    assert [name for name in found if not there(name)] == ["Volume.from_nme", "fonction"]
