"""Protects the dashboard's pages in a real browser, while a real app runs: every page, both themes, a phone."""

from __future__ import annotations

import time
from urllib.parse import quote

import pytest

from tests.system import looker

pytestmark = [pytest.mark.slow]

APP = r'''
import pathlib
import sys
import time

import alight

app = alight.App("foundry", image=alight.Image.debian_slim(python_version="3.11"))
data = alight.Volume.from_name("foundry-data", create_if_missing=True)
keys = alight.Secret.from_name("foundry-keys")


@app.function(volumes={"/data": data}, secrets=[keys], timeout=900)
def train(epochs=2000, pace=0.4):
    """Writes a progress bar, colours, errors with markup in them, and files."""
    folder = pathlib.Path("/data/checkpoints")
    folder.mkdir(exist_ok=True)
    for epoch in range(epochs):
        for step in range(10):
            bar = "#" * step + "." * (9 - step)
            sys.stdout.write(f"\r\x1b[36mepoch {epoch}\x1b[0m [{bar}] loss {1 / (1 + epoch + step / 10):.4f}")
            sys.stdout.flush()
            time.sleep(pace / 10)
        print(f"\r\x1b[32mdone\x1b[0m \x1b[1mepoch {epoch}\x1b[0m \x1b[33m{1 / (1 + epoch):.4f}\x1b[0m" + " " * 20)
        if epoch % 4 == 3:
            print("<img src=x onerror=alert(1)> is only text", file=sys.stderr)
            (folder / f"epoch-{epoch}.bin").write_bytes(b"x" * 100_000)


@app.function()
def square(x):
    if x % 37 == 36:
        raise ValueError(f"{x} is <b>not</b> a number that I like")
    return x * x


@app.function()
def chain(x):
    return square.remote(x)


@app.function(gpu="A100-80GB", timeout=900)
def embed():
    time.sleep(600)


@app.function(gpu="A100-80GB:2")
def wants_two():
    pass


@app.function(schedule=alight.Cron("0 3 * * *"))
def nightly():
    return 1


@app.function()
def loud(lines):
    sys.stdout.write("".join(f"line {number} of many\n" for number in range(lines)))


@app.function()
@alight.wsgi_app()
def hello():
    def answer(environ, start):
        start("200 OK", [("content-type", "text/plain")])
        return [b"hello"]

    return answer
'''
CALLS = """
import alight

def of(name):
    return alight.Function.from_name("foundry", name)

of("train").spawn()
of("embed").spawn()
of("square").spawn_map(range(400))
of("chain").spawn(3)
of("wants_two").spawn()
"""


class Shop:
    """The app that all tests look at, with the ids of what is in it."""

    def __init__(self, machine, folder):
        self.machine = machine
        machine.run("server", "start", "--fake-gpus", "A100-80GB:2")
        machine.run("secret", "create", "foundry-keys", "TOKEN=never-to-be-seen")
        (folder / "foundry.py").write_text(APP)
        machine.run("deploy", folder / "foundry.py", cwd=folder)
        self.app = next(one["app_id"] for one in machine.json("app", "list"))
        (folder / "calls.py").write_text(CALLS)
        self.folder = folder
        machine.python(folder / "calls.py")
        machine.run("app", "budget", "foundry", "--month", "40")
        self.calls = {one["function"].rpartition(".")[2]: one["call_id"] for one in machine.json("call", "list")}

    def api(self, tab, path):
        return tab.evaluate("path => fetch('/api/v1/' + path).then(answer => answer.json())", path)

    def function(self, tab, name):
        found = self.api(tab, f"apps/{self.app}")["app"]["functions"]
        return next(one["function_id"] for one in found if one["name"] == name)

    def container(self, tab, function):
        until = time.monotonic() + 60
        while time.monotonic() < until:
            for one in self.api(tab, "containers?limit=1000")["containers"]:
                if one["function"] == function and one["state"] == "ready":
                    return one["container_id"]
            time.sleep(0.2)
        raise AssertionError(f"no container of {function} became ready\n{self.machine.logs()}")

    def call(self, code):
        """Run a line that says what to call."""
        script = self.folder / "again.py"
        script.write_text(f"import alight\nof = lambda name: alight.Function.from_name('foundry', name)\n{code}\n")
        return self.machine.python(script).stdout.strip()


@pytest.fixture(scope="module")
def shop(new_machine, tmp_path_factory):
    machine = new_machine()
    yield Shop(machine, tmp_path_factory.mktemp("foundry"))
    machine.close()


