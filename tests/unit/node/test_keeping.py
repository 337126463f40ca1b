"""What a killed agent leaves behind is found by the next one: runs under way, answers, the log's end."""

from __future__ import annotations

from alight.node import outbox as outbox_module
from alight.node.ledger import Ledger
from alight.node.outbox import Kept, Outbox
from alight.node.runs import Held
from alight.wire import chunk, ids
from alight.wire.calling import Payload
from alight.wire.commands import Output

CALL = ids.new_id(ids.CALL)


def _said(ledger: Ledger) -> list[tuple[str, int, int, int, float]]:
    return [(one.call_id, one.start, one.stop, one.attempt, one.given_at) for one in ledger.runs]


def _values(serial: int, start: int = 0, body: bytes = b"ab", **more) -> Kept:
    return Kept(chunk.Outputs(CALL, range(start, start + 1), (len(body),), serial=serial, **more), body)


def test_a_ledger_remembers_without_being_closed(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    held = [Held(ids.new_id(ids.CALL), n, 1 << 40, n, 5.0 + n) for n in range(3)]
    for one in held:
        ledger.add(one)
    ledger.drop(held[1])
    ledger.log_acked, ledger.link_pid, ledger.ready = 123456789012, 4711, True
    ledger.note()
    ledger.answered(17.25)
    again = Ledger(tmp_path / "ledger")
    assert _said(again) == [(held[0].call_id, 0, 1 << 40, 0, 5.0), (held[2].call_id, 2, 1 << 40, 2, 7.0)]
    assert (again.log_acked, again.link_pid, again.ready, again.answered_at) == (123456789012, 4711, True, 17.25)


def test_a_ledger_reuses_its_room_and_outgrows_it(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    for _ in range(5000):
        one = Held(CALL, 0, 1, 1, 0.0)
        ledger.add(one)
        ledger.drop(one)
    many = [Held(CALL, n, n + 1, 1, 0.0) for n in range(1200)]
    for one in many:
        ledger.add(one)
    assert len(Ledger(tmp_path / "ledger").runs) == 1024
    for one in many:
        ledger.drop(one)
    assert Ledger(tmp_path / "ledger").runs == ()


def test_answers_are_written_down_once_in_one_file_and_found_again(tmp_path):
    outbox = Outbox(tmp_path / "outputs")
    outbox.add(_values(1, body=b"pickle"))
    assert not (tmp_path / "outputs").exists(), "while the server answers nothing touches the disk"
    outbox.add(Kept(Output(CALL, 4, 2, "cancelled", "ta-1", serial=2), b"why"))
    outbox.add(Kept(Output(CALL, 9, 1, "timeout", "ta-1")))
    assert [one.serial for one in outbox.write_down()] == [1, 2, 0]
    assert outbox.write_down() == []
    assert len(list((tmp_path / "outputs").iterdir())) == 1
    outbox.add(_values(3, 5))
    outbox.write_down()
    again = Outbox(tmp_path / "outputs")
    again.load()
    assert [(one.key, one.read(), list(one.positions)) for one in again.waiting()] == [
        (1, b"pickle", [0]),
        (2, b"why", [4]),
        ((CALL, 9, 1), b"", [9]),
        (3, b"ab", [5]),
    ]
    for key in (1, (CALL, 9, 1), 3):
        assert again.forget(key) is not None
        assert again.forget(key) is None
    assert len(list((tmp_path / "outputs").iterdir())) == 1, "one answer in it is still wanted"
    again.add(_values(4))
    again.write_down()
    assert again.forget(2) is not None
    assert again.forget(4) is not None
    assert list((tmp_path / "outputs").iterdir()) == []


def test_a_large_value_stays_a_file_and_is_named_anew(tmp_path):
    outbox = Outbox(tmp_path / "outputs")
    file = outbox.body_path(7)
    file.write_bytes(b"big")
    for kept in (
        Kept(chunk.Outputs(CALL, range(1), (9,), serial=7, flags=chunk.REFERENCE), b"", file),
        Kept(Output(CALL, 1, 1, "exception", serial=8, payload=Payload("x", 3)), b"", outbox.body_path(8)),
    ):
        outbox.body_path(8).write_bytes(b"BIG")
        outbox.add(kept)
        kept.name("blob-at-a-server-that-is-gone", 3)
    outbox.write_down()
    again = Outbox(tmp_path / "outputs")
    again.load()
    values, output = again.waiting()
    assert values.file == file
    assert output.file == again.body_path(8)
    values.name("xblob", 3)
    assert chunk.read_reference(values.read()) == ("xblob", 3)
    assert values.values.sizes == (len(values.read()),)
    output.name("xother", 3)
    assert output.output.payload == Payload("xother", 3)
    again.forget(7)
    again.forget(8)
    assert list((tmp_path / "outputs").iterdir()) == []


def test_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(outbox_module, "MOST_IN_MEMORY", 100)
    outbox = Outbox(tmp_path / "outputs")
    for serial in range(1, 6):
        outbox.add(_values(serial, serial, b"x" * 30))
        if outbox.too_large:
            outbox.write_down(sync=False)
    assert sum(len(one.body) for one in outbox.waiting()) == 30
    assert all(one.read() == b"x" * 30 for one in outbox.waiting())
    for serial in range(1, 6):
        outbox.forget(serial)
    assert not outbox.too_large
    assert outbox._bytes == 0


def test_a_torn_record_is_passed_over(tmp_path):
    outbox = Outbox(tmp_path / "outputs")
    outbox.add(_values(1, body=b"whole"))
    outbox.add(_values(2, 1, body=b"torn!"))
    outbox.write_down()
    path = next((tmp_path / "outputs").iterdir())
    path.write_bytes(path.read_bytes()[:-3])
    (tmp_path / "outputs/2.frames").write_bytes(b"")
    again = Outbox(tmp_path / "outputs")
    again.load()
    assert [one.read() for one in again.waiting()] == [b"whole"]
    again.forget(1)
    assert list((tmp_path / "outputs").iterdir()) == []
