"""Volumes and secrets: what is asked of the server, and which errors scripts meet."""

from __future__ import annotations

import io

import pytest

import alight
from alight.wire import errors, stored
from alight.wire.errors import AlreadyExistsError, InvalidError, NotFoundError
from alight.wire.transfers import Begun, Failed, Fetched

VOLUME = stored.VolumeInfo("vo-1", "v", "main", 100.0)


@pytest.fixture
def volume(far, client):
    far.answers["volume.ensure"] = lambda asked: asked.answer(VOLUME)
    return alight.Volume.from_name("v", create_if_missing=True, client=client)


def test_a_volume_is_looked_up_at_its_first_use_and_once(far, volume):
    assert far.asked == []
    volume.hydrate()
    volume.hydrate()
    assert volume.object_id == "vo-1"
    assert len(far.of("volume.ensure")) == 1
    assert far.asked[0].args["create"] is True


def test_a_volume_that_is_not_there_says_how_to_make_it(far, client):
    far.answers["volume.ensure"] = lambda asked: asked.fail(NotFoundError("there is no volume 'v'"))
    with pytest.raises(NotFoundError) as caught:
        alight.Volume.from_name("v", client=client).hydrate()
    assert "alight volume create v" in caught.value.hint


def test_files_are_listed_read_and_removed(far, volume):
    files = stored.VolumeFiles((stored.VolumeFile("a.txt", "file", 3, 5.0), stored.VolumeFile("d", "directory")))
    far.answers["volume.files"] = lambda asked: asked.answer(files)
    far.at_end["volume.fetch"] = lambda asked: (
        asked.say(Fetched(begun=(Begun(0, 3),), parts=((0, 2),)), b"ab"),
        asked.answer(Fetched(parts=((0, 1),), ended=(0,)), b"c"),
    )
    far.answers["volume.remove"] = lambda asked: asked.answer()
    listed = volume.listdir("/")
    assert [(entry.path, entry.type.name, entry.size, entry.mtime) for entry in listed] == [
        ("a.txt", "FILE", 3, 5), ("d", "DIRECTORY", 0, 0),
    ]  # fmt: skip
    assert [entry.path for entry in volume.iterdir("/")] == ["a.txt", "d"]
    assert b"".join(volume.read_file("a.txt")) == b"abc"
    into = io.BytesIO()
    assert volume.read_file_into_fileobj("a.txt", into) == 3
    volume.remove_file("d", recursive=True)
    assert far.of("volume.remove")[0].args["recursive"] is True


def test_missing_files_are_the_builtin_errors(far, volume):
    for method in ("volume.files", "volume.remove"):
        far.answers[method] = lambda asked: asked.fail(NotFoundError("no such file"))
    far.at_end["volume.fetch"] = lambda asked: asked.answer(Fetched(failed=(Failed(0, "no such file", True),)))
    with pytest.raises(FileNotFoundError):
        volume.listdir("/nope")
    with pytest.raises(FileNotFoundError):
        list(volume.read_file("nope"))
    with pytest.raises(FileNotFoundError):
        volume.remove_file("nope")


def test_nothing_is_uploaded_from_a_block_that_fails(far, volume, tmp_path):
    with pytest.raises(KeyError), volume.batch_upload() as batch:  # noqa: PT012  the block is what is tested
        batch.put_file(io.BytesIO(b"x"), "/never")
        raise KeyError
    with volume.batch_upload() as batch:
        with pytest.raises(InvalidError, match="names a directory"):
            batch.put_file(io.BytesIO(b"x"), "/d/")
        with pytest.raises(FileNotFoundError):
            batch.put_file(tmp_path / "nope", "/x")
    assert far.of("volume.upload") == []


def test_an_existing_file_is_the_builtin_error(far, volume):
    far.answers["volume.upload"] = lambda asked: asked.fail(AlreadyExistsError("it exists"))
    with pytest.raises(FileExistsError), volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(b"x"), "/a")


def test_commit_and_reload_are_for_containers(far, volume, monkeypatch):
    with pytest.raises(errors.ExecutionError, match="inside containers"):
        volume.commit()
    monkeypatch.setenv("ALIGHT_IS_REMOTE", "1")
    far.answers["volume.commit"] = lambda asked: asked.answer(VOLUME)
    volume.commit()
    assert far.of("volume.commit")[0].args["volume_id"] == "vo-1"


def test_mount_options_make_a_handle_of_their_own(volume):
    derived = volume.with_mount_options(read_only=True, sub_path="/a/b/")
    assert (derived.mount_read_only, derived.mount_sub_path) == (True, "a/b")
    assert (volume.mount_read_only, volume.mount_sub_path) == (False, None)
    with pytest.raises(InvalidError):
        volume.with_mount_options(sub_path="../x")


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "ap-0000000000000000000000", 3])
def test_names_follow_the_rule(name):
    for kind in (alight.Volume, alight.Secret):
        with pytest.raises(InvalidError):
            kind.from_name(name)


