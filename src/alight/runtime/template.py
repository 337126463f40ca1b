"""A template's life (decision 0012): brought up like a container, judged, tried, frozen; from then on it forks.

It says on its link whether it may be forked, and needs nobody's word after that but the spawner's. In a fork, ``main``
goes on as a container's runtime.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import sys

from alight.runtime import canary, forkable, reseed, serve, snapshot, stdio
from alight.runtime.forks import Forks
from alight.runtime.link import Link
from alight.runtime.pools import Pools
from alight.wire import forks as wire
from alight.wire.errors import ConnectionError as NodeGone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Tuple

_REFUSED, _FAILED, _ALONE = 0, 1, 69


def main(library: str, home: str) -> int:
    """Fork until told to end. Returns the exit code of a template that never was one, or of a fork; see serve.main."""
    stdio.setup()
    faulthandler.enable(2)
    path = os.environ.get("ALIGHT_LINK", serve.LINK_PATH)
    try:
        code, taken, forks = _prepare(path, (home, library))
        if taken is None or forks is None:
            return code
        woken = forks.serve()
        if woken is None:
            os._exit(0)  # exit functions of user code are for containers
        taken.wake(woken["env"], woken["cwd"])
    except Exception:  # noqa: BLE001  one of the four loops: our own fault, said in the template's log
        import traceback  # noqa: PLC0415  our own faults are rare

        traceback.print_exc()
        return 70
    stdio.moved()
    return serve.main(library, home, taken, woken["link"])


def _prepare(path: str, places: Tuple[str, str]) -> Tuple[int, Optional[snapshot.Snapshot], Optional[Forks]]:
    """Bring up what LINK_START wants and say what became of it. Without a snapshot: the exit code."""
    link = Link(path, lambda: None)
    try:
        link.open()
    except NodeGone as error:
        print(f"alight: {error}", file=sys.stderr)
        return _ALONE, None, None
    start, body, code = serve.hear_start(link)
    if start is None:
        return code, None, None
    taken = snapshot.Snapshot(start.get("template") or 1, places)
    try:
        taken.take(start, body)
    except snapshot.NotForkable as error:
        link.ready({"refused": [str(error)]}, ok=False)
        return _REFUSED, None, None
    except BaseException as error:  # noqa: BLE001  user code may raise anything while it is imported
        from alight.runtime import failures  # noqa: PLC0415  paid by failures only

        failure, pickled = failures.in_words(error, f"importing the code of {start['function']['name']}")
        link.ready(failure, (pickled,), ok=False)
        return _FAILED, None, None
    finally:
        stdio.flush()
    # What these load and free here, forks need not: freeing copies pages, ten milliseconds' worth after torch.
    reseed.reseed()
    sys.path_importer_cache.clear()
    gc.collect()
    gc.freeze()  # else the first collection in each fork would copy all pages that have objects
    pools = Pools()
    facts = forkable.gather({0, 1, 2, wire.DESCRIPTOR, link.descriptor})
    refused = forkable.refusals(facts)
    if not refused:
        tried = canary.trial(pools, canary.PATIENCE)
        refused = [tried] if tried else []
    head: Dict[str, Any] = taken.stages.told()
    if refused:
        head["refused"] = refused
    link.ready(head, ok=not refused)
    link.close()
    return _REFUSED, None if refused else taken, Forks(wire.DESCRIPTOR, forkable.kept(facts), pools)
