"""From logs on disk to lines: cut, filtered, merged, found by time, taken from the end; and whose they are."""

from __future__ import annotations

import json
import math
import os
import random
import struct
import time

import pytest

from alight.server.log_marks import Mark, Whose
from alight.server.log_query import Bit, Cursor, Reader, holding, last_lines, merged
from alight.server.log_segments import LogFile
from alight.server.logs import Logs
from alight.wire import errors, ids

HEAD = struct.Struct("!dBI")
CALL = "fc-0000000000000000000000"


def record(data: bytes, at: float = 1.0, fd: int = 1) -> bytes:
    return HEAD.pack(at, fd, len(data)) + data


@pytest.fixture
def logs(tmp_path):
    logs = Logs(tmp_path / "logs", 64 << 20)
    yield logs
    logs.close()


class Box:
    """One container's log."""

    def __init__(self, logs: Logs) -> None:
        self.logs = logs
        self.name = ids.new_id(ids.CONTAINER)
        self.end = 0

    def write(self, *records: bytes) -> None:
        self.end = self.logs.append(self.name, self.end, b"".join(records))

    def reader(self) -> Reader:
        return Reader(self.name, LogFile(self.logs.folder_of(self.name)))


def texts(bits) -> list[bytes]:
    return [bit.data for bit in bits]


def test_lines_are_put_together_from_pieces_and_streams_are_kept_apart(logs):
    box = Box(logs)
    box.write(record(b"one\ntw", 1), record(b"error ", 2, fd=2), record(b"o\nthree", 3), record(b"here\n", 4, fd=2))
    bits = list(box.reader().forward())
    assert texts(bits) == [b"one\n", b"two\n", b"error here\n", b"three"]
    assert [(bit.fd, bit.at) for bit in bits] == [(1, 1), (1, 3), (2, 4), (1, 3)]


def test_an_unfinished_line_waits_where_it_is_to_wait_and_comes_with_its_rest(logs):
    box = Box(logs)
    box.write(record(b"half "))
    reader = box.reader()
    assert texts(reader.forward(unfinished=False)) == []
    box.write(record(b"a line\n"))
    assert texts(reader.forward(unfinished=False)) == [b"half a line\n"]
    assert texts(reader.forward()) == []


def test_nothing_is_read_beyond_a_readers_limit_from_either_end_and_nothing_twice(logs):
    box = Box(logs)
    box.write(record(b"one\n", 1))
    first = box.end
    box.write(record(b"two\n", 2))
    for way in ("forward", "backward"):
        reader = box.reader()
        reader.limit = first
        assert texts(getattr(reader, way)()) == [b"one\n"]
        assert texts(reader.forward()) == []
        reader.limit = box.end
        assert texts(reader.forward()) == [b"two\n"]


def test_reading_goes_on_where_it_stopped_to_the_byte(logs):
    box = Box(logs)
    box.write(record(b"one\ntwo"))
    reader = box.reader()
    assert texts(reader.forward()) == [b"one\n", b"two"]
    box.write(record(b" and a half\nthree\n"))
    assert texts(reader.forward()) == [b" and a half\nthree\n"]


@pytest.mark.parametrize("seed", range(20))
def test_the_end_backwards_is_the_end_forwards(logs, seed):
    chance = random.Random(seed)
    box = Box(logs)
    at = 0.0
    for _ in range(chance.randrange(1, 400)):
        at += chance.choice([0, 0.001, 0.5])
        text = "".join(chance.choice("abc\n") * chance.choice([1, 1, 300]) for _ in range(chance.randrange(1, 30)))
        box.write(record(text.encode(), at, chance.choice([1, 1, 2])))
    whole = list(box.reader().forward())
    for fd in (1, 2):
        forward = b"".join(bit.data for bit in whole if bit.fd == fd)
        backward = list(box.reader().backward())[::-1]
        assert b"".join(bit.data for bit in backward if bit.fd == fd) == forward
        for count in (1, 3, 10):
            last = last_lines((bit for bit in box.reader().backward() if bit.fd == fd), count)
            lines = [line for line in forward.split(b"\n") if line] if b"\n\n" not in forward else None
            assert forward.endswith(b"".join(texts(last)))
            if lines is not None and len(lines) >= count:
                assert sum(bit.lines for bit in last) == count


