"""The documents name what exists: settings, commands, error codes, packages. Nothing else keeps such lists true."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.shape import tree

DOCS = tree.REPOSITORY / "docs"
SETTING = re.compile(r"\bALIGHT_[A-Z][A-Z0-9_]*[A-Z0-9]\b")


def read(name: str) -> str:
    return (DOCS / name).read_text()


def error_codes(file: Path) -> list[tuple[str, str]]:
    """The errors that a file declares: class and ``code``."""
    if not re.search(r"^class \w+(Error|Failure|Closed)\b", file.read_text(), re.MULTILINE):
        return []  # parsing every file takes seconds
    return [
        (node.name, statement.value.value)
        for node in ast.walk(tree.parsed(file))
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Error", "Failure", "Closed"))
        for statement in node.body
        if isinstance(statement, ast.Assign)
        and ast.unparse(statement.targets[0]) == "code"
        and isinstance(statement.value, ast.Constant)
    ]


def test_every_setting_is_documented():
    scripts = [tree.REPOSITORY / "scripts" / name for name in ("lib.sh", "test", "demo")]
    used = {name for file in [*tree.files(), *scripts] for name in SETTING.findall(file.read_text())}
    absent = sorted(used - set(SETTING.findall(read("configuration.md"))))
    assert not absent, f"docs/configuration.md does not mention {absent}"


def test_no_documented_setting_is_imaginary():
    places = [*tree.files(), *(tree.REPOSITORY / "scripts").iterdir(), tree.REPOSITORY / "tests" / "conftest.py"]
    used = {name for file in places if file.is_file() for name in SETTING.findall(file.read_text())}
    imaginary = sorted(set(SETTING.findall(read("configuration.md"))) - used)
    assert not imaginary, f"docs/configuration.md describes what nothing reads: {imaginary}"


def test_every_error_code_is_documented():
    codes: dict[str, str] = {}
    for file in tree.files():
        for name, code in error_codes(file):
            assert codes.setdefault(code, name) == name, f"{name} and {codes[code]} share the code {code!r}"
    assert "not_found" in codes, "the errors were not found where they are declared"
    text = read("errors.md")
    absent = sorted(code for code in codes if f"`{code}`" not in text)
    assert not absent, f"docs/errors.md does not explain {absent}"
    imaginary = sorted(set(re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE)) - set(codes))
    assert not imaginary, f"docs/errors.md explains what nothing raises: {imaginary}"


def test_every_command_is_documented():
    import click

    from alight.cli.main import main

    text, absent = read("cli.md"), []

    def visit(command: click.Command, words: list[str], parent: click.Context | None) -> None:
        if command.hidden:
            return
        context = click.Context(command, info_name=words[-1], parent=parent)
        if len(words) > 1 and " ".join(words) not in text:
            absent.append(" ".join(words))
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                if child is not None:
                    visit(child, [*words, name], context)

    visit(main, ["alight"], None)
    assert not absent, f"docs/cli.md does not mention {absent}"


@pytest.mark.parametrize("package", tree.packages())
def test_the_map_names_every_file(package):
    text = read("map.md")
    assert f"{package}/" in text, f"docs/map.md does not name {package}/"
    absent = [
        str(file.relative_to(tree.PACKAGE))
        for file in tree.files(package)
        if file.name != "__init__.py" and file.name not in text
    ]
    assert not absent, f"docs/map.md does not name {absent}: scripts/map --write"


def test_links_between_documents_lead_somewhere():
    pages = [*tree.REPOSITORY.glob("*.md"), *DOCS.rglob("*.md")]
    dead = [
        f"{page.relative_to(tree.REPOSITORY)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target and not target.startswith("mailto:") and not (page.parent / target).exists()
    ]
    assert not dead, dead