@pytest.fixture(scope="module")
def chromium():
    with looker.browser() as browser:
        yield browser


@pytest.fixture
def look(shop, chromium):
    """Makes tabs that are logged in; at the end none of them may have complained."""
    contexts, tabs = [], []

    def make(*, theme="light", size=looker.DESK):
        context = chromium.new_context(viewport=size, color_scheme=theme)
        contexts.append(context)
        tabs.append(looker.Looker(shop.machine, context))
        tabs[-1].log_in()
        return tabs[-1]

    yield make
    wrong = [line for tab in tabs for line in tab.wrong]
    for context in contexts:
        context.close()
    assert not wrong


def paths(shop, tab):
    """Every page, with something that is on it once its data has come."""
    square, train = shop.function(tab, "square"), shop.container(tab, "train")
    volume = shop.api(tab, "volumes")["volumes"][0]["volume_id"]
    return {
        "apps": ("/", ".row a.whole"),
        "app": (f"/apps/{shop.app}", ".rows .row"),
        "app-starts": (f"/apps/{shop.app}?tab=starts", ".stages"),
        "app-versions": (f"/apps/{shop.app}?tab=versions", ".rows .row"),
        "function": (f"/functions/{square}?window=15m", ".chart canvas"),
        "function-declared": (f"/functions/{square}?tab=declared", ".facts"),
        "calls": ("/calls", ".rows .row"),
        "call-failed": (f"/calls/{shop.calls['square']}?inputs=failed", ".traceback"),
        "call-waiting": (f"/calls/{shop.calls['wants_two']}", ".note.wait"),
        "call-graph": (f"/calls/{shop.calls['chain']}?tab=graph", ".graph .graph"),
        "containers": ("/containers", ".rows .row"),
        "container": (f"/containers/{train}", ".line"),
        "container-usage": (f"/containers/{train}?tab=usage", ".chart canvas"),
        "container-start": (f"/containers/{train}?tab=start", ".bar"),
        "schedules": ("/schedules", ".rows .row"),
        "machines": ("/machines", ".gpu"),
        "machine": (f"/machines/{shop.api(tab, 'nodes')['nodes'][0]['node_id']}", ".gpu-line canvas"),
        "volumes": ("/volumes", ".rows .row"),
        "volume": (f"/volumes/{volume}?path={quote('/checkpoints')}", ".rows .row"),
        "secrets": ("/secrets", ".rows .row"),
        "images": ("/images", ".rows .row"),
        "cost": ("/cost", "[aria-label=Budgets]"),
        "audit": ("/audit", "main h1"),
    }


@pytest.mark.parametrize(
    ("theme", "size"), [("light", looker.DESK), ("dark", looker.DESK), ("light", looker.PHONE), ("dark", looker.PHONE)]
)
def test_every_page_shows_itself(shop, look, theme, size):
    eye = look(theme=theme, size=size)
    for name, (path, ready) in paths(shop, eye.tab).items():
        eye.go(path, ready)
        assert eye.sideways() <= 0, f"{name} is wider than the window"
        assert eye.jumps() < 0.1, f"{name} jumps"
        assert "never-to-be-seen" not in eye.tab.content()
        if name in {"function", "container-usage", "cost", "machine"}:
            eye.tab.wait_for_timeout(600)  # charts draw themselves
        kind = "phone" if size is looker.PHONE else "page"
        if (theme, kind) in {("light", "page"), ("dark", "page"), ("light", "phone")}:
            eye.picture(f"dashboard-{name}{'-dark' if theme == 'dark' else ''}{'-phone' if kind == 'phone' else ''}")


def test_names_output_and_tracebacks_are_only_text(shop, look):
    eye = look()
    eye.tab.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    eye.go(f"/calls/{shop.calls['square']}", ".traceback")
    eye.sees("is <b>not</b> a number that I like")
    assert eye.count(".traceback b") == 0
    eye.go(f"/containers/{shop.container(eye.tab, 'train')}", ".line.stderr")
    eye.sees("<img src=x onerror=alert(1)> is only text")
    assert eye.count(".lines img") == 0


def test_a_log_goes_on_by_itself_with_colours_and_carriage_returns(shop, look):
    eye = look()
    eye.go(f"/containers/{shop.container(eye.tab, 'train')}", ".line")
    text = eye.tab.locator(".line .text").last
    first = text.inner_text()
    eye.tab.wait_for_function(
        "first => { const all = document.querySelectorAll('.line .text');"
        " return all[all.length - 1].innerText !== first }",
        arg=first,
    )
    drawn = text.inner_text()
    assert "\r" not in drawn
    assert drawn.count("epoch") == 1, "a carriage return begins the line anew"
    colours = eye.tab.evaluate("[...document.querySelectorAll('.line span[style]')].map(one => one.style.color)")
    assert "var(--ansi-2)" in colours
    assert "var(--ansi-3)" in colours


