"""Functions by name, with other options, and scaled by hand: what is asked of the server, once, and what is refused."""

from __future__ import annotations

import asyncio
import pickle
import threading

import pytest

import alight
import alight.experimental
from alight.sdk import options
from alight.sdk.function import Function
from alight.sdk.sync import call_blocking
from alight.wire import ambient, errors, messages, stored
from alight.wire.errors import DeprecationError, InvalidError, NotFoundError, UnimplementedError

VOLUME = stored.VolumeInfo("vo-1", "v", "main", 100.0)


def plain(x, y=1):
    return x + y


def items():
    yield 1


@pytest.fixture
def server(far, client):
    del client
    info = messages.FunctionInfo("fu-base", "f", "ap-1")
    far.answers["function.find"] = lambda asked: asked.answer(info)
    far.answers["function.bind"] = lambda asked: asked.answer(
        messages.PublishedFunction("f", f"fu-{len(far.of('function.bind'))}")
    )
    far.answers["volume.ensure"] = lambda asked: asked.answer(VOLUME)
    far.answers["secret.lookup"] = lambda asked: asked.answer(stored.SecretInfo("st-1", "s", "main"))
    far.answers["secret.create"] = lambda asked: asked.answer(stored.SecretInfo("st-new", "", "main"))
    return far


@pytest.fixture
def found(client):
    return Function.from_name("shop", "f", client=client)


def id_of(handle):
    return call_blocking(handle._callee()).function_id


def test_a_function_is_found_at_its_first_use_and_once(server, found):
    assert server.asked == []
    assert not found.is_hydrated
    with pytest.raises(AttributeError, match="hydrate"):
        _ = found.object_id
    assert found.hydrate() is found
    assert (found.object_id, id_of(found)) == ("fu-base", "fu-base")
    assert len(server.of("function.find")) == 1
    with pytest.raises(NotFoundError, match="was looked up"):
        _ = found.app


def test_what_is_not_there_and_what_is_a_method_say_so(far, client):
    far.answers["function.find"] = lambda asked: asked.fail(NotFoundError("there is no app 'shop'"))
    with pytest.raises(NotFoundError, match="no app 'shop'"):
        Function.from_name("shop", "f", client=client).hydrate()
    with pytest.raises(InvalidError) as caught:
        Function.from_name("shop", "Model.predict")
    assert "Cls.from_name('shop', 'Model')" in caught.value.hint
    with pytest.raises(InvalidError):
        Function.from_id("ap-1")


def test_what_the_server_says_of_a_function_counts(far, client):
    far.answers["function.find"] = lambda asked: asked.answer(
        messages.FunctionInfo("fu-g", "g", "ap-1", is_generator=True, is_web=False)
    )
    found = Function.from_name("shop", "g", client=client)
    assert found._is_generator() is None
    found.hydrate()
    assert found._is_generator()
    assert found.traits["is_generator"]
    with pytest.raises(InvalidError, match="is a generator"):
        found.remote()
    far.answers["function.find"] = lambda asked: asked.answer(messages.FunctionInfo("fu-w", "w", "ap-1", is_web=True))
    web = Function.from_name("shop", "w", client=client).hydrate()
    with pytest.raises(InvalidError, match="is a web function"):
        web.remote()


def test_a_variant_is_bound_at_its_first_use_with_all_that_was_said(server, found, client):
    volume = alight.Volume.from_name("v", client=client)
    secret = alight.Secret.from_name("s", client=client)
    one = found.with_options(cpu=(1, 2), memory=512, timeout=9, retries=2, env={"A": "1"}, secrets=[secret])
    two = one.with_options(gpu="h100:2", env={"B": "2"}, volumes={"/v": volume}, scaledown_window=30, timeout=0)
    assert server.asked == []
    assert (id_of(two), id_of(two), two.object_id) == ("fu-1", "fu-1", "fu-1")
    (asked,) = server.of("function.bind")
    assert asked.args["function_id"] == "fu-base"
    assert asked.args["changes"] == {
        "resources": {"cpu": 1, "cpu_limit": 2, "memory": 512, "memory_limit": None, "gpus": ["H100:2"]},
        "autoscaling": {"scaledown_window": 30.0},
        "timeout": 9.0,
        "retries": {"max_retries": 2},
        "env": {"A": "1", "B": "2"},
        "secrets": ["st-1"],
        "volumes": [{"path": "/v", "volume_id": "vo-1"}],
        "buckets": [],
    }
    assert asked.body == b""
    assert id_of(found) == "fu-base", "the first handle changed"
    assert id_of(one) == "fu-2"


