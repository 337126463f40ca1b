"""Blobs go when nobody needs them and nobody has asked for them in a while; never one of a living app or a call."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time

import pytest

from alight.server.services.blob_users import BlobUsers, digests_in
from alight.server.services.blobs import Blobs
from alight.server.settings import Settings
from alight.store.sqlite import open_store
from alight.wire import chunk
from alight.wire.codec import to_plain
from alight.wire.spec import FileEntry, FilesAt, FunctionSpec, ImageSpec, encode_tree

NOW = time.time()
LONG_AGO = NOW - 40 * 86400


def digest_of(content):
    return hashlib.sha256(content).hexdigest()


class World:
    def __init__(self, folder, store):
        self.store = store
        self.blobs = Blobs(folder / "blobs")
        self.blobs.open()
        self.users = BlobUsers(store, self.blobs, Settings(folder))

    async def put(self, content, at=LONG_AGO, *, given=False):
        async def pieces():
            yield b"", content

        name, _ = await self.blobs.put(pieces(), "" if given else digest_of(content))
        os.utime(self.blobs.path(name), (at, at))
        return name

    async def tree(self, *contents):
        entries = [FileEntry(f"f{number}", digest=digest_of(content)) for number, content in enumerate(contents)]
        return await self.put(encode_tree(entries))

    def spec(self, **more):
        return json.dumps(to_plain(FunctionSpec("f", **more)))

    async def app(self, app_id, spec, state="deployed"):
        function = {"function_id": f"fu-{app_id}", "app_id": app_id, "name": "f", "spec": spec, "version": 1}
        await self.store.write(
            [
                ("app_add", {"app_id": app_id, "name": "", "description": "", "environment": "main", "state": state,
                             "owner": "me", "tags": "{}", "now": LONG_AGO}),
                ("function_put", {**function, "now": LONG_AGO, "gone": ""}),
            ]
        )  # fmt: skip

    def there(self, *names):
        return [self.blobs.path(name).exists() for name in names]

    async def sweep(self, now=NOW):
        self.users._next = 0.0
        await self.users.sweep(now)


@pytest.fixture
def world(tmp_path):
    def run(body):
        async def main():
            store = await open_store(tmp_path / "alight.db")
            try:
                await body(World(tmp_path, store))
            finally:
                await store.close()

        asyncio.run(main())

    return run


def test_what_living_apps_are_made_of_stays_and_the_rest_goes(world):
    async def body(it):
        used = [await it.put(content) for content in (b"file one", b"file two", b"copied into the image", b"pickled")]
        tree, copied = await it.tree(b"file one", b"file two"), await it.tree(b"copied into the image")
        image = ImageSpec(({"op": "copy", "tree": copied, "to": "/x"},))
        await it.app("ap-1", it.spec(files=(FilesAt(tree, "/root"),), serialized=used[3], image=image))
        left = [await it.put(b"of a stopped app"), await it.put(b"of nobody")]
        await it.app("ap-2", it.spec(serialized=left[0]), state="stopped")
        await it.sweep()
        assert it.there(*used, tree, copied) == [True] * 6
        assert it.there(*left) == [False] * 2

    world(body)


def test_versions_to_go_back_to_and_images_in_use_keep_their_files(world):
    async def body(it):
        names = [await it.put(content) for content in (b"v1", b"named", b"used lately", b"used long ago")]
        await it.app("ap-1", it.spec())
        version = {
            "app_id": "ap-1",
            "version": 1,
            "specs": f"[{it.spec(serialized=names[0])}]",
            "tags": "{}",
            "now": NOW,
        }
        unsaid = dict.fromkeys(("deploy_id", "who", "tag", "git_commit", "client", "strategy"), "")
        await it.store.write([("deployment_add", {**version, **unsaid, "dirty": 0, "origin": 0, "staged": 0})])
        for number, (name, used_at) in enumerate([(names[1], LONG_AGO), (names[2], NOW), (names[3], LONG_AGO)]):
            row = {"image_id": f"im-{number}", "digest": str(number), "python_version": "", "spec": f'["{name}"]'}
            await it.store.write([("image_add", {**row, "now": used_at})])
        named = {"environment": "main", "name": "n", "tag": "latest", "image_id": "im-0", "now": LONG_AGO}
        await it.store.write([("image_name_put", named)])
        await it.sweep()
        assert it.there(*names) == [True, True, True, False]

    world(body)


def test_what_was_asked_for_lately_stays_until_its_publisher_has_spoken(world):
    async def body(it):
        young, asked = await it.put(b"young", NOW - 86400), await it.put(b"asked")
        assert it.blobs.missing([asked, digest_of(b"none")]) == (digest_of(b"none"),)
        await it.sweep()
        assert it.there(young, asked) == [True, True]
        await it.sweep(NOW + 8 * 86400)
        assert it.there(young, asked) == [False, False]

    world(body)


def test_values_of_calls_stay_and_those_of_nobody_go_after_a_day(world):
    async def body(it):
        argument, result, nobodys, claimed = [await it.put(b"v", given=True) for _ in range(4)]
        young = await it.put(b"v", NOW - 3600, given=True)
        body = {name: f"{name}:1".encode() for name in (argument, result)}
        assert chunk.read_reference(body[argument]) == (argument, 1)
        inputs = {"start": 0, "count": 1, "sizes": None}
        output = {
            "number": 1,
            "call_id": "fc-1",
            "start": 0,
            "count": 1,
            "kind": 0,
            "first": 0,
            "head": b"",
            "now": NOW,
        }
        await it.store.write(
            [
                ("chunk_add", {**inputs, "call_id": "fc-1", "flags": 1, "body": body[argument]}),
                ("chunk_add", {**inputs, "call_id": "fc-2", "flags": 0, "body": b"no reference"}),
                ("output_add", {**output, "flags": 5, "body": body[result]}),
            ]
        )

        async def others():
            return [claimed]

        it.users.claimed.append(others)
        await it.sweep()
        assert it.there(argument, result, claimed, young, nobodys) == [True, True, True, True, False]

    world(body)


def test_what_was_left_half_way_goes_while_the_server_runs(world):
    async def body(it):
        for name, at in (("a" * 32, LONG_AGO), ("b" * 32, NOW)):
            (it.blobs.incoming / name).write_bytes(b"half")
            os.utime(it.blobs.incoming / name, (at, at))
        await it.sweep()
        assert [one.name for one in it.blobs.incoming.iterdir()] == ["b" * 32]

    world(body)


def test_nothing_is_deleted_while_somebody_copies(world):
    async def body(it):
        old, given = await it.put(b"old"), await it.put(b"given", given=True)
        with it.blobs.held():
            await it.sweep()
            it.blobs.let_go(given)
            await asyncio.sleep(0.05)
            assert it.there(old, given) == [True, True]
        await it.sweep()
        assert it.there(old) == [False]
        while it.there(given) != [False]:  # noqa: ASYNC110  a thread deletes it
            await asyncio.sleep(0.01)

    world(body)


def test_digests_are_found_wherever_they_stand():
    digest = digest_of(b"x")
    assert digests_in(json.dumps({"a": [{"b": digest}], digest[:10]: f"not {digest}"})) == {digest}
