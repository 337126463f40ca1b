"""A program of the user's own in a pretended container."""

from __future__ import annotations

import asyncio

from alight.gateway.table import Target


class Program:
    """A pretended program on a port: notes what it is asked, and answers as it is told."""

    def __init__(self, world, *answers: bytes) -> None:
        self.answers, self.asked, self.connections = list(answers), [], 0
        world.serve(Target("fu-2", "program", kind="web_server", port=8000, slots=9))
        world.programs = self

    async def __call__(self, reader, writer):
        self.connections += 1
        try:
            while self.answers:
                head = await reader.readuntil(b"\r\n\r\n")
                body = b""
                if b"content-length: " in head:
                    body = await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
                elif b"transfer-encoding: chunked" in head:
                    body = await reader.readuntil(b"0\r\n\r\n")
                self.asked.append((head, body))
                said = self.answers.pop(0)
                writer.write(said)
                if b"101 " in said:
                    while data := await reader.read(1000):
                        writer.write(data.upper())
                if b"close" in said:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()
