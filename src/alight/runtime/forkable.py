"""Whether this process may be forked into containers: the decision from facts (pure), and the facts.

A fork has the template's memory and open files, and one thread. What needs more than that would hang or be shared
between containers, so it is refused, in a sentence that says what was found and where it belongs instead.
"""

from __future__ import annotations

import os
import stat
import sys

from alight.wire.record import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Sequence, Set, Tuple

_INSTEAD = "before the snapshot; do that in @enter() without snap=True, or in the function"
_SHOWN = 3  # of each kind

#: Devices that every process may share.
_DEVICES = frozenset({"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"})
_READING = os.O_RDONLY
_UNNAMED: Dict[str, str] = {
    "anon_inode:[eventpoll]": "an epoll object (an event loop that was not closed?)",
    "anon_inode:[eventfd]": "an event descriptor",
    "anon_inode:[io_uring]": "an io_uring",
    "anon_inode:inotify": "a watch of files",
}
#: Whose native threads are called so.
_KNOWN_THREADS: Dict[str, str] = {
    "cuda": "CUDA",
    "jemalloc_bg": "jemalloc",
    "grpc": "gRPC",
    "polars": "polars",
    "rayon": "rayon",
    "tokio": "tokio",
    "tf_": "TensorFlow",
    "iou-": "io_uring",
}


@dataclass(frozen=True)
class Descriptor:
    """An open file: what /proc says of it, its type (``stat.S_IFMT``), and whether it can be written to."""

    number: int
    target: str
    kind: int
    writes: bool = False


@dataclass(frozen=True)
class Facts:
    """What was found in the process."""

    python_threads: Tuple[str, ...] = ()  # names of those besides the main one
    native_threads: Tuple[str, ...] = ()  # names of those that Python did not start
    pools: Tuple[str, ...] = ()  # files of loaded libraries that have thread pools
    cuda: bool = False
    children: Tuple[str, ...] = ()  # command names
    descriptors: Tuple[Descriptor, ...] = ()  # but our own
    shared: Tuple[str, ...] = ()  # writable mappings that a fork would share
    has_gil: bool = True
    unseen: Tuple[str, ...] = field(default_factory=tuple)  # what could not be looked at, and why


def refusals(facts: Facts) -> List[str]:
    """Why it may not be forked: sentences. Empty: nothing was found."""
    found: List[str] = []
    if not facts.has_gil:
        found.append("this Python runs without the global interpreter lock, and templates need it")
    if facts.python_threads:
        found.append(f"{_count(facts.python_threads, 'thread')} started {_INSTEAD}")
    if facts.native_threads:
        found.append(_native(facts))
    if facts.cuda or any(one.target.startswith("/dev/nvidia") for one in facts.descriptors):
        found.append(f"CUDA was initialised {_INSTEAD} (torch.cuda, .to('cuda') and the like)")
    if facts.children:
        found.append(f"{_count(facts.children, 'child process', 'child processes')} started {_INSTEAD}")
    by_word: Dict[str, List[str]] = {}
    for one in facts.descriptors:
        word, name = _held(one)
        if word:
            by_word.setdefault(word, []).append(name)
    for word, names in by_word.items():
        said = _several([name for name in names if name])
        found.append(f"{word}{f' ({said})' if said else ''} opened {_INSTEAD}".replace("opened started", "started"))
    if facts.shared:
        found.append(f"memory shared between processes ({_several(facts.shared)}) made {_INSTEAD}")
    found += [f"it cannot be known whether it may be forked: {why}" for why in facts.unseen]
    return found


def kept(facts: Facts) -> List[int]:
    """Descriptors that forks may share: files for reading, and devices that have no state."""
    return [one.number for one in facts.descriptors if not _held(one)[0] and not one.target.startswith("/dev/nvidia")]


def gather(own: Set[int]) -> Facts:
    """Look at this process. ``own`` are descriptors that are known."""
    unseen: List[str] = []
    names = _python_threads()
    native = _native_threads(1 + len(names), unseen)
    torch = sys.modules.get("torch")
    asked = getattr(getattr(torch, "cuda", None), "is_initialized", None)
    shared, pools = _mappings()
    return Facts(
        python_threads=names,
        native_threads=native,
        pools=pools,
        cuda=bool(asked is not None and asked()),
        children=_children(),
        descriptors=_descriptors(own),
        shared=shared,
        has_gil=getattr(sys, "_is_gil_enabled", lambda: True)(),
        unseen=tuple(unseen),
    )


