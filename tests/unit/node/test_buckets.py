"""Buckets: who is asked and how, what an answer means, what rclone is told, and what is not uploaded yet."""

from __future__ import annotations

import datetime
import json
import os
import socket
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alight.node import bucket_check, bucket_request, buckets, fusermount, held_buckets
from alight.node.bucket_uploads import Uploads, Waiting, open_files
from alight.node.buckets import Keys
from alight.wire import errors
from alight.wire.spec import BucketMount

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG"}
NOW = datetime.datetime(2026, 11, 21, 21, 0, 0, tzinfo=datetime.timezone.utc)


def mount(endpoint: str = "", **more) -> BucketMount:
    return BucketMount(**{"path": "/data", "bucket": "models", "endpoint": endpoint, **more})


def plan(one: BucketMount, secret=KEYS, **more):
    keys = buckets.keys_of(one, secret)
    return buckets.plan_of(0, one.path, one, keys, buckets.region_of(one, keys), on_this_machine=False, **more)


@pytest.mark.parametrize(
    ("endpoint", "provider"),
    [
        ("", "AWS"),
        ("https://s3.eu-west-1.amazonaws.com", "AWS"),
        ("https://abc.r2.cloudflarestorage.com", "Cloudflare"),
        ("https://storage.googleapis.com", "GCS"),
        ("https://account.blob.core.windows.net", "azureblob"),
        ("http://minio.lab:9000", "Other"),
        ("https://amazonaws.com.evil.example", "Other"),
        ("https://evilamazonaws.com", "Other"),
    ],
)
def test_who_answers_is_told_by_the_host(endpoint, provider):
    assert buckets.provider_of(endpoint) == provider


def test_keys_come_from_the_secret_by_the_names_of_each_service():
    assert buckets.keys_of(mount(), {**KEYS, "AWS_REGION": "eu-west-1", "AWS_SESSION_TOKEN": "t"}) == Keys(
        "AKIDEXAMPLE", KEYS["AWS_SECRET_ACCESS_KEY"], "t", "eu-west-1"
    )
    google = mount("https://storage.googleapis.com")
    assert buckets.keys_of(google, {"GOOGLE_ACCESS_KEY_ID": "g", "GOOGLE_ACCESS_KEY_SECRET": "s"}) == Keys("g", "s")
    azure = buckets.keys_of(mount("https://acct.blob.core.windows.net"), {"AZURE_STORAGE_KEY": "a2V5"})
    assert (azure.name, azure.secret, azure.hidden) == ("acct", "a2V5", ("a2V5",))
    assert buckets.keys_of(mount(), None) == Keys()


@pytest.mark.parametrize(
    ("endpoint", "secret", "lacks"),
    [
        ("", {"AWS_ACCESS_KEY_ID": "x", "FOO": "y"}, "AWS_SECRET_ACCESS_KEY"),
        ("http://h:1", {}, "AWS_ACCESS_KEY_ID"),
        ("https://storage.googleapis.com", {"FOO": "y"}, "GOOGLE_ACCESS_KEY_ID"),
        ("https://a.blob.core.windows.net", KEYS, "AZURE_STORAGE_KEY"),
    ],
)
def test_a_secret_without_its_keys_is_refused_by_their_names_and_never_by_their_values(endpoint, secret, lacks):
    with pytest.raises(errors.InvalidError, match=lacks) as caught:
        buckets.keys_of(mount(endpoint), secret)
    said = f"{caught.value} {caught.value.hint}"
    assert not any(value in said for value in KEYS.values())


def test_only_aws_is_asked_by_the_buckets_own_host():
    assert buckets.origin_of(mount(), "eu-west-1") == "https://models.s3.eu-west-1.amazonaws.com"
    assert buckets.origin_of(mount(force_path_style=True), "eu-west-1") == "https://s3.eu-west-1.amazonaws.com"
    assert buckets.origin_of(mount(bucket="a.b"), "eu-west-1") == "https://s3.eu-west-1.amazonaws.com"
    assert buckets.origin_of(mount("http://h:9000"), "us-east-1") == "http://h:9000"
    asked = bucket_request.question(mount("http://h:9000", key_prefix="a b/"), Keys(), "us-east-1", NOW)
    assert asked.target == "/models?list-type=2&max-keys=1&prefix=a%20b%2F"
    assert "authorization" not in asked.headers


