"""Server classes: what is declared, and what is refused."""

from __future__ import annotations

import pytest

import alight
from alight.wire.errors import InvalidError, UnimplementedError


def declared(**given):
    app = alight.App("web")

    @app.server(serialized=True, **given)
    class Model:
        @alight.enter()
        def start(self):
            """Start it."""

    return app, Model


def test_a_server_is_one_function_that_answers_on_its_port():
    app, model = declared(port=8080, max_concurrency=7, target_concurrency=4, startup_timeout=60)
    service = app._classes[model.__qualname__]._service
    traits = service.traits
    assert traits["is_web"]
    assert traits["methods"] == ()
    assert traits["web"] == {
        "": {
            "kind": "web_server",
            "label": None,
            "custom_domains": [],
            "requires_proxy_auth": True,
            "port": 8080,
            "startup_timeout": 60.0,
            "max_concurrency": 7,
            "exit_grace_period": 0.0,
            "sessioned": False,
        }
    }
    scaling = service.options.autoscaling
    assert (scaling.max_concurrent_inputs, scaling.target_concurrent_inputs) == (7, 4)
    assert service.options.startup_timeout > 60
    assert service.info_name == f"{model.__qualname__}.*"


def test_a_server_may_be_open_and_have_a_name():
    app, _ = declared(unauthenticated=True, name="front")
    service = app._classes["front"]._service
    assert not service.traits["web"][""]["requires_proxy_auth"]
    assert (service.info_name, service.options.autoscaling.max_concurrent_inputs) == ("front.*", 100)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"port": 0}, "a port is from 1 to 65535"),
        ({"port": True}, "a port is from 1 to 65535"),
        ({"max_concurrency": -1}, "at least 1 request"),
        ({"startup_timeout": "x"}, "seconds, from 0 to 3600"),
        ({"exit_grace_period": 4000}, "seconds, from 0 to 3600"),
        ({"name": "no name"}, "name"),
    ],
)
def test_what_cannot_be_is_refused(given, said):
    with pytest.raises(InvalidError, match=said):
        declared(**given)


def test_http_2_is_refused_kindly():
    with pytest.raises(UnimplementedError, match=r"HTTP/1\.1"):
        declared(h2_enabled=True)


class WithMethod:
    @alight.enter()
    def start(self): ...

    @alight.method()
    def call(self): ...


class WithParameter:
    x: int = alight.parameter()

    @alight.enter()
    def start(self): ...


class WithoutHook:
    def start(self): ...


class WithConstructor:
    def __init__(self): ...


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (WithMethod, "a server answers on its port alone"),
        (WithParameter, "a server has none"),
        (WithoutHook, r"no @alight.enter\(\) method"),
        (WithConstructor, "__init__"),
        (alight.concurrent(max_inputs=3)(WithoutHook), r"@concurrent\(\) cannot be at"),
    ],
)
def test_classes_that_are_no_servers(kind, said):
    with pytest.raises(InvalidError, match=said):
        alight.App("web").server()(kind)


def test_functions_are_no_servers():
    with pytest.raises(TypeError, match="is for classes"):
        alight.App("web").server()(lambda: None)


def test_a_server_may_have_sessions_and_wait_before_it_grows():
    app = alight.App("web")

    @app.server(serialized=True, scaleup_window=30)
    @alight.sessioned()
    class Model:
        @alight.enter()
        def start(self):
            """Start it."""

    service = app._classes[Model.__qualname__]._service
    said = service.traits["web"][""]
    assert (said["sessioned"], said["max_concurrency"]) == (True, None)
    assert service.options.autoscaling.scaleup_window == 30.0


def test_nothing_else_has_sessions():
    app = alight.App("web")
    with pytest.raises(InvalidError, match=r"only classes below @app.server\(\) have sessions"):
        app.function(serialized=True)(alight.sessioned()(lambda: 1))
    with pytest.raises(InvalidError, match=r"only classes below @app.server\(\) have sessions"):
        app.cls(serialized=True)(alight.sessioned()(WithMethod))


@pytest.mark.parametrize(("given", "most"), [({}, 1), ({"min_containers": 3}, 3), ({"max_containers": 9}, 1)])
def test_a_target_of_nothing_turns_scaling_off(given, most):
    app, model = declared(target_concurrency=0, **given)
    scaling = app._classes[model.__qualname__]._service.options.autoscaling
    assert (scaling.max_containers, scaling.max_concurrent_inputs) == (most, 100)
