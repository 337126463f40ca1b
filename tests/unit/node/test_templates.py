"""Which template serves which start, how many forks wait, and when a template goes or is not tried again."""

from __future__ import annotations

from dataclasses import replace as changed

import pytest

from alight.node.templates import (
    MODULE,
    RUNTIME,
    Book,
    Facts,
    Ground,
    Template,
    TemplateSettings,
    keys,
    settings,
)
from alight.wire.errors import InvalidError
from alight.wire.record import replace
from alight.wire.spec import Autoscaling, FilesAt, FunctionSpec, Resources, RetryPolicy, VolumeMount

MIB = 1 << 20
IMAGE_ENV = {"HOME": "/root", "PATH": "/usr/bin", "PYTHONUNBUFFERED": "1"}
GROUND = Ground("owner", "image", "/usr/bin/python3 3.11", IMAGE_ENV, "/root", "/library", ("/layer",), ("/code",))
PLAIN = FunctionSpec("f", files=(FilesAt("tree", "/root"),))
SNAPPED = replace(PLAIN, enable_memory_snapshot=True)


def facts(function=SNAPPED, **more):
    env = {**IMAGE_ENV, "ALIGHT_TASK_ID": "ta-1", **more.pop("env", {})}
    told = {"secrets": "", "environment": "main", "app_name": "app", "function_id": "fu-1", **more}
    return Facts(function, env, **told)


def test_a_function_without_a_snapshot_takes_the_runtime_alone():
    assert [level for level, _ in keys(GROUND, facts(PLAIN), MODULE)] == [RUNTIME]
    assert [level for level, _ in keys(GROUND, facts(), MODULE)] == [MODULE, RUNTIME]


def test_the_settings_bound_the_level():
    assert [level for level, _ in keys(GROUND, facts(), RUNTIME)] == [RUNTIME]
    assert keys(GROUND, facts(), 0) == ()


def test_a_runtime_is_shared_by_all_functions_of_one_owner_on_one_image():
    (one,) = keys(GROUND, facts(PLAIN), MODULE)
    other = facts(FunctionSpec("g"), secrets="x", environment="dev", app_name="other")
    assert keys(changed(GROUND, code=("/other",)), other, MODULE) == (one,)
    for ground in (
        changed(GROUND, owner="somebody"),
        changed(GROUND, image="other"),
        changed(GROUND, python="/usr/bin/python3 3.12"),
        changed(GROUND, library="/newer"),
        changed(GROUND, layers=("/renewed",)),
    ):
        assert keys(ground, facts(PLAIN), MODULE) != (one,)


def test_what_the_loader_reads_at_exec_keeps_a_container_from_a_runtime_that_was_not_given_it():
    injected = {"LD_LIBRARY_PATH": "/usr/local/nvidia/lib64"}
    assert keys(GROUND, facts(PLAIN, env=injected), MODULE) == ()
    assert [level for level, _ in keys(GROUND, facts(env=injected), MODULE)] == [MODULE]
    assert keys(GROUND, facts(PLAIN, env={"OMP_NUM_THREADS": "4"}), MODULE)


@pytest.mark.parametrize(
    "other",
    [
        facts(secrets="another value"),
        facts(environment="dev"),
        facts(app_name="other"),
        facts(env={"OMP_NUM_THREADS": "4"}),
        facts(replace(SNAPPED, env={"A": "b"})),
        facts(replace(SNAPPED, parameters="cGFyYW1ldGVycw==")),
        facts(replace(SNAPPED, volumes=(VolumeMount("/data", "vo-1"),))),
        facts(replace(SNAPPED, resources=Resources(memory_limit=512))),
        facts(replace(SNAPPED, name="g", qualname="g")),
    ],
)
def test_a_module_is_shared_with_nothing_that_could_differ(other):
    assert keys(GROUND, other, MODULE)[0] != keys(GROUND, facts(), MODULE)[0]


