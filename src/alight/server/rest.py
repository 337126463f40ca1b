"""The JSON API on the server's own port: the same answers that pages of the dashboard get, with the same rights.

Over the local socket the kernel says who asks; over TCP a token does: ``Authorization: Bearer TOKEN_ID:TOKEN_SECRET``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Optional

ROOT = "/api/"
BODY_MOST = 1 << 20  # bytes

#: Status, header fields, and a body or its pieces as they come.
Answer = tuple[int, Mapping[str, str], "bytes | AsyncIterator[bytes]"]
#: Method, target, header fields by names in lower case, body, and who asks over the local socket → answer.
Rest = Callable[[str, str, Mapping[str, str], bytes, Optional[int]], Awaitable[Answer]]
