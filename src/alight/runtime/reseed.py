"""What must differ between forks of one template though their memory does not: random numbers, and names made of them.

Only modules that are loaded, and only their global state: a generator that user code made before the snapshot
(``numpy.random.default_rng()``, ``random.Random()``) goes on alike in all forks. ``random`` itself sees to it at each
``os.fork``. Python's hash seed stays the template's.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict


def reseed() -> None:
    """In the fork, before user code runs there."""
    for name, renew in _RENEW.items():
        module = sys.modules.get(name)
        if module is not None:
            try:
                renew(module)
            except AttributeError as error:
                # Another module of the name, or a version that has its state elsewhere.
                print(f"alight: {name} was not seeded anew after the fork: {error}", file=sys.stderr)


def _numpy(random: Any) -> None:
    random.seed()


def _torch(torch: Any) -> None:
    torch.default_generator.seed()


def _uuid(uuid: Any) -> None:
    uuid._node = uuid._last_timestamp = None  # noqa: SLF001  it was asked for in another network


def _tempfile(tempfile: Any) -> None:
    tempfile._name_sequence = None  # noqa: SLF001  it looks at the pid, which may be the template's own number


def _ssl(ssl: Any) -> None:
    ssl.RAND_add(os.urandom(32), 32.0)  # OpenSSL looks at the pid as well


def _multiprocessing(process: Any) -> None:
    process.current_process().authkey = os.urandom(32)


_RENEW: Dict[str, Callable[[Any], None]] = {
    "numpy.random": _numpy,
    "torch": _torch,
    "uuid": _uuid,
    "tempfile": _tempfile,
    "ssl": _ssl,
    "multiprocessing.process": _multiprocessing,
}
