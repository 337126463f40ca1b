"""Which local files go along to a container, and under which path they lie there.

Declaring only remembers; files are looked at when an app runs. Hashes of large files are remembered between runs by
path, size and time of change, so that a run with nothing changed reads nothing. Never follows a directory link in
circles and never takes sockets, pipes or devices along.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Set, Tuple, Union

from alight.sdk import config
from alight.sdk.image_patterns import NON_PYTHON_FILES
from alight.wire.errors import InvalidError, ModuleNotMountable
from alight.wire.record import dataclass
from alight.wire.spec import FileEntry

if TYPE_CHECKING:
    import hashlib

HOME = "/root"  # where a user's code lies in every container
Matcher = Callable[[Path], bool]

_REMEMBER_FROM = 256 << 10  # bytes; smaller files are hashed faster than looked up
_REMEMBER_MOST = 50_000
_PIECE = 1 << 20


@dataclass(frozen=True)
class LocalFiles:
    """A file or directory of this machine and its place in a container. ``ignore`` True leaves a relative path out."""

    local: Path
    remote: str
    ignore: Optional[Matcher] = None
    hidden: bool = True  # whether names that begin with a dot go along


@dataclass(frozen=True)
class Tree:
    """Files ready to be sent: what the manifest says, and where each digest's bytes are."""

    remote: str
    entries: Tuple[FileEntry, ...]
    contents: Dict[str, str]


@dataclass(frozen=True)
class Definition:
    """Where a function's code is: the fields of a FunctionSpec, and the files that go along for it."""

    definition: str
    module: str = ""
    qualname: str = ""
    source_path: str = ""
    files: Tuple[LocalFiles, ...] = ()


def definition_of(raw: Any, *, include_source: bool, what: str) -> Definition:
    """How a container imports ``raw``. Raises InvalidError for what has no file (a notebook, a prompt)."""
    module_name = getattr(raw, "__module__", None) or "__main__"
    module = sys.modules.get(module_name)
    if module_name == "__main__":
        spec_name = getattr(getattr(module, "__spec__", None), "name", None)
        if spec_name and "." in spec_name:  # python -m package.module
            module_name = spec_name.removesuffix(".__main__") if hasattr(str, "removesuffix") else spec_name
    file = getattr(module, "__file__", None)
    if file is None:
        raise InvalidError(
            f"{what} is defined where there is no file (a notebook or a prompt), so its module cannot go along",
            hint="declare it with serialized=True, or move it into a .py file",
        )
    qualname = raw.__qualname__
    path = Path(file).resolve()
    if "." in module_name or path.name == "__init__.py":
        top = module_name.partition(".")[0]
        files = (_package(top, module_name, path),) if include_source and not _is_installed(path) else ()
        return Definition("module", module=module_name, qualname=qualname, files=files)
    if _is_installed(path) and module_name != "__main__":
        return Definition("module", module=module_name, qualname=qualname)
    if path.suffix != ".py":
        raise InvalidError(f"{what} is defined in {path}, which is not a Python source file")
    remote = f"{HOME}/{path.name}"
    files = (LocalFiles(path, remote),) if include_source else ()
    return Definition("file", module=path.stem, qualname=qualname, source_path=remote, files=files)


def name_main(module: str) -> None:
    """Let ``import module`` mean the running script, which is that module in containers.

    Without it an exception or result whose class the script defines would arrive as a class of a second import of the
    same file, which no ``except`` of the script catches, and the script's top level would run again.
    """
    main = sys.modules.get("__main__")
    if main is not None:
        sys.modules.setdefault(module, main)


