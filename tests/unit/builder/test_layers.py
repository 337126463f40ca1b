"""The layer store: whole layers or none, whatever is killed when."""

from __future__ import annotations

import asyncio
import os

import pytest

from alight.builder.layers import LayerStore, Record, clear_mount_points


def test_a_layer_appears_whole_and_its_place_is_gone(tmp_path):
    store = LayerStore(tmp_path)
    with store.workspace() as space:
        (space.upper / "file").write_text("x")
        (space.scratch / "junk").write_text("x")
        store.keep_layer(space, "layer")
    store.keep_record("key", Record("key", "a step", ("layer",), {"python_version": "3.11.2"}))
    assert (store.path("layer") / "file").read_text() == "x"
    assert store.path("layer").stat().st_mode & 0o777 == 0o755  # it is a container's "/"
    assert not list((tmp_path / "layers").glob("tmp-*"))
    assert LayerStore(tmp_path).record("key") == store.record("key")


def test_a_step_that_failed_leaves_nothing(tmp_path):
    store = LayerStore(tmp_path)
    with pytest.raises(ZeroDivisionError), store.workspace() as space:
        (space.upper / "file").write_text(str(1 / 0))
    assert not list((tmp_path / "layers").iterdir())


def test_a_record_without_its_layer_or_half_written_counts_as_none(tmp_path):
    store = LayerStore(tmp_path)
    store.keep_record("key", Record("key", "a step", ("gone",)))
    (tmp_path / "layers/half.json").write_text('{"key": ')
    assert store.record("key") is None
    assert store.record("half") is None
    assert store.record("never") is None


def test_a_layer_left_by_a_crash_before_its_record_is_replaced(tmp_path):
    store = LayerStore(tmp_path)
    (store.path("layer")).mkdir()
    (store.path("layer") / "old").write_text("x")
    with store.workspace() as space:
        store.keep_layer(space, "layer")
    assert not list(store.path("layer").iterdir())


def test_a_sweep_takes_the_dead_and_spares_the_living(tmp_path):
    store = LayerStore(tmp_path)
    dead = tmp_path / "layers/tmp-dead"
    (dead / "upper").mkdir(parents=True)
    (dead / "lock").touch()
    with store.workspace() as space:
        assert store.sweep() == 1
        assert space.upper.is_dir()
    assert not dead.exists()


def test_two_builds_of_a_step_wait_for_each_other(tmp_path):
    first, second = LayerStore(tmp_path), LayerStore(tmp_path)
    said: list[str] = []

    async def hold(store: LayerStore, name: str, until: asyncio.Event) -> None:
        async with store.alone("key", lambda: said.append(f"{name} waits")):
            said.append(f"{name} in")
            await until.wait()
            said.append(f"{name} out")

    async def main() -> None:
        leave = asyncio.Event()
        one = asyncio.create_task(hold(first, "one", leave))
        await asyncio.sleep(0)
        two = asyncio.create_task(hold(second, "two", leave))
        await asyncio.sleep(0)
        leave.set()
        await asyncio.gather(one, two)

    asyncio.run(main())
    assert said == ["one in", "two waits", "one out", "two in", "two out"]


def test_mount_points_do_not_stay_in_a_layer(tmp_path):
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for folder in (upper / "etc", upper / "opt/alight/lib", upper / "srv/index/simple", lower / "etc", lower / "srv"):
        folder.mkdir(parents=True)
    (upper / "etc/resolv.conf").touch()
    (upper / "etc/hosts").write_text("127.0.0.1 mine")  # somebody wrote it: it is theirs
    (upper / "etc/kept").touch()
    targets = ["/etc/resolv.conf", "/etc/hosts", "/opt/alight/lib", "/srv/index/simple", "/never/there"]
    clear_mount_points(upper, [lower], targets)
    assert sorted(str(path.relative_to(upper)) for path in upper.rglob("*")) == ["etc", "etc/hosts", "etc/kept", "srv"]


def test_clearing_never_follows_a_link_that_a_step_made(tmp_path):
    upper, outside = tmp_path / "upper", tmp_path / "outside"
    upper.mkdir()
    (outside / "alight/lib").mkdir(parents=True)
    (upper / "opt").symlink_to(outside)
    clear_mount_points(upper, [], ["/opt/alight/lib"])
    assert (outside / "alight/lib").is_dir()
    assert os.path.lexists(upper / "opt")
