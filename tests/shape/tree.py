"""The source tree as data, for the tests beside this file: modules, what they import, and the words in them."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "src"
PACKAGE = SOURCE / "alight"


@dataclass(frozen=True)
class Import:
    """One import statement: the absolute name of the module, and where it stands."""

    module: str
    line: int
    for_types_only: bool


def files(*parts: str) -> list[Path]:
    """All Python files of the package, or of the sub-packages named."""
    roots = [PACKAGE / part for part in parts] or [PACKAGE]
    return sorted(file for root in roots if root.exists() for file in root.rglob("*.py"))


def module_name(file: Path) -> str:
    """``alight.wire.codec`` for its file."""
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def packages() -> list[str]:
    """The islands that exist: directories with Python in them, directly below the package."""
    return sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py")))


@functools.cache
def parsed(file: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(file.read_text(), str(file))


def imports(file: Path) -> list[Import]:
    """Every import of a file, at any depth."""
    found: list[Import] = []
    package = module_name(file).split(".")
    if file.name != "__init__.py":
        package = package[:-1]

    def visit(node: ast.AST, for_types_only: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                visit(child, True)
            for child in node.orelse:
                visit(child, for_types_only)
            return
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, for_types_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found.append(
                Import(".".join([*base, *([node.module] if node.module else [])]), node.lineno, for_types_only)
            )
        for child in ast.iter_child_nodes(node):
            visit(child, for_types_only)

    visit(parsed(file), False)
    return found


def strings(file: Path) -> list[str]:
    """Every string literal of a file."""
    return [
        node.value for node in ast.walk(parsed(file)) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
