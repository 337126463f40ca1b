"""A node that speaks the link's frames and nothing else, and the real runtime on its other end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from alight.wire import payload
from alight.wire.codec import Frame, FrameReader, Kind, dumps_head, encode_frame, loads_head
from alight.wire.commands import LinkHello, LinkInput, LinkOutput, LinkReady, LinkStart, LinkStop
from alight.wire.spec import FunctionSpec

#: Any Python that a container may have; the one of the tests unless told otherwise.
PYTHON = os.environ.get("ALIGHT_TEST_PYTHON", sys.executable)
MAIN = Path(__file__).parents[3] / "src" / "alight" / "runtime" / "__main__.py"


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
        self.link, _ = self.listener.accept()
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
        source.write_text(textwrap.dedent(code))
        values = {
            "name": qualname,
            "definition": "file",
            "module": "usercode",
            "qualname": qualname,
            "source_path": str(source),
            **spec,
        }
        env = values.pop("environ", {})
        function = FunctionSpec(**values)
        message = LinkStart("ta-1", "ap-1", "app", "main", "fu-1", "im-1", function, env, str(self.directory))
        self.send(Kind.LINK_START, message, body)
        frame = self.receive()
        assert frame.kind == Kind.LINK_READY
        return loads_head(LinkReady, frame.head), frame.body

    def give(self, input_id: str, *args: object, spool: str = "", **kwargs: object) -> None:
        body = b"" if spool else payload.dumps_bytes((args, kwargs))
        self.send(Kind.LINK_INPUT, LinkInput(input_id, "fc-1", 1, spool=spool), body)

    def output(self, *, acknowledge: bool = True) -> tuple[LinkOutput, bytes]:
        frame = self.receive()
        assert frame.kind == Kind.LINK_OUTPUT, frame
        head = loads_head(LinkOutput, frame.head)
        if acknowledge:
            self.send(Kind.LINK_ACK, LinkStop(input_id=head.input_id))
        return head, frame.body

    def call(self, *args: object, **kwargs: object) -> object:
        """Give one input, return its value."""
        self.give("in-1", *args, **kwargs)
        head, body = self.output()
        assert head.status == "success", head
        return payload.loads(body)

    def stop(self, grace: float = 5.0) -> tuple[int, str, str]:
        self.send(Kind.LINK_STOP, LinkStop(grace=grace))
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