def test_a_log_is_searched(shop, look):
    eye = look()
    eye.go(f"/containers/{shop.container(eye.tab, 'train')}", ".line")
    eye.tab.keyboard.press("/")
    eye.tab.keyboard.type("only text")
    eye.tab.wait_for_function(
        "() => { const all = [...document.querySelectorAll('.line .text')];"
        " return all.length && all.every(one => one.innerText.includes('only text')) }"
    )
    eye.tab.keyboard.press("Escape")
    eye.tab.wait_for_function(
        "() => [...document.querySelectorAll('.line .text')].some(one => one.innerText.includes('done'))"
    )


def test_a_million_lines_are_a_few_in_the_page(shop, look):
    shop.call("of('loud').remote(1_000_000)")
    eye = look()
    eye.go(f"/functions/{shop.function(eye.tab, 'loud')}?tab=logs", ".line")
    eye.sees("line 999999 of many")
    assert eye.count(".line") < 200
    for _ in range(3):
        before = eye.tab.locator(".foot .num").inner_text()
        eye.tab.evaluate("document.querySelector('.lines').scrollTop = 0")
        eye.tab.wait_for_function("before => document.querySelector('.foot .num').innerText !== before", arg=before)
    assert eye.count(".line") < 200
    numbers = eye.tab.evaluate(
        "[...document.querySelectorAll('.line .text')].map(one => Number(/line (\\d+)/.exec(one.innerText)?.[1]))"
    )
    known = [number for number in numbers if number == number and number is not None]  # noqa: PLR0124  NaN
    assert known == list(range(known[0], known[0] + len(known))), "no line is missing, and none is there twice"
    eye.tab.get_by_role("button", name="Jump to the end").click()
    eye.sees("line 999999 of many")


def test_lists_follow_what_happens(shop, look):
    eye = look()
    eye.go("/calls", ".rows .row")
    eye.tab.evaluate("window.untouched = true")
    newest = shop.call("print(of('square').spawn(5).object_id)")
    eye.tab.wait_for_selector(f"a[href='/calls/{newest}']")
    assert eye.tab.evaluate("window.untouched"), "the page was not loaded again"


def test_the_inputs_of_a_call_are_asked_for_as_they_come_into_sight(shop, look):
    shop.call("of('square').spawn_map(range(5000))")
    eye = look()
    many = shop.api(eye.tab, "calls?limit=1")["calls"][0]["call_id"]
    eye.go(f"/calls/{many}", ".rows .row")
    eye.tab.wait_for_function("() => document.querySelector('.table').ariaRowCount === '5001'")
    eye.tab.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    eye.sees("4,999")
    assert eye.count(".rows .row") < 100


def test_a_terminal_runs_what_is_typed(shop, look):
    eye = look()
    eye.go(f"/containers/{shop.container(eye.tab, 'train')}?tab=terminal", ".xterm-rows")
    eye.sees("connected")
    eye.tab.keyboard.type("printf '\\033[38;2;255;100;0m%s\\033[0m\\n' $((6*7))\n")
    eye.tab.wait_for_function(
        "() => [...document.querySelectorAll('.xterm-rows span')]"
        ".some(one => one.innerText === '42' && one.style.color)"
    )
    eye.picture("dashboard-terminal")


def test_a_file_of_a_volume_is_found_and_downloaded(look):
    eye = look()
    eye.go("/volumes", ".rows a")
    eye.tab.get_by_text("foundry-data").click()
    eye.tab.get_by_text("checkpoints/").click()
    eye.tab.get_by_text("epoch-3.bin").wait_for()
    with eye.tab.expect_download() as waited:
        eye.tab.get_by_text("epoch-3.bin").click()
    assert waited.value.path().stat().st_size == 100_000