def python_source(module: str, ignore: Matcher) -> LocalFiles:
    """The source of an importable module or package, for its place beside the user's code.

    Raises ModuleNotMountable, naming the module, for what has no source files here.
    """
    try:
        import importlib.util  # noqa: PLC0415  a container that only declares pays for none of it

        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError) as error:
        raise ModuleNotMountable(f"the module {module!r} cannot be imported here: {error}") from error
    if spec is None:
        raise ModuleNotMountable(f"there is no module {module!r} here that could go along")
    relative = module.replace(".", "/")
    locations = list(spec.submodule_search_locations or ())
    if locations:
        return LocalFiles(Path(locations[0]), f"{HOME}/{relative}", ignore, hidden=False)
    if not spec.origin or not spec.origin.endswith(".py"):
        raise ModuleNotMountable(f"the module {module!r} has no Python source file that could go along")
    return LocalFiles(Path(spec.origin), f"{HOME}/{relative}.py")


def collect(files: LocalFiles, hashes: Hashes) -> Tree:
    """Look at the files now. Raises InvalidError when they are not there."""
    local = files.local
    if not local.exists():
        kind = "directory or file" if not local.is_symlink() else "file (the link leads nowhere)"
        raise InvalidError(f"there is no {kind} {local} to add at {files.remote}")
    contents: Dict[str, str] = {}
    if not local.is_dir():
        remote = PurePosixPath(files.remote)
        entry = _file_entry(remote.name, str(local), None, hashes, contents)
        return Tree(str(remote.parent), (entry,), contents)
    entries = []
    for relative, path, kind, status in _walk(str(local), files):
        if kind == "directory":
            entries.append(FileEntry(relative, mode=0o755, directory=True))
        elif kind == "link":
            entries.append(FileEntry(relative, mode=0o777, link=os.readlink(path)))
        else:
            entries.append(_file_entry(relative, path, status, hashes, contents))
    return Tree(files.remote, tuple(entries), contents)


def places(files: LocalFiles) -> Tuple[Set[str], Set[str]]:
    """The files that go along, and the directories that more of them may appear in. Absolute paths."""
    root = os.path.realpath(files.local)
    if not os.path.isdir(root):
        return {_placed(files.local)}, set()
    found: Set[str] = set()
    directories = {root}
    for relative, _path, kind, _status in _walk(root, files):
        path = os.path.join(root, relative)
        if kind != "directory":
            found.add(path)
            path = os.path.dirname(path)
        while len(path) > len(root):
            directories.add(path)
            path = os.path.dirname(path)
    return found, directories


def local_modules() -> Set[str]:
    """The files of all imported modules that are neither installed nor Alight's own. Absolute paths."""
    found = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and name.partition(".")[0] not in {"alight", "modal"}:
            path = _placed(Path(file))
            if path.endswith(".py") and not _is_installed(Path(path)):
                found.add(path)
    return found


def _placed(path: Path) -> str:
    return os.path.join(os.path.realpath(path.parent), path.name)


