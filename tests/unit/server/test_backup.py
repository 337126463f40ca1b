"""A backup of a server that works comes back as one: apps, secrets, large values; whole or not at all."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import hashlib
import io
import json
import os
import tarfile

import pytest

from alight.server import restoring
from alight.server.services import backup_folder
from alight.server.services.backup_folder import Folder
from alight.store.copying import newest_schema
from alight.wire import errors, ids
from alight.wire.backups import BackupMade, BackupMake, BackupManifest, BackupSaid
from alight.wire.codec import loads_head
from alight.wire.deploying import DeployBegin, DeployBegun, DeployDone, DeployPublish
from alight.wire.messages import BlobPut, FunctionFind, FunctionInfo
from alight.wire.spec import FunctionSpec
from alight.wire.stored import KeyRotated, SecretCreate, SecretInfo, SecretListed, VolumeEnsure, VolumeInfo

VALUE = "hunter2-backup-hunter2"


async def deployed(world, client, *specs):
    begun = await client.ask("deploy.begin", DeployBegin("shop"), DeployBegun)
    message = DeployPublish(begun.app_id, "shop", begun.version, functions=specs, deploy_id=ids.new_id("x"))
    return await client.ask("deploy.publish", message, DeployDone)


async def call(client, *args):
    found = await client.ask("function.find", FunctionFind("shop", "double"), FunctionInfo)
    return (await client.remote(found, *args))[1]


async def put(client, content, name):
    stream = await client.peer.open("blob.put", BlobPut(name), content, end=True)
    return (await stream.expect(BlobPut)).digest


async def back_up(client, path, **asked):
    stream = await client.peer.open("server.backup", BackupMake(str(path), **asked), end=True)
    said = [loads_head(BackupSaid if b'"doing"' in head[:12] else BackupMade, head) async for head, _ in stream]
    return said[-1]


def backed_up(world, tmp_path, meanwhile=None, after=None, **asked):
    """A server with a bit of everything, and its backup."""

    async def work(place):
        await place.serve(holder_grace=30)
        await place.node({"double": lambda x: 2 * x})
        client = await place.client()
        code = await put(client, b"pickled code", hashlib.sha256(b"pickled code").hexdigest())
        await deployed(place, client, FunctionSpec(name="double", definition="serialized", serialized=code))
        assert await call(client, 21) == 42
        await client.ask("secret.create", SecretCreate({"KEY": VALUE}, name="s"), SecretInfo)
        if meanwhile is not None:
            await meanwhile(place, client)
        made = await back_up(client, tmp_path / "backup", **asked)
        if after is not None:
            await after()
        return made

    return world(work)


def restored(tmp_path, work, key=None, **wishes):
    """Restore into a new directory, start a server on it, and run ``work(place, client)``."""
    from tests.unit.server.conftest import World

    home = tmp_path / "again"
    said = restoring.restore(tmp_path / "backup", home, key, **wishes)

    async def main():
        place = World(home)
        try:
            await place.serve(holder_grace=30)
            await place.node({"double": lambda x: 2 * x})
            return await work(place, await place.client())
        finally:
            await place.close()

    asyncio.run(main())
    return said


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_restored_server_serves_what_was_deployed_and_has_its_secrets(world, tmp_path):
    async def meanwhile(place, client):
        await client.ask("volume.ensure", VolumeEnsure("weights", create=True), VolumeInfo)

    made = backed_up(world, tmp_path, meanwhile, with_key=True)
    assert (made.secrets, made.unkeyed) == (1, 0)
    assert not (tmp_path / ".backup.partial").exists()
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700

    async def work(place, client):
        assert await call(client, 4) == 8
        assert [one.name for one in (await client.ask("secret.list", {}, SecretListed)).secrets] == ["s"]
        found = await place.server.parts.store.one("secret_by_name", environment="main", name="s")
        assert await place.server.parts.secrets.values([found["secret_id"]], "", "main", 1.0) == {"KEY": VALUE}
        code = hashlib.sha256(b"pickled code").hexdigest()
        assert place.server.parts.blobs.path(code).read_bytes() == b"pickled code"
        assert place.server.parts.containers.alive.keys() == {one for node in place.nodes for one in node.containers}, (
            "containers of the other machine are still thought to be there"
        )

    said = restored(tmp_path, work)
    assert "Restored the server of" in said[0]
    assert said[1:] == ["The files of these volumes are not in the backup, so they are empty: weights"]


def test_without_the_key_values_are_nowhere_and_the_key_can_be_brought(world, tmp_path):
    made = backed_up(world, tmp_path)
    assert made.unkeyed == 1
    assert made.key_file.endswith("server/key")
    backup = tmp_path / "backup"
    key = (tmp_path / "home/server/key").read_bytes()
    for path in backup.rglob("*"):
        if path.is_file():
            assert VALUE.encode() not in path.read_bytes()
            assert key not in path.read_bytes()
    assert not names(backup) & {"key", "cert.key"}

    async def work(place, client):
        found = await place.server.parts.store.one("secret_by_name", environment="main", name="s")
        assert await place.server.parts.secrets.values([found["secret_id"]], "", "main", 1.0) == {"KEY": VALUE}

    with pytest.raises(errors.InvalidError, match=r"1 secrets .* no key in it: s"):
        restoring.restore(backup, tmp_path / "again", None)
    (tmp_path / "other").write_bytes(os.urandom(32))
    with pytest.raises(errors.InvalidError, match="another one: s"):
        restoring.restore(backup, tmp_path / "again", tmp_path / "other")
    (tmp_path / "other").write_bytes(b"no key")
    with pytest.raises(errors.InvalidError, match="other is no key: it has 6 bytes and not 32"):
        restoring.restore(backup, tmp_path / "again", tmp_path / "other")
    assert not names(tmp_path / "again")
    restored(tmp_path, work, key=tmp_path / "home/server/key")


def test_without_secrets_it_goes_on_and_names_them(world, tmp_path):
    backed_up(world, tmp_path)

    async def work(place, client):
        assert await call(client, 4) == 8
        again = SecretCreate({"KEY": "new"}, name="s", overwrite=True)
        await client.ask("secret.create", again, SecretInfo)

    said = restored(tmp_path, work, lossy=True)
    assert "These secrets have no values: s." in said[1]


def test_large_values_come_along_though_they_are_let_go_meanwhile(world, tmp_path, monkeypatch):
    kept = {}
    whole = Folder.copy

    async def meanwhile(place, client):
        blobs = place.server.parts.blobs
        kept["name"] = await put(client, b"v" * 1000, "")
        loop = asyncio.get_running_loop()

        def copy(self, source, name, **more):
            loop.call_soon_threadsafe(blobs.let_go, kept["name"])
            return whole(self, source, name, **more)

        monkeypatch.setattr(Folder, "copy", copy)

    backed_up(world, tmp_path, meanwhile)
    assert (tmp_path / "backup/blobs/given" / kept["name"]).read_bytes() == b"v" * 1000


def test_a_key_that_changes_meanwhile_does_not_part_from_what_it_sealed(world, tmp_path, monkeypatch):
    rotating = []
    whole = Folder.copy

    async def meanwhile(place, client):
        loop = asyncio.get_running_loop()

        def copy(self, source, name, **more):
            if not rotating:
                rotating.append(asyncio.run_coroutine_threadsafe(client.ask("secret.rotate", {}, KeyRotated), loop))
                with contextlib.suppress(concurrent.futures.TimeoutError):
                    rotating[0].result(0.3)  # it has to wait for us, and would be done by now if it did not
            return whole(self, source, name, **more)

        monkeypatch.setattr(Folder, "copy", copy)

    async def after():
        assert (await asyncio.wrap_future(rotating[0])).secrets == 1

    backed_up(world, tmp_path, meanwhile, after, with_key=True)

    async def work(place, client):
        assert await place.server.parts.secrets.unreadable() == ()

    restored(tmp_path, work)


@pytest.mark.parametrize("at", ["file", "manifest", "volume"])
def test_a_backup_that_fails_leaves_nothing(world, tmp_path, monkeypatch, at):
    async def meanwhile(place, client):
        if at == "volume":  # the fake machine knows no volumes
            await client.ask("volume.ensure", VolumeEnsure("v", create=True), VolumeInfo)
        else:
            full = OSError(28, "No space left on device")

            def fail(*_args, **_more):
                raise full

            monkeypatch.setattr(backup_folder.os, "fsync", fail)

    asked = {"volumes": ("v",)} if at == "volume" else {}
    with pytest.raises(errors.Error, match="full" if at != "volume" else "."):
        backed_up(world, tmp_path, meanwhile, **asked)
    assert not (tmp_path / "backup").exists()
    assert not (tmp_path / ".backup.partial").exists()


def test_what_a_killed_server_left_is_replaced_and_an_empty_directory_taken(world, tmp_path):
    (tmp_path / "backup").mkdir()
    (tmp_path / ".backup.partial").mkdir()
    (tmp_path / ".backup.partial/alight.db").write_text("half")
    made = backed_up(world, tmp_path)
    assert made.files == len(names(tmp_path / "backup")) - 1


@pytest.mark.parametrize(
    ("path", "volumes", "error", "said"),
    [
        ("{0}/full", (), errors.AlreadyExistsError, "exists already"),
        ("relative", (), errors.InvalidError, "absolute"),
        ("{0}/home/server/x", (), errors.InvalidError, "lies in the state directory"),
        ("{0}/backup", ("none",), errors.NotFoundError, "no volume 'none'"),
        ("{0}/file/x", (), errors.Error, "cannot be written"),
    ],
)
def test_places_and_volumes_that_cannot_be_are_refused(world, tmp_path, path, volumes, error, said):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("precious")
    (tmp_path / "file").write_text("precious")

    async def work(place):
        await place.serve(holder_grace=30)
        with pytest.raises(error, match=said):
            await back_up(await place.client(), path.format(tmp_path), volumes=volumes)

    world(work)
    assert (tmp_path / "full/x").read_text() == "precious"


def damaged(folder, how):
    manifest = folder / "manifest.json"
    plain = json.loads(manifest.read_text())
    if how == "flipped":
        path = folder / "alight.db"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        return "alight.db is not what was written"
    if how == "missing":
        (folder / "alight.db").unlink()
        return "not whole: .*alight.db"
    if how == "link":
        (folder / "alight.db").rename(folder.parent / "elsewhere.db")
        (folder / "alight.db").symlink_to(folder.parent / "elsewhere.db")
        return "alight.db cannot be read"
    if how == "text":
        manifest.write_text(manifest.read_text()[:-20])
        return "manifest.json is damaged"
    if how == "format":
        manifest.write_text(json.dumps({**plain, "format": 2}))
        return "does not know"
    if how == "schema":
        manifest.write_text(json.dumps({**plain, "schema": newest_schema() + 1}))
        return "too new"
    if how == "volume":
        volume = {"volume_id": "../x", "name": "x", "environment": "main", "file": "alight.db"}
        manifest.write_text(json.dumps({**plain, "volumes": [volume]}))
        return "it names '../x'"
    if how == "outside":
        plain["files"][0]["path"] = "../../etc/x"
        manifest.write_text(json.dumps(plain))
        return "it names '../../etc/x'"
    manifest.unlink()
    return "is no backup"


@pytest.mark.parametrize("how", ["flipped", "missing", "link", "text", "format", "schema", "outside", "volume", "none"])
def test_a_damaged_backup_is_refused_and_leaves_nothing(world, tmp_path, how):
    backed_up(world, tmp_path, with_key=True)
    said = damaged(tmp_path / "backup", how)
    with pytest.raises((errors.DataLossError, errors.NotFoundError, errors.VersionError), match=said):
        restoring.restore(tmp_path / "backup", tmp_path / "again", None)
    assert not (tmp_path / "again/server").exists()
    assert not names(tmp_path / "again") if (tmp_path / "again").exists() else True


def test_state_that_is_there_is_not_touched(world, tmp_path):
    backed_up(world, tmp_path, with_key=True)
    for place in ("server/alight.db", "server/key"):
        home = tmp_path / place.partition("/")[2] / "home"
        (home / place).parent.mkdir(parents=True)
        (home / place).write_text("precious")
        with pytest.raises(errors.AlreadyExistsError, match="has state already"):
            restoring.restore(tmp_path / "backup", home, None)
        assert names(home) == {place}


def test_volumes_that_a_killed_restore_had_put_in_place_are_replaced(world, tmp_path, monkeypatch):
    backed_up(world, tmp_path, with_key=True)
    home, name = tmp_path / "again", ids.new_id(ids.VOLUME)
    (home / "node/volumes" / name).mkdir(parents=True)
    (home / "node/volumes/vo-mine").mkdir()
    (home / ".restoring").write_text(json.dumps([name, "../../precious"]))
    (home / "node/precious").mkdir()
    restored(tmp_path, lambda place, client: asyncio.sleep(0))
    assert sorted(path.name for path in (home / "node/volumes").iterdir()) == ["vo-mine"]
    assert (home / "node/precious").is_dir()
    assert not (home / ".restoring").exists()


def with_volumes(tmp_path, world, monkeypatch):
    """A backup of two volumes that had limits, one of them with its files; the root that ALIGHT_VOLUMES names."""
    made = {}

    async def volumes(place, client):
        for name in ("packed", "bare"):
            made[name] = (await client.ask("volume.ensure", VolumeEnsure(name, create=True), VolumeInfo)).volume_id
            limited = {"volume_id": made[name], "size": 1 << 30}
            await place.server.parts.store.write([("volume_limit", limited)])

    backed_up(world, tmp_path, volumes, with_key=True)
    content = archive((member("note"), b"kept"))
    (tmp_path / "backup/volumes").mkdir(exist_ok=True)
    (tmp_path / "backup/volumes/one.tar").write_bytes(content)
    manifest = json.loads((tmp_path / "backup/manifest.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"].append({"path": "volumes/one.tar", "size": len(content), "sha256": digest})
    one = {"volume_id": made["packed"], "name": "packed", "environment": "main", "file": "volumes/one.tar"}
    manifest["volumes"] = [one]
    (tmp_path / "backup/manifest.json").write_text(json.dumps(manifest))
    root = tmp_path / "elsewhere"
    monkeypatch.setenv("ALIGHT_VOLUMES", str(root))
    return root, made


def test_volumes_come_back_where_the_node_has_them_and_without_a_limit_that_nobody_keeps(world, tmp_path, monkeypatch):
    root, made = with_volumes(tmp_path, world, monkeypatch)
    root.mkdir()
    (root / ".gone").mkdir()
    (root / ".gone" / made["packed"]).touch()
    (root / ".limits").mkdir()
    (root / ".limits" / made["bare"]).write_text("{}")  # this one is there still, with its limit
    (root / made["bare"]).mkdir()

    async def limits(place, client):
        rows = await place.server.parts.store.read("volumes_all")
        assert {row["name"]: row["size_limit"] for row in rows} == {"packed": 0, "bare": 1 << 30}

    said = restored(tmp_path, limits)
    assert (root / made["packed"] / "data/note").read_text() == "kept"
    assert not (root / ".gone" / made["packed"]).exists(), "the node would refuse it as one that was deleted"
    assert not (tmp_path / "again/node/volumes").exists()
    assert f"The volumes lie in {root}" in said[1]
    assert "had a size limit and have none now: packed." in said[2]
    assert len(said) == 3, "nothing is empty"


@pytest.mark.parametrize("left", ["{}/data/file", ".limits/{}", ".images/{}.ext4"])
def test_what_a_node_knows_of_these_volumes_is_not_mixed_with_the_backups(world, tmp_path, monkeypatch, left):
    root, made = with_volumes(tmp_path, world, monkeypatch)
    place = root / left.format(made["packed"])
    place.parent.mkdir(parents=True)
    place.write_text("of another life")
    with pytest.raises(errors.AlreadyExistsError, match="has state already"):
        restoring.restore(tmp_path / "backup", tmp_path / "again", None)
    assert names(root) == {left.format(made["packed"])}
    assert not (tmp_path / "again/server").exists()


def test_a_volumes_directory_that_cannot_be_is_refused(world, tmp_path, monkeypatch):
    with_volumes(tmp_path, world, monkeypatch)
    for chosen, said in (("volumes", "is no absolute path"), (str(tmp_path / "no/such/place"), "cannot be used")):
        monkeypatch.setenv("ALIGHT_VOLUMES", chosen)
        with pytest.raises(errors.InvalidError, match=said):
            restoring.restore(tmp_path / "backup", tmp_path / "again", None)


def archive(*members):
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return into.getvalue()


def member(name, kind=tarfile.REGTYPE, link=""):
    one = tarfile.TarInfo(name)
    one.type, one.linkname, one.mode, one.uid, one.gid = kind, link, 0o4640, os.getuid(), os.getgid()
    return one


def test_an_archive_that_would_write_elsewhere_is_refused(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    through = [(member("a", tarfile.SYMTYPE, str(outside)), b""), (member("a/x"), b"x")]
    for members in ([(member("../x"), b"x")], through, [(member("pipe", tarfile.FIFOTYPE), b"")]):
        (tmp_path / "v.tar").write_bytes(archive(*members))
        into = tmp_path / f"into-{members[0][0].name.strip('./')}"
        with pytest.raises(errors.DataLossError):
            restoring._unpack(tmp_path / "v.tar", into)
        assert not names(outside)
        assert not (tmp_path / "x").exists()
    (tmp_path / "v.tar").write_bytes(archive((member("l", tarfile.SYMTYPE, "/etc/passwd"), b""), (member("f"), b"x")))
    restoring._unpack(tmp_path / "v.tar", tmp_path / "fine")
    assert os.readlink(tmp_path / "fine/l") == "/etc/passwd"
    assert (tmp_path / "fine/f").stat().st_mode & 0o7777 == 0o4640


def test_a_manifest_says_what_is_in_it(world, tmp_path):
    backed_up(world, tmp_path)
    manifest = backup_folder.read_manifest(tmp_path / "backup")
    assert isinstance(manifest, BackupManifest)
    assert {one.path for one in manifest.files} == names(tmp_path / "backup") - {"manifest.json"}
    assert manifest.schema == newest_schema()
    assert list(manifest.secrets.values()) == [1]
