"""Failed inputs as lines of their app's log: said when nobody waits for them, and few however many they are."""

from __future__ import annotations

import pytest

from alight.server.services import log_failures
from alight.wire.failure import Failure
from alight.wire.spec import FunctionSpec, RetryPolicy
from tests.unit.server.test_log_views import ask, text

SPEC = FunctionSpec(name="odd", retries=RetryPolicy(1, 1.0, 0.0, 0.0))


def odd(number):
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


async def said(world, client, app_id):
    await world.server.parts.store.flush()
    lines = text(await ask(client, app=app_id, source="system"), "system").splitlines()
    return [line for line in lines if "failed" in line]


def test_what_failed_and_why_is_in_the_log_of_its_app(world):
    async def work(world):
        await world.serve(holder_grace=30.0)
        await world.node({"odd": odd})
        client = await world.client()
        app_id, functions = await client.app(SPEC, description="numbers")
        stream = await client.start(functions["odd"], 3)
        await client.result(stream)
        again, last = await said(world, client, app_id)
        assert again == f"odd(): {stream.call_id} failed and is tried again: ValueError: 3 is odd"
        assert last == f"odd(): {stream.call_id} failed: ValueError: 3 is odd"
        assert text(await ask(client, call=stream.call_id, source="system"), "system").count("is odd") == 2
        await client.result(await client.start(functions["odd"], 2))
        assert len(await said(world, client, app_id)) == 2

    world(work)


def test_a_map_that_fails_all_over_is_a_few_lines_and_a_number(world, monkeypatch):
    monkeypatch.setattr(log_failures, "MOST", 3)
    monkeypatch.setattr(log_failures, "WHILE", 0.3)

    async def work(world):
        await world.serve(holder_grace=30.0)
        await world.node({"odd": odd})
        client = await world.client()
        app_id, functions = await client.app(FunctionSpec(name="odd"), description="numbers")
        await client.map(functions["odd"], [(1,)] * 40)
        words = world.server.parts.calls.outcomes.on_failed.__self__
        await world.until(lambda: not words._said)
        lines = await said(world, client, app_id)
        assert [line.startswith("odd(): input ") for line in lines] == [True] * 3 + [False]
        assert lines[3].startswith("37 more times an input of odd() failed")

    world(work)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (Failure("builtins.ValueError", "no"), "ValueError: no"),
        (Failure("shop.Empty"), "shop.Empty"),
        (Failure("a.B", "x", cause=Failure("builtins.KeyError", "'k'")), "a.B: x (from KeyError: 'k')"),
        (Failure("a.B", "x" * 10_000), f"a.B: {'x' * 500} …"),
    ],
)
def test_an_exception_in_one_line(failure, expected):
    assert log_failures.raised(failure) == expected
