"""``alight python``: a plain script that calls `app.run()` itself, in which `import modal` means Alight.

The script runs in this process as ``__main__``, just as `python script.py` would run it.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Optional, Tuple

import click

from alight.cli import warn
from alight.cli.errors import UsageError, UserCodeError


@click.command(
    context_settings={"allow_interspersed_args": False},
    short_help="Run a Python script in which `import modal` means Alight.",
)
@click.option("-m", "module", metavar="MODULE", help="Run a module as a script.")
@click.option("-c", "code", metavar="CODE", help="Run this text as a script.")
@click.argument("words", metavar="[SCRIPT] [ARGS]...", nargs=-1, type=click.UNPROCESSED)
def python(module: Optional[str], code: Optional[str], words: Tuple[str, ...]) -> None:
    """Run a Python script in which `import modal` means Alight.

    Everything after the script belongs to it. Nothing is drawn unless the script asks for it with enable_output().
    """
    if module is not None and code is not None:
        raise UsageError("-m and -c exclude each other")
    if module is None and code is None and not words:
        raise UsageError("there is no script to run", hint="alight python script.py [ARGS]")

    from alight import compat  # noqa: PLC0415  after the options were found to be right

    warn.show_plainly()
    compat.install()
    try:
        if module is not None:
            _run_module(module, list(words))
        elif code is not None:
            _run_source(code.encode(), "<string>", ["-c", *words], "")
        else:
            _run_file(Path(words[0]), list(words))
    except (UsageError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise UserCodeError(error) from error


def _run_file(path: Path, words: list[str]) -> None:
    if not path.is_file():
        raise UsageError(f"there is no file {path}", hint=f"looked in {path.absolute().parent}")
    resolved = path.resolve()
    _run_source(resolved.read_bytes(), str(resolved), words, str(resolved.parent))


def _run_module(name: str, words: list[str]) -> None:
    import runpy  # noqa: PLC0415  this form only

    sys.path.insert(0, "")
    if importlib.util.find_spec(name.split(".", maxsplit=1)[0]) is None:
        raise UsageError(f"there is no module {name!r} here")
    sys.argv = [name, *words]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _run_source(source: bytes, name: str, words: list[str], folder: str) -> None:
    """As Python does it: our own `__main__` makes room, since pickles of the script's classes name that module."""
    main = types.ModuleType("__main__")
    if not name.startswith("<"):
        main.__file__ = name
    sys.modules["__main__"] = main
    sys.argv = words
    sys.path.insert(0, folder)
    loader = SourceFileLoader("__main__", name)
    exec(loader.source_to_code(source, name), main.__dict__)  # noqa: S102  the user asked for it
