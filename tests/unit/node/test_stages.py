"""Where a start went, as the node puts it together: nothing is lost between the stages, and an unfinished start says
how far it came."""

from __future__ import annotations

import time

import pytest

from alight.node.stages import Stages
from alight.wire.commands import LinkReady
from alight.wire.errors import InternalError, to_wire


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def begun(clock):
    """A start whose code is laid, image found, sockets made; 60 ms have passed."""
    stages = Stages(clock)
    for stage, under_way, seconds in (("mounts", "image", 0.01), ("image", "mounts", 0.02), ("mounts", "exec", 0.03)):
        clock.now += seconds
        stages.reached(stage, under_way)
    return stages


def said(report):
    return {name: pytest.approx(seconds) for name, seconds in report.start["stages"].items()}


def test_a_plain_start_leaves_no_gap(clock):
    stages = begun(clock)
    clock.now += 0.05
    stages.started("plain", {"network": 0.01, "mounts": 0.005})
    clock.now += 0.04
    stages.reached("runtime", "other")
    clock.now += 0.001
    stages.reached("other", "import")
    clock.now += 0.5
    stages.loaded(LinkReady(stages={"import": 0.4, "enter": 0.09}, imports=(("numpy", 0.3),)))
    clock.now += 0.002
    stages.given()
    clock.now += 1.001
    report = stages.answered("ta-1", time.time() - 1.0)
    start = report.start
    assert start["how"] == "plain"
    assert start["reached"] == ""
    assert start["imports"] == [["numpy", 0.3]]
    assert {name: round(seconds, 3) for name, seconds in start["stages"].items()} == {
        "mounts": 0.045,
        "image": 0.02,
        "network": 0.01,
        "exec": 0.035,
        "runtime": 0.04,
        "other": 0.011,
        "import": 0.4,
        "enter": 0.09,
        "first_input": 0.003,
    }
    assert not stages.open
    assert stages.said is report


def test_an_engine_that_names_nothing_and_a_runtime_that_names_nothing(clock):
    stages = begun(clock)
    clock.now += 0.05
    stages.started("plain", {})
    stages.reached("runtime", "other")
    clock.now += 0.5
    stages.loaded(LinkReady())
    assert said(stages.so_far("ta-1"))["exec"] == 0.05
    assert said(stages.so_far("ta-1"))["import"] == 0.5


def test_a_fork_is_called_one(clock):
    stages = begun(clock)
    stages.note(level=2)
    clock.now += 0.004
    stages.started("parked", {"fork": 0.003})
    start = stages.so_far("ta-1").start
    assert start["how"] == "parked"
    assert start["level"] == 2
    assert start["stages"]["fork"] == pytest.approx(0.004)
    assert "exec" not in start["stages"]


def test_numbers_of_others_never_add_up_to_more_than_there_was(clock):
    stages = begun(clock)
    clock.now += 0.01
    stages.started("plain", {"network": 5.0, "exec": -1.0})
    start = stages.so_far("ta-1").start
    assert start["stages"]["network"] == pytest.approx(0.01)
    assert sum(start["stages"].values()) == pytest.approx(clock.now - 100.0)


def test_a_container_that_waited_for_its_first_input_did_not_start_slowly(clock):
    stages = begun(clock)
    stages.started("plain", {})
    stages.loaded(LinkReady())
    clock.now += 60.0
    stages.given()
    clock.now += 0.002
    start = stages.answered("ta-1", time.time()).start
    assert start["stages"]["first_input"] == pytest.approx(0.002, abs=0.001)


def test_a_failed_import_says_that_it_was_the_import(clock):
    stages = begun(clock)
    stages.started("plain", {})
    stages.reached("runtime", "other")
    stages.reached("other", "import")
    clock.now += 2.0
    stages.loaded(LinkReady(error=to_wire(InternalError("no module"))))
    clock.now += 0.3
    start = stages.ended("ta-1").start
    assert start["reached"] == "import"
    assert start["stages"]["import"] == pytest.approx(2.0)
    assert "ready" not in start


def test_an_end_before_the_engine_says_what_was_under_way(clock):
    stages = Stages(clock)
    clock.now += 0.01
    stages.reached("mounts", "image")
    clock.now += 3.0
    start = stages.ended("ta-1").start
    assert start["reached"] == "image"
    assert start["stages"] == {"mounts": pytest.approx(0.01), "image": pytest.approx(3.0)}


def test_what_was_said_stays(clock):
    stages = begun(clock)
    first = stages.ended("ta-1")
    clock.now += 5.0
    stages.reached("import")
    assert stages.ended("ta-1") is first


def test_a_container_of_an_earlier_agent_says_nothing(clock):
    stages = Stages(clock)
    stages.adopted()
    assert not stages.open
    assert not stages.awaits_input
    assert stages.said is None
    assert not stages.ended("ta-1").start
