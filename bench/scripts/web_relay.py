"""A relay that looks at nothing: bytes of each connection to another port and back. What one process more costs.

web_relay.py PORT TO
"""

import asyncio
import sys

try:
    import uvloop
except ImportError:
    uvloop = None


class End(asyncio.Protocol):
    """One end of a connection. What comes before the other end is there, waits."""

    def __init__(self, other=None):
        self.other, self.transport, self.early = other, None, []

    def connection_made(self, transport):
        self.transport = transport
        if self.other is None:
            self.other = End(self)
            loop = asyncio.get_running_loop()
            self.dialling = loop.create_task(loop.create_connection(lambda: self.other, "127.0.0.1", int(sys.argv[2])))
        else:
            transport.writelines(self.other.early)

    def data_received(self, data):
        if self.other.transport is None:
            self.early.append(data)
        else:
            self.other.transport.write(data)

    def connection_lost(self, _error):
        if self.other.transport is not None:
            self.other.transport.close()


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(End, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if uvloop is not None:
    uvloop.install()
asyncio.run(main())
