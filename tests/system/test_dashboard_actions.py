"""Protects what the dashboard's buttons do, in a real browser: each asks, takes a no, does it, and says who did."""

from __future__ import annotations

import time

import pytest

from tests.system import looker

pytestmark = [pytest.mark.slow]

APP = """
import time

import alight

app = alight.App("desk", image=alight.Image.debian_slim(python_version="3.11"))


@app.function(timeout=900)
def hold(seconds):
    time.sleep(seconds)


@app.function()
def picky(x):
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


@app.function()
def version():
    return 1


@app.function(schedule=alight.Period(days=30))
def nightly():
    return "ran"
"""


class Desk:
    """An app that is deployed twice, and a tab to press buttons in."""

    def __init__(self, machine, folder, eye):
        self.machine, self.folder, self.eye, self.tab = machine, folder, eye, eye.tab
        self.app = next(one["app_id"] for one in machine.json("app", "list"))

    def call(self, code):
        script = self.folder / "again.py"
        script.write_text(f"import alight\nof = lambda name: alight.Function.from_name('desk', name)\nprint({code})\n")
        return self.machine.python(script).stdout.strip()

    def page(self, kind, name):
        """The path of a function or of a living container of one."""
        path = {"functions": f"apps/{self.app}", "containers": "containers"}[kind]
        found = self.tab.evaluate("path => fetch('/api/v1/' + path).then(answer => answer.json())", path)
        found = found["app"]["functions"] if kind == "functions" else found["containers"]
        field = "name" if kind == "functions" else "function"
        one = next(one for one in found if one[field] == name)
        return f"/{kind}/{one.get('container_id') or one['function_id']}"

    def press(self, button, question, *, no, verb="", fill=None, unchanged):
        """Press it, say no, see that nothing happened; press it again, say yes."""
        ask = self.tab.get_by_role("button", name=button, exact=True).first
        dialog = self.tab.locator("dialog")
        ask.click()
        dialog.get_by_text(question).wait_for()
        if no == "Escape":
            self.tab.keyboard.press("Escape")
        else:
            dialog.get_by_role("button", name=no).click()
        dialog.wait_for(state="detached")
        assert unchanged(), f"{button} was refused, and happened"
        ask.click()
        for label, value in (fill or {}).items():
            dialog.get_by_label(label).fill(value)
        dialog.get_by_role("button", name=verb or button, exact=True).click()
        dialog.wait_for(state="detached")

    def becomes(self, condition):
        until = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < until, f"it did not come to be\n{self.machine.logs()}"
            time.sleep(0.1)

    def written(self, action, target):
        """The page of changes has a line of it, with who."""
        self.eye.go("/audit", ".rows .row")
        line = self.tab.locator(".rows .row", has_text=action).filter(has_text=target).first
        line.wait_for()
        assert "owner" in line.inner_text()

    def state(self, *words, **wanted):
        """Of what `alight WORDS --json` lists, the first that has the fields."""
        found = self.machine.json(*words)
        return next((one for one in found if all(one[name] == value for name, value in wanted.items())), None)


@pytest.fixture(scope="module")
def desk(new_machine, tmp_path_factory):
    machine = new_machine()
    folder = tmp_path_factory.mktemp("desk")
    (folder / "desk.py").write_text(APP)
    machine.run("deploy", folder / "desk.py", cwd=folder)
    (folder / "desk.py").write_text(APP.replace("return 1\n", "return 2\n"))
    machine.run("deploy", folder / "desk.py", cwd=folder)
    with looker.browser() as browser:
        eye = looker.Looker(machine, browser.new_context(viewport=looker.DESK))
        eye.log_in()
        yield Desk(machine, folder, eye)
        assert not eye.wrong
    machine.close()


def test_a_call_is_cancelled(desk):
    call = desk.call("of('hold').spawn(600).object_id")
    desk.eye.go(f"/calls/{call}", ".far")

    def state():
        return desk.state("call", "list", call_id=call)["state"]

    desk.press("Cancel", "what runs is interrupted", no="Keep it", unchanged=lambda: state() in {"running", "waiting"})
    desk.becomes(lambda: state() == "cancelled")
    desk.tab.locator("h1 + .state", has_text="cancelled").wait_for()
    desk.written("cancelled the call", call)