def test_rclone_gets_the_keys_by_its_environment_alone():
    made = plan(mount("http://h:9000", key_prefix="x/", read_only=True, requester_pays=True))
    assert made.remote == "BUCKET:models/x"
    assert made.env["RCLONE_CONFIG_BUCKET_SECRET_ACCESS_KEY"] == KEYS["AWS_SECRET_ACCESS_KEY"]
    words = " ".join([*made.arguments, made.remote, made.words, repr(made)])
    assert not any(value in words for value in KEYS.values())
    assert set(made.hidden) == set(KEYS.values())
    assert "--read-only" in made.arguments
    assert made.env["RCLONE_CONFIG_BUCKET_REQUESTER_PAYS"] == "true"


def test_no_bucket_is_ever_made_and_the_machines_own_identity_is_never_used():
    for endpoint in ("", "http://h:9000", "https://storage.googleapis.com"):
        env = plan(mount(endpoint)).env
        assert env["RCLONE_CONFIG_BUCKET_NO_CHECK_BUCKET"] == "true"
        assert env["RCLONE_CONFIG_BUCKET_ENV_AUTH"] == "false"
    azure = buckets.keys_of(mount("https://a.blob.core.windows.net"), {"AZURE_STORAGE_KEY": "a2V5"})
    env = buckets.plan_of(0, "/b", mount("https://a.blob.core.windows.net"), azure, "", on_this_machine=False).env
    assert env["RCLONE_CONFIG_BUCKET_NO_CHECK_CONTAINER"] == "true"
    assert env["RCLONE_CONFIG_BUCKET_TYPE"] == "azureblob"


def answer(code: str, message: str = "no") -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "InvalidAccessKeyId", "the access key is not known"),
        (403, "SignatureDoesNotMatch", "the secret of the access key is wrong"),
        (403, "AccessDenied", "may not list it"),
        (403, "ExpiredToken", "not valid"),
        (403, "RequestTimeTooSkewed", "clocks"),
        (404, "NoSuchBucket", "there is no such bucket"),
        (301, "PermanentRedirect", "somewhere else"),
        (503, "SlowDown", "trouble of its own"),
        (400, "AuthorizationHeaderMalformed", "refuses"),
    ],
)
def test_each_refusal_names_bucket_endpoint_path_and_what_was_answered(status, code, said):
    keys = buckets.keys_of(mount("http://h:9000"), KEYS)
    wrong = bucket_request.complaint(mount("http://h:9000"), keys, status, answer(code))
    assert wrong is not None
    assert said in str(wrong)
    assert all(part in str(wrong) for part in ("models", "http://h:9000", "/data", str(status), code))
    assert wrong.hint


@given(st.sampled_from([200, 400, 403, 500]), st.binary(max_size=300))
def test_nothing_that_a_store_answers_brings_a_key_into_a_message(status, noise):
    keys = buckets.keys_of(mount("http://h:9000"), KEYS)
    body = noise + answer("X", f"key {KEYS['AWS_SECRET_ACCESS_KEY']} of {KEYS['AWS_ACCESS_KEY_ID']}\x1b[31m\nline")
    wrong = bucket_request.complaint(mount("http://h:9000"), keys, status, body)
    assert wrong is not None
    assert not any(value in str(wrong) for value in KEYS.values())
    assert str(wrong).isprintable()


def test_a_page_that_is_no_listing_is_not_taken_for_one():
    wrong = bucket_request.complaint(mount("http://h:9001"), Keys(), 200, b"<html>console</html>")
    assert "no object store" in str(wrong)
    listing = b'<?xml version="1.0"?><ListBucketResult xmlns="x"><Name>models</Name></ListBucketResult>'
    assert bucket_request.complaint(mount(), Keys(), 200, listing) is None


def test_a_bucket_elsewhere_is_asked_where_the_answer_says():
    assert bucket_request.region_in(301, {"X-Amz-Bucket-Region": "eu-west-1"}, "us-east-1") == "eu-west-1"
    assert bucket_request.region_in(301, {"X-Amz-Bucket-Region": "us-east-1"}, "us-east-1") == ""
    assert bucket_request.region_in(403, {"X-Amz-Bucket-Region": "eu-west-1"}, "us-east-1") == ""


def test_endpoints_on_this_machine_are_refused_unless_its_owner_names_them():
    for own in ("127.0.0.1", "127.9.9.9", "169.254.169.254", "0.0.0.0"):
        assert bucket_check.is_here(own)
    assert not bucket_check.is_here("203.0.113.9")
    one = mount("http://127.0.0.1:9")
    with pytest.raises(errors.InvalidError, match="the machine itself") as caught:
        bucket_check.check(one, Keys(), allowed=False)
    assert "ALIGHT_BUCKET_HOSTS=127.0.0.1:9" in str(caught.value.hint)
    with pytest.raises(errors.InvalidError, match="link of the machine") as caught:
        bucket_check.check(mount("http://169.254.169.254"), Keys(), allowed=True)
    assert caught.value.hint is None


