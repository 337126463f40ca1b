"""A node that speaks the link's frames and nothing else, and the real runtime on its other end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from alight.wire import chunk, ids, payload
from alight.wire.codec import Frame, FrameReader, Kind, dumps_head, encode_frame, loads_head
from alight.wire.commands import LinkHello, LinkReady, LinkReturned, LinkStart, LinkStop, Output
from alight.wire.spec import FunctionSpec
from tests.unit.runtime.gateway import Gateway

#: Any Python that a container may have; the one of the tests unless told otherwise.
PYTHON = os.environ.get("ALIGHT_TEST_PYTHON", sys.executable)
MAIN = Path(__file__).parents[3] / "src" / "alight" / "runtime" / "__main__.py"


#: The calls that tests make.
CALL = "fc-" + "0" * 22
OTHER = "fc-" + "1" * 22


def input_id(position: int, call: str = CALL) -> str:
    return ids.input_id(call, position)


class Node:
    """One end of the link. ``receive`` waits for the next frame; the test's own time limit ends a wait in vain."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "link.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.link: socket.socket | None = None
        self.process: subprocess.Popen[str] | None = None
        self.said: list[tuple[Output, bytes]] = []
        self.calls = 1000

    def run(self, **env: str) -> LinkHello:
        """Start the runtime and hear its hello."""
        self.process = subprocess.Popen(
            [PYTHON, str(MAIN)],
            env={**os.environ, "ALIGHT_LINK": str(self.path), **env},
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.accept()

    def accept(self) -> LinkHello:
        return self.take(self.listener.accept()[0])

    def take(self, link: socket.socket) -> LinkHello:
        """This is its link."""
        self.link = link
        self.reader = FrameReader()
        self.frames: list[Frame] = []
        frame = self.receive()
        assert frame.kind == Kind.HELLO
        self.hello = loads_head(LinkHello, frame.head)
        return self.hello

    @property
    def python(self) -> str:
        """The runtime's Python, "3.11"."""
        return ".".join(self.hello.python.split(".")[:2])

    def hang_up(self) -> None:
        self.link.close()

    def receive(self) -> Frame:
        while not self.frames:
            data = self.link.recv(1 << 18)
            if not data:
                raise EOFError(self.process and self.process.communicate()[1])
            self.frames += self.reader.feed(data)
        return self.frames.pop(0)

    def send(self, kind: int, message: object, body: bytes = b"") -> None:
        for piece in encode_frame(kind, 0, dumps_head(message), body):
            self.link.sendall(piece)

    def start(self, code: str, qualname: str = "f", body: bytes = b"", **spec: object) -> tuple[LinkReady, bytes]:
        """Write the user's module, start the function, return what became of it."""
        source = self.directory / "usercode.py"
        if code:  # a fork of a template has it
            source.write_text(textwrap.dedent(code))
        values = {
            "name": qualname,
            "definition": "file",
            "module": "usercode",
            "qualname": qualname,
            "source_path": str(source),
            **spec,
        }
        env, level = values.pop("environ", {}), values.pop("template", 0)
        function = FunctionSpec(**values)
        message = LinkStart("ta-1", "ap-1", "app", "main", "fu-1", "im-1", function, env, str(self.directory), level)
        self.send(Kind.LINK_START, message, body)
        frame = self.receive()
        assert frame.kind == Kind.LINK_READY
        return loads_head(LinkReady, frame.head), frame.body

    def give(self, position: int, *args: object, reference: str = "", flags: int = 0, **kwargs: object) -> None:
        """One input; with ``reference`` its arguments lie in that file of the spool directory."""
        if reference:
            size = (self.directory / reference).stat().st_size
            self.give_chunk(position, [chunk.reference(reference, size)], flags=chunk.REFERENCE | flags)
        else:
            self.give_chunk(position, [payload.dumps_bytes((args, kwargs))], flags=flags)

    def give_many(self, start: int, values: object, **options: object) -> None:
        """Inputs of one argument each, in one chunk."""
        self.give_chunk(start, [payload.dumps_bytes(((value,), {})) for value in values], **options)

    def give_chunk(
        self,
        start: int,
        bodies: list[bytes],
        *,
        call: str = CALL,
        attempt: int = 1,
        method: str = "",
        flags: int = 0,
    ) -> None:
        head = chunk.Inputs(call, start, [len(body) for body in bodies], attempt, method, "", flags)
        self.send_frame(Kind.LINK_INPUT, head.encode(), b"".join(bodies))

    def send_frame(self, kind: int, head: bytes, body: bytes) -> None:
        for piece in encode_frame(kind, 0, head, body):
            self.link.sendall(piece)

    def acknowledge(self, *serials: int) -> None:
        self.send_frame(Kind.LINK_ACK, b"", chunk.pack_serials(serials))

    def cancel(self, position: int = -1, call: str = CALL) -> None:
        self.send(Kind.LINK_CANCEL, LinkStop(call_id=call, position=position))

    def outputs(self, *, acknowledge: bool = True) -> tuple[chunk.Outputs | Output, list[bytes]]:
        """The next frame of outputs as it came, with its payloads."""
        frame = self.receive()
        assert frame.kind == Kind.LINK_OUTPUT, frame
        if chunk.is_chunk(frame.head):
            head: chunk.Outputs | Output = chunk.Outputs.decode(frame.head)
            bodies = [bytes(piece) for piece in chunk.cut(head.sizes, frame.body)]
        else:
            head, bodies = loads_head(Output, frame.head), [frame.body]
        if acknowledge:
            self.acknowledge(head.serial)
        return head, bodies

    def output(self, *, acknowledge: bool = True) -> tuple[Output, bytes]:
        """The next output, one by one, however they came together. A value has status success."""
        if not self.said:
            head, bodies = self.outputs(acknowledge=acknowledge)
            if isinstance(head, Output):
                self.said.append((head, bodies[0]))
            else:
                assert not head.is_items
                for position, body in zip(head.positions, bodies):
                    one = Output(head.call_id, position, head.attempt, "success", serial=head.serial)
                    self.said.append((one, body))
        return self.said.pop(0)

    def returned(self) -> list[tuple[str, int, int, int]]:
        frame = self.receive()
        assert frame.kind == Kind.LINK_RETURNED, frame
        runs = loads_head(LinkReturned, frame.head).runs
        return [(run.call_id, run.start, run.stop, run.attempt) for run in runs]

    def items(self, position: int = 0) -> tuple[list[object], Output]:
        """All items of a generator that is alone, and its end."""
        values: list[object] = []
        while True:
            head, bodies = self.outputs()
            if isinstance(head, Output):
                return values, head
            assert head.is_items
            assert head.position == position
            assert head.positions.start == len(values)
            values += [payload.loads(body) for body in bodies]

    def call(self, *args: object, **kwargs: object) -> object:
        """Give one input, return its value."""
        self.calls += 1
        self.give(self.calls, *args, **kwargs)
        head, body = self.output()
        assert head.status == "success", head
        return payload.loads(body)

    def stop(self, grace: float = 5.0) -> tuple[int, str, str]:
        """Of a container that has nothing to return."""
        self.send(Kind.LINK_STOP, LinkStop(grace=grace))
        assert self.returned() == []
        return self.end()

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate()
        return self.process.returncode, out, err

    def close(self) -> None:
        if self.link is not None:
            self.link.close()
        self.listener.close()
        if self.process is not None and not self.process.stdout.closed:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def bare_node(tmp_path):
    made = Node(tmp_path)
    yield made
    made.close()


@pytest.fixture
def node(bare_node):
    """With a runtime that has said hello."""
    bare_node.run()
    return bare_node


@pytest.fixture
def serve(node):
    """Starts a web function; returns a connection of a gateway to it. More of those: ``serve.connect()``."""
    made = []

    def connect():
        made.append(Gateway(node.directory))
        return made[-1]

    def start(code, kind="asgi_app", said=None, **spec):
        ready, _ = node.start(code, is_web=True, web=said or {"kind": kind}, **spec)
        assert ready.failure is None, ready
        return connect()

    start.connect = connect
    yield start
    for one in made:
        one.close()
