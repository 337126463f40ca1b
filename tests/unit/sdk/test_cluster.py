"""What code in a cluster is told, and what cannot be declared."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

import alight
from alight.sdk import cluster
from alight.wire import ambient
from alight.wire.errors import InvalidError, NotFoundError, UnimplementedError

KNOWN = {
    "cluster_id": "cu-0351fE0X43uLKKh0a4gH7v",
    "rank": 1,
    "container_ids": ["ta-a", "ta-b"],
    "addresses": ["10.89.0.2", "10.89.0.3"],
    "device": "eth0",
}
CONTAINER = ambient.Container("ta-b", "ap-1", "app", "main", "fu-1", "train", "im-1", KNOWN)


@pytest.fixture
def inside(monkeypatch):
    monkeypatch.setattr(ambient, "container", CONTAINER)


def test_a_rank_knows_who_and_where_all_are(inside):
    info = alight.experimental.get_cluster_info()
    assert (info.rank, info.cluster_id) == (1, KNOWN["cluster_id"])
    assert info.container_ips == info.container_ipv4_ips == KNOWN["addresses"]
    found = alight.Cluster.from_context()
    assert found.object_id == KNOWN["cluster_id"]
    assert found.container_ids() == KNOWN["container_ids"]
    assert found.container_rank() == 1
    assert found.container_rank("ta-a") == 0
    assert found.container_ips("ipv4") == KNOWN["addresses"]
    assert found.container_ips() == ["::ffff:10.89.0.2", "::ffff:10.89.0.3"]
    assert asyncio.run(found.container_rank.aio()) == 1


def test_what_cannot_be_asked_of_a_cluster_is_said(inside):
    found = alight.Cluster.from_context()
    with pytest.raises(NotFoundError, match="ta-c"):
        found.container_rank("ta-c")
    with pytest.raises(InvalidError, match="ipv5"):
        found.container_ips("ipv5")
    with pytest.raises(UnimplementedError, match="own containers"):
        alight.Cluster.from_id("cu-0351fE0X43uLKKh0a4gH7w").container_ids()


def test_outside_of_one_there_is_none(monkeypatch):
    for asked in (alight.Cluster.from_context, alight.experimental.get_cluster_info):
        with pytest.raises(InvalidError, match="@clustered"):
            asked()
    monkeypatch.setattr(ambient, "container", replace(CONTAINER, cluster=None))
    with pytest.raises(InvalidError, match="@clustered"):
        cluster.here("this")
    with pytest.raises(InvalidError, match="nonsense"):
        alight.Cluster.from_id("nonsense")


def _f(x):
    return x


@pytest.mark.parametrize(
    "declare",
    [
        lambda: alight.clustered(size=65),
        lambda: alight.clustered(size=True),
        lambda: alight.clustered(size=2)(alight.concurrent(max_inputs=2)(_f)),
        lambda: alight.clustered(size=2)(alight.batched(max_batch_size=2, wait_ms=1)(_f)),
        lambda: alight.asgi_app()(alight.clustered(size=2)(_f)),
        lambda: alight.App().function(block_network=True, serialized=True)(alight.clustered(size=2)(_f)),
        lambda: alight.App().cls(serialized=True)(
            alight.concurrent(max_inputs=2)(
                alight.clustered(size=2)(type("C", (), {"m": alight.method()(lambda self: 0)}))
            )
        ),
    ],
)
def test_clusters_that_cannot_be_are_refused(declare):
    with pytest.raises(InvalidError):
        declare()


def test_the_spec_says_how_many():
    function = alight.App().function(serialized=True)(alight.clustered(size=4, rdma=True)(_f))
    assert function._options.cluster == 4
