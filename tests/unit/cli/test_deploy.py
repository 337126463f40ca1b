"""Protects which app is deployed, what is printed of it, and how versions and environments read."""

from __future__ import annotations

import json
from types import ModuleType, SimpleNamespace

import pytest

import alight
from alight.cli import main, session
from alight.cli.deploy import find_app, said
from alight.cli.errors import UsageError
from alight.wire.deploying import (
    AppDescribed,
    DeployDone,
    DeployVersion,
    DeployVersions,
    EnvironmentListed,
    EnvironmentSummary,
    FunctionLine,
)
from alight.wire.messages import PublishedFunction
from alight.wire.urls import WebUrl


class Server:
    """Answers by method and keeps what was asked."""

    def __init__(self, **answers):
        self.asked, self.answers = [], {name.replace("_", "."): answer for name, answer in answers.items()}

    def ask(self, method, request, reply):
        self.asked.append((method, request))
        answer = self.answers[method]
        assert isinstance(answer, reply)
        return answer

    def tell(self, method, request):
        self.asked.append((method, request))


@pytest.fixture
def serve(monkeypatch):
    def make(**answers):
        server = Server(**answers)
        monkeypatch.setattr(session, "ask", server.ask)
        monkeypatch.setattr(session, "tell", server.tell)
        return server

    return make


def module(**names):
    made = ModuleType("shop")
    vars(made).update(names)
    return made


def test_the_app_that_is_meant():
    one, other = alight.App("one"), alight.App("other")
    assert find_app(module(x=one), "", "shop.py") is one
    assert find_app(module(x=other, app=one), "", "shop.py") is one
    assert find_app(module(x=other, app=one), "x", "shop.py") is other
    for names, thing, words in (
        ({}, "", "there is no app in shop.py"),
        ({"x": one, "y": other}, "", "shop.py has 2 apps, and none was named"),
        ({"x": one}, "y", "there is no 'y' in shop.py"),
        ({"x": one, "y": 3}, "y", "'y' in shop.py is not an app"),
    ):
        with pytest.raises(UsageError, match=words):
            find_app(module(**names), thing, "shop.py")


def test_what_is_printed_of_a_deploy():
    functions = (PublishedFunction("Model.*", "fu-1"), PublishedFunction("train", "fu-2"))
    done = DeployDone("ap-1", 3, functions=functions, gone=("Old.*", "old"))
    deployed = SimpleNamespace(name="shop", environment="dev", done=done)
    assert said(deployed, 1.23) == [
        "Deployed shop v3 to the environment dev in 1.2 s",
        "  functions: Model (class), train",
        "  gone: Old, old",
        '  call: alight.Function.from_name("shop", "train", environment_name="dev").remote(…)',
    ]
    done = DeployDone("ap-1", 3, functions=functions[:1])
    deployed = SimpleNamespace(name="shop", environment="main", done=done)
    assert said(deployed, 0)[-1] == '  call: alight.Cls.from_name("shop", "Model")().METHOD.remote(…)'
    deployed = SimpleNamespace(name="shop", environment="main", done=DeployDone("ap-1", 2, changed=False))
    assert said(deployed, 0) == ["Nothing has changed: shop stays at v2"]
    staged = DeployDone("ap-1", 4, functions=functions, staged=True)
    assert said(SimpleNamespace(name="shop", environment="dev", done=staged), 1.23) == [
        "Staged shop v4 to the environment dev in 1.2 s: it comes up, and serves nothing yet",
        "  promote: alight app promote shop v4 -e dev",
    ]