def test_a_moment_is_found_without_reading_what_is_before(logs, monkeypatch):
    box = Box(logs)
    for second in range(3000):
        box.write(record(b"x" * 999 + b"\n", float(second)))
    read = 0
    real = os.pread

    def counted(descriptor, size, offset):
        nonlocal read
        data = real(descriptor, size, offset)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", counted)
    assert [bit.at for bit in box.reader().forward(2990.0)] == [float(second) for second in range(2990, 3000)]
    assert read < 300_000
    read = 0
    assert [bit.at for bit in last_lines(box.reader().backward(), 5)] == [2995.0, 2996.0, 2997.0, 2998.0, 2999.0]
    assert read < 300_000
    read = 0
    assert [bit.at for bit in box.reader().forward(10.0, 12.0)] == [10.0, 11.0, 12.0]
    assert read < 300_000
    assert [bit.at for bit in box.reader().backward(10.0, 12.0)] == [12.0, 11.0, 10.0]


def test_an_index_survives_a_killed_server_and_tells_no_lies(logs, tmp_path):
    box = Box(logs)
    for second in range(500):
        box.write(record(b"x" * 999 + b"\n", float(second)))
    folder = logs.folder_of(box.name)
    logs.forget(box.name)
    with (folder / f"{0:016d}.at").open("ab") as file:
        file.write(struct.pack("!dQ", 9e9, 1 << 40) + b"torn")
    with (folder / f"{0:016d}").open("ab") as file:
        file.write(record(b"torn")[:-2])
    for second in range(500, 700):
        box.write(record(b"x" * 999 + b"\n", float(second)))
    assert [bit.at for bit in box.reader().forward(650.0)] == [float(second) for second in range(650, 700)]
    (folder / f"{0:016d}.at").unlink()
    logs.forget(box.name)
    assert [bit.at for bit in box.reader().forward(690.0)] == [float(second) for second in range(690, 700)]
    assert logs.append(box.name, box.end, b"") == box.end


def test_a_clock_that_goes_back_hides_nothing(logs):
    box = Box(logs)
    for at in (100.0, 101.0, 50.0, 51.0, 102.0):
        box.write(record(b"%d\n" % at, at))
    assert texts(box.reader().forward(101.0)) == [b"101\n", b"50\n", b"51\n", b"102\n"]
    assert texts(last_lines(box.reader().backward(), 3)) == [b"50\n", b"51\n", b"102\n"]


def test_logs_are_merged_by_time_and_opened_when_it_has_come():
    opened = []

    def source(name, *keys):
        def begin():
            opened.append(name)
            yield from (Bit(key, name, key, 1, b"%s %g\n" % (name.encode(), key), 0, 1) for key in keys)

        return keys[0], begin

    found = merged([source("c", 7.0, 8.0), source("a", 1.0, 4.0), source("b", 2.0, 3.0)])
    assert next(found).data == b"a 1\n"
    assert opened == ["a"]
    assert texts(found) == [b"b 2\n", b"b 3\n", b"a 4\n", b"c 7\n", b"c 8\n"]
    opened.clear()

    def back(name, *keys):
        bound, begin = source(name, *sorted(keys, reverse=True))
        return bound, begin

    newest = merged([back("a", 1.0, 2.0), back("b", 8.0, 9.0)], newest_first=True)
    assert texts(last_lines(newest, 2)) == [b"b 8\n", b"b 9\n"]
    assert opened == ["b"]


def test_search_keeps_whole_lines_in_any_case():
    bit = Bit(1, "a", 1, 1, b"one ERROR\nfine\r50%\rerror 2\n", 0, 1)
    assert holding(bit, b"error").data == b"one ERROR\nfine\r50%\rerror 2\n"
    assert holding(Bit(1, "a", 1, 1, b"one\ntwo\n", 0, 1), b"two").data == b"two\n"
    assert holding(Bit(1, "a", 1, 1, b"one\ntwo\n", 0, 1), b"e\nt") is None


def test_a_cursor_comes_back_as_it_was_and_stays_small():
    cursor = Cursor(5.0)
    for number in range(500):
        cursor.passed(Bit(10.0 + number, f"ta-{number}", 10.0, 1, b"x", 0, number), following=True)
    text = cursor.text(lambda name: True)
    assert len(text) < 4000
    again = Cursor.parse(text)
    assert again.places == cursor.places
    assert again.moment == cursor.moment
    for bad in ("", "x", "1~ta-1:1.x", "1~ta-1:1"):
        with pytest.raises(errors.InvalidError, match="no place in a log"):
            Cursor.parse(bad)


def mark(number, began, ended, offset=0, call=CALL):
    return Mark(call, number, number + 1, 1, began, ended, offset)


