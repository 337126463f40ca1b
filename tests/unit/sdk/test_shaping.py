"""Decorators below `@app.function`: what they keep, where they refuse to stand, and what they leave alone."""

from __future__ import annotations

import pytest

import alight
from alight.sdk import shaping
from alight.wire.errors import DeprecationError, InvalidError


def plain(x: int = 1) -> int:
    """Doubles."""
    return 2 * x


def test_a_shaped_function_is_still_that_function():
    shaped = alight.concurrent(max_inputs=4, target_inputs=2)(plain)
    assert shaped(21) == 42
    assert shaped.__name__ == "plain"
    assert shaping.raw_of(shaped) is plain
    assert shaping.of(shaped).max_concurrent_inputs == 4
    assert shaping.of(plain) == shaping.Shape()


def test_methods_stay_methods():
    class Service:
        factor = 3

        @alight.method()
        def triple(self, x: int) -> int:
            return self.factor * x

    assert Service().triple(2) == 6


def test_the_raw_function_is_found_the_way_the_runtime_looks():
    from alight.runtime.load import unwrap

    app = alight.App()
    handle = app.function()(alight.concurrent(max_inputs=2)(plain))
    assert unwrap(handle) is plain


@pytest.mark.parametrize(
    ("make", "kept"),
    [
        (lambda: alight.fastapi_endpoint(method="post", docs=True), {"kind": "fastapi_endpoint", "method": "POST"}),
        (lambda: alight.asgi_app(label="my-app"), {"kind": "asgi_app", "label": "my-app"}),
        (lambda: alight.wsgi_app(requires_proxy_auth=True), {"kind": "wsgi_app", "requires_proxy_auth": True}),
        (lambda: alight.web_server(8000, startup_timeout=9), {"kind": "web_server", "port": 8000}),
    ],
)
def test_web_decorators_keep_what_was_said(make, kept):
    web = shaping.of(make()(plain)).web
    assert kept.items() <= web.items()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: alight.concurrent(),
        lambda: alight.concurrent(max_inputs=0),
        lambda: alight.concurrent(max_inputs=2, target_inputs=3),
        lambda: alight.concurrent(plain),
        lambda: alight.batched(max_batch_size=1001, wait_ms=1),
        lambda: alight.batched(max_batch_size=2, wait_ms=-1),
        lambda: alight.clustered(size=0),
        lambda: alight.asgi_app(plain),
        lambda: alight.asgi_app(label="No Spaces"),
        lambda: alight.asgi_app(custom_domains="example.org"),
        lambda: alight.fastapi_endpoint(method="FETCH"),
        lambda: alight.web_server(0),
        lambda: alight.web_server(plain),
        lambda: alight.asgi_app()(alight.wsgi_app()(plain)),
        lambda: alight.batched(max_batch_size=2, wait_ms=1)(alight.concurrent(max_inputs=2)(plain)),
        lambda: alight.concurrent(max_inputs=2)(42),
        lambda: alight.concurrent(max_inputs=2)(alight.App().function(serialized=True)(plain)),
    ],
)
def test_what_cannot_be(wrong):
    with pytest.raises(InvalidError):
        wrong()


def test_the_old_name_warns():
    with pytest.warns(DeprecationError, match="fastapi_endpoint"):
        shaped = alight.web_endpoint(method="POST")(plain)
    assert shaping.of(shaped).web["method"] == "POST"
