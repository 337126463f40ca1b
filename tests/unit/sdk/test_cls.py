"""Classes: what is published, which containers an instance means, and what a method is in each place."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import warnings

import pytest

import alight
from alight.sdk.cls import Carried, Cls, bind_instance
from alight.sdk.function import Function
from alight.sdk.options import Options
from alight.wire import ambient, messages, payload
from alight.wire.errors import DeprecationError, ExecutionError, InvalidError, NotFoundError
from alight.wire.spec import MethodSpec, ParameterSpec

CONTAINER = ambient.Container("ta-1", "ap-1", "shop", "main", "fu-own", "Model.*", "im-1")


class Base:
    @alight.enter()
    def first(self):
        self.steps = ["base"]

    @alight.method()
    def inherited(self):
        return self.steps

    @alight.method()
    def overridden(self):
        return "base"


class Model(Base):
    SHARED = 7
    size: int = alight.parameter(default=1)
    name: str = alight.parameter(default="none")
    note: str = alight.parameter(init=False, default="plain")

    @alight.enter()
    def second(self):
        self.steps.append(f"model {self.size}")

    @alight.enter()
    async def third(self):
        await asyncio.sleep(0)
        self.steps.append("async")

    @alight.method()
    def predict(self, x):
        return self.size * x

    @alight.method()
    def twice(self, x):
        return self.predict(x) + self.predict.local(x)

    def overridden(self):
        return f"model, not {super().overridden()}"

    @alight.method()
    async def predict_async(self, x):
        return x

    @alight.method()
    def several(self, n):
        yield from range(n)

    def plain(self):
        return "plain"


class Strict:
    key: str = alight.parameter()
    raw: bytes = alight.parameter(default=b"")
    flag: bool = alight.parameter(default=False)

    @alight.method()
    def use(self):
        return self.key


class Batches:
    @alight.batched(max_batch_size=4, wait_ms=250)
    async def add(self, left, right):
        return [a + b for a, b in zip(left, right)]


def declared(raw=Model, app=None, **given) -> Cls:
    return (app or alight.App("shop")).cls(**given)(raw)


async def callee_of(handle):
    return await handle._callee()


def called(handle):
    """Which function and method a handle's verbs name."""
    from alight.sdk.sync import call_blocking

    callee = call_blocking(callee_of(handle))
    return callee.function_id, callee.method


@pytest.fixture
def server(far, client):
    """Knows one class by name, and binds anything: fu-base bound is fu-1, fu-2, …"""
    info = messages.FunctionInfo(
        "fu-base",
        "Model.*",
        "ap-1",
        class_name="Model",
        methods=(MethodSpec("predict"), MethodSpec("several", is_generator=True)),
        parameters=(ParameterSpec("size", "int", required=False), ParameterSpec("name", "str", required=False)),
    )
    far.answers["function.find"] = lambda asked: asked.answer(info)
    far.answers["function.bind"] = lambda asked: asked.answer(
        messages.PublishedFunction("Model.*", f"fu-{len(far.of('function.bind'))}")
    )
    return far


# what is declared


def test_a_class_is_one_function_that_knows_its_methods_and_parameters():
    service = declared(gpu="T4")._service
    traits = service.traits
    assert (service.info_name, traits["class_name"], service._raw) == ("Model.*", "Model", Model)
    assert traits["methods"] == (
        MethodSpec("inherited"),
        MethodSpec("overridden"),
        MethodSpec("predict"),
        MethodSpec("twice"),
        MethodSpec("predict_async"),
        MethodSpec("several", is_generator=True),
    )
    assert traits["class_parameters"] == (
        ParameterSpec("size", "int", required=False),
        ParameterSpec("name", "str", required=False),
    )
    assert traits["is_async"]
    assert not traits["is_generator"]
    assert service.options.resources.gpus == ("T4",)


def test_decorators_of_the_class_and_its_only_method_scale_it():
    app = alight.App("a")
    shared = app.cls()(alight.concurrent(max_inputs=8, target_inputs=4)(Model)).options.autoscaling
    assert (shared.max_concurrent_inputs, shared.target_concurrent_inputs) == (8, 4)
    batches = declared(Batches).options.autoscaling
    assert (batches.batch_size, batches.batch_wait) == (4, 0.25)
    assert declared(single_use_containers=True).options.autoscaling.single_use


