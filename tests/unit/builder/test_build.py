"""The order of a build: what is made, what is not made again, and what is never kept."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from alight.builder import Builder, HostConfig, StepRun, bases, digest
from alight.builder.layers import LayerStore, Record
from alight.wire.errors import ImageBuildError, InvalidError
from alight.wire.spec import ImageSpec

DEBIAN = {"op": "debian_slim", "python": "3.11"}
SIX = {"op": "pip_install", "tool": "pip", "packages": ["six"]}


class Runner:
    """Runs nothing: leaves a file in the upper directory, says a line, ends with ``status``."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.steps: list[StepRun] = []
        self.hold: asyncio.Event | None = None
        self.begun = asyncio.Event()
        self.lent: dict[str, bytes] = {}

    async def run(self, step, on_output):
        self.steps.append(step)
        self.begun.set()
        (Path(step.upper) / f"made-{len(self.steps)}").touch()
        for source, target, _ in step.binds:
            if target.endswith("/build"):
                self.lent = {str(f.relative_to(source)): f.read_bytes() for f in Path(source).rglob("*") if f.is_file()}
        on_output(f"token is {step.env.get('TOKEN')}\nlast words\n".encode())
        if self.hold:
            await self.hold.wait()
        return self.status


@pytest.fixture
def home(tmp_path):
    """A node's directory that holds a Debian already."""
    store = LayerStore(tmp_path)
    key = digest.step_key(digest.ROOT, {"debian": "bookworm", "machine": bases.machine()})
    store.path(key).mkdir()
    store.keep_record(key, Record(key, "Debian bookworm", (key,), {"python_version": "3.11.2"}))
    return tmp_path


async def no_tree(name, into):
    (into / "file").write_text(name)


def make(home, runner, host=None):
    return Builder(home, runner, host or HostConfig(), no_tree)


def build(builder, *steps, secrets=None):
    events = []
    image = asyncio.run(builder.build(ImageSpec(steps=(DEBIAN, *steps)), secrets or {}, events.append))
    return image, events


def kept(home):
    return {path.name for path in (home / "layers").iterdir() if path.suffix != ".lock"}


def test_a_second_build_makes_nothing(home):
    runner = Runner()
    image, _ = build(make(home, runner), SIX, {"op": "run", "command": "true"})
    assert len(image.layers) == 3
    assert image.layers[1] in runner.steps[1].layers  # topmost first, each step on the ones before it
    assert runner.steps[1].layers == image.layers[1:]
    before = kept(home)
    again, events = build(make(home, runner), SIX, {"op": "run", "command": "true"})
    assert (again, len(runner.steps), kept(home)) == (image, 2, before)
    assert {event.kind for event in events} == {"cached"}
    assert make(home, runner).cached(ImageSpec(steps=(DEBIAN, SIX, {"op": "run", "command": "true"}))) == image


def test_nothing_is_cached_before_it_is_built(home):
    assert make(home, Runner()).cached(ImageSpec(steps=(DEBIAN, SIX))) is None


def test_settings_make_no_layer_but_count_for_what_comes_after(home):
    runner = Runner()
    run = {"op": "run", "command": "true"}
    settings = (
        {"op": "env", "vars": {"A": "1"}},
        {"op": "workdir", "path": "/srv/"},
        {"op": "shell", "args": ["/bin/bash", "-c"]},
    )
    image, _ = build(
        make(home, runner), *settings, run, {"op": "entrypoint", "args": ["/e"]}, {"op": "cmd", "args": ["c"]}
    )
    assert (image.env["A"], image.workdir, image.entrypoint, image.cmd) == ("1", "/srv", ("/e",), ("c",))
    assert len(image.layers) == 2
    assert runner.steps[0].argv == ("/bin/bash", "-c", "true")
    assert (runner.steps[0].env["A"], runner.steps[0].cwd) == ("1", "/srv")
    build(make(home, runner), {"op": "env", "vars": {"A": "2"}}, run)
    assert len(runner.steps) == 2


def test_a_change_rebuilds_from_there_on_and_keeps_what_is_below(home):
    runner = Runner()
    one, _ = build(make(home, runner), SIX, {"op": "run", "command": "one"})
    two, _ = build(make(home, runner), SIX, {"op": "run", "command": "two"})
    assert one.layers[1:] == two.layers[1:]
    assert one.layers[0] != two.layers[0]


def test_force_makes_a_step_and_all_above_again_and_leaves_the_old_layer_to_its_users(home):
    runner = Runner()
    run = {"op": "run", "command": "true"}
    old, _ = build(make(home, runner), SIX, run)
    new, _ = build(make(home, runner), {**SIX, "force": True}, run)
    assert len(runner.steps) == 4
    assert not set(old.layers[:2]) & set(new.layers[:2])
    assert all(Path(layer).is_dir() for layer in old.layers)
    assert make(home, runner).cached(ImageSpec(steps=(DEBIAN, SIX, run))) == new
    assert make(home, runner).cached(ImageSpec(steps=(DEBIAN, {**SIX, "force": True}))) is None


