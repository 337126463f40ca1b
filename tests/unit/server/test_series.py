"""Series on disk: what was written is there after a kill, old hours get coarser and go, nothing grows without end."""

from __future__ import annotations

from pathlib import Path

import pytest

from alight.server.series import FIELDS, FINE_KEPT, KEPT, Series, in_buckets

HOUR = 3600.0
START = 500_000 * HOUR


def test_what_was_written_is_read_by_another_process(tmp_path: Path) -> None:
    one = Series(tmp_path)
    for second in range(0, 100, 10):
        one.add("ta-a", START + second, {"cpu": second / 10, "memory_bytes": 5.0})
        one.add("ta-b", START + second, {"cpu": 99.0})
    other = Series(tmp_path)  # the first one was never closed
    found = other.read({"ta-a"}, START + 20, START + 50)
    assert list(found) == ["ta-a"]
    assert [at - START for at, _, _ in found["ta-a"]] == [20, 30, 40, 50]
    assert [means[FIELDS.index("cpu")] for _, means, _ in found["ta-a"]] == [2, 3, 4, 5]


def test_half_a_record_does_not_spoil_what_comes_after(tmp_path: Path) -> None:
    one = Series(tmp_path)
    one.add("ta-a", START, {"cpu": 1.0})
    for kind in ("fine", "ids"):
        with (tmp_path / f"500000.{kind}").open("ab") as file:
            file.write(b"ta-half")
    again = Series(tmp_path)
    again.add("ta-b", START + 10, {"cpu": 2.0})
    found = again.read({"ta-a", "ta-b"}, START, START + HOUR)
    assert {name: points[0][1][0] for name, points in found.items()} == {"ta-a": 1.0, "ta-b": 2.0}


def test_after_a_day_there_are_minutes_with_their_peaks_and_after_a_week_nothing(tmp_path: Path) -> None:
    one = Series(tmp_path)
    for second in range(0, 600, 10):
        one.add("ta-a", START + second, {"cpu": 4.0 if second == 30 else 1.0})
    fine = one.size()
    one.sweep(START + FINE_KEPT + 2 * HOUR)
    points = one.read({"ta-a"}, START, START + HOUR)["ta-a"]
    assert len(points) == 10
    at, means, most = points[0]
    assert (at, means[0], most[0]) == (START + 30, 1.5, 4.0)
    assert one.size() < fine
    one.sweep(START + KEPT + 2 * HOUR)
    assert one.read({"ta-a"}, START, START + HOUR) == {}
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_goes_when_it_is_too_much(tmp_path: Path) -> None:
    one = Series(tmp_path, most=20_000)
    for hour in range(5):
        for second in range(100):
            one.add("ta-a", START + hour * HOUR + second, {"cpu": 1.0})
    one.sweep(START + 5 * HOUR)
    assert one.size() <= 20_000
    assert one.read({"ta-a"}, START, START + HOUR - 1) == {}
    assert len(one.read({"ta-a"}, START + 4 * HOUR, START + 5 * HOUR)["ta-a"]) == 100


def test_buckets_have_means_peaks_and_holes() -> None:
    def point(at: float, cpu: float) -> tuple[float, list[float], list[float]]:
        row = [cpu, *[float("nan")] * 13]
        return at, row, row

    found = in_buckets([point(0, 1.0), point(5, 3.0), point(25, 7.0)], 0.0, 10.0, 3)
    assert found == {"cpu": [[2.0, None, 7.0], [3.0, None, 7.0]]}


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    one = Series(Path("/dev/null/there"))
    with pytest.raises(OSError, match="Not a directory"):
        one.add("ta-a", START, {})
