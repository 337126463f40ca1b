"""Which templates a machine has, which start each of them serves, and how many forks wait. Pure: time is an argument.

A *template* is a process that has done what containers would do again and again: level 1 has the interpreter and the
runtime up, level 2 the user's module and its snapshot hooks, too (decision 0012). It is found by a key of all that it
has in it. Who makes and ends templates is ``keeper``.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from alight.wire.errors import InvalidError
from alight.wire.record import replace
from alight.wire.spec import Autoscaling, FunctionSpec, RetryPolicy

#: Levels: the interpreter with the runtime, and the user's module on top.
RUNTIME, MODULE = 1, 2

_MIB = 1 << 20
_LEVELS = {"off": 0, "runtime": RUNTIME, "on": MODULE}
#: Seconds within which starts make a shape hot, and forks of one shape that wait at most.
_HOT_SECONDS = 60.0
_HOT_MOST = 4
#: So often may a template end badly, in so many seconds; and how long it is left alone after the first time.
_ENDS_MOST, _ENDS_SECONDS = 3, 600.0
_BACKOFF = 1.0
_PARK_BACKOFF = 10.0
#: Templates used within so many seconds are not evicted to make room: they would come back at once.
_IN_USE = 60.0
_REFUSALS_KEPT = 1000
#: What a container got of which GPUs: a template has none.
_OF_ONE_START = (
    "NVIDIA_VISIBLE_DEVICES",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_MPS_PIPE_DIRECTORY",
    "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
)


@dataclass(frozen=True)
class TemplateSettings:
    """What the machine's owner says of templates. Times in seconds."""

    level: int = MODULE
    """The highest level that there may be; 0: none at all."""
    memory_bytes: int = 1 << 30
    """What all templates together may use."""
    parked: int = 16
    """Forks that wait, on all of the machine."""
    idle: float = 3600.0
    """A template that served no start for so long ends."""
    parked_idle: float = 600.0
    """Forks of a shape that was not started for so long end."""


