"""Calls by programs without Python: JSON goes to a container and JSON comes back, and the server reads neither."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Optional, cast

import msgspec

from alight.link.peer import Stream
from alight.server.auth import OWNER, Principal
from alight.server.services.apps import Apps
from alight.server.services.blobs import Blobs
from alight.server.services.call import Call
from alight.server.services.calls import Calls
from alight.server.services.functions import Functions
from alight.server.services.published import Published, may_use
from alight.store.base import Row
from alight.wire import chunk, errors, ids
from alight.wire.calling import CallStart, CallUpdate
from alight.wire.codec import Buffer

VERB = "spawn_http"  # nobody has to stay for its end, as for all that begin with "spawn"
_LARGE = 256 << 20  # a value over this is for clients that can stream


class _Arguments(msgspec.Struct, forbid_unknown_fields=True):
    """What a body looks like. Values are looked at by the container alone."""

    args: list[msgspec.Raw] = []
    kwargs: dict[str, msgspec.Raw] = {}


_check = msgspec.json.Decoder(_Arguments).decode
_decode_update = msgspec.json.Decoder(CallUpdate).decode


@dataclass(frozen=True)
class Ended:
    """What came of a call: ``value`` as JSON, or a ``failure`` in plain words."""

    call_id: str
    value: bytes = b""
    failure: Optional[CallUpdate] = None


class JsonCalls:
    """Starts calls and waits for them."""

    def __init__(self, calls: Calls, functions: Functions, apps: Apps, blobs: Blobs) -> None:
        self._calls = calls
        self._functions = functions
        self._apps = apps
        self._blobs = blobs
        self._starting: dict[str, asyncio.Lock] = {}

    def find(self, app: str, function: str, environment: str, who: Principal) -> tuple[Published, str]:
        """A function that can be called with JSON, and the method where it is one of a class. Raises NotFoundError."""
        found = [one.app_id for one in self._apps.named(app, environment, who)]
        name, _, method = function.partition(".")
        info = self._functions.find(found, app, f"{name}.*" if method else function)
        published = self._functions.get(info.function_id)
        known = {one.name: one for one in info.methods}
        if method and method not in known:
            raise errors.NotFoundError(f"{name} has no method {method!r}", hint=f"it has: {', '.join(known)}")
        spec = published.spec
        if known[method].is_web if method else spec.is_web:
            raise errors.InvalidError(f"{function} is a web function: it has a URL of its own")
        if known[method].is_generator if method else spec.is_generator:
            raise errors.InvalidError(f"{function} is a generator, and gives many values: call it from Python")
        if spec.autoscaling.batch_size:
            raise errors.InvalidError(f"{function} is batched: call it from Python")
        if any(one.required for one in spec.class_parameters):
            raise errors.InvalidError(f"the class {name} has parameters: call it from Python")
        if not may_use(who, published):
            raise errors.PermissionDeniedError("this function belongs to somebody else")
        return published, method

    async def start(self, function: Published, method: str, body: bytes, key: str, who: Principal) -> str:
        """Begin a call; returns its id once it is on disk. The same ``key`` of the same caller is the same call.

        Raises InvalidError for a body that is no JSON of the right form, ConflictError for a key that was used for
        another function.
        """
        try:
            _check(body or b"{}")
        except msgspec.MsgspecError as error:
            raise errors.InvalidError(
                f"the body cannot be read: {error}", hint='it looks like this: {"args": [1, 2], "kwargs": {"name": 3}}'
            ) from None
        call_id = _id_of(key, who) if key else ids.new_id(ids.CALL)
        asked = CallStart(call_id, function.function_id, VERB, wait=False, method=method, resend=bool(key), json=True)
        lock = self._starting.setdefault(call_id, asyncio.Lock())
        try:
            async with lock:  # two with one key at once
                # Whoever asked may leave in the middle: half a start cannot be taken back.
                await asyncio.shield(self._calls.accepting.start(asked, body or b"{}", function))
        finally:
            self._starting.pop(call_id, None)
        return call_id

    async def wait(self, call_id: str, seconds: Optional[float]) -> Optional[Ended]:
        """What came of a call, None when it has not ended within so many seconds (None: without end).

        Raises NotFoundError, and OutputExpiredError for results that were kept for their time.
        """
        call, row = await self._calls.find(call_id)
        return await self._read(call_id, call, row, seconds)

    async def check_use(self, call_id: str, who: Principal, scope: tuple[str, str] | None) -> None:
        """Raise NotFoundError for a call that is not theirs, or not of the app and environment of their token."""
        if not ids.is_id(call_id, ids.CALL):
            raise errors.NotFoundError(f"there is no call {call_id}")
        call, row = await self._calls.find(call_id)
        verb = call.verb if call is not None else row["verb"]
        owner = await self._apps.owner_of(row["app_id"])
        mine = owner is not None and (who.kind == OWNER or who.owner == owner[0])
        if scope is not None and mine:
            named = {one.app_id for one in self._apps.named(scope[0], scope[1], who)}
            mine = row["app_id"] in named
        if not mine or verb != VERB:
            raise errors.NotFoundError(f"there is no call {call_id} that was made over HTTP")

    async def _read(self, call_id: str, call: Call | None, row: Row, seconds: Optional[float]) -> Optional[Ended]:
        taken = _Taken()
        reader = await self._calls.reader(cast("Stream", taken), call, row, start=0, stop=1)
        try:
            await asyncio.wait_for(reader.follow(), seconds)
        except asyncio.TimeoutError:
            return None
        finally:
            self._calls.leave(reader)
        for head, body in taken.messages:
            if not chunk.is_chunk(head):
                update = _decode_update(head)
                if update.state == "done":
                    return Ended(call_id, failure=update)
                continue
            said = chunk.Outputs.decode(head)
            if said.flags & chunk.REFERENCE:
                return Ended(call_id, await self._large(bytes(body)))
            return Ended(call_id, bytes(body))
        raise errors.OutputExpiredError(f"the result of {call_id} is gone")

    async def _large(self, reference: bytes) -> bytes:
        name, size = chunk.read_reference(reference)
        if size > _LARGE:
            raise errors.ResourceExhaustedError(f"the result has {size >> 20} MiB: {_LARGE >> 20} MiB is the most here")
        return b"".join([bytes(piece) async for piece in self._blobs.read(name)])


class _Taken:
    """Takes what a reader sends, where others have a stream to a client."""

    broken = False
    may_send = True
    id = 0

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.peer = self.connection = self

    def send(self, stream: int, head: bytes, body: Buffer) -> None:
        """See ``wire.connection``."""
        del stream
        self.messages.append((bytes(head), bytes(body)))

    async def send_raw(self, head: bytes, body: Buffer = b"") -> None:
        """See ``link.stream``."""
        self.send(0, head, body)

    def flush_soon(self) -> None:
        """See ``link.peer``."""

    def flush(self) -> None:
        """See ``link.peer``."""

    def finish(self) -> None:
        """See ``link.stream``."""

    async def fail(self, error: BaseException) -> None:
        """See ``link.stream``."""
        del error


def _id_of(key: str, who: Principal) -> str:
    """An id that follows from a caller's key, in the form of all ids: the first of it stands for no time."""
    digest = int.from_bytes(hashlib.sha256(f"{who.owner}\n{key}".encode()).digest()[:16], "big")
    return ids.from_number(ids.CALL, digest)
