"""Staged versions in real containers: what serves is not touched, a web function of one has no address, and it is
tried with what it will run with."""

from __future__ import annotations

import pytest

from tests.system.scripted import settled
from tests.system.shop import SHOP, opened

#: Comes up with its secret and its volume only.
NEEDS = """
if not alight.is_local():
    assert os.environ["PLACE"] == "shop"
    os.listdir("/gate")
    print("it came up", flush=True)
"""
OPTIONS = (
    "secrets=[alight.Secret.from_dict({'PLACE': 'shop'})], "
    "volumes={'/gate': alight.Volume.from_name('staged-gate', create_if_missing=True)}"
)
PAGE = """
async def page(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

@app.function(OPTIONS)
@alight.asgi_app(label="staged-page")
def web():
    return page
"""


@pytest.fixture
def shop(machine, tmp_path, request):
    with opened(machine, tmp_path, request.node.name) as made:
        yield made


def test_a_staged_version_is_tried_and_serves_when_it_is_promoted(shop):
    shop.version(1)
    first = shop.price()
    said = shop.deploy(NEEDS + SHOP.format(version=2, options=OPTIONS) + PAGE.replace("OPTIONS", OPTIONS), "--staged")
    assert f"Staged {shop.name} v2 in" in said.stdout
    assert f"alight app promote {shop.name} v2" in said.stdout
    assert shop.price() == first
    described = shop.machine.json("app", "info", shop.name)
    assert [one["name"] for one in described["functions"]] == ["price"]
    assert [(one["version"], one["state"]) for one in shop.history()] == [("v2", "staged"), ("v1", "serves")]
    settled(lambda: len(shop.machine.json("container", "list")) == 1)  # no container of the trial is left

    said = shop.machine.run("app", "promote", shop.name, "v2")
    assert f"{shop.name} is at v3 now" in said.stdout
    assert shop.price()[0] == 2
    [page] = [one["web"] for one in shop.machine.json("app", "info", shop.name)["functions"] if one.get("web")]
    assert page[0]["url"].startswith("http://staged-page.localhost")
    assert [(one["version"], one["state"]) for one in shop.history()] == [
        ("v3", "serves, v2 promoted"),
        ("v2", "promoted"),
        ("v1", ""),
    ]
    shop.machine.run("app", "rollback", shop.name)
    assert shop.price()[0] == 1, "the version before that served"


def test_one_that_does_not_come_up_says_so_and_its_log_is_there(shop):
    shop.version(1)
    first = shop.price()
    broken = "if not alight.is_local():\n    print('so far', flush=True)\n    import not_there_at_all\n"
    said = shop.deploy(broken + SHOP.format(version=2, options=""), "--staged", status=1).stderr
    assert "v2" in said
    assert "not_there_at_all" in said
    tried = next(word.strip("`;") for word in said.split() if word.startswith("ap-"))
    assert "so far" in shop.machine.run("app", "logs", tried).stdout
    assert shop.price() == first
    assert [(one["version"], one["state"]) for one in shop.history()] == [("v2", "failed"), ("v1", "serves")]


def test_the_first_version_can_be_staged(shop):
    shop.version(1, "", "--staged")
    said = shop.python("alight.Function.from_name(name, 'price').remote(1)", status=1).stderr
    assert "has no function" in said
    shop.machine.run("app", "promote", shop.name, "v1")
    assert shop.price()[0] == 1
