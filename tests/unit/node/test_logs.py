"""Output reaches the server whole, in order, once; a server that is away or slow loses none of it."""

from __future__ import annotations

import asyncio

from alight.link.run import run
from alight.node import logs, output
from alight.node.logs import OutputTail


class Server:
    """Takes reports, or is away."""

    def __init__(self) -> None:
        self.away = False
        self.kept = b""
        self.reports = 0

    async def send(self, report, body: bytes) -> bool:
        if self.away:
            return False
        self.reports += 1
        assert report.offset <= len(self.kept), "a hole in the log"
        self.kept = self.kept[: report.offset] + body
        return True


def _write(path, *pieces: bytes) -> bytes:
    file = output.OutputFile(str(path))
    for piece in pieces:
        file.write(1, piece)
    file.close()
    return path.read_bytes()


def test_what_is_there_is_sent_and_a_torn_record_waits(tmp_path):
    async def main():
        server = Server()
        path = tmp_path / "output.log"
        whole = _write(path, b"one\n", b"two\n")
        with path.open("ab") as file:
            file.write(output.HEAD.pack(0.0, 1, 10) + b"torn")
        tail = OutputTail("ta-1", path, server.send)
        await tail.ship()
        assert server.kept == whole
        with path.open("ab") as file:
            file.write(b"enough")
        await tail.ship()
        assert server.kept == path.read_bytes()
        tail.close()

    run(main())


def test_after_a_disconnect_it_goes_on_from_the_acknowledgement(tmp_path):
    async def main():
        server = Server()
        path = tmp_path / "output.log"
        first = _write(path, b"x" * 1000)
        tail = OutputTail("ta-1", path, server.send)
        await tail.ship()
        tail.on_ack(len(first))
        server.away = True
        whole = _write(path, b"y" * 1000)
        await tail.ship()
        tail.on_disconnected()
        server.away = False
        await tail.ship()
        assert server.kept == whole
        assert server.reports == 2
        tail.close()

    run(main())


def test_it_waits_for_acknowledgements_unless_a_result_waits_for_it(tmp_path):
    async def main():
        server = Server()
        path = tmp_path / "output.log"
        whole = _write(path, *[b"z" * 60000] * 100)
        tail = OutputTail("ta-1", path, server.send)
        await tail.ship()
        assert logs._WINDOW <= len(server.kept) < len(whole)
        await tail.ship(len(whole))
        assert server.kept == whole
        tail.close()

    run(main())


def test_one_huge_record_is_sent_whole(tmp_path):
    async def main():
        server = Server()
        path = tmp_path / "output.log"
        whole = _write(path, b"h" * (3 << 20))
        tail = OutputTail("ta-1", path, server.send)
        await tail.ship()
        assert server.kept == whole
        tail.close()

    run(main())


def test_what_the_server_keeps_is_given_back_to_the_disk(tmp_path):
    async def main():
        server = Server()
        path = tmp_path / "output.log"
        whole = _write(path, *[b"z" * 60000] * 200)
        before = path.stat().st_blocks
        tail = OutputTail("ta-1", path, server.send)
        await tail.ship(len(whole))
        tail.on_ack(len(whole) - 100_000)
        assert path.stat().st_size == len(whole)
        assert path.stat().st_blocks < before / 10
        assert path.read_bytes()[-90_000:] == whole[-90_000:]
        tail.close()

    run(main())


def test_inotify_tells_of_a_write(tmp_path):
    async def main():
        path = tmp_path / "output.log"
        path.touch()
        told = asyncio.Event()
        notices = logs.Inotify()
        number = notices.watch(path, told.set)
        path.write_bytes(b"more")
        await asyncio.wait_for(told.wait(), 5)
        notices.forget(number)
        notices.close()

    run(main())


def test_what_the_server_could_not_keep_is_sent_again(tmp_path):
    async def main():
        server = Server()
        path = tmp_path / "output.log"
        whole = _write(path, b"one\n", b"two\n")
        tail = OutputTail("ta-1", path, server.send)
        await tail.ship()
        server.kept = b""  # its disk was full
        tail.begin_again()
        while server.kept != whole:  # noqa: ASYNC110  it knows no events
            await asyncio.sleep(0.001)
        tail.close()

    run(main())


def test_a_flood_takes_its_share_of_the_way_and_no_more(tmp_path, monkeypatch):
    async def main():
        server = Server()
        path = tmp_path / "output.log"
        whole = _write(path, *[b"x" * 65536] * 16)
        tail = OutputTail("ta-1", path, server.send)
        monkeypatch.setattr(logs, "_RATE", 8 << 20)
        monkeypatch.setattr(logs, "_BURST", 0.01)
        await tail.ship()
        assert 0 < len(server.kept) < len(whole)
        while server.kept != whole:  # it goes on by itself
            tail.on_ack(len(server.kept))
            await asyncio.sleep(0.001)
        tail.close()

    run(main())
