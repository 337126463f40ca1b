"""An image of a registry as layers of this machine's store: each of its layers is one of ours, shared by digest.

Downloads run in threads, a few at a time; each archive is unpacked by a process of its own (``unpack.py``). A layer is
whole or not there; what a failed pull had finished stays and is found by the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from alight.builder import digest, layers
from alight.builder.registry import clouds, manifest
from alight.builder.registry.client import Client, Credentials, Denied, NotFound
from alight.builder.registry.manifest import Config, Descriptor, Manifest
from alight.builder.registry.reference import Reference
from alight.builder.registry.settings import Place, Registries, Way
from alight.builder.registry.transport import PlainHttp, Stopped, Transport, Trouble, Unreachable
from alight.builder.registry.wanted import Pulled, Wanted
from alight.wire.errors import ImageBuildError

T = TypeVar("T")

DOWNLOADS = 4
UNPACKINGS = max(1, (os.cpu_count() or 2) // 2)
#: Bytes of the disk that an image leaves free.
RESERVE = 512 << 20
_SAY_EVERY = 2.0

_UNPACK = str(Path(__file__).with_name("unpack.py"))


async def bring(
    wanted: Wanted, store: layers.LayerStore, registries: Registries, way: Way, note: Callable[[str], None]
) -> Pulled:
    """Bring what is missing of an image. A cancelled pull leaves nothing but whole layers.

    Raises: ImageBuildError that names the host and what to set.
    """
    places = registries.places(wanted.reference)
    transport = Transport(way)
    try:
        found = await _threaded(transport, lambda: _find(wanted, places, registries, transport))
        ids = await _Bring(found, store, transport, note).all()
    except Stopped:
        raise asyncio.CancelledError from None
    finally:
        transport.close()
    return Pulled(found.digest, ids, found.config)


@dataclass(frozen=True)
class _Found:
    client: Client
    name: str
    digest: str
    manifest: Manifest
    config: Config


def _find(wanted: Wanted, places: tuple[Place, ...], registries: Registries, transport: Transport) -> _Found:
    """The image at the first place that has it. What the last place, the registry itself, says is what counts."""
    passed: list[str] = []
    user: Credentials | None = None
    for place in places:
        last = place is places[-1]
        try:
            if place.own and wanted.secret and user is None:
                user = clouds.credentials(wanted.secret, wanted.reference.host, transport, wanted.auth)
            return _ask(Client(transport, place, user if place.own else None), wanted)
        except PlainHttp as error:
            raise ImageBuildError(
                str(error),
                hint=f'to use it all the same, put this into {registries.file}: [[registry]] location = "{error.host}" '
                "and insecure = true, each on a line",
            ) from error
        except Unreachable as error:
            passed.append(str(error))
            if last:
                raise _unreachable(wanted.reference, passed, registries) from error
        except (NotFound, Denied) as error:
            passed.append(str(error))
            if last:
                raise error.error() from error
    raise AssertionError  # there is always a place


def _ask(client: Client, wanted: Wanted) -> _Found:
    name = str(wanted.reference)
    body, found = client.manifest(wanted.reference.wanted)
    chosen = manifest.choose(body, wanted.machine, name)
    if isinstance(chosen, str):
        body, found = client.manifest(chosen)
        chosen = manifest.choose(body, wanted.machine, name)
        if isinstance(chosen, str):
            raise ImageBuildError(f"{name} is an index of indexes, which no container tool makes")
    config = manifest.read_config(client.small(chosen.config), wanted.machine, name)
    if len(config.diff_ids) != len(chosen.layers):
        raise ImageBuildError(
            f"{name} has {len(chosen.layers)} layers and its configuration speaks of {len(config.diff_ids)}"
        )
    return _Found(client, name, found, chosen, config)


class _Bring:
    """The layers of one image on their way."""

    def __init__(
        self, found: _Found, store: layers.LayerStore, transport: Transport, note: Callable[[str], None]
    ) -> None:
        self._found = found
        self._store = store
        self._transport = transport
        self._note = note
        self._downloads = asyncio.Semaphore(DOWNLOADS)
        self._unpackings = asyncio.Semaphore(UNPACKINGS)
        self._come = 0
        self._said = time.monotonic()
        self._size = 0

    async def all(self) -> tuple[str, ...]:
        found = self._found
        wanted = dict(zip(found.manifest.layers, found.config.diff_ids, strict=True))
        missing = {one: diff for one, diff in wanted.items() if self._store.record(_key(one.digest)) is None}
        self._size = sum(one.size for one in missing)
        self._note(
            f"{found.name} is {found.digest}: {len(wanted)} layer{'s' if len(wanted) != 1 else ''}"
            + (f", {len(missing)} to download ({_size(self._size)})" if missing else ", all here already")
        )
        self._check_disk()
        work = [asyncio.ensure_future(self._layer(*one)) for one in missing.items()]
        try:
            await asyncio.gather(*work)
        except BaseException:
            self._transport.close()
            for one in work:
                one.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            raise
        return self._stack()

    def _check_disk(self) -> None:
        disk = os.statvfs(self._store.path("."))
        free = disk.f_bavail * disk.f_frsize
        if self._size + RESERVE > free:
            raise ImageBuildError(
                f"{self._found.name} is a download of {_size(self._size)}, more when it is unpacked, and "
                f"{_size(free)} are free on the disk that holds images",
                hint="free some space, or set ALIGHT_HOME to a directory on a larger disk",
            )

    def _stack(self) -> tuple[str, ...]:
        """The topmost first, each once: a layer that comes twice counts where it is topmost."""
        ids: dict[str, None] = {}
        for one in reversed(self._found.manifest.layers):
            record = self._store.record(_key(one.digest))
            if record is None:
                raise ImageBuildError(
                    f"a layer of {self._found.name} was removed while it was pulled", hint="try again"
                )
            ids.update(dict.fromkeys(record.layers))
            if "opaque" in record.facts:
                break
        return tuple(ids)

    async def _layer(self, blob: Descriptor, diff_id: str) -> None:
        key = _key(blob.digest)
        async with self._store.alone(key, lambda: None):
            if self._store.record(key) is not None:
                return
            with self._store.workspace() as space:
                archive = space.scratch / "archive"
                client = self._found.client
                async with self._downloads:
                    try:
                        await _threaded(self._transport, lambda: client.download(blob, archive, self._on_bytes))
                    except Trouble as trouble:
                        raise trouble.error() from trouble
                async with self._unpackings:
                    report = await _unpack(archive, space.upper)
                archive.unlink()
                self._check(report, blob, diff_id)
                await asyncio.to_thread(self._keep, space, key, blob, report)

    def _keep(self, space: layers.Workspace, key: str, blob: Descriptor, report: Mapping[str, Any]) -> None:
        kept: tuple[str, ...] = ()
        if next(space.upper.iterdir(), None) is not None:  # an empty layer would only lengthen the stack
            self._store.keep_layer(space, key)
            kept = (key,)
        facts = {"digest": blob.digest, "size": str(report["bytes"]), **({"opaque": "1"} if report["opaque"] else {})}
        self._store.keep_record(key, layers.Record(key, blob.digest, kept, facts, made_at=time.time()))

    def _check(self, report: Mapping[str, Any], blob: Descriptor, diff_id: str) -> None:
        short = f"the layer {blob.digest[:19]}… of {self._found.name}"
        if report.get("kind") == "space":
            raise ImageBuildError(
                f"{short} does not fit on the disk that holds images: {report['error']}",
                hint="free some space, or set ALIGHT_HOME to a directory on a larger disk",
            )
        if report.get("kind") == "zstd":
            raise ImageBuildError(
                f"{short} is compressed with zstd, which this Python cannot read", hint="pip install backports.zstd"
            )
        if "error" in report:
            raise ImageBuildError(f"{short} cannot be unpacked: {report['error']}")
        if report["diff_id"] != diff_id:
            raise ImageBuildError(f"{short} holds something else than the image's configuration says")
        for what, count in report["left_out"].items():
            self._note(f"left out of {short}: {count} of the kind {what}")

    def _on_bytes(self, count: int) -> None:
        # From several threads: a number that is a little wrong for a moment does no harm.
        self._come += count
        now = time.monotonic()
        if now - self._said >= _SAY_EVERY and self._size:
            self._said = now
            self._note(f"{_size(self._come)} of {_size(self._size)} have come")


def _key(blob: str) -> str:
    """The name of a registry's layer in the store, whatever image it is of."""
    return digest.step_key(digest.ROOT, {"registry_layer": blob})