def two_methods():
    class Two(Batches):
        @alight.method()
        def other(self): ...

    return Two


def kind(**attributes):
    return type("Bad", (), {"__qualname__": "Bad", "__module__": __name__, **attributes})


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (kind(__init__=lambda self: None), "has an __init__"),
        (type("Child", (kind(__init__=lambda self: None),), {"__qualname__": "Child"}), "inherits from Bad"),
        (kind(x=alight.parameter()), "needs a type"),
        (kind(x=alight.parameter(), __annotations__={"x": list}), "str, int, bytes or bool"),
        (kind(x=alight.parameter(default=1), __annotations__={"x": "str"}), "its default 1 is not"),
        (kind(m=alight.concurrent(max_inputs=2)(alight.method()(lambda self: 0))), "put @concurrent"),
        (kind(m=alight.enter(snap=True)(lambda self: 0)), "enable_memory_snapshot"),
        (alight.clustered(size=2)(kind()), "clustered"),
        (alight.concurrent(max_inputs=2)(Batches), "one of the two"),
        (alight.enter()(kind()), "is for methods"),
    ],
)
def test_classes_that_cannot_be_are_refused(raw, words):
    with pytest.raises(InvalidError) as caught:
        declared(raw)
    assert words in f"{caught.value} {caught.value.hint}"


def test_more_refusals():
    with pytest.raises(InvalidError, match="only method; there is also other"):
        declared(two_methods(), serialized=True)
    with pytest.raises(InvalidError, match="within a function"):
        declared(two_methods())
    with pytest.raises(InvalidError, match="has a default"):
        alight.batched(max_batch_size=2, wait_ms=1)(lambda x=1: [x])
    with pytest.raises(InvalidError, match="method that takes the batches"):
        alight.batched(max_batch_size=2, wait_ms=1)(Batches)
    assert declared(kind(m=alight.enter(snap=True)(lambda self: 0)), enable_memory_snapshot=True)


def test_parameters_are_checked_where_the_instance_is_made():
    made = declared(Strict)
    for wrong, words in (
        (lambda: made("k"), "by keyword"),
        (lambda: made(), "without key="),
        (lambda: made(key="k", kee=1), "no parameter 'kee'"),
        (lambda: made(key=1), "takes str, not int"),
        (lambda: made(key="k", flag=1), "takes bool, not int"),
        (lambda: declared()(size=True), "takes int, not bool"),
    ):
        with pytest.raises(InvalidError, match=words):
            wrong()
    assert repr(made(key="k")) == "Strict(key='k')"


def test_the_class_itself_has_its_attributes_and_no_methods():
    made = declared()
    assert made.SHARED == 7
    with pytest.raises(AttributeError, match=r"write Model\(…\)\.predict"):
        made.predict.remote(1)
    with pytest.raises(AttributeError):
        made.nothing  # noqa: B018  looking is the test


# which containers


def test_a_class_is_looked_up_once_and_bound_once_for_each_parameter_set(server, client):
    found = Cls.from_name("shop", "Model", environment_name="dev", client=client)
    assert server.asked == []
    assert called(found().predict) == ("fu-base", "predict")
    assert server.of("function.find")[0].args == {"app": "shop", "name": "Model.*", "environment": "dev"}
    assert called(found(size=2).predict) == ("fu-1", "predict")
    assert called(found(name="x", size=2).predict) == ("fu-2", "predict")
    assert called(found(size=2, name="x").several) == ("fu-2", "several")
    assert called(found(size=2).several) == ("fu-1", "several")
    assert len(server.of("function.find")) == 1
    first, second = server.of("function.bind")
    assert (first.args["function_id"], first.args["given"]) == ("fu-base", {"size": "int"})
    assert payload.loads(first.body) == {"size": 2}
    assert payload.loads(second.body) == {"name": "x", "size": 2}


