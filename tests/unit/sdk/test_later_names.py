"""Names that are still to come: scripts that only declare them import; each use is one sentence."""

from __future__ import annotations

import asyncio

import pytest

import alight
import alight.experimental
from alight.sdk.surface import UNIMPLEMENTED
from alight.wire.errors import DeprecationError, InvalidError, UnimplementedError


def test_declaring_talks_to_nobody():
    cache = alight.Dict.from_name("cache", create_if_missing=True)
    jobs = alight.Queue.from_name("jobs", create_if_missing=True)
    bucket = alight.CloudBucketMount("data", secret=alight.Secret.from_name("aws"), key_prefix="x/")
    probe = alight.Probe.with_exec("test", "-e", "/ready")
    assert (cache.name, jobs.name, bucket.bucket_name, probe.exec_argv) == (
        "cache",
        "jobs",
        "data",
        ("test", "-e", "/ready"),
    )
    alight.Proxy.from_name("p")
    alight.Environment.from_name("dev")
    alight.Server.from_name("app", "Server")
    alight.experimental.Stream.from_name("log")


def block(manager):
    with manager:
        pass


@pytest.mark.parametrize(
    "use",
    [
        lambda: block(alight.forward(8000)),
        lambda: alight.Sandbox.create("ls", app=None, timeout=3),
        lambda: asyncio.run(alight.Sandbox.create.aio("ls")),
        lambda: alight.Sandbox.from_id("sb-1").filesystem.read_text("/x"),
        lambda: alight.Workspace.from_context().name,
        lambda: alight.experimental.Stream.from_name("log").append(1),
    ],
)
def test_using_is_one_sentence(use):
    with pytest.raises(UnimplementedError) as caught:
        use()
    assert "would" in str(caught.value) or "cannot be looked up" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_registered_sentence_can_be_shown():
    for name, sentence in UNIMPLEMENTED.items():
        assert sentence, name
        assert "\n" not in sentence, name
        assert not sentence.endswith("."), f"{name}: one-sentence messages have no full stop"


def test_data_is_checked_where_it_is_made():
    for wrong in (
        lambda: alight.CloudBucketMount("b", key_prefix="no-slash"),
        lambda: alight.CloudBucketMount("b", requester_pays=True),
        lambda: alight.CloudBucketMount(""),
        lambda: alight.Probe(),
        lambda: alight.Probe.with_tcp(0),
        lambda: alight.Probe.with_exec(),
        lambda: alight.Queue.from_name("no spaces"),
        lambda: alight.Queue.validate_partition_key("x" * 65),
        lambda: alight.experimental.http_server(),
    ):
        with pytest.raises(InvalidError):
            wrong()


def test_tunnels_say_where_they_are():
    tunnel = alight.Tunnel("host", 443, "", 0)
    assert (tunnel.url, tunnel.tls_socket) == ("https://host", ("host", 443))
    with pytest.raises(InvalidError):
        tunnel.tcp_socket  # noqa: B018  looking is the test
    assert alight.Tunnel("host", 8443, "raw", 22).tcp_socket == ("raw", 22)


def test_sandbox_verbs_that_are_gone_say_what_to_use():
    with pytest.raises(UnimplementedError, match="gone") as caught:
        alight.Sandbox.from_id("sb-1").ls("/")
    assert "list_files" in caught.value.hint


def test_deprecated_names_still_declare():
    with pytest.warns(DeprecationError):
        alight.NetworkFileSystem.from_name("old")
    with pytest.warns(DeprecationError):
        alight.experimental.clustered(2, rdma=True)


def test_this_process_is_local():
    assert alight.is_local()
    assert alight.current_input_id() is None
    assert alight.current_function_call_id() is None


def test_rows_of_a_bill_can_be_read_as_before():
    from datetime import datetime, timezone
    from decimal import Decimal

    row = alight.types.BillingReportItem("ap-1", "app", "main", datetime.now(timezone.utc), Decimal(1), {}, {})
    assert row["cost"] == row.cost == dict(row.items())["cost"]
    with pytest.raises(KeyError):
        row["nothing"]
