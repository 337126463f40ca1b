"""What is printed of web functions, and which form of a URL is for code that asks here."""

import pytest

from alight.sdk import web_urls
from alight.wire.urls import WebUrl


@pytest.mark.parametrize(
    ("nsswitch", "resolved", "known"),
    [
        ("hosts: files dns\n", True, False),
        ("passwd: files\nhosts:\tfiles mymachines myhostname dns\n", False, True),
        ("hosts: files resolve [!UNAVAIL=return] dns\n", True, True),
        ("hosts: files resolve [!UNAVAIL=return] dns\n", False, False),
        ("hosts: files dns # myhostname\n", False, False),
        ("", True, False),
    ],
)
def test_whether_names_below_localhost_resolve_is_read_and_not_tried(nsswitch, resolved, known):
    assert web_urls.knows_localhost(nsswitch, resolved) is known


def test_every_url_of_a_function_is_printed():
    one = WebUrl("http://x-f.localhost:1", "http://localhost:1/_/main/x/f", "", custom_domains=("api.example.com",))
    assert web_urls.lines("f", (one,)) == [
        "f => http://x-f.localhost:1",
        "     http://localhost:1/_/main/x/f",
        "     https://api.example.com",
    ]


def test_methods_are_named_with_their_class_and_protection_is_said():
    one = WebUrl("http://l", "http://l", "", method="ask", requires_proxy_auth=True, note="shortened")
    assert web_urls.lines("Model.*", (one,)) == ["Model.ask => http://l  (needs a token)", "             shortened"]
    assert web_urls.lines("Chat.*", (WebUrl("http://l", "http://l", ""),)) == ["Chat => http://l"]


def test_a_server_that_listens_nowhere_is_said():
    assert web_urls.lines("f", (WebUrl("", "", "http://x"),)) == ["f: the server listens nowhere for web requests"]