def test_what_a_looked_up_class_lacks_is_said_at_its_first_use(server, client):
    found = Cls.from_name("shop", "Model", client=client)
    with pytest.raises(NotFoundError, match="no method 'train'") as caught:
        called(found().train)
    assert "predict, several" in caught.value.hint
    with pytest.raises(NotFoundError, match="no method 'later'"):
        found().later  # noqa: B018  now it is known
    with pytest.raises(InvalidError, match="has no parameter 'sise'"):
        found(sise=1)
    unseen = Cls.from_name("shop", "Model", client=client)
    with pytest.raises(InvalidError, match="takes int, not str"):
        called(unseen(size="big").predict)
    with pytest.raises(InvalidError, match="takes int, not str"):
        unseen(size="big")
    with pytest.raises(InvalidError, match="list; parameters are"):
        Cls.from_name("shop", "Model", client=client)(size=[])
    assert found().several._is_generator()
    assert found().predict._is_generator() is False
    with pytest.raises(ExecutionError, match="its code is not here"):
        found().predict.local(1)
    assert not hasattr(found(), "_repr_html_")


def test_options_make_a_class_with_containers_of_its_own(server, client):
    found = Cls.from_name("shop", "Model", client=client)
    other = found.with_options(gpu="a100", max_containers=2).with_concurrency(max_inputs=4).with_options(cpu=2)
    assert called(other(size=3).predict) == ("fu-1", "predict")
    asked = server.of("function.bind")[0]
    assert asked.args["function_id"] == "fu-base"
    assert asked.args["changes"] == {
        "resources": {"gpus": ["A100"], "cpu": 2, "cpu_limit": None},
        "autoscaling": {"max_containers": 2, "max_concurrent_inputs": 4, "target_concurrent_inputs": None},
    }
    assert payload.loads(asked.body) == {"size": 3}
    assert called(found().predict) == ("fu-base", "predict"), "the first handle changed"
    batched = found.with_batching(max_batch_size=3, wait_ms=10)
    called(batched().predict)
    assert server.of("function.bind")[1].args["changes"]["autoscaling"]["batch_size"] == 3


def test_scaling_is_the_instances(server, client):
    server.answers["function.scale"] = lambda asked: asked.answer(messages.FunctionScaling(1, 5, 0, 30.0))
    obj = Cls.from_name("shop", "Model", client=client)(size=2)
    obj.autoscaler.update(min_containers=1, max_containers=None)
    asked = server.of("function.scale")[0]
    assert asked.args == {"function_id": "fu-1", "changes": {"min_containers": 1, "max_containers": None}}
    with pytest.warns(DeprecationError, match=r"autoscaler\.update"):
        obj.update_autoscaler(buffer_containers=2)
    assert server.of("function.scale")[1].args["changes"] == {"buffer_containers": 2}
    with pytest.raises(InvalidError, match="shares its containers"):
        obj.predict.autoscaler.update(min_containers=1)
    with pytest.raises(InvalidError, match="options are the class's"):
        obj.predict.with_options(cpu=1)


def test_a_class_that_does_not_run_says_how_to_run_it():
    with pytest.raises(ExecutionError, match="Model cannot be called: its app is not running"):
        called(declared()().predict)


def test_inside_a_container_a_sibling_class_is_found_by_name(server, client, monkeypatch):
    monkeypatch.setenv("ALIGHT_IS_REMOTE", "1")
    monkeypatch.setattr(ambient, "container", ambient.Container("ta-1", "ap-1", "shop", "main", "fu-f", "f", "im-1"))
    server.answers["function.lookup"] = lambda asked: asked.answer(messages.PublishedFunction("Model.*", "fu-base"))
    made = declared()
    made._service._client = client
    assert called(made(size=5).predict) == ("fu-1", "predict")
    assert server.of("function.lookup")[0].args == {"name": "Model.*", "app_id": "ap-1"}
    monkeypatch.setattr(ambient, "container", CONTAINER)
    again = declared()
    again._service._client = client
    assert called(again().predict) == ("fu-base", "predict"), "the container's class may have parameters"


# in this process


def test_local_makes_and_enters_one_instance():
    obj = declared()(size=3)
    assert obj.predict.local(2) == 6
    assert obj.inherited.local() == ["base", "model 3", "async"]
    assert obj.steps is obj.inherited.local()
    assert (obj.note, obj.plain(), obj.SHARED) == ("plain", "plain", 7)
    assert list(obj.several.local(3)) == [0, 1, 2]
    assert obj.twice.local(1) == 6
    assert obj.overridden.local() == "model, not base"


def test_parameters_are_read_without_making_an_instance():
    obj = declared(
        kind(x=alight.parameter(default=4), __annotations__={"x": int}, e=alight.enter()(lambda self: 1 / 0))
    )
    assert (obj().x, obj(x=5).x) == (4, 5)
    with pytest.raises(ZeroDivisionError):
        obj().anything  # noqa: B018  looking is the test
    assert not hasattr(obj(), "_repr_html_")


