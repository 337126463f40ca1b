"""Thread pools of numerical libraries: at one thread while a template imports them, at the container's number in forks.

A pool that has run in a template is gone in its forks, whose first parallel loop then waits for ever. With one thread
there is no pool, and a fork makes its own. How each library is kept at one, and how it gets its number back:

    OpenMP (libgomp, libiomp5, libomp)   OMP_NUM_THREADS         omp_set_num_threads, of the main thread
    OpenBLAS                             OPENBLAS_NUM_THREADS    openblas_set_num_threads; ends its threads before a
                                                                 fork by itself, and starts them when they are wanted
    MKL                                  MKL_NUM_THREADS         MKL_Set_Num_Threads
    numexpr                              NUMEXPR_NUM_THREADS     numexpr.set_num_threads
    torch                                as OpenMP               torch.set_num_threads, of all threads

A number that user code set itself is left alone.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple

    #: Which variables say its number (the first that is set), how to ask for it, how to set it.
    Pool = Tuple[Tuple[str, ...], Callable[[], int], Callable[[int], Any]]

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

_OMP = (VARIABLES[0],)
_MKL = (VARIABLES[1], VARIABLES[0])
_OPENBLAS = (VARIABLES[2], VARIABLES[0])
_NUMEXPR = (VARIABLES[3], VARIABLES[0])
#: By a part of the library's file name: variables, and the names of the functions that ask and set.
_LIBRARIES: Tuple[Tuple[str, Tuple[str, ...], Tuple[Tuple[str, str], ...]], ...] = (
    ("libgomp", _OMP, (("omp_get_max_threads", "omp_set_num_threads"),)),
    ("libiomp", _OMP, (("omp_get_max_threads", "omp_set_num_threads"),)),
    ("libomp", _OMP, (("omp_get_max_threads", "omp_set_num_threads"),)),
    ("libmkl_rt", _MKL, (("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),)),
    (
        "openblas",
        _OPENBLAS,
        tuple(
            (f"{front}openblas_get_num_threads{end}", f"{front}openblas_set_num_threads{end}")
            for front in ("", "scipy_")
            for end in ("", "64_", "_64")
        ),
    ),
)


def hold() -> Dict[str, Optional[str]]:
    """Let what is imported from now on have one thread. Returns what the variables said, for ``let_go``."""
    said = {name: os.environ.get(name) for name in VARIABLES}
    for name in VARIABLES:
        os.environ[name] = "1"
    return said


def let_go(said: Dict[str, Optional[str]]) -> None:
    """Put the variables back, but for those that user code has set since."""
    for name, value in said.items():
        if os.environ.get(name) != "1":
            continue
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


class Pools:
    """Those that are loaded now. Made in the template, so that a fork has but to call."""

    def __init__(self) -> None:
        self.libraries = loaded()
        self._pools: List[Pool] = []
        for path in self.libraries:
            self._pools += _pools_of(path)
        numexpr, torch = sys.modules.get("numexpr"), sys.modules.get("torch")
        if numexpr is not None and hasattr(numexpr, "set_num_threads"):
            self._pools.append((_NUMEXPR, lambda: 1, numexpr.set_num_threads))
        if torch is not None and hasattr(torch, "set_num_threads"):
            self._pools.append((_OMP, torch.get_num_threads, torch.set_num_threads))

    def restore(self) -> None:
        """Give each the number of threads that the environment says now, else one for each core we may use."""
        cores = len(os.sched_getaffinity(0))
        # torch's own number first would be read from OpenMP's: ask all, then set all.
        held = [(variables, to) for variables, now, to in self._pools if now() == 1]
        for variables, to in held:
            to(_number(variables, cores))


def _number(variables: Tuple[str, ...], cores: int) -> int:
    for name in variables:
        first = os.environ.get(name, "").split(",")[0].strip()
        if first.isdigit() and int(first) > 0:
            return int(first)
    return cores


def loaded() -> List[str]:
    """The files of loaded libraries that are in the table."""
    found: Dict[str, None] = {}
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = path_of(line)
            if ".so" in path and any(part in os.path.basename(path) for part, _, _ in _LIBRARIES):
                found[path] = None
    return list(found)


def path_of(line: str) -> str:
    """What a line of /proc/self/maps maps; empty for memory."""
    parts = line.split(None, 5)
    return parts[5].rstrip("\n") if len(parts) > 5 else ""


def _pools_of(path: str) -> List[Pool]:
    import ctypes  # noqa: PLC0415  only where there is such a library

    try:
        library = ctypes.CDLL(path)
    except OSError:
        return []  # it was replaced on disk since it was loaded
    made: List[Pool] = []
    name = os.path.basename(path)
    for part, variables, pairs in _LIBRARIES:
        if part not in name:
            continue
        for ask, to in pairs:
            if hasattr(library, ask) and hasattr(library, to):
                made.append((variables, getattr(library, ask), getattr(library, to)))
        break
    return made
