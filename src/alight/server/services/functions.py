"""Published functions: their specs, and what the scheduler has to know of each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from alight.scheduler import state as scheduled
from alight.scheduler.events import FunctionPublished
from alight.server.events import Inbox
from alight.store.base import Statement, Store
from alight.wire import errors, ids
from alight.wire.codec import to_plain
from alight.wire.messages import PublishedFunction
from alight.wire.spec import FunctionSpec

_decode = msgspec.json.Decoder(FunctionSpec).decode


@dataclass
class Published:
    """A function of a living app."""

    function_id: str
    app_id: str
    environment: str
    owner: str
    spec: FunctionSpec
    version: int = 1


class Functions:
    """Functions of living apps, by id and by name."""

    def __init__(self, store: Store, inbox: Inbox, check: Callable[[str, scheduled.Need], str]) -> None:
        self._store = store
        self._inbox = inbox
        self._check = check  # the scheduler's word on what is impossible
        self.by_id: dict[str, Published] = {}
        self._by_name: dict[tuple[str, str], str] = {}

    def restore(self, row: Any, environment: str, owner: str) -> None:
        """Take up a function that an earlier server process recorded."""
        spec = _decode(row["spec"])
        self._enter(Published(row["function_id"], row["app_id"], environment, owner, spec, row["version"]))

    async def publish(
        self, app_id: str, environment: str, owner: str, specs: tuple[FunctionSpec, ...]
    ) -> tuple[PublishedFunction, ...]:
        """Record functions, new or changed. Raises InvalidError for a spec that cannot be."""
        for spec in specs:
            _check_spec(spec)
        statements: list[Statement] = []
        changed: list[Published] = []
        answers: list[PublishedFunction] = []
        for spec in specs:
            old = self.by_id.get(self._by_name.get((app_id, spec.name), ""))
            if old is not None and old.spec == spec:
                fresh = old
            else:
                function_id = old.function_id if old is not None else ids.new_id(ids.FUNCTION)
                version = old.version + 1 if old is not None else 1
                fresh = Published(function_id, app_id, environment, owner, spec, version)
                statements += _statements(fresh)
                changed.append(fresh)
            answers.append(self._answer(fresh))
        if statements:
            await self._store.write(statements)
        for fresh in changed:
            self._enter(fresh)
        return tuple(answers)

    def lookup(self, app_id: str, name: str) -> PublishedFunction:
        """A function by name. Raises NotFoundError naming those there are."""
        found = self.by_id.get(self._by_name.get((app_id, name), ""))
        if found is None:
            names = ", ".join(sorted(known for app, known in self._by_name if app == app_id))
            raise errors.NotFoundError(
                f"the app has no function {name!r}", hint=f"it has: {names}" if names else "it has no functions"
            )
        return self._answer(found)

    def get(self, function_id: str) -> Published:
        """Raises NotFoundError when its app is stopped, or there is no such function."""
        found = self.by_id.get(function_id)
        if found is None:
            raise errors.NotFoundError(
                f"there is no function {function_id} (any more)", hint="its app was stopped: run or deploy it again"
            )
        return found

    def forget_app(self, app_id: str) -> None:
        """The app has ended."""
        for key in [key for key in self._by_name if key[0] == app_id]:
            self.by_id.pop(self._by_name.pop(key), None)

    def _enter(self, function: Published) -> None:
        self.by_id[function.function_id] = function
        self._by_name[function.app_id, function.spec.name] = function.function_id
        need = need_of(function.spec)
        self._inbox.put(FunctionPublished(function.function_id, function.app_id, function.spec.name, need))

    def _answer(self, function: Published) -> PublishedFunction:
        name = function.spec.name
        try:
            warning = self._check(name, need_of(function.spec))
        except errors.Error as error:
            return PublishedFunction(name, function.function_id, impossible=errors.to_wire(error))
        return PublishedFunction(name, function.function_id, warning=warning)


def need_of(spec: FunctionSpec) -> scheduled.Need:
    """What the scheduler has to know of a function."""
    asked, scaling = spec.resources, spec.autoscaling
    window = scaling.scaledown_window
    return scheduled.Need(
        cpu=asked.cpu if asked.cpu is not None else scheduled.DEFAULT_CPU,
        memory=asked.memory if asked.memory is not None else scheduled.DEFAULT_MEMORY,
        gpus=tuple(asked.gpus),
        min_containers=scaling.min_containers,
        max_containers=scaling.max_containers,
        buffer_containers=scaling.buffer_containers,
        scaledown_window=window if window is not None else scheduled.DEFAULT_WINDOW,
        max_concurrent=max(1, scaling.max_concurrent_inputs),
        single_use=scaling.single_use,
        retries=spec.retries,
    )


def _check_spec(spec: FunctionSpec) -> None:
    asked, scaling = spec.resources, spec.autoscaling
    if not spec.name or len(spec.name) > 256:
        raise errors.InvalidError("a function's name has 1 to 256 characters")
    for value, what in ((asked.cpu, "cpu"), (asked.memory, "memory"), (spec.timeout, "timeout")):
        if value is not None and not 0 < value < float("inf"):
            raise errors.InvalidError(f"{spec.name}(): {what}={value} is not above 0")
    if scaling.max_containers is not None and scaling.max_containers < max(1, scaling.min_containers):
        raise errors.InvalidError(f"{spec.name}(): max_containers={scaling.max_containers} is too small")


def _statements(function: Published) -> list[Statement]:
    now = time.time()
    row = {
        "function_id": function.function_id,
        "app_id": function.app_id,
        "name": function.spec.name,
        "spec": json.dumps(to_plain(function.spec)),
        "version": function.version,
        "now": now,
    }
    digests = {files.tree for files in function.spec.files} | {function.spec.serialized}
    refs = [{"digest": digest, "holder": function.app_id, "now": now} for digest in sorted(digests) if digest]
    return [("function_put", row), ("blob_ref_add", refs)]