def _native(facts: Facts) -> str:
    owners = {word for name in facts.native_threads for start, word in _KNOWN_THREADS.items() if name.startswith(start)}
    if not owners and facts.pools:
        what = _several(sorted({os.path.basename(path) for path in facts.pools}))
        return (
            f"{_count(facts.native_threads, 'native thread')} run, probably a pool of {what}: more than one thread was "
            f"asked for {_INSTEAD} (torch.set_num_threads, threadpoolctl and the like)"
        )
    by = f" of {_several(sorted(owners))}" if owners else ""
    return f"{_count(facts.native_threads, 'native thread')}{by} started {_INSTEAD}"


def _held(one: Descriptor) -> Tuple[str, str]:
    """What to call a descriptor that must not be shared, and its name; two empty words for one that may be."""
    if one.kind == stat.S_IFREG:
        return ("a file for writing", one.target) if one.writes else ("", "")
    if one.kind == stat.S_IFCHR:
        fine = one.target in _DEVICES or one.target.startswith("/dev/nvidia")
        return ("", "") if fine else ("a device", one.target)
    if one.kind == stat.S_IFSOCK:
        return "a socket (a connection?)", ""
    if one.kind == stat.S_IFIFO:
        return "a pipe", ""
    if one.kind == stat.S_IFDIR:
        return "a directory", one.target
    return _UNNAMED.get(one.target, "something"), "" if one.target in _UNNAMED else one.target


def _count(names: Tuple[str, ...], word: str, many: str = "") -> str:
    number = len(names)
    return f"{number} {word if number == 1 else many or word + 's'} ({_several(names)})"


def _several(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _python_threads() -> Tuple[str, ...]:
    here = __import__("_thread").get_ident()
    threading = sys.modules.get("threading")
    known = {one.ident: one.name for one in threading.enumerate()} if threading is not None else {}
    return tuple(
        [str(known.get(ident, "unnamed")) for ident in sys._current_frames() if ident != here]  # noqa: SLF001
    )


def _native_threads(of_python: int, unseen: List[str]) -> Tuple[str, ...]:
    try:
        names = _tasks()
        if len(names) > of_python == 1:
            # OpenBLAS ends its threads before a fork, and is safe therefore: what is left after one is not.
            from alight.runtime import confine  # noqa: PLC0415  such threads are rare: pools are held at one

            child = confine.bare_fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
            names = _tasks()
    except OSError as error:
        unseen.append(f"/proc/self/task: {error}")
        return ()
    return tuple(names[: len(names) - of_python]) if len(names) > of_python else ()


def _tasks() -> List[str]:
    """Names of threads, the main one last."""
    own = str(os.getpid())
    names = []
    for number in sorted(os.listdir("/proc/self/task"), key=lambda one: one == own):
        try:
            with open(f"/proc/self/task/{number}/comm", encoding="utf-8", errors="replace") as file:
                names.append(file.read().strip())
        except FileNotFoundError:
            continue  # it ended just now
    return names


def _children() -> Tuple[str, ...]:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return ()
    tasks = os.listdir("/proc/self/task")
    pids = " ".join([_read(f"/proc/self/task/{task}/children") for task in tasks]).split()
    # A kernel need not list them.
    return tuple([_read(f"/proc/{pid}/comm").strip() or f"pid {pid}" for pid in pids]) or ("unnamed",)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _descriptors(own: Set[int]) -> Tuple[Descriptor, ...]:
    import fcntl  # noqa: PLC0415  stdio has it already

    found = []
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        number = int(name)
        if number in own:
            continue
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
            kind = stat.S_IFMT(os.fstat(number).st_mode)
            mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
        except OSError:
            continue  # the one that listed them
        found.append(Descriptor(number, target, kind, mode != _READING))
    return tuple(found)


def _mappings() -> Tuple[Tuple[str, ...], Tuple[str, ...]]:
    """Shared writable mappings, and libraries with pools of threads."""
    from alight.runtime import pools  # noqa: PLC0415  templates only

    shared = []
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            rights = line.split(" ", 2)[1]
            if rights[1] == "w" and rights[3] == "s":
                shared.append(pools.path_of(line) or "unnamed")
    return tuple(dict.fromkeys(shared)), tuple(pools.loaded())
