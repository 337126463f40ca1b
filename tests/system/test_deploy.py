"""Protects deployed apps: versions that serve, take over, come back and survive; what is not deployed harms nobody."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from tests.system.shop import SHOP, Shop, opened


@pytest.fixture
def shop(machine, tmp_path, request):
    with opened(machine, tmp_path, request.node.name) as made:
        yield made


def test_versions_take_over_and_can_be_gone_back_to(shop):
    said = shop.version(1, "", "--tag", "first").stdout
    assert f"Deployed {shop.name} v1 in" in said
    assert f'alight.Function.from_name("{shop.name}", "price").remote(…)' in said
    version, one = shop.price()
    assert version == 1
    assert "Nothing has changed" in shop.version(1).stdout
    assert shop.price() == (1, one), "an unchanged function keeps its containers"
    shop.version(2)
    version, two = shop.price()
    assert version == 2
    assert two != one
    back = shop.machine.run("app", "rollback", shop.name)
    assert "is at v3 now" in back.stdout
    version, three = shop.price()
    assert version == 1
    shop.machine.run("app", "rollover", shop.name)
    version, four = shop.price()
    assert (version, four == three) == (1, False)
    rows = [(one["version"], one["state"], one["tag"], one["kept"]) for one in shop.history()]
    assert rows == [("v3", "serves, v1 again", "first", True), ("v2", "", "", True), ("v1", "", "first", True)]
    listed = {one["description"]: one for one in shop.machine.json("app", "list")}[shop.name]
    assert (listed["state"], listed["version"]) == ("deployed", "v3")
    gone = shop.machine.run("app", "rollback", shop.name, "v9", status=1).stderr
    assert f"{shop.name} has no version v9" in gone
    shop.machine.run("app", "stop", shop.name, "--yes")
    said = shop.python("alight.Function.from_name(name, 'price').remote(1)", status=1).stderr
    assert f"there is no running or deployed app '{shop.name}'" in said
    assert "Deployed" in shop.version(5).stdout, "the name is free again"
    assert shop.price()[0] == 5


def test_a_version_that_does_not_come_up_is_taken_back(shop):
    shop.version(1)
    first = shop.price()
    # It imports here, not in the container.
    only_there = "if not alight.is_local():\n    import not_there_at_all\n"
    said = shop.deploy(only_there + SHOP.format(version=2, options=""), status=1)
    assert "v2" in said.stderr
    assert "did not come up" in said.stderr
    assert "not_there_at_all" in said.stderr
    assert "v1 serves on" in said.stderr
    assert shop.price() == first, "the old container has served all the time"
    said = shop.deploy("import not_there_at_all\n", status=1)
    assert "not_there_at_all" in said.stderr
    assert [(one["version"], one["state"]) for one in shop.history()] == [("v2", "failed"), ("v1", "serves")]
    shop.version(3)
    assert shop.price()[0] == 3
    assert [one["version"] for one in shop.history()] == ["v3", "v2", "v1"]


def test_a_first_version_that_does_not_come_up_leaves_nothing(shop):
    body = "if not alight.is_local():\n    raise RuntimeError('no licence')\n"
    said = shop.deploy(body + SHOP.format(version=1, options="min_containers=1"), status=1).stderr
    assert "no licence" in said
    assert "nothing was deployed" in said
    states = {one["description"]: one["state"] for one in shop.machine.json("app", "list")}
    assert states[shop.name] == "stopped"


@pytest.mark.parametrize("count", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_deploys_under_load_lose_and_repeat_nothing(shop, count):
    shop.version(0)
    program = shop.folder / "load.py"
    program.write_text(
        textwrap.dedent(f"""
        import sys, threading, time, alight
        price = alight.Function.from_name({shop.name!r}, "price")
        stop, said = threading.Event(), []
        def call(first):
            x = first
            while not stop.is_set():
                version, echoed, _ = price.remote(x)
                said.append((x, echoed, version))
                x += 4
        threads = [threading.Thread(target=call, args=(n,)) for n in range(4)]
        for one in threads: one.start()
        while len(said) < 10: time.sleep(0.01)
        print("up", flush=True)
        sys.stdin.readline()
        stop.set()
        for one in threads: one.join()
        assert all(x == echoed for x, echoed, _ in said)
        print(len(said), len({{x for x, _, _ in said}}), *sorted({{version for _, _, version in said}}))
        """)
    )
    load = subprocess.Popen(
        [sys.executable, program],
        env=shop.machine.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert load.stdout.readline() == "up\n"
    for number in range(1, count + 1):
        shop.version(number)
    out, err = load.communicate("\n", timeout=60)
    assert load.returncode == 0, err
    answers, distinct, *versions = map(int, out.split())
    assert answers == distinct > 10
    assert versions == list(range(count + 1)), "each version answered while it served"
    printed = shop.machine.run("app", "logs", shop.name, "--since", "1h").stdout.split("price of ")[1:]
    begun = [int(x) for x in printed]
    assert sorted(begun) == sorted(set(begun)), "none began twice"
    calls = shop.machine.json("call", "list", "--app", shop.name)
    assert not [one for one in calls if one["failed"]]


@pytest.mark.slow
def test_recreate_begins_anew_what_old_containers_ran_and_rolling_lets_it_end(shop):
    slow = """
    VERSION = {version}

    @app.function()
    def wait(folder):
        open(f"/tmp/x", "w").close()
        print("begun by", VERSION, flush=True)
        time.sleep({seconds})
        return VERSION
    """
    for strategy, answer in (("rolling", 1), ("recreate", 4)):
        number = 1 if strategy == "rolling" else 3
        shop.deploy(slow.format(version=number, seconds=4 if strategy == "rolling" else 60))
        call = shop.python("print(alight.Function.from_name(name, 'wait').spawn('').object_id)").stdout.strip()
        ends = time.monotonic() + 30
        while f"begun by {number}" not in shop.machine.run("app", "logs", shop.name).stdout:
            assert time.monotonic() < ends
        shop.deploy(slow.format(version=number + 1, seconds=0), "--strategy", strategy)
        got = shop.python(f"print(alight.FunctionCall.from_id({call!r}).get(timeout=30))").stdout
        assert int(got) == answer


@pytest.mark.slow
def test_functions_that_go_end_what_waits_for_them(shop):
    two = """
    @app.function(max_containers=1)
    def old(x):
        print("begun", x, flush=True)
        time.sleep(3)
        return x

    @app.function()
    def new(x):
        return old.remote(x)
    """
    shop.deploy(two)
    program = """
    old = alight.Function.from_name(name, "old")
    calls = [old.spawn(n) for n in range(3)]
    print(*[one.object_id for one in calls])
    """
    calls = shop.python(program).stdout.split()
    ends = time.monotonic() + 30
    while "begun" not in shop.machine.run("app", "logs", shop.name).stdout:
        assert time.monotonic() < ends
    said = shop.deploy("@app.function()\ndef new(x):\n    return x\n").stdout
    assert "gone: old" in said
    program = f"""
    for call in {calls!r}:
        try:
            print(alight.FunctionCall.from_id(call).get(timeout=20))
        except alight.exception.Error as error:
            print(error)
    """
    said = shop.python(program).stdout.splitlines()
    assert said[0] == "0", "what had begun goes on"
    assert said[1] == said[2] == f"old() is not in v2 of {shop.name} any more"
    said = shop.python("alight.Function.from_name(name, 'old').remote(1)", status=1).stderr
    assert "has no function 'old'" in said
    shop.deploy(two)
    assert shop.python("print(alight.Function.from_name(name, 'old').remote(7))").stdout == "7\n"


def test_deployed_apps_survive_server_and_node(fresh_machine, tmp_path):
    shop = Shop(fresh_machine, tmp_path, "lasting")
    shop.deploy(
        """
        @app.function(min_containers=1)
        def where():
            return ME

        @app.cls()
        class Counter:
            size: int = alight.parameter(default=3)

            @alight.method()
            def add(self, x):
                return self.size + x
        """
    )
    ask = "print(alight.Function.from_name(name, 'where').remote())"
    where = shop.python(ask).stdout.strip()
    server = next(pid for pid, words in fresh_machine.processes().items() if "alight.server" in words)
    subprocess.run(["kill", f"-{signal.SIGKILL}", str(server)], check=True)
    # A call that comes while nothing runs waits until it does; the container has gone on.
    assert shop.python(ask).stdout.strip() == where
    fresh_machine.run("server", "stop")
    fresh_machine.run("server", "start")
    ends = time.monotonic() + 60
    while not [one for one in fresh_machine.json("container", "list") if one["state"] == "ready"]:
        assert time.monotonic() < ends, "min_containers came back without a call"
    assert shop.python("print(alight.Cls.from_name(name, 'Counter')(size=5).add.remote(2))").stdout == "7\n"
    assert [one["version"] for one in shop.history()] == ["v1"]
    shown = fresh_machine.json("app", "info", "lasting")
    assert [one["name"] for one in shown["functions"]] == ["Counter.*", "where"]


def test_from_python_with_tags_and_a_commit(shop):
    shop.tags = {"team": "a"}
    for words in (["init", "-q"], ["config", "user.email", "x@example.org"], ["config", "user.name", "x"]):
        subprocess.run(["git", "-C", shop.folder, *words], check=True)
    shop.write(
        SHOP.format(version=1, options="secrets=[alight.Secret.from_dict({'KEY': 'value'})]")
        + textwrap.dedent(
            """
            @app.function()
            def asks(name):
                return alight.Function.from_name(name, "price").remote(3)[1]

            if __name__ == "__main__":
                done = app.deploy(tag="python")
                assert done is app and app.app_id.startswith("ap-")
                print(price.remote(2)[1], asks.remote(app.name))
                found = alight.App.lookup(app.name)
                print(found.app_id == app.app_id, found.get_tags())
                found.set_tags({"team": "b"})
                info = found.info()
                print(info.lifecycle.state.value, info.lifecycle.version, sorted(info.functions), found.get_tags())
                app.deploy()
            """
        )
    )
    subprocess.run(["git", "-C", shop.folder, "add", shop.script.name], check=True)
    subprocess.run(["git", "-C", shop.folder, "commit", "-q", "-m", "x"], check=True)
    commit = subprocess.run(["git", "-C", shop.folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    said = shop.machine.python(shop.script).stdout.splitlines()
    assert said[0] == "2 3"
    assert said[1] == "True {'team': 'a'}"
    assert said[2] == "deployed 1 ['asks', 'price'] {'team': 'b'}"
    [_, first] = shop.history()  # tags that are declared hold again
    assert (first["tag"], first["commit"], first["dirty"]) == ("python", commit.stdout.strip(), False)
    shop.write(SHOP.format(version=2, options="secrets=[alight.Secret.from_dict({'KEY': 'value'})]"))
    shop.deploy()
    assert shop.history()[0]["dirty"] is True
    assert "Nothing has changed" in shop.deploy().stdout, "an anonymous secret with the same values is the same"


def test_a_machine_elsewhere_calls_it_with_a_token(shop):
    shop.version(1)
    server = shop.machine.json("server", "status")
    token = shop.machine.json("token", "new", "--name", shop.name)[0]
    file = shop.folder / "elsewhere.py"
    file.write_text(f"import alight\nprint(alight.Function.from_name({shop.name!r}, 'price').remote(4)[:2])\n")
    home = shop.folder / "home"
    environment = {
        "ALIGHT_HOME": str(home),
        "ALIGHT_CONFIG_PATH": str(home / "alight.toml"),
        "ALIGHT_SERVER_URL": f"https://{server['address']}",
        "ALIGHT_FINGERPRINT": server["fingerprint"],
        "ALIGHT_TOKEN_ID": token["token_id"],
        "ALIGHT_TOKEN_SECRET": token["token_secret"],
    }
    words = [sys.executable, str(file)]
    done = subprocess.run(
        words, env=shop.machine.environment(**environment), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "(1, 4)\n", done.stderr


def test_bad_input_gets_a_sentence(shop):
    shop.script.write_text("import alight\napp = alight.App()\n@app.function()\ndef f(): pass\n")
    assert "an app needs a name to be deployed" in shop.deploy(status=2).stderr
    shop.write("other = alight.App('second')\n")
    assert f"the app {shop.name} has no functions to deploy" in shop.deploy(status=1).stderr
    assert "is not an app" in shop.machine.run("deploy", f"{shop.script}::os", status=2).stderr
    shop.write("@app.function()\ndef f(): pass\n")
    assert "cannot be" in shop.deploy(None, "-e", "no such place", status=1).stderr
    assert "at most 50" in shop.deploy(None, "--tag", "x" * 51, status=1).stderr
    assert "there is no running or deployed app" in shop.machine.run("app", "rollback", shop.name, status=1).stderr
    states = {one["description"]: one["state"] for one in shop.machine.json("app", "list")}
    assert states.get(shop.name) != "deployed"


def test_of_two_deploys_at_once_one_wins_and_the_other_says_so(shop):
    shop.write(SHOP.format(version=1, options=""))
    other = shop.folder / "other"
    other.mkdir()
    second = Shop(shop.machine, other, shop.name)
    second.write(SHOP.format(version=2, options=""))
    ends: list[int] = []
    said: list[str] = []

    def one(which: Shop) -> None:
        done = which.deploy(status=None)
        ends.append(done.returncode)
        said.append(done.stdout + done.stderr)

    threads = [threading.Thread(target=one, args=(which,)) for which in (shop, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if sorted(ends) == [0, 0]:  # one came after the other
        assert len(shop.history()) == 2
        return
    assert sorted(ends) == [0, 1], said
    assert re.search("was deployed|being deployed", " ".join(said))
    assert len(shop.history()) == 1


def test_environments_are_made_listed_and_deleted(shop):
    machine = shop.machine
    machine.run("environment", "create", "staging")
    assert "already" in machine.run("environment", "create", "staging", status=1).stderr
    shop.version(1)
    shop.version(2, "", "-e", "staging")
    assert shop.price()[0] == 1
    ask = "print(alight.Function.from_name(name, 'price', environment_name='staging').remote(1)[0])"
    assert shop.python(ask).stdout == "2\n"
    listed = {one["name"]: one["apps"] for one in machine.json("environment", "list")}
    assert listed["staging"] == 1
    shown = "[(one.description, one.lifecycle.version, list(one.functions)) for one in found]"
    ask_apps = f"found = alight.Environment.from_name('staging').apps.list()\nprint({shown})"
    assert shop.python(ask_apps).stdout == f"[('{shop.name}', 1, ['price'])]\n"
    machine.run("environment", "delete", "staging", status=1)  # nobody to ask
    machine.run("environment", "delete", "staging", "--yes")
    assert "staging" not in {one["name"] for one in machine.json("environment", "list")}
    assert "there is no running or deployed app" in shop.python(ask, status=1).stderr
    assert shop.price()[0] == 1