def test_a_line_is_of_the_input_that_ran_when_it_came(logs):
    box = Box(logs)
    box.write(record(b"import\n", 5.0))
    for number in range(100):
        logs.mark(box.name, mark(number, 10.0 + number, 10.9 + number, 100 + number).pack())
    whose = Whose(logs.folder_of(box.name), together=False)
    assert whose.of(5.0, 20, 5.0) == ()
    for number in (0, 1, 50, 99):
        assert whose.of(10.5 + number, 100 + number, 10.5 + number)[0].start == number
        assert whose.of(10.0 + number, 100 + number, 10.0 + number)[0].start == number
    assert whose.of(12.95, 102, 12.95)[0].start == 2  # read late, but before the place where it had ended
    assert whose.of(12.95, 103, 12.95) == ()  # a thread of nobody's, while nothing ran
    assert whose.of(12.999, 103, 12.999)[0].start == 3  # clocks are not that exact
    assert whose.of(150.0, 300, 150.0) == ()
    running = [mark(100, 120.0, math.inf)]
    whose.close()
    assert whose.of(150.0, 300, 150.0, running)[0].start == 100
    assert whose.of(115.0, 300, 115.0, running) == ()
    whose.close()


def test_what_was_still_in_the_pipe_is_of_the_input_that_had_ended(logs):
    box = Box(logs)
    box.write(record(b"x\n"))
    logs.mark(box.name, mark(0, 10.0, 11.0).pack())  # offset 0: its pipes were not empty
    logs.mark(box.name, mark(1, 11.0, 12.0, 90).pack())
    whose = Whose(logs.folder_of(box.name), together=False)
    assert whose.of(11.04, 60, 10.5)[0].start == 0  # read first after that
    assert whose.of(11.05, 80, 11.04)[0].start == 1


def test_inputs_that_run_together_are_all_candidates(logs):
    box = Box(logs)
    box.write(record(b"x\n"))
    logs.mark(box.name, mark(1, 10.0, 12.0).pack())
    logs.mark(box.name, mark(0, 5.0, 20.0).pack())
    whose = Whose(logs.folder_of(box.name), together=True)
    assert {one.start for one in whose.of(11.0, 1, 11.0)} == {0, 1}
    assert {one.start for one in whose.of(15.0, 1, 15.0)} == {0}
    assert {one.start for one in whose.of(15.0, 1, 15.0, [mark(7, 14.0, math.inf)])} == {0, 7}
    assert whose.of(30.0, 1, 30.0) == ()


def test_the_oldest_output_of_all_goes_first_when_there_is_too_much(tmp_path):
    logs = Logs(tmp_path / "logs", 16 << 10)
    boxes = [Box(logs) for _ in range(5)]
    for number, box in enumerate(boxes):
        for line in range(8):
            box.write(record(b"%d" % line + b"x" * 1000 + b"\n"))
        logs.forget(box.name)
        for file in logs.folder_of(box.name).iterdir():
            os.utime(file, (1000.0 + number, 1000.0 + number))
    logs.sweep(0.0, 20 << 10)
    left = [sum(1 for _ in box.reader().forward()) for box in boxes]
    assert left[0] == left[1] == 0
    assert left[4] == 8
    assert not logs.folder_of(boxes[0].name).exists()
    boxes[0].end = 0  # it is still alive, and goes on
    assert logs.append(boxes[0].name, 9000, record(b"on")) > 9000
    logs.close()


def test_a_million_lines_are_looked_into_in_a_moment(logs):
    box = Box(logs)
    line = b"%07d a line of some length, as programs print them\n"
    for start in range(0, 1_000_000, 2000):
        box.write(*(record(line % number, float(number)) for number in range(start, start + 2000)))
    assert len(last_lines(box.reader().backward(), 100)) == 100
    read = []
    real = os.pread
    try:
        os.pread = lambda fd, size, offset: read.append(size) or real(fd, size, offset)
        assert last_lines(box.reader().backward(), 100)[0].data.startswith(b"0999900")
        assert sum(1 for _ in box.reader().forward(999_000.0)) == 1000
    finally:
        os.pread = real
    assert sum(read) < 1 << 20


def test_words_of_alight_are_a_log_of_the_app(logs):
    app = ids.new_id(ids.APP)
    logs.note(app, json.dumps({"text": "it started"}).encode())
    (bit,) = Reader(app, LogFile(logs.folder_of(app))).forward()
    assert json.loads(bit.data) == {"text": "it started"}
    assert abs(bit.at - time.time()) < 60
    with pytest.raises(errors.InvalidError):
        logs.note("../x", b"{}")
