"""Classes in an app that runs: what is published, what calls name, and that variants are made once per run."""

from __future__ import annotations

import threading

import pytest

import alight
from alight.wire import calling, messages, payload
from alight.wire.codec import loads_head


class Counter:
    start: int = alight.parameter(default=0)

    @alight.method()
    def add(self, x, y=0):
        return x + y

    @alight.method()
    async def echo(self, x):
        return x


class Doubles:
    @alight.batched(max_batch_size=3, wait_ms=20)
    def double(self, numbers):
        return [2 * number for number in numbers]


def free(x):
    return x


@pytest.fixture
def server(far):
    """Answers every call with what it was asked: function, method, arguments."""
    far.watch = []

    def publish(asked):
        names = [spec["name"] for spec in asked.args["functions"]]
        done = [messages.PublishedFunction(name, f"fu-{name}") for name in names]
        asked.answer(messages.AppPublished(tuple(done)))

    def start(asked):
        import json

        message = loads_head(calling.CallStart, json.dumps(asked.args).encode())
        said = (message.function_id, message.method, *payload.loads(asked.body))
        asked.value(message.call_id, payload.dumps_bytes(said))

    def bind(asked):
        made = f"{asked.args['function_id']}#{len(far.of('function.bind'))}"
        asked.answer(messages.PublishedFunction("x", made))

    def stop(asked):
        asked.answer()
        far.watch.pop().answer(messages.AppEvent("stopped"))

    far.answers.update(
        {
            "app.create": lambda asked: asked.answer(messages.AppCreated("ap-1", "main")),
            "app.watch": far.watch.append,
            "blob.missing": lambda asked: asked.answer(messages.BlobMissing(())),
            "app.publish": publish,
            "image.ensure": lambda asked: asked.answer(messages.ImageReady("im-1")),
            "app.stop": stop,
            "call.start": start,
            "function.bind": bind,
        }
    )
    return far


@pytest.fixture
def app():
    made = alight.App("test-app")
    made.counter = made.cls(cpu=2)(alight.concurrent(max_inputs=5)(Counter))
    made.doubles = made.cls()(Doubles)
    made.free = made.function()(free)
    return made


def test_a_class_is_published_as_one_function(server, client, app):
    with app.run(client=client):
        pass
    specs = {spec["name"]: spec for spec in server.of("app.publish")[0].args["functions"]}
    assert sorted(specs) == ["Counter.*", "Doubles.*", "free"]
    counter, doubles = specs["Counter.*"], specs["Doubles.*"]
    assert (counter["class_name"], counter["qualname"], counter["is_async"]) == ("Counter", "Counter", True)
    assert counter["methods"] == [{"name": "add"}, {"name": "echo"}]
    assert counter["class_parameters"] == [{"name": "start", "type": "int", "required": False}]
    assert counter["resources"] == {"cpu": 2}
    assert counter["autoscaling"] == {"max_concurrent_inputs": 5}
    assert doubles["autoscaling"] == {"batch_size": 3, "batch_wait": 0.02}


def test_methods_call_their_class(server, client, app):
    with app.run(client=client):
        plain, three = app.counter(), app.counter(start=3)
        assert plain.add.remote(1, y=2) == ("fu-Counter.*", "add", (1,), {"y": 2})
        assert three.add.remote(1) == ("fu-Counter.*#1", "add", (1,), {})
        assert app.counter(start=3).echo.remote(4) == ("fu-Counter.*#1", "echo", (4,), {})
        assert app.counter.with_options(memory=64)(start=3).add.remote(1)[0] == "fu-Counter.*#2"
        assert three.add.object_id == "fu-Counter.*#1"
        assert app.counter.object_id == "fu-Counter.*"
        assert app.free.with_options(cpu=1).remote(5)[0] == "fu-free#3"
    with app.run(client=client):
        assert three.add.remote(1)[0] == "fu-Counter.*#4", "a variant of the run before was called"
    bound = server.of("function.bind")
    assert [payload.loads(asked.body) if asked.body else None for asked in bound[:3]] == [
        {"start": 3}, {"start": 3}, None,
    ]  # fmt: skip


def test_a_method_needs_its_classs_image_and_no_other(server, client, app):
    with app.run(client=client, _needed={"Counter.add"}):
        pass
    assert len(server.of("image.ensure")) == 1
    with app.run(client=client, _needed=set()):
        pass
    assert len(server.of("image.ensure")) == 1


def test_an_included_app_brings_its_classes(server, client, app):
    around = alight.App("around").include(app)
    with around.run(client=client):
        assert app.counter().add.remote(1)[0] == "fu-Counter.*"


def test_an_argument_that_cannot_travel_is_named_as_the_method_names_it(server, client, app):
    with app.run(client=client), pytest.raises(alight.Error, match=r"the argument 'x' of Counter\.add"):
        app.counter().add.remote(threading.Lock())
