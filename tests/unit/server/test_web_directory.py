"""Protects what a request without a function gets: a list for those who may see it, and for nobody else."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from alight.server.auth import OWNER, Token, hash_secret
from alight.server.services import urls
from alight.server.web_directory import NOTHING, Directory


def endpoint(app, owner):
    return urls.Endpoint("fu-1", "", f"ap-{app}", app, "main", "hello", owner, deployed=True, since=1.0)


class Tokens:
    async def find(self, key, now):
        return Token("ak-1", hash_secret("as-1"), "", "user", "ann") if key == "ak-1" else None


def said(headers):
    names = SimpleNamespace(
        base=urls.Base("127.0.0.1:9080"), endpoints=lambda: [endpoint("hers", "ann"), endpoint("his", "bob")]
    )
    access = SimpleNamespace(
        owner=lambda key, secret: {("wk-1", "ws-1"): "bob", ("wk-0", "ws-0"): OWNER}.get((key, secret))
    )
    status, _, body = asyncio.run(Directory(names, access, Tokens()).answer("GET", "/", headers, b""))
    assert status == 404
    first, *lines = body.decode().splitlines()
    assert first == NOTHING
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        ({"modal-key": "wk-1", "modal-secret": "ws-1"}, {"his"}),
        ({"alight-key": "wk-0", "alight-secret": "ws-0"}, {"hers", "his"}),
        ({"authorization": "Bearer wk-1.ws-1"}, {"his"}),
        ({"authorization": "Bearer ak-1:as-1"}, {"hers"}),
        ({"authorization": "Bearer ak-1:as-2"}, set()),
        ({"authorization": "Bearer wk-1.ws-2"}, set()),
        ({"authorization": "Basic d2stMTp3cy0x"}, set()),
        ({"modal-key": "wk-1"}, set()),
    ],
)
def test_a_token_shows_the_functions_of_whoever_made_it(headers, seen):
    text = said(headers)
    assert {app for app in ("hers", "his") if f"http://{app}-hello.localhost:9080" in text} == seen
    assert bool(text) == bool(seen)
