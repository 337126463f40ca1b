"""The output file: whole records only, and a loss is told."""

from __future__ import annotations

import errno
import os

import pytest

from alight.node import output


@pytest.fixture
def path(tmp_path):
    return tmp_path / "output.log"


def test_records_are_read_back(path):
    file = output.OutputFile(str(path))
    file.write(output.STDOUT, b"one")
    file.write(output.STDERR, b"")
    file.close()
    assert [(one.stream, one.data) for one in output.read(path)] == [(1, b"one"), (2, b"")]


def test_another_writer_goes_on_at_the_end(path):
    for word in (b"a", b"b"):
        file = output.OutputFile(str(path))
        file.write(output.STDOUT, word)
        file.close()
    assert [one.data for one in output.read(path)] == [b"a", b"b"]


def test_a_torn_record_is_not_given_out(path):
    file = output.OutputFile(str(path))
    file.write(output.STDOUT, b"whole")
    file.write(output.STDOUT, b"torn")
    file.close()
    data = path.read_bytes()
    for cut in range(1, output.HEAD.size + 4):
        records, used = output.parse(data[:-cut])
        assert [one.data for one in records] == [b"whole"]
        assert used == output.HEAD.size + 5


def test_a_full_disk_loses_whole_records_and_says_how_much(path, monkeypatch):
    file = output.OutputFile(str(path))
    file.write(output.STDOUT, b"before")
    real = os.pwrite
    room = 7

    def short(fd, data, offset):
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, "no room")
        taken = min(room, len(data))
        room -= taken
        return real(fd, data[:taken], offset)

    monkeypatch.setattr(os, "pwrite", short)
    file.write(output.STDOUT, b"x" * 100)
    file.write(output.STDOUT, b"y" * 11)
    assert file.lost == 111
    assert path.stat().st_size == file.size
    monkeypatch.setattr(os, "pwrite", real)
    file.write(output.STDOUT, b"after")
    file.close()
    assert [one.data for one in output.read(path)] == [
        b"before",
        b"[alight] 111 bytes of output were lost: no room on the disk\n",
        b"after",
    ]


def test_a_loss_at_the_very_end_is_told_on_closing(path, monkeypatch):
    file = output.OutputFile(str(path))
    monkeypatch.setattr(file, "_append", lambda *_: False)
    file.write(output.STDOUT, b"gone")
    monkeypatch.undo()
    file.close()
    file.close()
    assert b"4 bytes" in next(output.read(path)).data


def test_a_flood_is_dropped_and_told_once_the_server_has_taken_what_waits(path, monkeypatch):
    monkeypatch.setenv("ALIGHT_OUTPUT_MIB", "4")
    file = output.OutputFile(str(path))
    line = b"x" * 1023 + b"\n"
    for _ in range(200):
        file.write(output.STDOUT, line * 64)
    written = file.size
    assert 4 << 20 < written < 7 << 20
    with path.open("r+b") as agent:
        assert output.free(agent.fileno(), 0, written)
    for _ in range(64):
        file.write(output.STDERR, line * 64)
    file.close()
    records = [one for one in output.parse(path.read_bytes()[written:])[0] if one.data.startswith(b"[alight]")]
    (note,) = records
    kept = (
        sum(one.data.count(b"x\n") for one in output.parse(path.read_bytes()[written:])[0])
        + written // (1024 * 64) * 64
    )
    dropped = int(note.data.split()[1].replace(b",", b""))
    assert kept + dropped == 264 * 64
    assert note.stream == output.STDERR


def test_what_was_dropped_last_is_told_at_the_end(path, monkeypatch):
    monkeypatch.setenv("ALIGHT_OUTPUT_MIB", "1")
    file = output.OutputFile(str(path))
    for _ in range(100):
        file.write(output.STDOUT, b"y\n" * 20000)
    file.close()
    last = list(output.read(path))[-1]
    assert b"lines were dropped" in last.data