class Hashes:
    """sha256 of files, remembered between runs for large ones."""

    def __init__(self) -> None:
        self._path = config.cache_directory() / "hashes.json"
        self._known: Optional[Dict[str, List[Any]]] = None
        self._changed = False

    def of(self, file: Union[str, Path], status: os.stat_result) -> str:
        """The digest of a file with this status. Raises OSError."""
        path = os.fspath(file)
        if status.st_size < _REMEMBER_FROM:
            with open(path, "rb", buffering=0) as opened:
                return _sha256(opened.readall()).hexdigest()
        known = self._load()
        mark = [status.st_mtime_ns, status.st_size, status.st_ino]
        found = known.get(path)
        if found is not None and found[:3] == mark:
            return str(found[3])
        digest = _sha256()
        with open(path, "rb") as opened:
            for piece in iter(lambda: opened.read(_PIECE), b""):
                digest.update(piece)
        # A file changed within the last moments may change again without its time saying so.
        if time.time() - status.st_mtime > 2:
            known.pop(path, None)
            known[path] = [*mark, digest.hexdigest()]
            self._changed = True
        return digest.hexdigest()

    def save(self) -> None:
        """Remember for the next run. A cache that cannot be written is no error."""
        if not self._changed or self._known is None:
            return
        kept = dict(list(self._known.items())[-_REMEMBER_MOST:])
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            import tempfile  # noqa: PLC0415  a container that only declares pays for none of it

            handle, temporary = tempfile.mkstemp(dir=str(self._path.parent))
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(kept, file)
            os.replace(temporary, self._path)
        except OSError:
            return
        self._changed = False

    def _load(self) -> Dict[str, List[Any]]:
        if self._known is None:
            try:
                known = json.loads(self._path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                known = {}
            self._known = known if isinstance(known, dict) else {}
        return self._known


def _package(top: str, module_name: str, path: Path) -> LocalFiles:
    """The top-level package of a module that lies at ``path``."""
    depth = len(module_name.split(".")) - (0 if path.name == "__init__.py" else 1)
    root = path.parent
    for _ in range(depth - 1):
        root = root.parent
    return LocalFiles(root, f"{HOME}/{top}", NON_PYTHON_FILES, hidden=False)


def _is_installed(path: Path) -> bool:
    """Whether a file belongs to an installed package or to Python itself, which images bring themselves."""
    text = str(path)
    return any(text.startswith(place + os.sep) for place in _installed_places())


def _installed_places() -> Set[str]:
    import sysconfig  # noqa: PLC0415  a container that only declares pays for none of it

    paths = sysconfig.get_paths()
    places = {paths.get(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return {str(Path(place).resolve()) for place in places if place}


def _walk(root: str, files: LocalFiles) -> Iterator[Tuple[str, str, str, Optional[os.stat_result]]]:
    """(relative path, path, "file" | "link" | "directory", status) of what goes along; directories only when they are
    empty.

    Text and scandir rather than Paths: of thousands of files the Paths alone would take longer than the reading.
    """
    ignore, hidden = files.ignore, files.hidden
    prune = ignore is None or getattr(ignore, "can_prune_directories", lambda: False)()
    seen: Set[Tuple[int, int]] = set()

    def visit(directory: str, relative: str) -> Iterator[Tuple[str, str, str, Optional[os.stat_result]]]:
        status = os.stat(directory)
        key = (status.st_dev, status.st_ino)
        if key in seen:
            return
        seen.add(key)
        found = False
        try:
            with os.scandir(directory) as scanned:
                inside = sorted(scanned, key=_name)
        except OSError as error:
            raise InvalidError(
                f"{directory} cannot be read: {error.strerror}", hint="leave it out with ignore=[…]"
            ) from error
        for item in inside:
            name = item.name
            below = f"{relative}/{name}" if relative else name
            if name == "__pycache__" or (not hidden and name.startswith(".")):
                continue
            ignored = ignore is not None and ignore(Path(below))
            if _is_directory(item):
                if not (ignored and prune):
                    for each in visit(item.path, below):
                        if each[2] != "directory" or not ignored:
                            found = True
                            yield each
            elif not ignored:
                kind, status_of = _kind(item)
                if kind:
                    found = True
                    yield below, item.path, kind, status_of
        if not found and relative and ignore is None:
            yield relative, directory, "directory", None
        seen.discard(key)

    yield from visit(root, "")


def _name(item: os.DirEntry[str]) -> str:
    return item.name


def _is_directory(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:
        return False


def _kind(item: os.DirEntry[str]) -> Tuple[str, Optional[os.stat_result]]:
    try:
        status = item.stat()
    except OSError:
        return "link" if item.is_symlink() else "", None
    return "file" if stat.S_ISREG(status.st_mode) else "", status


def _file_entry(
    relative: str, path: str, status: Optional[os.stat_result], hashes: Hashes, contents: Dict[str, str]
) -> FileEntry:
    try:
        if status is None:
            status = os.stat(path)
        digest = hashes.of(path, status)
    except OSError as error:
        raise InvalidError(f"{path} cannot be read: {error.strerror}", hint="leave it out with ignore=[…]") from error
    if digest not in contents:
        contents[digest] = path
    mode = 0o755 if status.st_mode & 0o100 else 0o644
    return FileEntry(relative, mode=mode, size=status.st_size, digest=digest)


def _sha256(content: bytes = b"") -> hashlib._Hash:
    import hashlib  # noqa: PLC0415  loads a cryptographic library: for those who upload, not for a container

    return hashlib.sha256(content)