def settings(environ: Mapping[str, str], machine_mib: int) -> TemplateSettings:
    """From ``ALIGHT_TEMPLATES``, ``ALIGHT_TEMPLATES_MIB``, ``ALIGHT_TEMPLATES_IDLE`` and ``ALIGHT_PARKED``."""
    said = environ.get("ALIGHT_TEMPLATES", "on").strip().lower() or "on"
    if said not in _LEVELS:
        raise InvalidError(f"ALIGHT_TEMPLATES={said!r} is none of off, runtime and on", hint="on is the default")
    mib = _number(environ, "ALIGHT_TEMPLATES_MIB", max(1024, machine_mib // 8))
    parked = _number(environ, "ALIGHT_PARKED", 16)
    idle = _number(environ, "ALIGHT_TEMPLATES_IDLE", 3600)
    return TemplateSettings(_LEVELS[said], mib * _MIB, parked, float(idle), min(600.0, float(idle)))


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    said = environ.get(name, "").strip()
    if not said:
        return default
    if not said.isdecimal():
        raise InvalidError(f"{name}={said!r} is not a number", hint=f"leave it out for {default}")
    return int(said)


# ------------------------------------------------------------------------------------------------- which serves a start


@dataclass(frozen=True)
class Ground:
    """What a container stands on: what the keys of its templates are made of."""

    owner: str
    image: str
    """Its digest."""
    python: str
    """The interpreter's path in it, and its version."""
    env: Mapping[str, str]
    """What every first process in it starts with."""
    workdir: str
    library: str
    """The directory of Alight's own files in containers: another one for each version of Alight and Python."""
    layers: tuple[str, ...]
    code: tuple[str, ...]
    """Directories with the user's files, by digest."""


@dataclass(frozen=True)
class Facts:
    """What decides, of one start."""

    function: FunctionSpec
    env: Mapping[str, str]
    """The environment of the container's first process."""
    secrets: str
    """Digest of the values; "" without any."""
    environment: str
    app_name: str
    function_id: str


def keys(ground: Ground, facts: Facts, level: int) -> tuple[tuple[int, str], ...]:
    """(level, key) of the templates that can serve this start, best first. ``level``: the highest that may."""
    found: list[tuple[int, str]] = []
    if level >= MODULE and facts.function.enable_memory_snapshot:
        found.append((MODULE, _module_key(ground, facts)))
    if level >= RUNTIME and not _needed_at_exec(facts.env, ground.env):
        found.append((RUNTIME, _key(_ground(ground))))
    return tuple(found)


def _ground(ground: Ground) -> list[object]:
    env = sorted(ground.env.items())
    return [ground.owner, ground.image, ground.python, env, ground.workdir, ground.library, list(ground.layers)]


def _module_key(ground: Ground, facts: Facts) -> str:
    # How many containers there are and how often is tried again changes nothing in the module's process; secrets are
    # what their values are, whatever they are called.
    function = replace(
        facts.function, autoscaling=Autoscaling(), retries=RetryPolicy(), timeout=0.0, startup_timeout=None, secrets=()
    )
    env = {k: v for k, v in facts.env.items() if not k.startswith(("ALIGHT_", "MODAL_")) and k not in _OF_ONE_START}
    what: list[object] = [function, sorted(env.items()), facts.secrets, facts.environment, facts.app_name]
    if function.volumes:
        # What it read from there may be old for the next app, even when nothing else has changed.
        what.append(facts.function_id)
    return _key([*_ground(ground), list(ground.code), what])


def _key(what: list[object]) -> str:
    return hashlib.sha256(msgspec.json.encode(what, order="deterministic")).hexdigest()[:32]


def _needed_at_exec(env: Mapping[str, str], image_env: Mapping[str, str]) -> bool:
    """Whether the loader or the interpreter would read something that a template of the image was not given."""

    def read(of: Mapping[str, str]) -> dict[str, str]:
        names = ("LD_", "PYTHON", "MALLOC_", "GLIBC_")
        return {k: v for k, v in of.items() if k.startswith(names)}

    return read(env) != read(image_env)


# ------------------------------------------------------------------------------------------------------ what there is


@dataclass
class _Shape:
    """Plans that can take each other's forks."""

    starts: deque[float] = field(default_factory=deque)
    used_at: float = 0.0
    parkable: bool = True
    failed: int = 0
    not_before: float = 0.0


@dataclass
class Template:
    """One that is there or is being made."""

    id: str
    key: str
    level: int
    begun_at: float
    used_at: float
    name: str = ""
    """Of the function that it was made for."""
    ready: bool = False
    memory_bytes: int = 0
    forks: int = 0
    failures: int = 0
    shapes: dict[str, _Shape] = field(default_factory=dict)


@dataclass
class _Past:
    """What is remembered of a key whose template is gone."""

    ends: deque[float] = field(default_factory=deque)
    refused: tuple[str, ...] = ()
    memory_bytes: int = 0


class Book:
    """All templates of a machine. Every method is told the time where it matters; nothing here does anything."""

    def __init__(self, told: TemplateSettings) -> None:
        self.settings = told
        self._by_key: dict[str, Template] = {}
        self._past: dict[str, _Past] = {}

    def __iter__(self) -> Iterator[Template]:
        return iter(list(self._by_key.values()))

    def ready(self, key: str) -> Template | None:
        """The template of this key, if it can be forked."""
        found = self._by_key.get(key)
        return found if found is not None and found.ready else None

    def refused(self, key: str) -> tuple[str, ...]:
        """Why there is no template of this key, and never will be."""
        past = self._past.get(key)
        return past.refused if past is not None else ()

    def may_begin(self, key: str, now: float) -> bool:
        """Whether to make a template of this key. Not twice, not after a refusal, not soon after it ended badly."""
        if key in self._by_key:
            return False
        past = self._past.get(key)
        if past is not None:
            while past.ends and past.ends[0] <= now - _ENDS_SECONDS:
                past.ends.popleft()
            count = len(past.ends)
            if past.refused or count >= _ENDS_MOST:
                return False
            if count and now < past.ends[-1] + _BACKOFF * 4 ** (count - 1):
                return False
        in_use = sum(one.memory_bytes for one in self if now - one.used_at < _IN_USE)
        return in_use + (past.memory_bytes if past is not None else 0) <= self.settings.memory_bytes

    def begin(self, key: str, level: int, template_id: str, now: float, name: str = "") -> Template:
        """It is being made."""
        made = self._by_key[key] = Template(template_id, key, level, now, now, name)
        return made

    def made(self, template: Template, now: float) -> None:
        """It can be forked from now on."""
        template.ready = True
        template.used_at = now

    def refuse(self, template: Template, sentences: tuple[str, ...]) -> None:
        """It found something in itself that must not be forked: no template of this key is tried again."""
        self._by_key.pop(template.key, None)
        self._remember(template.key).refused = sentences or ("it did not say why",)

    def measured(self, template: Template, memory_bytes: int) -> str:
        """What it uses now. The sentence with which it is refused when that is more than all templates may use."""
        template.memory_bytes = memory_bytes
        if memory_bytes <= self.settings.memory_bytes:
            return ""
        return (
            f"the template uses {memory_bytes // _MIB} MiB, and ALIGHT_TEMPLATES_MIB allows all of them together "
            f"{self.settings.memory_bytes // _MIB}"
        )

    def ended(self, template: Template, now: float, *, badly: bool) -> None:
        """It is gone: ``badly`` when nobody wanted that."""
        if self._by_key.get(template.key) is template:
            del self._by_key[template.key]
        past = self._remember(template.key)
        past.memory_bytes = template.memory_bytes
        if badly:
            past.ends.append(now)

    def _remember(self, key: str) -> _Past:
        past = self._past.pop(key, None) or _Past()
        self._past[key] = past  # the latest last
        while len(self._past) > _REFUSALS_KEPT:
            del self._past[next(iter(self._past))]
        return past

    # forks

    def served(self, template: Template, shape: str, now: float, *, parkable: bool = True) -> None:
        """A container of this shape was started from it."""
        template.forks += 1
        template.failures = 0
        self.expect(template, shape, now, parkable=parkable)
        template.shapes[shape].starts.append(now)

    def expect(self, template: Template, shape: str, now: float, *, parkable: bool = True) -> None:
        """Containers of this shape are to come: a start had to do without, or it is the one that was made for."""
        template.used_at = now
        found = template.shapes.setdefault(shape, _Shape())
        found.used_at, found.parkable = now, parkable

    def fork_failed(self, template: Template) -> bool:
        """A fork did not come about. Whether the template is to be ended for it."""
        template.failures += 1
        return template.failures >= _ENDS_MOST

    def park_failed(self, template: Template, shape: str, now: float) -> None:
        """Leave this shape alone for a while."""
        found = template.shapes.get(shape)
        if found is not None:
            found.failed += 1
            found.not_before = now + _PARK_BACKOFF * 4 ** min(found.failed - 1, 3)

    def park_succeeded(self, template: Template, shape: str) -> None:
        found = template.shapes.get(shape)
        if found is not None:
            found.failed = 0

    def allotted(self, now: float) -> dict[tuple[str, str], int]:
        """How many forks are to wait, by (template id, shape): one for each shape in use, more for hot ones, as many
        as the settings allow in all; those started last come first.
        """
        wants: list[tuple[float, tuple[str, str], int]] = []
        for template in self:
            for name, shape in list(template.shapes.items()):
                while shape.starts and shape.starts[0] <= now - _HOT_SECONDS:
                    shape.starts.popleft()
                if now - shape.used_at >= self.settings.parked_idle:
                    del template.shapes[name]
                elif template.ready and shape.parkable:
                    hot = min(_HOT_MOST, max(1, len(shape.starts)))
                    wants.append((shape.used_at, (template.id, name), hot))
        wants.sort(key=lambda one: one[0], reverse=True)
        left = self.settings.parked
        given: dict[tuple[str, str], int] = {}
        for _, name_, _ in wants[:left]:
            given[name_] = 1
        left -= len(given)
        for _, name_, hot in wants:
            if name_ in given and left > 0:
                more = min(hot - 1, left)
                given[name_] += more
                left -= more
        return given

    def next_park(self, parked: Mapping[str, Mapping[str, int]], now: float) -> tuple[str, str] | None:
        """(template id, shape) of the fork to park next. ``parked``: how many wait, by template and shape."""
        short: list[tuple[int, tuple[str, str]]] = []
        for (template_id, shape), many in self.allotted(now).items():
            has = parked.get(template_id, {}).get(shape, 0)
            if has < many and now >= self._shape(template_id, shape).not_before:
                short.append((has, (template_id, shape)))
        return min(short, key=lambda one: one[0])[1] if short else None

    def surplus(self, parked: Mapping[str, Mapping[str, int]], now: float) -> list[tuple[str, str, int]]:
        """(template id, shape, how many to keep) of what waits in vain."""
        allotted = self.allotted(now)
        return [
            (template_id, shape, allotted.get((template_id, shape), 0))
            for template_id, shapes in parked.items()
            for shape, count in shapes.items()
            if count > allotted.get((template_id, shape), 0)
        ]

    def _shape(self, template_id: str, shape: str) -> _Shape:
        return next(one.shapes[shape] for one in self if one.id == template_id)

    # ends

    def to_close(self, now: float, lost: Collection[str] = ()) -> list[tuple[Template, str]]:
        """Templates to end, with the reason: idle, ``lost`` (ids of those whose files are gone), or in the way of those
        used later.
        """
        closing = [(one, "its image was removed") for one in self if one.id in lost]
        gone = {one.id for one, _ in closing}
        idle = [one for one in self if one.ready and one.id not in gone and now - one.used_at >= self.settings.idle]
        closing += [(one, f"it served no start for {self.settings.idle:g} s") for one in idle]
        gone |= {one.id for one in idle}
        left = sorted((one for one in self if one.id not in gone), key=lambda one: one.used_at)
        total = sum(one.memory_bytes for one in left)
        for one in left[:-1]:
            if total <= self.settings.memory_bytes:
                break
            if one.ready:
                closing.append((one, "others were used later, and the memory for templates is taken"))
                total -= one.memory_bytes
        return closing
