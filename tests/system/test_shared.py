"""Dicts and queues between a program and its containers: as arguments, by name, in two environments, by command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.system.scripted import Script

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "work_queue.py"
FUNCTIONS = """
jobs = alight.Queue.from_name("shared-jobs", create_if_missing=True)
found = alight.Dict.from_name("shared-found", create_if_missing=True)


@app.function(max_containers=2)
def work(results):
    done = 0
    while (job := jobs.get(timeout=10)) is not None:
        results.put(job * job, partition="squares")
        done += 1
    return done


@app.function()
async def work_async(q, d):
    async for one in q.iterate.aio():
        await d.put.aio(one, one + 1)
    await d.update.aio({"big": b"x" * 3_000_000})
    return await q.get_many.aio(10)


@app.function()
def reach(name, environment):
    try:
        return alight.Dict.from_name(name, environment_name=environment).len()
    except alight.exception.PermissionDeniedError as error:
        return f"refused: {error}"


@app.function()
def reach_id(queue_id):
    try:
        return alight.Queue.from_id(queue_id).len()
    except alight.exception.PermissionDeniedError as error:
        return f"refused: {error}"


@app.function()
def remember(key):
    return found.put(key, alight.current_input_id(), skip_if_exists=True)


@app.function()
def nested():
    with alight.Queue.ephemeral() as q:
        q.put("in")
        return [q.get(), q.object_id]
"""


@pytest.fixture(scope="module")
def script(machine, tmp_path_factory) -> Script:
    return Script(machine, tmp_path_factory.mktemp("shared"), "test-shared", FUNCTIONS)


def test_containers_share_a_queue_and_give_results_to_another(script):
    assert script("""
        with alight.Queue.ephemeral() as results:
            calls = [work.spawn(results) for _ in range(2)]
            jobs.put_many(list(range(40)))
            got = []
            while len(got) < 40:
                got += results.get_many(40, timeout=30, partition="squares")
            jobs.put_many([None, None])
            answer = [sorted(got) == [n * n for n in range(40)], sum(call.get() for call in calls), jobs.len()]
    """) == [True, 40, 0]


def test_handles_travel_as_arguments(script):
    assert script("""
        with alight.Queue.ephemeral() as q, alight.Dict.ephemeral() as d:
            q.put_many([1, 2, 3])
            taken = work_async.remote(q, d)
            answer = [taken, sorted(k for k in d.keys() if k != "big"), d[3], len(d["big"])]
    """) == [[1, 2, 3], [1, 2, 3], 4, 3_000_000]


def test_one_of_many_containers_sets_a_key(script):
    assert script("""
        found.clear()
        answer = [sum(remember.map(["k"] * 12)), found.len()]
    """) == [1, 1]


def test_code_reaches_its_own_environment_alone(script):
    answer = script("""
        alight.Dict.objects.create("theirs", environment_name="elsewhere", allow_existing=True)
        theirs = alight.Queue.from_name("theirs", environment_name="elsewhere", create_if_missing=True).hydrate()
        answer = [reach.remote("theirs", "elsewhere"), reach_id.remote(theirs.object_id), nested.remote()]
    """)
    assert answer[0] == "refused: code in environment 'main' may not use environment 'elsewhere'"
    assert answer[1] == "refused: code in environment 'main' may not use a queue of another environment"
    assert answer[2][0] == "in"


def test_from_a_terminal(script, machine):
    script("""
        d = alight.Dict.from_name("looked", create_if_missing=True)
        d.update({"text": "plain", "list": [1, 2], ("a", 1): {"b": None}})
        q = alight.Queue.from_name("looked", create_if_missing=True)
        q.clear(all=True)
        q.put_many(["first", 2])
        q.put(3, partition="p")
        answer = None
    """)
    assert machine.run("dict", "get", "looked", "text").stdout == "plain\n"
    assert machine.run("dict", "get", "looked", "text", "--repr").stdout == "'plain'\n"
    items = machine.json("dict", "items", "looked", "--all")
    assert {"key": "list", "value": [1, 2]} in items
    assert {"key": ["a", 1], "value": {"b": None}} in items
    assert len(machine.json("dict", "items", "looked", "2")) == 2
    said = machine.run("dict", "get", "looked", "nothing", status=1).stderr
    assert "the dict looked has no key 'nothing'" in said
    assert machine.run("queue", "peek", "looked", "5").stdout == "first\n2\n"
    assert json.loads(machine.run("queue", "peek", "looked", "-p", "p", "--json").stdout) == [3]
    assert machine.run("queue", "len", "looked", "--total").stdout == "3\n"
    assert "no terminal to ask" in machine.run("queue", "clear", "looked", status=1).stderr
    machine.run("queue", "clear", "looked", "-p", "p", "-y")
    assert machine.run("queue", "len", "looked", "-t").stdout == "2\n"
    assert "looked" in machine.run("queue", "list").stdout
    machine.run("queue", "create", "looked")
    machine.run("dict", "delete", "looked", "-y")
    said = machine.run("dict", "items", "looked", status=1).stderr
    assert "there is no dict 'looked' in environment 'main'" in said
    assert "alight dict create looked" in said
    machine.run("dict", "delete", "looked", "-y", status=1)
    machine.run("dict", "delete", "looked", "-y", "--allow-missing")


def test_the_example(machine):
    said = machine.run("run", str(EXAMPLE), "--first", "9").stdout
    assert "22 numbers seen, the largest 52; reached 1" in said
    assert "left: 0" in said