def test_failed_inputs_run_again(desk):
    call = desk.call("of('picky').spawn_map(range(6))")
    call = desk.state("call", "list", function="picky")["call_id"]
    desk.becomes(lambda: desk.state("call", "list", call_id=call)["state"] == "failed")
    desk.eye.go(f"/calls/{call}", ".traceback")
    many = len(desk.machine.json("call", "list"))
    desk.press(
        "Retry",
        "3 inputs of this call failed",
        no="Escape",
        unchanged=lambda: len(desk.machine.json("call", "list")) == many,
    )
    desk.tab.wait_for_url(lambda url: "/calls/" in url and call not in url)
    again = desk.tab.url.rpartition("/")[2]
    desk.becomes(lambda: desk.state("call", "list", call_id=again, failed=3) is not None)
    desk.written("retried the call", call)


def test_a_container_is_stopped(desk):
    desk.call("of('version').remote()")
    path = desk.page("containers", "version")
    container = path.rpartition("/")[2]
    desk.eye.go(path, ".tabs")

    def lives():
        return desk.state("container", "list", container_id=container) is not None

    desk.press("Stop", "It has 30 seconds to end", no="Keep it", unchanged=lives)
    desk.becomes(lambda: not lives())
    desk.written("stopped the container", container)


def test_a_function_is_scaled(desk):
    path = desk.page("functions", "picky")
    desk.eye.go(path, ".tiles")

    def least():
        found = desk.tab.evaluate("path => fetch('/api/v1' + path).then(answer => answer.json())", path)
        return found["scaling"]["min_containers"]

    desk.press(
        "Scale", "until the app is deployed anew", no="Cancel", fill={"At least": "2"}, unchanged=lambda: not least()
    )
    desk.becomes(lambda: sum(one["function"] == "picky" for one in desk.machine.json("container", "list")) >= 2)
    desk.written("scaled the function", path.rpartition("/")[2])


def test_a_version_comes_back(desk):
    desk.eye.go(f"/apps/{desk.app}?tab=versions", ".rows .row")
    desk.press(
        "Go back",
        "It serves again under a new number",
        no="Cancel",
        unchanged=lambda: desk.call("of('version').remote()") == "2",
    )
    desk.becomes(lambda: desk.call("of('version').remote()") == "1")
    desk.written("took back the app", desk.app)


def test_a_schedule_runs_now_and_is_paused_and_resumed(desk):
    def line():
        return desk.state("schedule", "list", function="nightly")

    for button, verb, paused in (("Pause", "paused", True), ("Resume", "resumed", False)):
        desk.eye.go("/schedules", ".rows .row")
        desk.press(button, "nightly", no="Cancel", unchanged=lambda paused=paused: bool(line()["paused"]) is not paused)
        desk.becomes(lambda paused=paused: bool(line()["paused"]) is paused)
        desk.written(f"{verb} the schedule", "nightly")
    desk.eye.go("/schedules", ".rows .row")
    desk.press(
        "Run now",
        "Run nightly now?",
        no="Escape",
        unchanged=lambda: desk.state("call", "list", function="nightly") is None,
    )
    desk.tab.wait_for_url("**/calls/*")
    desk.becomes(lambda: (desk.state("call", "list", function="nightly") or {}).get("done") == 1)
    desk.written("ran the schedule", "nightly")


def test_a_budget_is_set_changed_and_taken_away(desk):
    def budget():
        return desk.state("billing", "budget", name="desk")

    desk.eye.go("/cost", "main section")
    desk.press(
        "Set a budget",
        "What runs finishes",
        no="Cancel",
        verb="Set",
        fill={"Money": "12.5"},
        unchanged=lambda: budget() is None,
    )
    desk.becomes(lambda: (budget() or {}).get("cost") == 12.5)
    desk.eye.sees("of $12.50")
    desk.press(
        "Change",
        "Change the budget of desk",
        no="Escape",
        verb="Set",
        fill={"Money": "20", "GPU seconds": "60"},
        unchanged=lambda: budget()["cost"] == 12.5,
    )
    desk.becomes(lambda: (budget()["cost"], budget()["gpu_seconds"]) == (20, 60))
    desk.eye.go(f"/apps/{desk.app}", ".facts")
    desk.eye.sees("of $20.00, GPUs for 0 s of 1 min this month")
    desk.eye.go("/cost", "[aria-label=Budgets]")
    desk.press(
        "Clear", "What waits because of it goes on", no="Keep it", verb="Clear it", unchanged=lambda: bool(budget())
    )
    desk.becomes(lambda: budget() is None)
    desk.written("set the budget", desk.app)
    desk.written("took the budget away", "app desk")


def test_an_app_is_stopped(desk):
    desk.eye.go(f"/apps/{desk.app}", ".tabs")

    def state():
        return desk.state("app", "list", app_id=desk.app)["state"]

    desk.press("Stop", "A deployed app has to be deployed again", no="Keep it", unchanged=lambda: state() == "deployed")
    desk.becomes(lambda: state() == "stopped")
    desk.written("stopped the app", desk.app)
