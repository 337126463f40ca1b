"""Names of web functions: labels that are valid host names, that stay, and that no two functions share."""

import re
from dataclasses import dataclass

import pytest

from alight.server.services import urls
from alight.wire import errors
from alight.wire.spec import FunctionSpec

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass
class App:
    app_id: str
    name: str
    created_at: float
    state: str = "deployed"
    environment: str = "main"
    description: str = ""
    owner: str = "owner"


def web(name, **said):
    return FunctionSpec(name=name, web={"kind": "asgi_app", **said})


def endpoints(*apps_and_specs):
    found = []
    for app, *specs in apps_and_specs:
        for number, spec in enumerate(specs):
            found += urls.of_spec(spec, app, f"fu-{app.app_id}-{number}")
    return found


def labels(found):
    return {label: (one.app_id, one.function) for label, one in urls.assign(found).items()}


@pytest.mark.parametrize(
    ("app", "function", "given", "dev", "label"),
    [
        ("shop", "page", "", False, "shop-page"),
        ("Shop.io", "Front_Page", "", False, "shop-io-front-page"),
        ("shop", "Model.predict", "", True, "shop-model-predict-dev"),
        ("shop", "page", "front", False, "front"),
        ("shop", "page", "front", True, "front-dev"),
        ("_x_", "f", "", False, "x--f"),
        ("___", "_", "", False, "app"),
        ("ärger", "f", "", False, "rger-f"),
    ],
)
def test_labels_are_made_of_names(app, function, given, dev, label):
    assert urls.label_of(app, function, given, dev=dev) == label


def test_a_long_label_is_cut_and_hashed():
    long = urls.label_of("a" * 60, "b" * 60, dev=False)
    other = urls.label_of("a" * 60, "c" * 60, dev=False)
    assert len(long) == 63
    assert re.fullmatch(r"a{56}-[0-9a-f]{6}", long)
    assert long != other
    assert len(urls.label_of("a" * 61, "b", dev=False)) == 63
    assert urls.label_of("a" * 61, "b", dev=False) == "a" * 61 + "-b"  # exactly 63: as it is


def test_every_label_is_a_valid_part_of_a_host_name():
    for app in ("x", "-", "a" * 64, "A.b_c", "." * 9, "9"):
        for function in ("f", "Cls.m", "_", "f" * 200):
            for dev in (False, True):
                assert _LABEL.fullmatch(urls.label_of(app, function, dev=dev))


def test_an_environment_other_than_main_is_in_the_label():
    found = endpoints((App("ap-1", "shop", 1), web("page")), (App("ap-2", "shop", 2, environment="test"), web("page")))
    assert labels(found) == {"shop-page": ("ap-1", "page"), "test--shop-page": ("ap-2", "page")}


def test_who_was_deployed_first_keeps_a_label_and_the_other_gets_a_hash():
    older, newer = App("ap-1", "a-b", 1), App("ap-2", "a", 2)
    found = endpoints((newer, web("b-c")), (older, web("c")))
    table = labels(found)
    assert table["a-b-c"] == ("ap-1", "c")
    other = next(label for label, who in table.items() if who == ("ap-2", "b-c"))
    assert re.fullmatch(r"a-b-c-[0-9a-f]{6}", other)
    told = urls.url_of(next(one for one in found if one.app_id == "ap-2"), urls.Base("127.0.0.1:9080"), found)
    assert other in told.url
    assert "c of the app 'a-b'" in told.note


def test_the_newest_run_takes_a_dev_label_and_the_older_one_keeps_its_path():
    found = endpoints((App("ap-1", "x", 1, "running"), web("f")), (App("ap-2", "x", 2, "running"), web("f")))
    assert labels(found) == {"x-f-dev": ("ap-2", "f")}
    older = urls.url_of(found[0], urls.Base("127.0.0.1:9080"), found)
    assert older.url == older.path_url == "http://localhost:9080/_/main/ap-1/f"
    assert older.inside == "http://alight.internal:9080/_/main/ap-1/f"
    assert "newer" in older.note
    newer = urls.url_of(found[1], urls.Base("127.0.0.1:9080"), found)
    assert newer.url == "http://x-f-dev.localhost:9080"
    assert newer.path_url == "http://localhost:9080/_/main/x/f"
    assert newer.inside == "http://x-f-dev.alight.internal:9080"
    assert not newer.note


def test_a_deployed_function_never_loses_its_label_to_a_run():
    found = endpoints((App("ap-1", "x", 1), web("f-dev")), (App("ap-2", "x", 2, "running"), web("f")))
    table = labels(found)
    assert table["x-f-dev"] == ("ap-1", "f-dev")
    assert len(table) == 2


def test_methods_of_a_class_have_urls_of_their_own():
    spec = FunctionSpec(
        name="Model.*", class_name="Model", web={"ask": {"kind": "fastapi_endpoint"}, "see": {"kind": "asgi_app"}}
    )
    found = endpoints((App("ap-1", "llm", 1), spec))
    assert labels(found) == {"llm-model-ask": ("ap-1", "Model.ask"), "llm-model-see": ("ap-1", "Model.see")}
    assert {one.method for one in found} == {"ask", "see"}
    assert ("main", "llm", "Model.ask") in urls.paths(found)


