"""Images as they are looked at and cleared up: sizes, sharing, use, logs, and the two locks."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from alight.builder import Builder, HostConfig, bases, digest
from alight.builder.layers import LayerStore, Record
from alight.wire.errors import ConflictError, NotFoundError
from alight.wire.spec import ImageSpec

DEBIAN = {"op": "debian_slim", "python": "3.11"}


class Runner:
    """Runs nothing: writes a file of the size that the command names, says a line."""

    async def run(self, step, on_output):
        Path(step.upper, "file").write_bytes(b"x" * int(step.argv[-1]))
        on_output(f"wrote {step.argv[-1]}\n".encode())
        return 0


@pytest.fixture
def builder(tmp_path):
    store = LayerStore(tmp_path)
    key = digest.step_key(digest.ROOT, {"debian": "bookworm", "machine": bases.machine()})
    store.path(key).mkdir()
    (store.path(key) / "base").write_bytes(b"x" * 100_000)
    store.keep_record(key, Record(key, "Debian bookworm", (key,), {"python_version": "3.11.2"}))
    return Builder(tmp_path, Runner(), HostConfig(), None)


def build(builder, *sizes):
    events = []
    steps = (DEBIAN, *({"op": "run", "command": str(size)} for size in sizes))
    image = asyncio.run(builder.build(ImageSpec(steps=steps), {}, events.append))
    return image, [event.line for event in events if event.kind == "log"]


def test_sizes_and_sharing(builder):
    one, _ = build(builder, 40_000)
    two, _ = build(builder, 80_000)
    builder.inventory.used(two.digest, "im-2")
    first, second = sorted(builder.inventory.look({"im-2"}), key=lambda found: found.own_bytes)
    assert (first.digest, second.digest) == (one.digest, two.digest)
    assert second.own_bytes >= 80_000
    assert second.bytes - second.own_bytes >= 100_000
    assert [layer.shared for layer in second.layers] == [0, 1]
    assert (first.in_use, second.in_use, second.ids) == (False, True, ("im-2",))
    assert second.title == ".run_commands('80000')"


def test_an_image_is_found_by_its_id_or_the_beginning_of_its_digest(builder):
    image, _ = build(builder, 1)
    builder.inventory.used(image.digest, "im-1")
    assert builder.inventory.find("im-1") == builder.inventory.find(image.digest[:10])
    with pytest.raises(NotFoundError):
        builder.inventory.find("im-2")
    with pytest.raises(NotFoundError):
        builder.inventory.find("")


def test_the_log_of_an_image_is_what_its_steps_said(builder):
    image, _ = build(builder, 7, 8)
    lines = builder.inventory.log(builder.inventory.find(image.digest))
    assert "wrote 7" in lines[lines.index("── .run_commands('7')") + 1]
    assert lines[-1] == "wrote 8"


def test_clearing_up_takes_what_only_the_image_needs_and_the_rest_still_is_cached(builder):
    one, _ = build(builder, 1)
    two, _ = build(builder, 2)
    gone, freed = builder.inventory.clear(needed=(), named=(two.digest,))
    assert [found.digest for found in gone] == [two.digest]
    assert freed > 0
    assert builder.cached(ImageSpec(steps=(DEBIAN, {"op": "run", "command": "1"}))) == one
    assert builder.cached(ImageSpec(steps=(DEBIAN, {"op": "run", "command": "2"}))) is None
    assert build(builder, 2)[0].layers  # and it is made again


def test_what_a_failed_build_had_finished_stays_for_the_next_try(builder):
    with pytest.raises(ValueError, match="later"):
        build(builder, 1, "later")
    builder.inventory.clear(needed=(), older_than=0.0)
    assert build(builder, 1)[1] == []  # cached


def test_use_counts_by_the_moment(builder):
    one, _ = build(builder, 1)
    two, _ = build(builder, 2)
    for image, age in ((one, 1000), (two, 10)):
        builder.inventory.used(image.digest)
        mark = builder._home / "images" / f"{image.digest}.used"
        os.utime(mark, (time.time() - age,) * 2)
    gone, _ = builder.inventory.clear(needed=(), older_than=500.0, dry_run=True)
    assert [found.digest for found in gone] == [one.digest]
    assert len(builder.inventory.look()) == 2


def test_nothing_is_cleared_up_while_something_is_built(builder):
    with builder.inventory.building(), builder.inventory.building(), pytest.raises(ConflictError):
        builder.inventory.clear(needed=(), older_than=0.0)


def test_a_step_that_is_made_again_says_what_changed(builder):
    assert build(builder, 1)[1] == ["wrote 1"]
    assert build(builder, 2)[1] == ["not cached: command was '1' and is '2'", "wrote 2"]
    assert build(builder, 2)[1] == []
