"""How a command talks to the server: one question and its answer, or a stream of answers. Blocking.

Commands name methods and messages of ``wire`` and nothing else; where the server is, how it is started and
what happens to a lost connection are the SDK's business.
"""

from __future__ import annotations

import contextlib
from typing import Any, Iterable, Iterator, Optional, Tuple, Type, TypeVar

from alight.sdk import client as sdk_client
from alight.sdk import config
from alight.sdk.lost import LostError
from alight.sdk.sync import run
from alight.wire.codec import loads_head
from alight.wire.errors import ConnectionError as LostConnectionError

T = TypeVar("T")


def environment(option: Optional[str]) -> str:
    """The environment that a command works in: its option, else the settings; empty means the server's default."""
    return option or config.load().environment


def ask(method: str, request: Any, reply: Type[T]) -> T:
    """Send one request and return its answer. Raises the server's error."""
    answer: T = run(sdk_client.default_client().call(method, request, reply))
    return answer


def tell(method: str, request: Any) -> None:
    """Send one request whose answer says nothing but that it is done."""
    run(sdk_client.default_client().do(method, request))


def stream(method: str, request: Any) -> Iterator[Tuple[bytes, bytes]]:
    """Send one request and yield (head, body) for each message until the server ends it.

    Not repeated after a lost connection: what was read already would come twice.
    """
    conversation = run(sdk_client.default_client().open(method, request))
    try:
        while True:
            message = run(conversation.recv())
            if message is None:
                return
            yield message
    except LostError as lost:
        raise _lost(method) from lost


def send(method: str, request: Any, pieces: Iterable[bytes]) -> None:
    """Send one request with a body in pieces, and wait for the server to have taken it all."""
    conversation = run(sdk_client.default_client().open(method, request, end=False))
    try:
        for piece in pieces:
            run(conversation.send(None, piece))
        conversation.end()
        while run(conversation.recv()) is not None:
            pass
    except LostError as lost:
        raise _lost(method) from lost


@contextlib.contextmanager
def lent(method: str, request: Any, reply: Type[T]) -> Iterator[T]:
    """What the server lends for as long as the block lasts; it takes it back by itself when this process is killed."""
    conversation = run(sdk_client.default_client().open(method, request, end=False))
    try:
        message = run(conversation.recv())
    except LostError as lost:
        raise _lost(method) from lost
    try:
        yield loads_head(reply, message[0])
    finally:
        conversation.end()
        with contextlib.suppress(LostError):  # then it has it back already
            while run(conversation.recv()) is not None:
                pass


def _lost(method: str) -> LostConnectionError:
    return LostConnectionError(
        f"the connection to the server was lost during {method}",
        hint="run the command again; see `alight server status`",
    )