def test_managers_create_list_and_delete(far, client):
    far.answers["volume.list"] = lambda asked: asked.answer(stored.VolumeListed((VOLUME,)))
    far.answers["volume.ensure"] = lambda asked: asked.answer(VOLUME)
    far.answers["volume.delete"] = far.answers["volume.rename"] = lambda asked: asked.answer()
    far.answers["secret.create"] = lambda asked: asked.fail(AlreadyExistsError("there is one"))
    alight.Volume.objects.create("v", client=client)
    assert far.of("volume.ensure")[0].args["exclusive"] is True
    assert [one.object_id for one in alight.Volume.objects.list(client=client)] == ["vo-1"]
    assert alight.Volume.objects.list(created_before="1970-01-01T00:01:00+00:00", client=client) == []
    alight.Volume.objects.delete("v", allow_missing=True, client=client)
    alight.Volume.rename("v", "w", client=client)
    alight.Secret.objects.create("s", {"A": "b"}, allow_existing=True, client=client)
    with pytest.raises(AlreadyExistsError):
        alight.Secret.objects.create("s", {"A": "b"}, client=client)


# secrets


def test_values_are_text_and_none_is_left_out():
    assert alight.Secret.from_dict({"A": "1", "B": None})._values == {"A": "1"}
    for wrong in ({"A": 1}, {1: "a"}, {"A=B": "c"}, {"A": "x" * 40_000}, {"A": "\0"}, ["A"]):
        with pytest.raises(InvalidError):
            alight.Secret.from_dict(wrong)


@pytest.mark.parametrize(
    "value", ["two\nlines\n", 'it\'s "quoted"', "", " spaces ", "-----BEGIN\\n", "é\u4e2d", "$A ${B}"]
)
def test_values_stay_as_they_are(value):
    assert alight.Secret.from_dict({"A": value})._values == {"A": value}


def test_values_have_limits_that_every_process_can_hold():
    assert alight.Secret.from_dict({"A": "x" * 32_768})
    with pytest.raises(InvalidError, match="too long"):
        alight.Secret.from_dict({"A": "x" * 32_769})
    with pytest.raises(InvalidError, match="131,000"):
        alight.Secret.from_dict({"\U00010000" * 10: "\U00010000" * 32_768})
    with pytest.raises(InvalidError, match="not text"):
        alight.Secret.from_dict({"A": "\udcff"})
    with pytest.raises(InvalidError, match=r"takes a list of names: \['HOME'\]"):
        alight.Secret.from_local_environ("HOME")


def test_values_never_show():
    secret = alight.Secret.from_dict({"KEY": "hidden-value"})
    assert "hidden" not in repr(secret)


def test_local_variables_must_be_set(monkeypatch):
    monkeypatch.setenv("HERE", "1")
    monkeypatch.delenv("ABSENT", raising=False)
    assert alight.Secret.from_local_environ(["HERE"])._values == {"HERE": "1"}
    with pytest.raises(InvalidError, match="ABSENT"):
        alight.Secret.from_local_environ(["HERE", "ABSENT"])
    monkeypatch.setenv("ALIGHT_IS_REMOTE", "1")
    assert alight.Secret.from_local_environ(["ABSENT"])._values == {}


def test_dotenv_is_searched_upwards(tmp_path, monkeypatch):
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / ".env").write_text("A=1\n")
    monkeypatch.chdir(deep)
    assert alight.Secret.from_dotenv()._values == {"A": "1"}
    assert alight.Secret.from_dotenv(tmp_path / "a" / "script.py")._values == {"A": "1"}
    with pytest.raises(InvalidError, match=r"no \.nope"):
        alight.Secret.from_dotenv(filename=".nope")


def test_a_bad_line_of_a_dotenv_file_is_named_and_not_shown(tmp_path):
    (tmp_path / ".env").write_text("A=1\n\nhunter2 is no line\n")
    with pytest.raises(InvalidError, match=r"line 3 of .*/\.env cannot be read") as caught:
        alight.Secret.from_dotenv(tmp_path)
    assert "hunter2" not in str(caught.value)
    (tmp_path / ".env").write_bytes(b"A=\xff\n")
    with pytest.raises(InvalidError, match="not UTF-8"):
        alight.Secret.from_dotenv(tmp_path)


def test_a_secret_that_lacks_keys_is_the_servers_word(far, client):
    far.answers["secret.lookup"] = lambda asked: asked.fail(InvalidError("the secret 's' lacks B"))
    with pytest.raises(InvalidError, match="lacks B"):
        alight.Secret.from_name("s", required_keys=["A", "B"], client=client).hydrate()
    assert far.of("secret.lookup")[0].args["required_keys"] == ["A", "B"]
