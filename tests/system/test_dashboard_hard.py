"""Protects the dashboard's pages from what is hard on them: terminals, names that are markup, links that are spent."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from tests.system import looker

pytestmark = [pytest.mark.slow]

APP = """
import pathlib
import time

import alight

EVIL = "<img src=x onerror=alert(1)>"
app = alight.App("hard", image=alight.Image.debian_slim(python_version="3.11"))
data = alight.Volume.from_name("hard-data", create_if_missing=True)


@app.function(volumes={"/data": data}, timeout=900)
def hold(seconds):
    folder = pathlib.Path("/data") / "<script>alert(2)<|script>"
    folder.mkdir(exist_ok=True)
    (folder / f"{EVIL}.txt").write_text("text")
    data.commit()
    print(EVIL, flush=True)
    time.sleep(seconds)


@app.function()
def wrong():
    raise type(f"{EVIL}", (Exception,), {})("</script><script>alert(3)</script>")
"""


@pytest.fixture(scope="module")
def hard(new_machine, tmp_path_factory):
    machine = new_machine()
    folder = tmp_path_factory.mktemp("hard")
    (folder / "hard.py").write_text(APP)
    machine.run("deploy", folder / "hard.py", cwd=folder)
    (folder / "calls.py").write_text(
        "import alight\nof = lambda name: alight.Function.from_name('hard', name)\n"
        "of('hold').spawn(600)\nprint(of('wrong').spawn().object_id)\n"
    )
    machine.wrong_call = machine.python(folder / "calls.py").stdout.strip()
    with looker.browser() as browser:
        eye = looker.Looker(machine, browser.new_context(viewport=looker.DESK))
        eye.tab.on("dialog", lambda dialog: eye.wrong.append(f"a script ran: {dialog.message}"))
        eye.log_in()
        eye.browser = browser
        eye.go("/containers", ".rows .row a.whole")
        eye.tab.locator(".rows .row", has_text="ready").first.wait_for()
        eye.container = eye.tab.locator(".row a.whole").first.get_attribute("href")
        yield eye
        assert not eye.wrong
    machine.close()


def says(tab, pattern):
    """Wait until the terminal shows it, and return what it shows."""
    tab.wait_for_function(
        "text => new RegExp(text).test("
        "[...document.querySelectorAll('.xterm-rows > div')].map(one => one.innerText).join('\\n'))",
        arg=pattern,
    )
    return tab.locator(".xterm-rows").inner_text()


def open_terminal(eye, tab):
    tab.goto(eye.origin + eye.container + "?tab=terminal")
    tab.get_by_text("connected", exact=True).wait_for()
    says(tab, "[#$] ")


def size_of(tab, word):
    """What the shell says of its size, behind a word that was not said before."""
    tab.keyboard.type(f"echo {word} $(stty size)\n")
    return [int(number) for number in re.search(rf"{word} (\d+) (\d+)", says(tab, rf"{word} \d+ \d+")).groups()]


def test_a_terminal_has_its_windows_size_is_interrupted_and_ends(hard):
    tab = hard.tab
    open_terminal(hard, tab)
    rows, columns = size_of(tab, "before")
    tab.set_viewport_size({"width": 800, "height": 600})
    tab.wait_for_function("() => document.querySelector('.xterm-screen').clientWidth < 640")
    smaller = size_of(tab, "after")
    assert smaller[0] < rows
    assert smaller[1] < columns
    tab.keyboard.type("sleep 1000\n")
    tab.keyboard.press("Control+c")
    tab.keyboard.type("echo ended=$?\n")
    says(tab, "ended=130")
    tab.keyboard.type("exit 3\n")
    hard.sees("ended with exit code 3")
    tab.get_by_role("button", name="Connect again").click()
    tab.get_by_text("connected", exact=True).wait_for()
    tab.set_viewport_size(looker.DESK)


def test_two_tabs_have_two_shells(hard):
    open_terminal(hard, hard.tab)
    hard.tab.keyboard.type("ONLY=here; echo first-$((20+1))\n")
    says(hard.tab, "first-21")
    other = hard.tab.context.new_page()
    open_terminal(hard, other)
    other.keyboard.type("echo second-$((20+2))-${ONLY:-none}\n")
    says(other, "second-22-none")
    other.close()
    hard.tab.keyboard.type("echo still-$ONLY\n")
    says(hard.tab, "still-here")


def test_names_that_are_markup_are_only_text(hard):
    hard.go("/volumes", ".rows a")
    hard.tab.get_by_text("hard-data").click()
    hard.tab.get_by_text("<script>alert(2)<|script>/").click()
    hard.tab.get_by_text("<img src=x onerror=alert(1)>.txt").wait_for()
    with hard.tab.expect_download() as waited:
        hard.tab.get_by_text("onerror=alert(1)>.txt").click()
    assert waited.value.path().read_text() == "text"
    hard.go(f"/calls/{hard.machine.wrong_call}", ".traceback")
    hard.sees("</script><script>alert(3)</script>")
    hard.go(f"/calls/{quote('<script>alert(4)</script>', safe='')}", "[role=alert]")
    assert hard.count("main img, main script") == 0


def test_a_link_that_is_spent_leads_to_the_way_in(hard):
    link = hard.machine.run("dashboard", "--no-browser").stdout.strip()
    for kind in ("first", "second"):
        context = hard.browser.new_context()
        tab = context.new_page()
        tab.goto(link)
        if kind == "first":
            tab.wait_for_selector(".tiles")
        else:
            tab.get_by_text("This link was used before").wait_for()
            assert "hard" not in tab.locator("body").inner_text()
        context.close()


def test_a_page_is_reached_and_left_with_keys_alone(hard):
    tab = hard.tab
    hard.go("/", ".row a.whole")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("Enter")
    for _ in range(40):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.matches('.row a.whole')"):
            break
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/apps/*")
    for _ in range(60):
        if tab.evaluate("document.activeElement.textContent.trim()") == "Stop":
            break
        tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("dialog[open]")
    assert tab.evaluate("document.querySelector('dialog').contains(document.activeElement)"), (
        "the focus is in the question"
    )
    tab.keyboard.press("Escape")
    tab.wait_for_selector("dialog", state="detached")
    assert tab.evaluate("document.activeElement.textContent.trim()") == "Stop", "the focus is where it was"
    tab.go_back()
    tab.wait_for_selector("h1:has-text('Apps')")