def test_a_class_that_is_a_server_has_the_urls_of_its_name():
    found = endpoints((App("ap-1", "llm", 1), FunctionSpec(name="Chat.*", class_name="Chat", web={"": {"port": 8000}})))
    assert labels(found) == {"llm-chat": ("ap-1", "Chat")}
    assert ("main", "llm", "Chat") in urls.paths(found)


def test_functions_without_a_web_decorator_have_no_urls():
    assert endpoints((App("ap-1", "x", 1), FunctionSpec(name="f"), FunctionSpec(name="C.*"))) == []


def test_a_path_means_the_deployed_app_of_a_name_and_every_app_by_its_id():
    found = endpoints((App("ap-1", "x", 1), web("f")), (App("ap-2", "x", 2, "running"), web("f")))
    table = urls.paths(found)
    assert table["main", "x", "f"].app_id == "ap-1"
    assert table["main", "ap-2", "f"].app_id == "ap-2"


@pytest.mark.parametrize(
    ("base", "label", "path"),
    [
        (urls.Base("127.0.0.1:9080"), "http://l.localhost:9080", "http://localhost:9080/_/main/x/f"),
        (urls.Base("0.0.0.0:80", "box"), "http://l.localhost", "http://box/_/main/x/f"),
        (urls.Base("10.0.0.5:9080"), "http://l.localhost:9080", "http://10.0.0.5:9080/_/main/x/f"),
        (urls.Base("[fd00::1]:9080"), "http://l.localhost:9080", "http://[fd00::1]:9080/_/main/x/f"),
        (
            urls.Base("0.0.0.0:443", "box", "apps.example.com", tls=True),
            "https://l.apps.example.com",
            "https://apps.example.com/_/main/x/f",
        ),
        (
            urls.Base("0.0.0.0:8443", "box", "apps.example.com", tls=True),
            "https://l.apps.example.com:8443",
            "https://apps.example.com:8443/_/main/x/f",
        ),
        (
            urls.Base("127.0.0.1:9080", "box", "apps.example.com", proxied=True),
            "https://l.apps.example.com",
            "https://apps.example.com/_/main/x/f",
        ),
        (
            urls.Base("0.0.0.0:9080", "box", "apps.example.com"),
            "http://l.apps.example.com:9080",
            "http://apps.example.com:9080/_/main/x/f",
        ),
    ],
)
def test_urls_begin_with_where_the_gateway_is_reached(base, label, path):
    found = endpoints((App("ap-1", "x", 1), web("f", label="l")))
    told = urls.url_of(found[0], base, found)
    assert (told.url, told.path_url) == (label, path)


def test_names_in_paths_are_quoted():
    found = endpoints((App("ap-1", "", 1, "running", description="my run/1"), web("f")))
    assert urls.path_of(found[0]) == "/_/main/my%20run%2F1/f"


def test_two_functions_of_an_app_with_one_label_are_refused():
    wanted = endpoints((App("ap-1", "x", 1), web("f", label="same"), web("g", label="same")))
    with pytest.raises(errors.InvalidError, match="f and g want the same label: 'same'"):
        urls.check(wanted, [])


def test_the_label_of_the_dashboard_is_nobodys():
    """A function there would be at the host that has the sessions of people."""
    found = endpoints((App("ap-1", "shop", 1.0), web("page", label="alight")))
    with pytest.raises(errors.InvalidError, match="dashboard"):
        urls.check(found, [])
    old = endpoints((App("ap-1", "alight", 1.0), web("_")), (App("ap-2", "x", 2.0), web("f", label="alight")))
    assert "alight" not in labels(old)
    assert len(labels(old)) == 2
    assert "dashboard" in urls.url_of(old[1], urls.Base("127.0.0.1:1"), old).note
    fleeting = endpoints((App("ap-1", "shop", 1.0, state="running"), web("page", label="alight")))
    urls.check(fleeting, [])
    assert labels(fleeting) == {"alight-dev": ("ap-1", "page")}


def test_a_label_that_another_deployed_app_has_is_refused_and_that_of_a_run_is_not():
    mine = endpoints((App("ap-2", "y", 2), web("g", label="x-f")))
    with pytest.raises(errors.ConflictError, match="that of f of the app 'x'"):
        urls.check(mine, endpoints((App("ap-1", "x", 1), web("f"))))
    urls.check(mine, endpoints((App("ap-1", "x", 1, "running"), web("f", label="x-f"))))


@pytest.mark.parametrize(
    "domain", ["example", "-a.example.com", "a b.example.com", "http://example.com", "x" * 260 + ".com"]
)
def test_what_is_no_domain_is_refused(domain):
    with pytest.raises(errors.InvalidError, match="not the name of a domain"):
        urls.check(endpoints((App("ap-1", "x", 1), web("f", custom_domains=[domain]))), [])


def test_domains_have_one_owner():
    one, other = App("ap-1", "x", 1), App("ap-2", "y", 2)
    held = endpoints((one, web("f", custom_domains=["Api.example.com"])))
    assert urls.domains(held)["api.example.com"].app_id == "ap-1"
    with pytest.raises(errors.ConflictError, match=r"wants api\.example\.com"):
        urls.check(endpoints((other, web("g", custom_domains=["api.example.com"]))), held)
    with pytest.raises(errors.InvalidError, match="want the same domain"):
        urls.check(endpoints((one, web("f", custom_domains=["a.b.c"]), web("g", custom_domains=["a.b.c"]))), [])
