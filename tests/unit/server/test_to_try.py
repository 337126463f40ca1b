"""Protects which functions a deploy tries: each import once, by the cheapest; what is in use always."""

from __future__ import annotations

from alight.server.services.published import Published
from alight.server.services.to_try import to_try
from alight.wire.spec import FunctionSpec, Resources


def published(name, **fields):
    return Published(f"fu-{name}", "ap-1", "main", "owner", FunctionSpec(name=name, **fields))


def names(functions, used=()):
    tried = to_try(functions, lambda function_id: function_id.removeprefix("fu-") in used)
    return {one.removeprefix("fu-") for one in tried}


GPU = Resources(gpus=("H100",))


def test_of_those_that_import_the_same_the_cheapest_is_tried():
    model = published("Model.*", class_name="Model")
    assert names([published("train", resources=GPU), model, published("plain")]) == {"plain"}
    assert names([published("train", resources=GPU), model]) == {"Model.*"}


def test_what_differs_before_its_own_code_runs_is_tried_each():
    one, other = published("one"), published("other", secrets=("st-1",))
    assert names([one, other, published("third", secrets=("st-1",))]) == {"one", "other"}
    assert names([one, published("elsewhere", module="elsewhere")]) == {"one", "elsewhere"}


def test_those_in_use_are_all_tried_and_stand_for_the_others():
    assert names([published("a"), published("b"), published("c")], used=("b", "c")) == {"b", "c"}


def test_each_factory_of_a_web_function_is_tried():
    web = [published(name, is_web=True, web={"kind": "asgi_app"}) for name in ("site", "admin")]
    server = published("vllm", is_web=True, web={"kind": "web_server"}, resources=GPU)
    assert names([*web, server, published("plain")]) == {"site", "admin", "plain"}
