"""What clients and the server say to each other about dicts, queues and nameless objects. See ``messages``.

Values and keys travel in bodies, one after the other, with their sizes in the head; the server never looks inside.
``request`` is an id that the client makes: what is sent again under it is done once, and answered alike.
``settled`` names earlier requests whose answers have arrived, so that the server may forget them.
"""

from __future__ import annotations

from typing import Optional, Tuple

from alight.wire.record import dataclass

#: Most bytes of an item of a queue.
ITEM_MOST = 1 << 20
#: Most items of one partition of a queue.
PARTITION_MOST = 5_000
#: Most partitions of a queue that hold something.
PARTITIONS_MOST = 100_000
#: Most bytes of a partition's key.
PARTITION_KEY_MOST = 64
#: Most seconds that a partition may live after its last put.
PARTITION_TTL_MOST = 7 * 86_400
#: Most bytes of a dict's key.
KEY_MOST = 64 << 10
#: Bytes and values that travel in one message at most (a single value may be larger).
PAGE_BYTES = 2 << 20
PAGE_VALUES = 1_000


@dataclass(frozen=True)
class SharedEnsure:
    """dict.ensure, queue.ensure → SharedInfo.

    Without ``create`` a missing one is NotFoundError; ``exclusive`` refuses an existing one. ``ephemeral``: a new,
    nameless one that lives while ephemeral.keep comes.
    """

    name: str = ""
    environment: str = ""
    create: bool = False
    exclusive: bool = False
    ephemeral: bool = False


@dataclass(frozen=True)
class SharedInfo:
    object_id: str
    name: str = ""
    environment: str = ""
    created_at: float = 0.0
    created_by: str = ""


@dataclass(frozen=True)
class SharedList:
    """dict.list, queue.list → SharedListed: the named ones, newest first."""

    environment: str = ""
    limit: int = 0


@dataclass(frozen=True)
class SharedListed:
    objects: Tuple[SharedInfo, ...] = ()


@dataclass(frozen=True)
class SharedNamed:
    """dict.find, queue.find → SharedInfo; dict.delete, queue.delete → {}. By name, or by id."""

    name: str = ""
    object_id: str = ""
    environment: str = ""
    allow_missing: bool = False


@dataclass(frozen=True)
class EphemeralNamed:
    """ephemeral.keep → {}: it is still wanted. ephemeral.drop → {}: it is not. NotFoundError when it is gone."""

    object_id: str


@dataclass(frozen=True)
class DictKeys:
    """dict.get → DictValue; dict.contains, dict.pop, dict.len, dict.clear. The key is the body.

    ``request`` for those that change something.
    """

    dict_id: str
    request: str = ""
    settled: Tuple[str, ...] = ()


@dataclass(frozen=True)
class DictValue:
    """What there is for a key; the value is the body, or the blob ``large`` of ``size`` bytes."""

    found: bool = False
    large: str = ""
    size: int = 0


@dataclass(frozen=True)
class DictPut:
    """dict.put → DictCount of the entries that were set. The body has key, value, key, value…

    All of them are set or none. ``large``: per entry the blob that has its value, whose size in the body is 0.
    """

    dict_id: str
    sizes: Tuple[int, ...]
    request: str
    skip_if_exists: bool = False
    large: Tuple[str, ...] = ()
    lengths: Tuple[int, ...] = ()  # of those blobs
    settled: Tuple[str, ...] = ()


@dataclass(frozen=True)
class DictCount:
    """dict.len, dict.put, dict.contains."""

    count: int = 0


@dataclass(frozen=True)
class DictScan:
    """dict.scan ⇉ DictPage: entries after the one that ``after`` names, in the order in which they were first set."""

    dict_id: str
    after: int = 0
    keys: bool = True
    values: bool = True
    limit: int = 0  # entries in all; 0 is all


@dataclass(frozen=True)
class DictPage:
    """Entries: the body has what was asked for, entry by entry; ``last`` names the last one."""

    last: int
    sizes: Tuple[int, ...]
    large: Tuple[str, ...] = ()  # per entry, when values were asked for and some are in blobs
    lengths: Tuple[int, ...] = ()


@dataclass(frozen=True)
class QueuePut:
    """queue.put → QueueLeft. The body has the items. All of them are added or none.

    ``wait``: seconds that it may wait for room; None: until there is. ``need``: room that has to be there, for a put
    in several messages.
    """

    queue_id: str
    sizes: Tuple[int, ...]
    request: str
    partition: str = ""
    ttl: float = 86_400.0
    wait: Optional[float] = None
    need: int = 0
    settled: Tuple[str, ...] = ()


@dataclass(frozen=True)
class QueueLeft:
    """``full``: nothing was added. ``busy``: nor could the server keep it waiting; ask again in a moment."""

    full: bool = False
    busy: bool = False


@dataclass(frozen=True)
class QueueGet:
    """queue.get → QueueItems: up to ``count`` items, none when none came within ``wait`` seconds (None: for ever)."""

    queue_id: str
    request: str
    count: int = 1
    partition: str = ""
    wait: Optional[float] = None
    settled: Tuple[str, ...] = ()


@dataclass(frozen=True)
class QueueBack:
    """queue.back → {}: the caller left before the answer of this request came. What it took goes back to its place."""

    queue_id: str
    request: str


@dataclass(frozen=True)
class QueueItems:
    """Items: the body has them; ``last`` is the number of the last one."""

    sizes: Tuple[int, ...] = ()
    last: int = -1


@dataclass(frozen=True)
class QueuePeek:
    """queue.peek → QueueItems: items with numbers above ``after``, left where they are; waits for one at most ``wait``
    seconds.
    """

    queue_id: str
    partition: str = ""
    after: int = -1
    limit: int = 0
    wait: float = 0.0


@dataclass(frozen=True)
class QueueWhich:
    """queue.len → DictCount; queue.clear → {}. ``total``: every partition."""

    queue_id: str
    partition: str = ""
    total: bool = False
