"""What `alight run` was pointed at: takes the reference apart and imports the user's script or module.

Nothing of the script is run but its import, and no server is asked. What the script raises is carried as its own.
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
from types import ModuleType
from typing import Iterator

from alight.cli.errors import UsageError, UserCodeError
from alight.wire import ambient


@dataclass(frozen=True)
class Reference:
    """What a user typed, taken apart. ``place`` is a path, a module's name, or "-"."""

    place: str
    thing: str = ""
    is_module: bool = False

    def __str__(self) -> str:
        return self.place + (f"::{self.thing}" if self.thing else "")


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
    with _importing():
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
    with _importing():
        return importlib.import_module(name)


@contextlib.contextmanager
def _importing() -> Iterator[None]:
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
    except BaseException as error:
        raise UserCodeError(error) from error
    finally:
        ambient.importing = False


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
