"""Protects the rules for browsers: which requests count as coming from our pages, what cookies and names become."""

from __future__ import annotations

import pytest

from alight.dashboard import guard
from alight.wire import errors

HOST = {"host": "alight.localhost:9080"}
OURS = "http://alight.localhost:9080"


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {}),
        ("GET", {"origin": OURS, "sec-fetch-site": "same-origin"}),
        ("GET", {"sec-fetch-site": "none"}),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}),  # a link that somebody sent
        ("POST", {"origin": OURS}),
        ("POST", {"origin": OURS.upper().replace("HTTP", "http")}),
    ],
)
def test_our_own_pages_and_those_who_come_by_address_may(method, headers):
    guard.check_origin(method, {**HOST, **headers}, secure=False, by_cookie=True)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"origin": "http://evil.example"}),
        ("GET", {"origin": "null"}),
        ("GET", {"sec-fetch-site": "cross-site"}),
        ("GET", {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}),  # a web function below the same domain
        ("GET", {"upgrade": "websocket"}),
        ("POST", {}),
        ("POST", {"origin": "https://alight.localhost:9080"}),
        ("POST", {"origin": "http://alight.localhost:9081"}),
        ("POST", {"origin": "http://alight.localhost:9080.evil.example"}),
        ("POST", {"origin": "http://shop-page.localhost:9080"}),
        ("POST", {"origin": "http://[bad"}),
        ("POST", {"origin": OURS, "sec-fetch-site": "cross-site"}),
    ],
)
def test_other_pages_may_not(method, headers):
    with pytest.raises(errors.PermissionDeniedError):
        guard.check_origin(method, {**HOST, **headers}, secure=False, by_cookie=True)


def test_a_program_with_a_token_states_no_origin():
    guard.check_origin("POST", HOST, secure=False, by_cookie=False)
    with pytest.raises(errors.PermissionDeniedError):
        guard.check_origin("POST", {**HOST, "origin": "http://evil.example"}, secure=False, by_cookie=False)


def test_a_request_without_a_host_is_of_no_page():
    with pytest.raises(errors.PermissionDeniedError):
        guard.check_origin("POST", {"origin": "http://"}, secure=False, by_cookie=True)


def test_the_word_against_forged_changes_belongs_to_one_session():
    mine, other = b"a" * 32, b"b" * 32
    guard.check_csrf({guard.CSRF: guard.csrf_of(mine)}, mine)
    for said in ({}, {guard.CSRF: ""}, {guard.CSRF: guard.csrf_of(other)}, {guard.CSRF: "ü"}):
        with pytest.raises(errors.PermissionDeniedError):
            guard.check_csrf(said, mine)


def test_cookies_of_several_servers_and_of_other_hosts_do_not_hide_ours():
    assert guard.cookie_name("alight.localhost:9080", secure=False) != guard.cookie_name(
        "alight.localhost:9081", secure=False
    )
    assert guard.cookie_name("alight.apps.example", secure=True).startswith("__Host-")
    lines = ("alight_9080=planted; x=1", "alight_9080=ours")
    assert guard.cookies(lines, "alight_9080") == ["planted", "ours"]
    assert len(guard.cookies(("a=1;" * 100,), "a")) <= 8


def test_a_session_cookie_is_for_this_host_and_no_script():
    said = guard.set_cookie("alight", "secret", 60, secure=True)
    assert {"HttpOnly", "SameSite=Strict", "Path=/", "Secure"} <= {part.strip() for part in said.split(";")}
    assert "domain" not in said.lower()


@pytest.mark.parametrize(
    "to", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "", "/a b", "/x\r\ny: z"]
)
def test_a_login_leads_nowhere_else(to):
    assert guard.local_path(to) == "/"


def test_a_login_leads_to_a_page():
    assert guard.local_path("/apps/ap-1?x=1&y=2") == "/apps/ap-1?x=1&y=2"


def test_pages_run_no_inline_script_and_data_is_no_page():
    policy = guard.PAGE_POLICY
    assert "unsafe" not in policy.partition("style-src")[0]
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    data = guard.fields("application/json")
    assert "sandbox" in data["content-security-policy"]
    assert (data["x-content-type-options"], data["x-frame-options"]) == ("nosniff", "DENY")
    assert data["cache-control"] == "no-store"


@pytest.mark.parametrize("name", ['a"b.txt', "a\r\nset-cookie: x=y", "ünï.html", "", "../../etc/passwd", "a;b"])
def test_names_of_files_stay_within_their_field(name):
    said = guard.attachment(name)
    assert said.startswith("attachment; ")
    assert "\r" not in said
    assert "\n" not in said
    assert said.isascii()
    assert said.count('"') == 2