def test_secrets_and_volumes_replace(server, found, client):
    first, second = (alight.Secret.from_name(name, client=client) for name in ("a", "b"))
    id_of(found.with_options(secrets=[first]).with_options(secrets=[second]))
    assert [asked.args["name"] for asked in server.of("secret.lookup")] == ["b"]


def test_a_secret_of_values_is_the_apps(server, found):
    id_of(found.with_options(secrets=[alight.Secret.from_dict({"A": "b"})]))
    assert server.of("secret.create")[0].args["app_id"] == "ap-1"
    assert server.of("function.bind")[0].args["changes"]["secrets"] == ["st-new"]


def test_nothing_said_is_no_variant(server, found):
    options._WARNED.clear()
    assert id_of(found.with_options(cpu=None, timeout=0, volumes={}, env={})) == "fu-base"
    with pytest.warns(UserWarning, match="region= is for a hosted cloud"):
        assert id_of(found.with_options(region="eu")) == "fu-base"
    assert server.of("function.bind") == []


def test_first_uses_at_the_same_time_ask_once(server, found):
    """Else each would make the secret anew, and with it a variant of its own."""
    variant = found.with_options(secrets=[alight.Secret.from_dict({"A": "b"})])
    bind = server.answers["function.bind"]
    server.answers["function.bind"] = lambda asked: threading.Timer(0.2, bind, [asked]).start()

    async def all_at_once():
        return await asyncio.gather(*[variant.hydrate.aio() for _ in range(20)])

    others = [threading.Thread(target=variant.hydrate) for _ in range(5)]
    for one in others:
        one.start()
    asyncio.run(all_at_once())
    for one in others:
        one.join(10)
    assert [asked.method for asked in server.asked] == ["function.find", "secret.create", "function.bind"]


def test_a_first_use_that_fails_leaves_the_next_one_to_try(server, found):
    answer = server.answers["function.find"]
    server.answers["function.find"] = lambda asked: asked.fail(NotFoundError("not yet"))

    async def both():
        return await asyncio.gather(found.hydrate.aio(), found.hydrate.aio(), return_exceptions=True)

    assert [type(one) for one in asyncio.run(both())] == [NotFoundError, NotFoundError]
    server.answers["function.find"] = answer
    assert id_of(found) == "fu-base"


def test_a_variant_that_can_never_run_says_why(server, found):
    impossible = errors.to_wire(errors.InvalidError("no machine has an H100"))
    server.answers["function.bind"] = lambda asked: asked.answer(messages.PublishedFunction("f", "fu-1", impossible))
    with pytest.raises(InvalidError, match="no machine has an H100"):
        id_of(found.with_options(gpu="H100"))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda function: function.with_options(gpu=["A100", "H100"]),
        lambda function: function.with_options(cpu=(2, 1)),
        lambda function: function.with_options(timeout=-1),
        lambda function: function.with_options(secrets=["s"]),
        lambda function: function.with_options(volumes={"rel": alight.Volume.from_name("v")}),
        lambda function: function.with_options(env={"A": 1}),
        lambda function: function.with_options(scaledown_window=1),
        lambda function: function.with_concurrency(max_inputs=0),
        lambda function: function.with_concurrency(max_inputs=2, target_inputs=3),
        lambda function: function.with_batching(max_batch_size=0, wait_ms=1),
        lambda function: function.with_batching(max_batch_size=2, wait_ms=1).with_concurrency(max_inputs=2),
    ],
)
def test_changes_that_cannot_be_are_refused_where_they_are_written(wrong):
    with pytest.raises(InvalidError):
        wrong(alight.App("a").function()(plain))


def test_generators_are_not_tried_again_nor_batched():
    app = alight.App("a")
    with pytest.raises(InvalidError, match="cannot be tried again"):
        app.function(retries=1)(items)
    function = app.function(name="again")(items)
    with pytest.raises(InvalidError, match="cannot be tried again"):
        function.with_options(retries=1)
    with pytest.raises(InvalidError, match="answered with a list"):
        function.with_batching(max_batch_size=2, wait_ms=1)
    with pytest.raises(InvalidError, match="web function"):
        app.function(retries=1, name="w")(alight.asgi_app()(plain))


