"""What a killed agent leaves behind is found by the next one: inputs under way, outputs, the log's end."""

from __future__ import annotations

from dataclasses import replace

from alight.node.ledger import Held, Ledger
from alight.node.outbox import Kept, Outbox
from alight.wire import ids
from alight.wire.commands import Output
from alight.wire.messages import Payload


def _output(**changes) -> Output:
    return replace(Output(ids.new_id(ids.INPUT), 1, "success", "ta-1"), **changes)


def test_a_ledger_remembers_without_being_closed(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    held = [Held(ids.new_id(ids.INPUT), ids.new_id(ids.CALL), n, 5.0, 7.5) for n in range(3)]
    for one in held:
        ledger.add(one)
    ledger.drop(held[1].input_id)
    ledger.log_acked, ledger.link_pid, ledger.ready = 123456789012, 4711, True
    ledger.note()
    again = Ledger(tmp_path / "ledger")
    assert again.inputs == {held[0].input_id: held[0], held[2].input_id: held[2]}
    assert (again.log_acked, again.link_pid, again.ready) == (123456789012, 4711, True)


def test_a_ledger_reuses_its_room_and_outgrows_it_in_memory(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    for _ in range(500):
        one = Held(ids.new_id(ids.INPUT), "", 1, 0.0)
        ledger.add(one)
        ledger.drop(one.input_id)
    many = [Held(ids.new_id(ids.INPUT), "", 1, 0.0) for _ in range(200)]
    for one in many:
        ledger.add(one)
    assert len(ledger.inputs) == 200
    assert 0 < len(Ledger(tmp_path / "ledger").inputs) < 200
    for one in many:
        ledger.drop(one.input_id)
    assert Ledger(tmp_path / "ledger").inputs == {}


def test_a_new_attempt_replaces_the_old_one(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    one = Held(ids.new_id(ids.INPUT), "", 1, 0.0)
    ledger.add(one)
    ledger.add(replace(one, attempt=2))
    assert Ledger(tmp_path / "ledger").inputs[one.input_id].attempt == 2


def test_outputs_are_written_down_once_and_found_again(tmp_path):
    outbox = Outbox(tmp_path / "outputs")
    small, empty = Kept(_output(), b"pickle"), Kept(_output(status="cancelled"))
    outbox.add(small)
    assert not (tmp_path / "outputs").exists(), "while the server answers nothing touches the disk"
    outbox.add(empty)
    assert set(outbox.write_down()) == {small.output.input_id, empty.output.input_id}
    assert outbox.write_down() == []
    again = Outbox(tmp_path / "outputs")
    again.load()
    assert {one.output.input_id: one.body for one in again.waiting()} == {
        small.output.input_id: b"pickle",
        empty.output.input_id: b"",
    }
    assert again.forget(small.output.input_id)
    assert not again.forget(small.output.input_id)
    assert again.forget(empty.output.input_id)
    assert list((tmp_path / "outputs").iterdir()) == []


def test_a_large_body_stays_a_file_and_is_sent_anew(tmp_path):
    outbox = Outbox(tmp_path / "outputs")
    output = _output(payload=Payload(size=3))
    file = outbox.folder() / f"{output.input_id}.body"
    file.write_bytes(b"big")
    outbox.add(Kept(output, b"", file))
    outbox.update(replace(output, payload=Payload("digest-at-a-server-that-is-gone", 3)))
    outbox.write_down()
    again = Outbox(tmp_path / "outputs")
    again.load()
    kept = again.waiting()[0]
    assert kept.file == file
    assert kept.output.payload == Payload("", 3)
    again.forget(output.input_id)
    assert not file.exists()


def test_a_torn_record_is_passed_over(tmp_path):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs/in-1.json").write_bytes(b"")
    outbox = Outbox(tmp_path / "outputs")
    outbox.load()
    assert len(outbox) == 0