def test_two_builds_of_one_step_make_it_once(home):
    runner = Runner()
    spec = ImageSpec(steps=(DEBIAN, SIX))
    waiting = asyncio.Event()

    def note(event):
        if event.kind == "waiting":
            waiting.set()

    async def main():
        runner.hold = asyncio.Event()
        one = asyncio.create_task(make(home, runner).build(spec, {}, lambda _: None))
        await runner.begun.wait()
        two = asyncio.create_task(make(home, runner).build(spec, {}, note))
        await waiting.wait()
        runner.hold.set()
        return await asyncio.gather(one, two)

    one, two = asyncio.run(main())
    assert one == two
    assert len(runner.steps) == 1


def test_a_failed_step_is_named_with_its_last_lines_and_leaves_nothing(home):
    build(make(home, Runner()))
    before = kept(home)
    with pytest.raises(ImageBuildError, match=r'\.pip_install\("six"\) failed with exit status 3') as raised:
        build(make(home, Runner(status=3)), SIX)
    assert raised.value.details["tail"][-1] == "last words"
    assert kept(home) == before


def test_a_cancelled_build_leaves_nothing(home):
    runner = Runner()

    async def main():
        runner.hold = asyncio.Event()
        task = asyncio.create_task(make(home, runner).build(ImageSpec(steps=(DEBIAN, SIX)), {}, lambda _: None))
        await runner.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not list((home / "layers").glob("tmp-*"))
    assert make(home, runner).cached(ImageSpec(steps=(DEBIAN, SIX))) is None


def test_a_full_disk_is_one_clear_error(home, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LayerStore, "keep_layer", full)
    with pytest.raises(ImageBuildError, match="no space left") as raised:
        build(make(home, Runner()), SIX)
    assert "ALIGHT_HOME" in (raised.value.hint or "")
    assert not list((home / "layers").glob("tmp-*"))


def test_secrets_reach_their_step_and_nothing_else(home):
    runner = Runner()
    host = HostConfig(extra_env={"UV_INDEX_LAB_PASSWORD": "lab-password"})
    asks = {"op": "run", "command": "use", "secrets": ["st-1"]}
    secrets = {"st-1": {"TOKEN": "very-secret"}}
    image, events = build(make(home, runner, host), asks, {"op": "run", "command": "not"}, secrets=secrets)
    assert runner.steps[0].env["TOKEN"] == "very-secret"
    assert "TOKEN" not in runner.steps[1].env
    assert runner.steps[1].env["UV_INDEX_LAB_PASSWORD"] == "lab-password"
    texts = [repr(events), repr(image), *(p.read_text() for p in home.rglob("*") if p.is_file())]
    assert not [text for text in texts if "very-secret" in text or "lab-password" in text]
    rotated, _ = build(make(home, runner, host), {**asks, "secrets": ["st-2"]}, {"op": "run", "command": "not"})
    assert rotated == image  # a rotated secret rebuilds nothing


def test_a_secret_that_was_not_given_is_an_error(home):
    with pytest.raises(ImageBuildError, match="secret"):
        build(make(home, Runner()), {"op": "run", "command": "x", "secrets": ["st-9"]})


def test_the_images_env_wins_over_the_machines_settings(home):
    runner = Runner()
    host = HostConfig(timeout=5)
    build(make(home, runner, host), {"op": "env", "vars": {"PIP_DEFAULT_TIMEOUT": "9"}}, {"op": "run", "command": "x"})
    assert runner.steps[0].env["PIP_DEFAULT_TIMEOUT"] == "9"


def test_a_copied_tree_is_lent_and_the_step_has_no_network(home):
    runner = Runner()
    build(make(home, runner), {"op": "copy", "tree": "a" * 64, "to": "/srv"})
    assert runner.lent["tree/file"] == b"a" * 64
    assert not runner.steps[0].network


def test_caches_are_kept_apart_by_owner(home):
    runner = Runner()
    builder = make(home, runner)
    for owner in ("ada", "bob"):
        spec = ImageSpec(steps=(DEBIAN, {"op": "run", "command": owner}))
        asyncio.run(builder.build(spec, {}, lambda _: None, owner))
    one, two = ({source for source, _, readonly in step.binds if not readonly} for step in runner.steps)
    assert not one & two
    with pytest.raises(InvalidError, match="owner"):
        asyncio.run(builder.build(ImageSpec(steps=(DEBIAN,)), {}, lambda _: None, "../ada"))