def test_an_async_method_enters_by_the_protocol_alone():
    class Entered(Base):
        async def __aenter__(self):
            self.entered = True

        @alight.method()
        async def look(self):
            return [hasattr(self, "steps"), self.entered]

        @alight.method()
        async def items(self):
            yield self.entered

    made = declared(Entered, serialized=True)

    async def both():
        return await made().look.local(), [item async for item in made().items.local()]

    assert asyncio.run(both()) == ([False, True], [True])


def test_hooks_before_the_snapshot_come_first():
    class Snapped:
        @alight.enter()
        def late(self):
            self.steps.append("late")

        @alight.enter(snap=True)
        def early(self):
            self.steps = ["early"]

        @alight.method()
        def look(self):
            return self.steps

    made = declared(Snapped, serialized=True, enable_memory_snapshot=True)
    assert made().look.local() == ["early", "late"]


def test_an_async_hook_is_not_waited_for_inside_a_loop():
    async def use():
        return declared()().predict.local(1)

    with pytest.raises(InvalidError, match="is async"):
        asyncio.run(use())


def test_a_hook_that_fails_runs_again_next_time():
    class Flaky:
        tries = 0

        @alight.enter()
        def load(self):
            Flaky.tries += 1
            if Flaky.tries == 1:
                raise OSError("not yet")

        @alight.method()
        def use(self):
            return self.tries

    obj = declared(Flaky, serialized=True)()
    with pytest.raises(OSError, match="not yet"):
        obj.use.local()
    assert obj.use.local() == 2


# in a container


@pytest.mark.parametrize("bare", [False, True])
def test_self_method_is_a_plain_method_and_a_handle(bare, monkeypatch, client):
    """``bare``: a serialized class comes to its container without its handle."""
    monkeypatch.setattr(ambient, "container", CONTAINER)
    monkeypatch.setenv("ALIGHT_IS_REMOTE", "1")
    instance = Model.__new__(Model)
    instance.size = 4
    assert instance.predict(1) == 4
    bind_instance(Model if bare else declared(), instance)
    assert instance.predict(2) == 8
    assert instance.predict.local(2) == 8
    assert instance.overridden() == "model, not base"
    assert asyncio.run(instance.predict_async(3)) == 3
    assert isinstance(instance.predict, Function)
    instance.predict._service._client = client
    assert called(instance.predict) == ("fu-own", "predict"), "the container's own variant was not meant"
    assert instance.plain() == "plain"


def test_handles_travel():
    made = declared()
    made._service._object_id = "fu-base"
    there = pickle.loads(pickle.dumps(made))
    assert there.object_id == "fu-base"
    assert there(size=2)._service._base.object_id == "fu-base"
    with pytest.raises(InvalidError, match="no parameter"):
        there(wrong=1)
    method = pickle.loads(pickle.dumps(made(size=2).several))
    assert (method.info_name, method._is_generator()) == ("Model.several", True)
    assert pickle.loads(pickle.dumps(made(size=2))).predict._service._given == {"size": 2}
    instance = Model.__new__(Model)
    bind_instance(made, instance)
    assert pickle.loads(pickle.dumps(instance.predict)).info_name == "Model.predict"
    with pytest.raises(ExecutionError, match="its code is not here"):
        method.local(1)


def test_a_serialized_class_keeps_what_its_decorators_said():
    data = payload.dumps_bytes(two_methods().__mro__[1], "the class", by_value=True)
    there = payload.loads(data)
    assert list(Cls(None, "Batches", there, Options())._methods) == ["add"]


def test_a_serialized_class_brings_what_makes_its_methods_handles():
    """Its container imports no module of the user's, so nothing else would have loaded that."""

    class Local:
        @alight.method()
        def f(self): ...

    data = payload.dumps_bytes(Carried(Local), "the class", by_value=True)
    script = (
        "import sys; from alight.wire import payload; found = payload.loads(sys.stdin.buffer.read(), 'it'); "
        "print(isinstance(found, type), 'alight.sdk.cls' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True, env=environment)
    assert done.stdout.decode().split() == ["True", "True"]


def test_looking_at_an_instance_that_is_half_made_does_not_recurse():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not hasattr(Cls.__new__(Cls), "x")