async def _threaded(transport: Transport, work: Callable[[], T]) -> T:
    """``work`` in a thread; cancelled, its connections are broken and it is waited for."""
    done = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        transport.close()
        with contextlib.suppress(Exception):
            await asyncio.shield(done)
        raise


async def _unpack(archive: Path, into: Path) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", _UNPACK, str(archive), str(into), str(RESERVE),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    try:
        report: dict[str, Any] = json.loads(out)
    except ValueError:
        said = err.decode("utf-8", "replace").strip().splitlines()
        report = {"kind": "bad", "error": f"it ended with {process.returncode}: {said[-1] if said else 'silently'}"}
    return report


def _unreachable(reference: Reference, passed: list[str], registries: Registries) -> ImageBuildError:
    return ImageBuildError(
        f"{reference} could not be fetched: no answer from {'; '.join(passed)}",
        hint=f"a mirror goes into {registries.file} ([[registry.mirror]]), a proxy into https_proxy of the machine "
        "that builds; or let another base stand in: --substitute-base",
    )


def _size(count: int) -> str:
    if count >= 1 << 30:
        return f"{count / (1 << 30):.1f} GiB"
    return f"{count / (1 << 20):.1f} MiB" if count >= 1 << 20 else f"{max(1, count >> 10)} KiB"