def test_the_owner_names_hosts_or_ports():
    assert buckets.is_allowed("http://127.0.0.1:9000", "127.0.0.1:9000")
    assert buckets.is_allowed("http://Minio.lab:9000", " other, minio.LAB ")
    assert buckets.is_allowed("https://minio.lab", "minio.lab:443")
    assert not buckets.is_allowed("http://127.0.0.1:9001", "127.0.0.1:9000")
    assert not buckets.is_allowed("", "")


def test_an_endpoint_that_does_not_answer_is_said_within_the_time(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(errors.InvalidError, match="cannot be reached: Connection refused"):
        bucket_check.check(mount(f"http://127.0.0.1:{port}"), Keys(), allowed=True, patience=0.1)


def cached(folder, number: int, path: str, *, dirty: bool, size: int = 5) -> None:
    file = folder / "buckets" / str(number) / "vfsMeta" / "BUCKET{x}" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"Size": size, "Dirty": dirty}))


def test_what_is_not_uploaded_is_named_as_the_container_sees_it(tmp_path):
    found = (mount(path="/a", key_prefix="p/q/"), mount(path="/ro", read_only=True), mount(path="/b"))
    cached(tmp_path, 0, "models/p/q/sub/one.bin", dirty=True)
    cached(tmp_path, 0, "models/p/q/two.bin", dirty=False)
    cached(tmp_path, 1, "models/three", dirty=True)
    cached(tmp_path, 2, "models/four", dirty=True, size=7)
    uploads = Uploads(tmp_path, found)
    assert uploads.waiting() == [Waiting(0, "/a/sub/one.bin", 5), Waiting(2, "/b/four", 7)]
    cached(tmp_path, 0, "models/p/q/sub/one.bin", dirty=False, size=6)
    os.utime(tmp_path / "buckets/0/vfsMeta/BUCKET{x}/models/p/q/sub/one.bin", (9, 9))
    assert uploads.waiting() == [Waiting(2, "/b/four", 7)]
    (tmp_path / "buckets/2/vfsMeta/BUCKET{x}/models/four").write_text("{half")
    assert [one.path for one in uploads.waiting()] == ["/b/four"]


def test_lost_files_are_said_by_name_and_how_many_there_are():
    left = [Waiting(0, f"/data/f{n:02}", 2_000_000_000) for n in range(12)]
    (line,) = held_buckets.lost_words(left, (mount("http://h:9000"),), 600)
    for part in ("NOT UPLOADED", "12 files (24.0 GB)", "/data/f00 (2.0 GB)", "2 more"):
        assert part in line
    assert "the bucket models at http://h:9000" in line


def test_files_that_are_open_are_seen(tmp_path):
    with (tmp_path / "open").open("w") as file:
        assert file.name in open_files([os.getpid(), 2**22 - 1])
    assert str(tmp_path / "open") not in open_files([os.getpid()])


def test_how_long_uploads_are_waited_for_can_be_set():
    assert held_buckets.patience({}) == 600
    assert held_buckets.patience({"ALIGHT_BUCKET_UPLOAD": "5"}) == 5
    assert held_buckets.patience({"ALIGHT_BUCKET_UPLOAD": "soon"}) == 600


def test_our_fusermount_hands_the_descriptor_over(tmp_path):
    program = tmp_path / "fusermount3"
    program.write_bytes(fusermount.program(os.uname().machine))
    program.chmod(0o755)
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    script = f"exec 3<&{theirs.fileno()} {fusermount.GIVEN}<&{read}; exec {program} -o x -- /nowhere"
    done = subprocess.run(
        ["bash", "-c", script], pass_fds=[theirs.fileno(), read], timeout=10, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    _, descriptors, _, _ = socket.recv_fds(ours, 32, 4)
    os.write(write, b"through")
    assert os.read(descriptors[0], 16) == b"through"
    for one in (*descriptors, read, write):
        os.close(one)
    ours.close()
    theirs.close()


def test_our_fusermount_is_one_program_on_both_architectures():
    for machine, number in (("x86_64", 62), ("aarch64", 183)):
        made = fusermount.program(machine)
        assert struct.unpack_from("<H", made, 18) == (number,)
        # The message lies where the code says: one descriptor, by SCM_RIGHTS.
        assert struct.pack("<QiiI", 20, 1, 1, fusermount.GIVEN) in made
