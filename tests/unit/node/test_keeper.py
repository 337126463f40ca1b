"""Starts through templates, beside a fake engine: what serves them, what is made and parked after them, what goes."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from alight.node import keeper as keeper_module
from alight.node.engine.base import Bind, ContainerPlan
from alight.node.keeper import Keeper, Started
from alight.node.naming import Dns
from alight.node.prepare import Prepared, make_folders
from alight.node.templates import Ground, TemplateSettings
from alight.node.volumes import Volumes
from alight.testing.fake_engine import FakeEngine
from alight.wire import ids
from alight.wire.commands import LinkReady, StartContainer
from alight.wire.record import replace
from alight.wire.spec import FunctionSpec

PLAIN = FunctionSpec("f")
SNAPPED = FunctionSpec("f", enable_memory_snapshot=True)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(keeper_module, "EVERY", 0.05)
    monkeypatch.setattr(keeper_module, "_LULL", 0.0)


async def _dials(_level: int) -> None:
    """Forks get no link."""


class Place:
    """A keeper and what it keeps."""

    def __init__(self, home: Path, told: TemplateSettings) -> None:
        self.home = home
        self.engine = FakeEngine(home / "containers")
        self.layer = home / "layer"
        self.layer.mkdir()
        self.file = home / "run" / "templates.json"
        self.file.parent.mkdir()
        shop = SimpleNamespace(engine=self.engine, volumes=Volumes(home))
        self.keeper = Keeper(shop, Dns(self.engine), told, home)

    @property
    def forks(self):
        return self.engine.forks

    @property
    def ready(self) -> int:
        """Templates that can be forked."""
        return sum(1 for one in self.keeper._book if one.ready)

    def count(self, what: str) -> int:
        return sum(1 for one, _ in self.engine.told if one == what)

    async def start(self, function: FunctionSpec = PLAIN, *, through: bool = True, **more) -> Started:
        start = StartContainer(
            ids.new_id(ids.CONTAINER), "ap-1", "app", "main", "fu-1", function, "im-1", owner="me", **more
        )
        folder = self.engine.prepare(start.container_id)
        make_folders(folder)
        plan = ContainerPlan(
            id=start.container_id,
            layers=("/code", str(self.layer)),
            argv=("/usr/bin/python3", "main"),
            env={"HOME": "/root", "ALIGHT_TASK_ID": start.container_id, "ALIGHT_SDK": "/run/alight/sdk.sock"},
            binds=(Bind("/library", "/opt/alight/lib"), Bind(str(folder / "sock"), "/run/alight")),
            devices=("/dev/nvidia0",) if start.gpus else (),
            owner="me",
        )
        ground = Ground("me", "image", "python", {"HOME": "/root"}, "/root", "/library", (str(self.layer),), ("/code",))
        reserved = {name: value for name, value in plan.env.items() if name.startswith("ALIGHT_")}
        started = await self.keeper.start(start, Prepared(plan, function, reserved, "/spool", ground=ground), _dials)
        if through:
            self.keeper.through(start.container_id)
        return started

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(500):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"it did not come about: {self.engine.told}")


@pytest.fixture
def play():
    """Run a scenario beside a keeper at work."""
    home = Path(tempfile.mkdtemp(prefix="al-"))  # short: the fake dials sockets in it

    def run(scenario, **told) -> Place:
        async def main() -> Place:
            place = Place(home, TemplateSettings(**told))
            upkeep = asyncio.get_running_loop().create_task(place.keeper.run())
            try:
                await scenario(place)
            finally:
                upkeep.cancel()
                await asyncio.gather(upkeep, return_exceptions=True)
                await asyncio.sleep(0.01)  # closed sockets go in a turn of the loop
            return place

        return asyncio.run(main())

    yield run
    shutil.rmtree(home)


def test_the_first_start_is_plain_and_the_next_one_takes_the_fork_that_waits(play):
    async def scenario(place):
        first = await place.start()
        assert (first.state.how, first.level) == ("plain", 0)
        await place.until(lambda: place.count("park") == 1)
        second = await place.start()
        assert (second.state.how, second.level) == ("parked", 1)
        await place.until(lambda: place.count("park") >= 2)

    play(scenario)


def test_of_two_starts_at_once_one_takes_the_fork_that_waits_and_the_other_is_forked(play):
    async def scenario(place):
        await place.start()
        await place.until(lambda: place.count("park") == 1)
        both = await asyncio.gather(place.start(), place.start())
        assert sorted(one.state.how for one in both) == ["forked", "parked"]

    play(scenario)


def test_nothing_is_made_while_a_container_comes_up(play, monkeypatch):
    monkeypatch.setattr(keeper_module, "_MAKE_PATIENCE", 60.0)

    async def scenario(place):
        started = await place.start(through=False)
        await asyncio.sleep(0.3)
        assert place.count("template") == 0
        place.keeper.through(started.state.id)
        await place.until(lambda: place.count("park") == 1)

    play(scenario)


def test_a_function_with_a_snapshot_gets_a_template_of_its_own_with_its_secrets_and_the_others_get_none(play):
    async def scenario(place):
        await place.start(SNAPPED, secrets={"KEY": "value"})
        await place.until(lambda: place.count("park") == 2)
        levels = {one.template: one for one in place.forks.starts}
        assert levels[1].env == {}
        assert levels[2].env["KEY"] == "value"
        assert levels[2].container_id.startswith("tp-")
        assert levels[2].env["ALIGHT_TASK_ID"] == levels[2].container_id
        assert "ALIGHT_SDK" not in levels[2].env
        started = await place.start(SNAPPED, secrets={"KEY": "value"})
        assert started.level == 2
        assert place.engine.plans[started.state.id].own_layers  # what the template wrote
        other = await place.start(SNAPPED, secrets={"KEY": "another"})
        assert other.level == 1
        assert not place.engine.plans[other.state.id].own_layers

    play(scenario)


def test_a_refusal_is_said_and_the_container_imports_in_a_fork_of_the_runtime(play):
    async def scenario(place):
        place.forks.answer = lambda start: (
            LinkReady(refused=("2 threads run: T1",)) if start.template == 2 else LinkReady()
        )
        await place.start(SNAPPED)
        await place.until(lambda: place.count("park") == 1 and place.count("close") == 1)
        started = await place.start(SNAPPED)
        assert (started.level, started.refused) == (1, ("2 threads run: T1",))
        await asyncio.sleep(0.2)
        assert place.count("template") == 2  # it is not tried again

    play(scenario)


def test_a_fork_that_fails_is_a_plain_start_with_the_reason(play):
    async def scenario(place):
        await place.start()
        await place.until(lambda: place.count("park") == 1)
        place.forks.broken = "the template hangs"
        for _ in range(3):
            started = await place.start()
            assert (started.state.how, started.level) == ("plain", 0)
            assert "the template hangs" in started.refused[0]
        assert place.count("close") == 1  # three times is enough

    play(scenario)


def test_a_template_that_crashed_is_made_again_by_a_later_start(play, monkeypatch):
    monkeypatch.setattr("alight.node.templates._BACKOFF", 0.01)

    async def scenario(place):
        await place.start()
        await place.until(lambda: place.count("park") == 1)
        (crashed,) = [name for what, name in place.engine.told if what == "template"]
        place.engine.end(crashed)
        await place.until(lambda: place.count("close") == 1)
        await asyncio.sleep(0.02)
        assert (await place.start()).state.how == "plain"
        await place.until(lambda: place.count("park") == 2)
        assert (await place.start()).state.how == "parked"

    play(scenario)


def test_a_template_that_never_comes_up_costs_no_start_anything(play):
    async def scenario(place):
        place.forks.answer = lambda _: None
        for _ in range(4):
            assert (await place.start()).state.how == "plain"
            await asyncio.sleep(0.05)
        await place.until(lambda: place.count("close") == place.count("template"))
        assert not [path for path in place.engine.home.iterdir() if path.name.startswith("tp-")]

    play(scenario)


def test_without_an_engine_that_forks_everything_starts_plainly(play):
    async def scenario(place):
        place.engine.forks = None
        assert (await place.start(SNAPPED)).state.how == "plain"
        await asyncio.sleep(0.2)
        assert {what for what, _ in place.engine.told} == {"plain"}

    play(scenario)


def test_templates_off_means_off(play):
    async def scenario(place):
        await place.start(SNAPPED)
        await asyncio.sleep(0.2)
        assert {what for what, _ in place.engine.told} == {"plain"}

    play(scenario, level=0)


def test_a_container_with_devices_is_forked_and_none_waits_for_it(play):
    async def scenario(place):
        await place.start(SNAPPED, gpus=("GPU-1",))
        await place.until(lambda: place.count("arm") == 2)
        await asyncio.sleep(0.1)
        assert (await place.start(SNAPPED, gpus=("GPU-1",))).state.how == "forked"
        await asyncio.sleep(0.1)
        assert place.count("park") == 0
        template = next(start.container_id for start in place.forks.starts if start.template == 2)
        assert place.engine.plans[template].devices == ()

    play(scenario)


def test_a_template_ends_with_its_image(play):
    async def scenario(place):
        await place.start()
        await place.until(lambda: place.count("park") == 1)
        place.layer.rmdir()
        await place.until(lambda: place.count("close") == 1)

    play(scenario)


def test_what_templates_use_is_measured_said_and_bounded(play):
    async def scenario(place):
        await place.start(SNAPPED)
        await place.until(lambda: place.count("park") == 2)
        small, large = (start.container_id for start in place.forks.starts)
        place.engine.memory = {small: 5 << 20, large: 50 << 20}
        await place.until(lambda: "52428800" in place.file.read_text())
        rows = json.loads(place.file.read_text())["templates"]
        assert {row["level"]: row["memory_bytes"] >> 20 for row in rows} == {1: 5, 2: 50}
        assert {row["parked"] for row in rows} == {1}
        place.engine.memory[large] = 500 << 20
        await place.until(lambda: place.count("close") == 1)
        started = await place.start(SNAPPED)
        assert started.level == 1
        assert "500 MiB" in started.refused[0]

    place = play(scenario, memory_bytes=100 << 20)
    assert not place.file.exists()  # an agent that left keeps no templates


def test_idle_templates_and_idle_forks_end(play):
    async def scenario(place):
        await place.start()
        await place.until(lambda: place.count("unpark") == 1)
        await place.until(lambda: place.count("close") == 1)

    play(scenario, parked_idle=0.2, idle=0.6)


def test_a_start_that_is_cancelled_leaves_nothing_behind(play):
    async def scenario(place):
        await place.start()
        await place.until(lambda: place.count("park") == 1)
        held = asyncio.Event()
        fork = place.forks.start_fork

        async def slow(template_id, plan):
            await held.wait()
            return await fork(template_id, plan)

        place.forks.start_fork = slow
        coming = asyncio.get_running_loop().create_task(place.start())
        await asyncio.sleep(0.05)
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        held.set()
        place.forks.start_fork = fork
        for name in list(place.keeper._coming):
            place.keeper.through(name)  # as a container that never started says
        assert (await place.start()).state.how == "parked"

    play(scenario)


def test_what_a_template_wrote_outlives_it_until_its_last_fork_is_gone(play):
    async def scenario(place):
        await place.start(SNAPPED)
        await place.until(lambda: place.count("park") == 2)
        started = await place.start(SNAPPED)
        (wrote,) = place.engine.plans[started.state.id].own_layers
        place.engine.end(place.forks.starts[-1].container_id)
        await place.until(lambda: place.count("close") == 1)
        assert Path(wrote, "written").exists()
        again = Keeper(SimpleNamespace(engine=place.engine, volumes=None), None, TemplateSettings(), place.home)
        again.adopt(started.state.id)  # as the next agent does
        again._snapshots.sweep()
        assert Path(wrote, "written").exists()
        again.gone(started.state.id)
        assert not Path(wrote).exists()

    play(scenario)


def test_a_changed_function_is_served_by_a_template_of_its_own(play):
    async def scenario(place):
        await place.start(SNAPPED)
        await place.until(lambda: place.count("park") == 2)
        started = await place.start(replace(SNAPPED, env={"VERSION": "2"}))
        assert started.level == 1
        await place.until(lambda: place.ready == 3)
        started = await place.start(replace(SNAPPED, env={"VERSION": "2"}))
        assert started.level == 2

    play(scenario)
