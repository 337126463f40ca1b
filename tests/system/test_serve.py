"""`alight serve`: what is saved answers soon, a broken script changes nothing, and its end is the end of the app."""

from __future__ import annotations

import signal
import time

import pytest

from tests.system.serving import SCRIPT, serving


@pytest.fixture
def served(machine, tmp_path):
    with serving(machine, tmp_path) as one:
        yield one


def test_what_is_saved_is_served(served):
    said = served.until("Serving ap-")
    assert "version" in said
    served.until("hourly has a schedule: it runs by itself once it is deployed")
    assert served.call() == "(1, 'one')"
    served.script.write_text(SCRIPT.format(version=2))
    served.until("served.py changed")
    first = float(served.until("Reloaded in").split("Reloaded in")[1].split()[0])
    assert served.call() == "(2, 'one')"
    (served.folder / "helper.py").write_text("NAME = 'two'\n")
    served.until("helper.py changed")
    second = float(served.until("Reloaded in").split("Reloaded in")[1].split()[0])
    assert served.call() == "(2, 'two')"
    assert min(first, second) < 5  # 0.3 s on an idle machine

    served.script.write_text("import alight\nthis is no Python\n")
    served.until("SyntaxError")
    served.until("this version cannot be served: the one before goes on")
    assert served.call() == "(2, 'two')"
    served.script.write_text("import alight\nraise ValueError('bare')\n")
    served.until("ValueError: bare")
    assert served.call() == "(2, 'two')"
    served.script.write_text(SCRIPT.format(version=3).replace("def hourly", "def daily"))
    served.until("Reloaded in")
    assert served.call() == "(3, 'two')"
    file = served.folder / "program.py"
    file.write_text("import alight\nalight.Function.from_name('served', 'hourly').remote()\n")
    assert "the app 'served' has no function 'hourly'" in served.machine.python(file, status=1).stderr

    app = next(one for one in served.machine.json("app", "list") if one["description"] == "served")
    assert app["state"] == "running"
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(30) == 0
    apps = {one["app_id"]: one["state"] for one in served.machine.json("app", "list")}
    assert apps[app["app_id"]] == "stopped"
    assert not [line for line in served.machine.processes().values() if "reloader" in line]


@pytest.mark.slow
def test_it_ends_after_its_time(machine, tmp_path):
    (tmp_path / "helper.py").write_text("NAME = 'one'\n")
    (tmp_path / "served.py").write_text(SCRIPT.format(version=1))
    started = time.monotonic()
    done = machine.run("serve", tmp_path / "served.py", "--timeout", "6", cwd=tmp_path)
    assert time.monotonic() - started > 6
    assert "Serving ap-" in done.stderr


def test_a_script_that_is_broken_from_the_start_is_not_served(machine, tmp_path):
    (tmp_path / "served.py").write_text("raise ValueError('bare')\n")
    done = machine.run("serve", tmp_path / "served.py", status=1)
    assert "ValueError: bare" in done.stderr
    done = machine.run("serve", tmp_path / "nothing.py", status=2)
    assert "there is no file" in done.stderr
