"""What may be cleared up: never what somebody needs, never a layer that a kept image stands on."""

from __future__ import annotations

from alight.builder.gc import Held, plan

SIZES = {"base": 100, "a": 10, "b": 20, "c": 30, "orphan": 5}
OLD = Held("old", frozenset({"base", "a"}), 0.0, needed=False)
NEW = Held("new", frozenset({"base", "b"}), 90.0, needed=False)
USED = Held("used", frozenset({"base", "c"}), 0.0, needed=True)


def test_only_what_was_not_used_for_long_goes_and_shared_layers_stay():
    made = plan([OLD, NEW, USED], SIZES, now=100.0, older_than=50.0)
    assert made.images == ("old",)
    assert made.layers == {"a", "orphan"}


def test_an_image_that_is_needed_stays_whatever_is_asked():
    made = plan([OLD, NEW, USED], SIZES, now=100.0, older_than=0.0, most_bytes=0, named=["used"])
    assert set(made.images) == {"old", "new"}
    assert made.layers == {"a", "b", "orphan"}


def test_by_size_the_least_recently_used_go_first_and_no_more_than_it_takes():
    made = plan([NEW, OLD, USED], SIZES, now=100.0, most_bytes=150)
    assert made.images == ("old",)
    assert plan([NEW, OLD, USED], SIZES, now=100.0, most_bytes=1000).images == ()


def test_a_named_image_goes_alone():
    assert plan([OLD, NEW], SIZES, now=100.0, named=["new"]).images == ("new",)


def test_the_last_image_takes_its_base_along():
    assert plan([OLD], {"base": 100, "a": 10}, now=100.0, older_than=0.0).layers == {"base", "a"}
