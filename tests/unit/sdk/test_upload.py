"""Files on their way to the server: small ones together, or one by one; never other bytes than they were named for."""

from __future__ import annotations

import json

import pytest

from alight.sdk.sync import run
from alight.sdk.upload import Upload
from alight.wire import errors
from alight.wire.messages import BlobMissing
from alight.wire.packs import BlobPack, contents
from alight.wire.spec import digest_of


@pytest.fixture
def kept(far):
    """What the server's end was sent, by digest; it lacks everything."""
    found = {}

    def take(asked, head, body):
        found.update({name: bytes(data) for name, data in contents(BlobPack(**json.loads(head)), body)})

    def end_of_one(asked):
        found[asked.args["digest"]] = b"".join(asked.pieces)
        asked.answer({})

    far.answers["blob.missing"] = lambda asked: asked.answer(BlobMissing(tuple(asked.args["digests"])))
    far.answers["blob.put_many"] = lambda asked: None
    far.answers["blob.put"] = lambda asked: None
    far.at_data["blob.put_many"] = take
    far.at_end["blob.put_many"] = lambda asked: asked.answer({})
    far.at_end["blob.put"] = end_of_one
    return found


def of_files(folder, count):
    made = {}
    for number in range(count):
        path = folder / f"{number}.py"
        path.write_bytes(b"x" * number)
        made[digest_of(path.read_bytes())] = str(path)
    return made


def sent(far):
    return [one.method for one in far.asked if one.method.startswith("blob.put")]


def test_small_files_go_together_and_large_ones_by_themselves(far, client, kept, tmp_path):
    files = of_files(tmp_path, 50)
    large = b"l" * (100 << 10)
    total = run(Upload(client, {**files, digest_of(large): large}).run())
    assert sent(far) == ["blob.put_many", "blob.put"]
    assert kept == {digest_of(data): data for data in [b"x" * n for n in range(50)] + [large]}
    assert total == sum(range(50)) + len(large)


def test_an_older_server_gets_them_one_by_one(far, client, kept, tmp_path):
    far.answers["blob.put_many"] = lambda asked: asked.fail(errors.UnimplementedError("it has no such method"))
    far.at_end["blob.put_many"] = lambda asked: None
    files = of_files(tmp_path, 3)
    run(Upload(client, files).run())
    assert sent(far) == ["blob.put_many", *["blob.put"] * 3]
    assert set(kept) == set(files)


def test_a_file_that_changed_meanwhile_is_named_and_not_sent(client, kept, tmp_path):
    files = of_files(tmp_path, 3)
    (tmp_path / "1.py").write_text("other")
    with pytest.raises(errors.InvalidError, match=r"1\.py changed while it was being uploaded"):
        run(Upload(client, files).run())
    assert b"other" not in kept.values()


def test_a_file_that_is_gone_is_named(client, kept, tmp_path):
    files = of_files(tmp_path, 3)
    (tmp_path / "2.py").unlink()
    with pytest.raises(errors.InvalidError, match=r"2\.py could not be read"):
        run(Upload(client, files).run())
