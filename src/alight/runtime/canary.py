"""One fork of a new template, tried before anybody depends on it: as a container's fork is made, and with a little work
that hangs where thread pools cannot be forked."""

from __future__ import annotations

import os
import sys

from alight.runtime import confine, reseed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from alight.runtime.pools import Pools

#: Seconds until a fork counts as hanging.
PATIENCE = 5.0
#: Enough for every library to share the work among its threads.
_SIDE = 256


def trial(pools: Pools, patience: float) -> str:
    """Why forks do not work; empty when this one did."""
    reading, writing = os.pipe()
    first = confine.bare_fork()
    if first == 0:
        os.close(reading)
        _try(pools, writing)
    os.close(writing)
    from select import poll  # noqa: PLC0415  templates only

    looked = poll()
    looked.register(reading, 1)  # POLLIN
    said = os.read(reading, 1) if looked.poll(patience * 1000) else b"?"
    os.close(reading)
    if said == b"?":
        _kill(first)
    _, status = os.waitpid(first, 0)
    if said == b"!":
        return ""
    if said == b"?":
        return (
            f"a trial fork did not finish a small matrix product within {patience:g} s: something that was started "
            "before the snapshot does not work in a fork; start it in @enter() without snap=True"
        )
    signal = os.WEXITSTATUS(status) - 128 if os.WIFEXITED(status) else os.WTERMSIG(status)
    how = f"was killed by signal {signal}" if signal > 0 else "raised (see the template's output)"
    return f"a trial fork {how}: something that was done before the snapshot does not work in a fork"


def _try(pools: Pools, writing: int) -> None:
    """In the child: fork again, as for a container, and say "!" from there when all is well."""
    code = 1
    try:
        os.setsid()  # one group to kill
        second = os.fork()
        if second:
            os.close(writing)
            _, status = os.waitpid(second, 0)
            code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            os._exit(code)
        reseed.reseed()
        pools.restore()
        _work()
        os.write(writing, b"!")
        code = 0
    except BaseException:  # noqa: BLE001  in a process of our own, whose end is the answer
        import traceback  # noqa: PLC0415  rare

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _work() -> None:
    numpy: Any = sys.modules.get("numpy")
    torch: Any = sys.modules.get("torch")
    if numpy is not None and hasattr(numpy, "ones"):
        square = numpy.ones((_SIDE, _SIDE))
        if (square @ square)[0, 0] != _SIDE:
            raise ArithmeticError("numpy's matrix product is wrong in a fork")
    if torch is not None and hasattr(torch, "ones"):
        square = torch.ones(_SIDE, _SIDE)
        if float((square @ square + square)[0, 0]) != _SIDE + 1:
            raise ArithmeticError("torch's matrix product is wrong in a fork")


def _kill(first: int) -> None:
    try:
        os.killpg(first, 9)
    except ProcessLookupError:
        os.kill(first, 9)  # it had no time to begin a group
