"""Inputs on their way out, without a connection: what is cut, kept, freed and sent again."""

from __future__ import annotations

import pytest

from alight.sdk import sending
from alight.sdk.lost import LostError
from alight.sdk.sending import Reference, Sending
from alight.wire import chunk

CALL = "fc-" + "0" * 22


class Stream:
    """Takes what is written; ``breaks`` after so many."""

    def __init__(self, breaks=1000):
        self.got = []
        self.breaks = breaks
        self.ended = 0

    async def write_all(self, messages):
        for head, body in messages:
            self._write(head, body)

    def _write(self, head, body):
        if len(self.got) >= self.breaks:
            raise LostError("gone")
        inputs = chunk.Inputs.decode(head)
        assert sum(inputs.sizes) == len(body)
        self.got.append((inputs.start, inputs.stop, inputs.flags, bytes(body)))

    def end(self):
        self.ended += 1


@pytest.fixture
def out(monkeypatch):
    monkeypatch.setattr(sending, "CHUNK", 4)
    return Sending(CALL, "")


def put(out, *bodies):
    out.pending.extend(bodies)
    out.put += len(bodies)
    out.flush()


def wait_for(condition):
    import time

    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_chunks_end_with_their_number_their_bytes_and_at_references(out):
    stream = Stream()
    out.attach(stream)
    put(out, *[b"ab"] * 5)
    put(out, b"x" * 200_000, b"y" * 100_000)
    put(out, b"a", Reference(b"name:9"), b"b")
    assert [(start, stop, flags) for start, stop, flags, _ in stream.got] == [
        (0, 4, 0), (4, 5, 0), (5, 6, 0), (6, 7, 0), (7, 8, 0), (8, 9, chunk.REFERENCE), (9, 10, 0),
    ]  # fmt: skip
    out.finish()
    out.finish()
    assert stream.ended == 1


def test_messages_of_one_input_leave_together_and_are_kept_together(out):
    class Counting(Stream):
        writes = 0

        async def write_all(self, messages):
            self.writes += 1
            await super().write_all(messages)

    stream = Counting()
    out.most = 1
    out.attach(stream)
    put(out, b"a", b"bc", b"", b"def", b"g")
    assert [(start, stop, body) for start, stop, _, body in stream.got] == [
        (0, 1, b"a"), (1, 2, b"bc"), (2, 3, b""), (3, 4, b"def"), (4, 5, b"g"),
    ]  # fmt: skip
    assert stream.writes == 2  # four, and what came after them
    again = Stream()
    out.attach(again, accepted=2)
    wait_for(lambda: len(again.got) == 3)
    assert [(start, body) for start, _, _, body in again.got] == [(2, b""), (3, b"def"), (4, b"g")]


def test_what_is_answered_is_freed_whole_chunk_by_whole_chunk(out):
    out.attach(Stream())
    put(out, *[b"ab"] * 12)
    out.answered(1, 6)
    assert out.kept()[0] == 3
    out.answered(0, 1)
    assert out.kept()[0] == 2
    out.answered(6, 12)
    assert out.kept() == (0, 0)


def test_a_new_connection_gets_the_rest_and_places_for_what_is_known(out):
    first = Stream(breaks=3)
    out.attach(first)
    bodies = [bytes([65 + number]) for number in range(20)]
    put(out, *bodies)
    assert [one[:2] for one in first.got] == [(0, 4), (4, 8), (8, 12)]
    out.answered(8, 12)
    second = Stream()
    out.attach(second, 2)  # in the middle of a chunk
    wait_for(lambda: len(second.got) == 5)
    assert [one[:2] for one in second.got] == [(2, 4), (4, 8), (8, 12), (12, 16), (16, 20)]
    assert b"".join(one[3] for one in second.got) == b"CDEFGH" + b"" + b"MNOPQRST"
    put(out, b"U")
    assert second.got[-1] == (20, 21, 0, b"U")
    out.finish()
    assert (first.ended, second.ended) == (0, 1)


def test_room_follows_inputs_and_bytes(out, monkeypatch):
    monkeypatch.setattr(sending, "WINDOW_BYTES", 1000)
    out.attach(Stream())
    assert out.room() == sending.WINDOW
    put(out, b"x" * 900)
    assert out.room() == 0
    out.answered(0, 1)
    assert out.room() == sending.WINDOW - 1
    out.release(1)
    assert out.room() == sending.WINDOW
    out.held_bytes = 1000
    assert out.room() == 0