def test_a_module_is_another_one_with_other_code_and_the_same_one_when_only_the_scaling_changed():
    (one, _) = keys(GROUND, facts(), MODULE)
    assert keys(changed(GROUND, code=("/edited",)), facts(), MODULE)[0] != one
    scaled = replace(
        SNAPPED, autoscaling=Autoscaling(min_containers=2), retries=RetryPolicy(3), timeout=5.0, secrets=("st-2",)
    )
    assert keys(GROUND, facts(scaled, env={"ALIGHT_TASK_ID": "ta-2"}), MODULE)[0] == one


def test_a_module_serves_the_next_run_of_the_same_code_but_not_what_it_read_from_a_volume():
    assert keys(GROUND, facts(function_id="fu-2"), MODULE) == keys(GROUND, facts(), MODULE)
    mounts = replace(SNAPPED, volumes=(VolumeMount("/data", "vo-1"),))
    assert keys(GROUND, facts(mounts, function_id="fu-2"), MODULE)[0] != keys(GROUND, facts(mounts), MODULE)[0]


# what there is


def book(**more) -> Book:
    return Book(TemplateSettings(**more))


def template(of: Book, name: str, now: float = 0.0, memory: int = 0) -> Template:
    made = of.begin(name, MODULE, f"tp-{name}", now)
    of.made(made, now)
    assert not of.measured(made, memory)
    return made


def test_a_template_can_be_forked_when_it_is_made_and_not_before():
    of = book()
    assert of.may_begin("a", 0)
    made = of.begin("a", MODULE, "tp-a", 0)
    assert of.ready("a") is None
    assert not of.may_begin("a", 0)
    of.made(made, 1)
    assert of.ready("a") is made
    of.ended(made, 2, badly=False)
    assert of.ready("a") is None
    assert of.may_begin("a", 2)


def test_a_refusal_is_remembered():
    of = book()
    of.refuse(of.begin("a", MODULE, "tp-a", 0), ("2 threads run",))
    assert of.refused("a") == ("2 threads run",)
    assert not of.may_begin("a", 1e9)
    assert of.may_begin("b", 0)


def test_a_template_that_ends_badly_comes_back_later_and_later_and_three_times_in_ten_minutes():
    of = book()
    now, begun = 0.0, []
    while now < 1000:
        if of.may_begin("a", now):
            begun.append(now)
            of.ended(of.begin("a", MODULE, "tp-a", now), now, badly=True)
        now += 0.5
    assert begun[:3] == [0, 1, 5]
    for first, fourth in zip(begun, begun[3:], strict=False):
        assert fourth - first >= 600
    assert len(begun) > 3  # and later it is tried again


def test_one_that_was_not_used_goes_and_one_in_use_stays():
    of = book(idle=100)
    idle, used = template(of, "idle"), template(of, "used")
    of.served(used, "s", 50)
    assert [one.id for one, _ in of.to_close(100)] == [idle.id]


def test_the_least_recently_used_goes_for_memory_and_only_as_many_as_needed():
    of = book(memory_bytes=100 * MIB)
    first, second, third = (template(of, name, now, 40 * MIB) for now, name in enumerate("abc"))
    assert [one.id for one, _ in of.to_close(10)] == [first.id]
    of.served(first, "s", 5)
    assert [one.id for one, _ in of.to_close(10)] == [second.id]
    assert third.ready


def test_one_that_alone_needs_more_than_there_may_be_is_refused_in_words():
    of = book(memory_bytes=100 * MIB)
    assert "200 MiB" in of.measured(of.begin("a", MODULE, "tp-a", 0), 200 * MIB)


def test_one_that_was_evicted_does_not_come_back_while_those_in_use_leave_it_no_room():
    of = book(memory_bytes=100 * MIB)
    evicted, kept = template(of, "a", 0, 60 * MIB), template(of, "b", 10, 60 * MIB)
    of.ended(evicted, 11, badly=False)
    assert not of.may_begin("a", 12)
    assert of.may_begin("a", 100)  # the other one was not used for long
    of.served(kept, "s", 100)
    assert not of.may_begin("a", 101)


