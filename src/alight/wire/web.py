"""Web requests between the gateway and a container's runtime: frames of ``codec`` on a connection of their own.

The frame's stream is the request's number, chosen by the gateway and used once per connection. Many are under way at
once. Texts are latin-1; names of headers are in lower case. A head of the kinds below is:

REQUEST   gateway → runtime: one byte of flags, then fields between zero bytes (``pack``): request id, method,
          scheme ("http" or "https", for WebSockets too), HTTP version ("1.1"), raw path (without the root path, as
          the client encoded it), query, root path, client host, client port, server host, server port, endpoint (of
          a class: the method's name; else ""), and then name, value, name, value … Body: the first bytes of the
          request's body.
RESPONSE  runtime → gateway: flags, then status and name, value … Body: the first bytes of the answer.
BODY      both ways: flags. Body: more bytes.
CREDIT    both ways: body = 4 bytes, how many bytes of BODY, MESSAGE and first bodies of this request were consumed
          since the last. Each way of each request may have ``WINDOW`` bytes on their way (one MESSAGE over that
          travels alone).
CANCEL    both ways: nothing more comes and nothing more is wanted. From the runtime: the application failed after
          its answer began, so the client's connection is closed; or its code has ended after the gateway's CANCEL.
ACCEPT    runtime → gateway: flags, subprotocol ("" for none), name, value … A WebSocket is open. (RESPONSE instead
          denies it.)
MESSAGE   both ways: flags (TEXT or not). Body: one whole message.
CLOSE     both ways: body = 2 bytes code, then the reason in UTF-8.
GOING     runtime → gateway, stream 0: no new requests, please; what runs ends as ever (the container is leaving).

Exactly one frame of the runtime ends each request: RESPONSE or BODY with LAST, CLOSE, or CANCEL. After a CANCEL or
CLOSE of the gateway it comes once the user's code has ended: until then the request counts as in flight. Where the two
cross, nothing more is said. A lost connection is a CANCEL of all that is on it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    from typing import List, Tuple

REQUEST = 64
RESPONSE = 65
BODY = 66
CREDIT = 67
CANCEL = 68
ACCEPT = 69
MESSAGE = 70
CLOSE = 71
GOING = 72

LAST = 1
"""Flag: nothing of this direction's body follows."""
WEBSOCKET = 2
"""Flag of REQUEST: the client asks for a WebSocket."""
TEXT = 4
"""Flag of MESSAGE: text, not bytes."""

WINDOW = 256 << 10
#: Name of the socket in a container's spool directory on which its runtime takes connections of the gateway.
SOCKET = "web.sock"


def pack(flags: int, fields: List[bytes]) -> bytes:
    """A head. No field may contain a zero byte: HTTP allows none in any of them."""
    return bytes((flags,)) + b"\0".join(fields)


def unpack(head: bytes) -> Tuple[int, List[bytes]]:
    """Flags and fields of a head."""
    return head[0], head[1:].split(b"\0")