def test_decorators_reach_the_spec():
    app = alight.App("a")
    many = app.function()(alight.concurrent(max_inputs=9, target_inputs=3)(plain)).options.autoscaling
    assert (many.max_concurrent_inputs, many.target_concurrent_inputs, many.batch_size) == (9, 3, 0)
    batch = app.function(name="b")(alight.batched(max_batch_size=5, wait_ms=1500)(lambda_of_two)).options.autoscaling
    assert (batch.batch_size, batch.batch_wait, batch.max_concurrent_inputs) == (5, 1.5, 1)


def lambda_of_two(x, y):
    return [x, y]


# scaling and counting


def test_settings_are_read_and_changed(server, found):
    server.answers["function.scale"] = lambda asked: asked.answer(messages.FunctionScaling(1, 5, 2, 30.0))
    settings = found.autoscaler.settings()
    assert (settings.min_containers, settings.max_containers, settings.buffer_containers) == (1, 5, 2)
    assert settings.scaledown_window == 30.0
    found.autoscaler.update(min_containers=3, max_containers=None)
    found.autoscaler.update()
    first, second = server.of("function.scale")
    assert first.args == {"function_id": "fu-base"}
    assert second.args["changes"] == {"min_containers": 3, "max_containers": None}
    for wrong in ({"min_containers": -2}, {"scaledown_window": 1}, {"min_containers": 3, "max_containers": 2}):
        with pytest.raises(InvalidError):
            found.autoscaler.update(**wrong)
    with pytest.warns(DeprecationError, match=r"autoscaler\.update"):
        found.update_autoscaler(min_containers=1, max_containers=None)
    assert server.of("function.scale")[2].args["changes"] == {"min_containers": 1}
    with pytest.raises(DeprecationError, match="min_containers=2"):
        found.keep_warm(2)


def test_counts_of_now(server, found):
    server.answers["function.stats"] = lambda asked: asked.answer(messages.FunctionStats(4, 3, 2, 1))
    stats = found.get_current_stats()
    assert (stats.backlog, stats.num_total_runners, stats.num_running_inputs, stats.input_headroom) == (4, 3, 2, 1)
    with pytest.raises(UnimplementedError):
        found.info()


# on the way to elsewhere


def test_handles_travel_with_what_is_known(server, found, client):
    del server
    variant = found.with_options(cpu=2)
    unseen = pickle.loads(pickle.dumps(variant))
    assert not unseen.is_hydrated
    unseen._base._client = unseen._client = client
    assert id_of(unseen) == "fu-1"
    seen = pickle.loads(pickle.dumps(unseen))
    assert (seen.object_id, seen._is_generator()) == ("fu-1", False)
    declared = pickle.loads(pickle.dumps(alight.App("a").function()(items)))
    assert declared.traits == {"is_generator": True, "is_async": False}


# inside containers


def test_a_container_can_limit_itself(monkeypatch):
    experimental = alight.experimental
    for use in (
        experimental.get_local_input_concurrency,
        lambda: experimental.set_local_input_concurrency(2),
        experimental.stop_fetching_inputs,
    ):
        with pytest.raises(InvalidError, match="this is none"):
            use()
    said = []
    monkeypatch.setattr(ambient, "input_concurrency", lambda count: said.append(count) or 4)
    monkeypatch.setattr(ambient, "stop_fetching_inputs", lambda: said.append("stop"))
    assert experimental.get_local_input_concurrency() == 4
    experimental.set_local_input_concurrency(2)
    experimental.stop_fetching_inputs()
    assert said == [None, 2, "stop"]
    with pytest.raises(InvalidError, match="must be at least 1"):
        experimental.set_local_input_concurrency(0)


def test_what_is_mounted_is_replaced_as_a_whole_and_a_bucket_brings_its_secret(server, found, client):
    bucket = alight.CloudBucketMount(
        "data", "http://minio.lab:9000", "x/", secret=alight.Secret.from_name("s", client=client), read_only=True
    )
    id_of(found.with_options(volumes={"/b": bucket}))
    (asked,) = server.of("function.bind")
    mount = asked.args["changes"]["buckets"][0]
    assert mount.pop("secret_id")
    assert mount == {
        "path": "/b",
        "bucket": "data",
        "endpoint": "http://minio.lab:9000",
        "key_prefix": "x/",
        "read_only": True,
    }
    assert asked.args["changes"]["volumes"] == []