def test_what_lost_its_image_goes():
    of = book()
    made = template(of, "a")
    ((closing, why),) = of.to_close(1, lost=[made.id])
    assert closing is made
    assert "image" in why


def test_one_fork_waits_for_each_shape_and_more_for_hot_ones_up_to_four():
    of = book()
    made = template(of, "a")
    of.expect(made, "new", 0)
    assert of.allotted(0) == {(made.id, "new"): 1}
    for now in range(9):
        of.served(made, "hot", now)
    assert of.allotted(10) == {(made.id, "new"): 1, (made.id, "hot"): 4}
    assert of.allotted(100) == {(made.id, "new"): 1, (made.id, "hot"): 1}
    assert of.allotted(650) == {}  # neither was started for ten minutes


def test_forks_that_wait_are_bounded_and_every_shape_has_one_before_any_has_two():
    of = book(parked=3)
    made = template(of, "a")
    for now in range(10):
        of.served(made, "hot", now)
    of.served(made, "second", 11)
    assert of.allotted(12) == {(made.id, "second"): 1, (made.id, "hot"): 2}
    for number in range(5):
        of.served(made, f"s{number}", 20 + number)
    assert of.allotted(30) == {(made.id, f"s{number}"): 1 for number in (2, 3, 4)}
    assert book(parked=0).allotted(0) == {}


def test_a_shape_with_devices_never_waits():
    of = book()
    made = template(of, "a")
    of.served(made, "gpu", 0, parkable=False)
    assert of.allotted(1) == {}


def test_what_is_missing_is_parked_and_what_is_too_much_ends():
    of = book()
    made = template(of, "a")
    of.expect(made, "s", 0)
    assert of.next_park({made.id: {}}, 1) == (made.id, "s")
    assert of.next_park({made.id: {"s": 1}}, 1) is None
    assert of.surplus({made.id: {"s": 3, "old": 1}}, 1) == [(made.id, "s", 1), (made.id, "old", 0)]


def test_a_shape_that_cannot_be_parked_is_left_alone_for_longer_and_longer():
    of = book()
    made = template(of, "a")
    of.expect(made, "s", 0)
    of.park_failed(made, "s", 0)
    assert of.next_park({}, 5) is None
    assert of.next_park({}, 10) == (made.id, "s")
    of.park_failed(made, "s", 10)
    assert of.next_park({}, 45) is None
    assert of.next_park({}, 50) == (made.id, "s")


def test_a_template_whose_forks_fail_three_times_in_a_row_is_ended():
    of = book()
    made = template(of, "a")
    assert not of.fork_failed(made)
    assert not of.fork_failed(made)
    of.served(made, "s", 0)
    assert [of.fork_failed(made) for _ in range(3)] == [False, False, True]


# settings


def test_an_eighth_of_the_machine_is_for_templates_and_at_least_a_gibibyte():
    assert settings({}, 64 * 1024).memory_bytes == 8 << 30
    assert settings({}, 4096).memory_bytes == 1 << 30
    assert settings({}, 4096).level == MODULE


def test_settings_are_read_and_what_is_none_is_refused_in_words():
    told = settings({"ALIGHT_TEMPLATES": "runtime", "ALIGHT_TEMPLATES_MIB": "300", "ALIGHT_PARKED": "0"}, 4096)
    assert (told.level, told.memory_bytes, told.parked) == (RUNTIME, 300 * MIB, 0)
    assert settings({"ALIGHT_TEMPLATES": "off"}, 4096).level == 0
    assert settings({"ALIGHT_TEMPLATES_IDLE": "60"}, 4096).parked_idle == 60
    with pytest.raises(InvalidError, match="ALIGHT_TEMPLATES="):
        settings({"ALIGHT_TEMPLATES": "yes"}, 4096)
    with pytest.raises(InvalidError, match="ALIGHT_PARKED="):
        settings({"ALIGHT_PARKED": "many"}, 4096)