def test_keys_do_what_they_say(look):
    eye = look()
    eye.go("/", ".row a.whole")
    eye.tab.keyboard.press("/")
    eye.tab.keyboard.type("no such app")
    eye.sees("No app fits.")
    eye.tab.keyboard.press("Escape")
    eye.tab.wait_for_selector(".row a.whole")
    eye.tab.keyboard.press("Escape")
    eye.tab.keyboard.press("g")
    eye.tab.keyboard.press("c")
    eye.tab.wait_for_url("**/calls")
    eye.tab.locator(".rows a.whole").first.focus()
    eye.tab.keyboard.press("ArrowDown")
    second = eye.tab.locator(".rows .row[aria-rowindex='3'] a").first
    assert second.evaluate("link => link === document.activeElement")
    eye.tab.keyboard.press("?")
    eye.sees("Search or filter")
    eye.tab.keyboard.press("Escape")
    eye.tab.wait_for_selector("dialog", state="detached")
    eye.tab.go_back()
    eye.tab.wait_for_selector("h1:has-text('Apps')")


def test_a_theme_is_chosen_and_kept(look):
    eye = look()
    background = "getComputedStyle(document.documentElement).backgroundColor"
    light = eye.tab.evaluate(background)
    for name in ("Light", "Dark"):
        eye.tab.locator("[data-theme-button]").click()
        eye.sees(f"{name} theme")
    assert eye.tab.evaluate(background) != light
    eye.tab.reload()
    eye.tab.wait_for_selector("main h1")
    assert eye.tab.evaluate(background) != light


def test_what_is_not_there_says_so(look):
    eye = look()
    eye.go("/nosuch/page")
    eye.sees("There is no page /nosuch/page.")
    eye.go("/calls/fc-nosuch", "[role=alert]")
    eye.sees("there is no call fc-nosuch")


def test_a_page_whose_requests_break_off_is_there_in_the_end(look):
    eye = look()
    left = {"format.js": 2, "api/v1/apps": 2}

    def break_off(route):
        name = next(name for name in left if name in route.request.url)
        left[name] -= 1
        if left[name] >= 0:
            route.abort("connectionreset")
        else:
            route.continue_()

    eye.tab.route(lambda url: any(name in url for name in left), break_off)
    eye.tab.goto(eye.origin + "/")
    eye.tab.wait_for_selector(".row a.whole")
    assert all(number < 0 for number in left.values())


def test_without_a_session_there_is_only_the_way_in(shop, look, chromium):
    eye = look()
    context = chromium.new_context()
    stranger = context.new_page()
    for path in ("/", f"/apps/{shop.app}", "/secrets"):
        stranger.goto(eye.origin + path)
        stranger.get_by_text("alight dashboard").wait_for()
        assert "foundry" not in stranger.content()
    context.close()
    eye.tab.get_by_role("button", name="Log out").click()
    eye.tab.get_by_text("alight dashboard").wait_for()


def test_lines_are_read_as_a_terminal_reads_them(look):
    eye = look()
    said = eye.tab.evaluate(
        """async () => {
        const { pieces, plain } = await import('/static/js/lib/ansi.js');
        return {
            plain: ['a\\rb', '12345\\r67', 'x\\x1b[2Ky', '50%\\r100%\\x1b[K', '\\x1b]0;title\\x07after', 'a\\x1b[9;9Hb',
                    'ab\\bc', '\\x1b[31mred', 'cut\\x1b[3', '\\x00nul\\x07'].map(plain),
            styles: ['\\x1b[1;31mx', '\\x1b[38;5;208mx', '\\x1b[38;2;1;2;3mx', '\\x1b[31m\\x1b[0mx', '\\x1b[97;44mx']
                    .map((line) => pieces(line)[0].style),
        };
    }"""
    )
    assert said["plain"] == ["b", "67345", " y", "100%", "after", "ab", "ac", "red", "cut", "nul"]
    assert said["styles"] == [{"bold": True, "fg": 1}, {"fg": 208}, {"fg": "#010203"}, {}, {"fg": 15, "bg": 4}]


def test_records_are_joined_to_lines(look):
    eye = look()
    said = eye.tab.evaluate(
        """async () => {
        const { joinLines } = await import('/static/js/lib/lines.js');
        const [rows, open] = [[], new Map()];
        const of = (source, text) => ({ container_id: 'ta-1', source, at: 1, text });
        joinLines(rows, [of('stdout', 'a\\nb'), of('stderr', 'error\\n'), of('stdout', 'c\\nd')], open);
        joinLines(rows, [of('stdout', '\\n')], open);
        joinLines(rows, Array.from({ length: 2000 }, (_, at) => of('stdout', `\\rstep ${at}`)), open);
        return [...rows.map((row) => row.text).slice(0, 4), rows.length, rows[4].text.length < 5000];
    }"""
    )
    assert said == ["a", "bc", "error", "d", 5, True]