def test_history_says_which_version_serves_and_which_failed(serve, capsys):
    versions = (
        DeployVersion(4, 0.0, "owner", origin=2, kept=True),
        DeployVersion(3, 0.0, "owner", failed="v3 did not come up"),
        DeployVersion(2, 0.0, "owner", "tagged", "abcdef0123456789", True, "0.1", kept=True),
    )
    serve(deploy_history=DeployVersions("ap-1", "shop", 4, versions))
    assert main.run(["app", "history", "shop"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "serves, v2 again" in lines[1]
    assert "failed" in lines[2]
    assert "abcdef012345*" in lines[3]
    assert main.run(["app", "history", "shop", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert (rows[1]["failed"], rows[2]["commit"], rows[2]["dirty"]) == ("v3 did not come up", "abcdef0123456789", True)


def test_going_back_takes_a_version_as_people_write_it(serve, capsys):
    server = serve(deploy_rollback=DeployDone("ap-1", 5, notes=("not tried first",)))
    assert main.run(["app", "rollback", "shop", "v3", "--strategy", "recreate"]) == 0
    _, request = server.asked[0]
    assert (request.app, request.version, request.strategy) == ("shop", 3, "recreate")
    out, err = capsys.readouterr()
    assert "shop is at v5 now, which is v3 again" in out
    assert "not tried first" in err
    assert main.run(["app", "rollback", "shop"]) == 0
    assert server.asked[1][1].version == 0
    assert main.run(["app", "rollback", "shop", "x3"]) == 2
    assert "'x3' is no version" in capsys.readouterr().err


def test_history_says_what_is_staged_and_what_was_promoted(serve, capsys):
    versions = (
        DeployVersion(4, 0.0, "owner", origin=2),
        DeployVersion(3, 0.0, "owner", staged=True),
        DeployVersion(2, 0.0, "owner", staged=True),
        DeployVersion(1, 0.0, "owner", staged=True, failed="v1 did not come up"),
    )
    serve(deploy_history=DeployVersions("ap-1", "shop", 4, versions))
    assert main.run(["app", "history", "shop", "--json"]) == 0
    states = [row["state"] for row in json.loads(capsys.readouterr().out)]
    assert states == ["serves, v2 promoted", "staged", "promoted", "failed"]


def test_a_staged_version_is_promoted_by_its_number(serve, capsys):
    server = serve(deploy_promote=DeployDone("ap-1", 5))
    assert main.run(["app", "promote", "shop", "v4"]) == 0
    method, request = server.asked[0]
    assert (method, request.app, request.version, request.strategy) == ("deploy.promote", "shop", 4, "rolling")
    assert "shop is at v5 now, which is v4 as it was staged" in capsys.readouterr().out
    assert main.run(["app", "promote", "shop"]) == 2


def test_info_shows_what_there_is(serve, capsys):
    page = WebUrl("http://shop-page.localhost:9010", "http://localhost:9010/_/main/shop/page", "")
    functions = (
        FunctionLine("Model.*", "fu-1", ("fit",), containers=1),
        FunctionLine("f", "fu-2"),
        FunctionLine("page", "fu-3", is_web=True, web=(page,)),
    )
    found = AppDescribed(
        "ap-1", "shop", "shop", "main", "deployed", 3, 1.0, "owner", 2.0, "owner", tags={"a": "b"}, functions=functions
    )
    serve(app_find=found)
    assert main.run(["app", "info", "shop"]) == 0
    out = capsys.readouterr().out
    for words in ("Version:     v3", "Tags:        a=b", "Model (fit)  fu-1  1 container\n", "f  fu-2  no containers"):
        assert words in out
    assert "    page => http://shop-page.localhost:9010\n" in out
    assert "            http://localhost:9010/_/main/shop/page\n" in out
    assert "Stopped" not in out
    assert main.run(["app", "info", "shop", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["functions"][1]["name"] == "f"


def test_an_environment_is_deleted_by_who_means_it(serve, capsys):
    server = serve(environment_list=EnvironmentListed((EnvironmentSummary("dev", 0.0, "owner", 2, 0, 1),)))
    assert main.run(["environment", "delete", "dev"]) == 1
    assert "2 apps and 1 secrets" in capsys.readouterr().err
    assert main.run(["environment", "delete", "other", "--yes"]) == 1
    assert "there is: dev" in capsys.readouterr().err
    assert [method for method, _ in server.asked] == ["environment.list"] * 2
    assert main.run(["environment", "delete", "dev", "--yes"]) == 0
    assert server.asked[-1][1].name == "dev"
    assert main.run(["environment", "create", "no such"]) == 1
