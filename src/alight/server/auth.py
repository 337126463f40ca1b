"""Who is asking. Every connection becomes a Principal before its first request is looked at.

Over the local socket the kernel says who the peer is (its uid), so no token is needed. Over TCP a token says it. A
container has neither: its node names it in each frame, and ``for_container`` looks up what the server itself recorded
about it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass, replace
from typing import Optional

from alight.link.peer import Peer
from alight.wire import errors

OWNER = "owner"  # of the server: may do everything
USER = "user"  # has a token, or is another user of this machine
NODE = "node"  # a machine's agent
CONTAINER = "container"  # code that runs for somebody
STRANGER = "stranger"  # no token: may ask to be let in, nothing else


@dataclass(frozen=True)
class Principal:
    """Who asks, and for containers on whose behalf. ``owner`` names whom objects belong to."""

    kind: str
    owner: str = ""
    token_id: str = ""
    uid: Optional[int] = None
    container_id: str = ""
    app_id: str = ""
    environment: str = ""
    restricted: bool = False  # a container of a function with restrict_access

    @property
    def is_person(self) -> bool:
        return self.kind in {OWNER, USER}


@dataclass(frozen=True)
class Token:
    """What is kept of a token: never the secret itself."""

    token_id: str
    secret_hash: bytes
    name: str
    kind: str = USER
    owner: str = ""


def hash_secret(secret: str) -> bytes:
    """Secrets are 128 random bits, so one round of SHA-256 keeps them: there is nothing to guess from."""
    return hashlib.sha256(secret.encode()).digest()


def by_uid(uid: int) -> Principal:
    """A user of this machine over the local socket: the server's own user and root own it."""
    ours = uid in {0, os.getuid()}
    return Principal(OWNER if ours else USER, owner=OWNER if ours else f"uid:{uid}", uid=uid)


def by_secret(token: Optional[Token], token_id: str, secret: str) -> Principal:
    """Who has this token, given what the store has under its id. Raises AuthError."""
    if token is None or not hmac.compare_digest(token.secret_hash, hash_secret(secret)):
        raise errors.AuthError(
            "this server does not know that token", hint="get a new one: `alight setup <url of the server>`"
        )
    return Principal(token.kind, owner=token.owner or token.kind, token_id=token_id)


def by_socket(peer: Peer) -> Principal:
    """The principal of a connection over the local socket: the server's own user and root own it."""
    uid = peer.uid
    if uid is None:
        raise errors.AuthError("the kernel does not say who is at the other end of this socket")
    who = by_uid(uid)
    role = peer.hello.role if peer.hello is not None else ""
    if role == NODE:
        if who.kind != OWNER:
            raise errors.AuthError(f"user {uid} may not run a node of this server")
        return Principal(NODE, owner=OWNER, uid=uid)
    return who


def by_token(peer: Peer, token: Optional[Token]) -> Principal:
    """The principal of a connection over TCP, given the token that the store has under the id that the peer said."""
    hello = peer.hello
    if hello is None or not (hello.token_id or hello.token_secret):
        return Principal(STRANGER)
    who = by_secret(token, hello.token_id, hello.token_secret)
    if hello.role == NODE and who.kind not in {NODE, OWNER}:
        raise errors.AuthError("this token is not for nodes", hint="`alight token new --node` on the server makes one")
    return replace(who, kind=NODE) if hello.role == NODE else who


def for_container(node: Principal, found: Optional[Principal]) -> Principal:
    """The principal of a request that a node relays for one of its containers.

    ``found`` is what the server recorded when it started the container, None when this node has no such container.
    """
    if node.kind != NODE:
        raise errors.PermissionDeniedError("only a node may speak for a container")
    if found is None:
        raise errors.PermissionDeniedError("this container is not known to the server")
    if found.restricted:
        raise errors.PermissionDeniedError(
            "this function may not use the API: it was declared with restrict_modal_access=True"
        )
    return replace(found, kind=CONTAINER)
