"""Protects the credentials that `alight curl` adds: for whom, by which header, and never for anybody else."""

from __future__ import annotations

import shutil

import pytest

from alight.cli import curl
from alight.wire.admission import TokenCreated
from alight.wire.errors import Error
from alight.wire.urls import WebUrl

OPTIONS = {"-d": True, "-H": True, "-s": False, "-S": False, "-L": False, "--url": True, "--max-time": True, "-o": True,
           "--data": True, "--compressed": False, "--user": True, "-u": True}  # fmt: skip
SHOP = WebUrl(
    "http://shop-price.localhost:9080",
    "http://localhost:9080/_/main/shop/price",
    "http://shop-price.alight.internal:9080",
    custom_domains=("api.example.com",),
    requires_proxy_auth=True,
)
TOKEN = TokenCreated("wk-1", "ws-2")


def test_urls_are_told_from_options_and_their_values():
    words = [
        "-sSd",
        "http://data",
        "one.localhost",
        "--max-time",
        "5",
        "--url",
        "two",
        "-ofile",
        "--compressed",
        "three",
    ]
    asked = curl.parse(words, OPTIONS)
    assert asked.urls == ["one.localhost", "two", "three"]
    assert asked.options >= {"-s", "-S", "-d", "--max-time", "-o", "--compressed"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_the_curl_that_is_here_says_which_options_take_values():
    found = curl._options(shutil.which("curl"))
    assert [found[one] for one in ("-d", "--data", "-H", "-o", "-s", "-L", "--compressed")] == [True] * 4 + [False] * 3


@pytest.mark.parametrize(
    ("url", "is_ours"),
    [
        ("http://shop-price.localhost:9080", True),
        ("shop-price.localhost:9080/x?y", True),
        ("HTTP://SHOP-price.localhost:9080/", True),
        ("http://127.0.0.1:9080/_/main/shop/price/x", True),
        ("http://localhost:9080/_/main/shop/price2", False),
        ("http://localhost:9081/_/main/shop/price", False),
        ("https://api.example.com/x", True),
        ("http://shop-price.localhost:9080@evil.example/", False),
        ("http://shop-price.localhost:9080.evil.example/", False),
        ("http://evil.example/shop-price.localhost:9080", False),
        ("http://{shop-price.localhost:9080,evil.example}/", False),
        ("http://shop-price.localhost:x", False),
    ],
)
def test_whose_a_url_is(url, is_ours):
    assert curl.answers(url, SHOP) is is_ours


def test_all_urls_must_be_ours(monkeypatch, capsys):
    monkeypatch.setattr(curl, "_web_functions", lambda: iter([SHOP]))
    ours = "http://shop-price.localhost:9080/x"
    assert curl._wants_token(curl.parse([ours], OPTIONS))
    assert not curl._wants_token(curl.parse([ours, "evil.example"], OPTIONS))
    assert "evil.example is no web function of this server" in capsys.readouterr().err
    assert not curl._wants_token(curl.parse(["http://evil.example"], OPTIONS))
    assert not curl._wants_token(curl.parse([ours, "--config", "x"], {**OPTIONS, "--config": True}))


def test_a_header_that_a_redirection_takes_along_is_not_used_with_one():
    assert curl.headers(TOKEN, curl.parse(["-L", "x"], OPTIONS)) == ['header = "Authorization: Bearer wk-1.ws-2"']
    own = curl.parse(["-H", "Authorization: mine", "x"], OPTIONS)
    assert [line.split(":")[0] for line in curl.headers(TOKEN, own)] == [
        'header = "Alight-Key',
        'header = "Alight-Secret',
    ]
    with pytest.raises(Error, match="redirection"):
        curl.headers(TOKEN, curl.parse(["-L", "-H", "X: y", "x"], OPTIONS))
