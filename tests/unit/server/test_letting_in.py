"""Set-up codes, principals, sealed secrets and blobs: the parts of the server that decide who gets what."""

from __future__ import annotations

import asyncio
import hashlib
from types import SimpleNamespace

import pytest

from alight.server import auth
from alight.server.services.blobs import Blobs
from alight.server.services.setup import LIFETIME, TRIES, Setup
from alight.server.services.vault import Vault
from alight.wire import errors
from alight.wire.admission import SetupBegin, TokenCreated, setup_code
from alight.wire.messages import Hello

NONCE = "0123456789abcdef0123"


def begin(setup, now=0.0):
    begun = setup.begin(SetupBegin(nonce=NONCE, hostname="laptop"), "10.0.0.9", now)
    return begun, setup_code(NONCE, begun.nonce, "f1")


def test_a_confirmed_code_gives_its_laptop_one_token():
    async def main():
        setup = Setup("f1")
        begun, code = begin(setup)
        request = setup.match(code.lower().replace("-", ""), 1.0)
        setup.grant(request, TokenCreated("ak-1", "as-1"))
        assert (await setup.wait(begun.request_id, NONCE, 1)).token_id == "ak-1"
        with pytest.raises(errors.NotFoundError):
            await setup.wait(begun.request_id, NONCE, 1)

    asyncio.run(main())


def test_a_middlemans_certificate_shows_another_code():
    setup = Setup("f1")
    begun, code = begin(setup)
    assert setup_code(NONCE, begun.nonce, "f2") != code


def test_wrong_codes_and_time_end_a_request():
    setup = Setup("f1")
    begin(setup)
    for _ in range(TRIES):
        with pytest.raises(errors.NotFoundError):
            setup.match("AAAA-AAAA", 1.0)
    assert not setup.pending(1.0)
    begun, code = begin(setup)
    with pytest.raises(errors.NotFoundError):
        setup.match(code, LIFETIME + 1)

    async def other_nonce():
        with pytest.raises(errors.NotFoundError):
            await setup.wait(begun.request_id, "another nonce", 0)

    asyncio.run(other_nonce())


def test_waiting_for_the_owner_says_ask_again():
    async def main():
        setup = Setup("f1")
        begun, _code = begin(setup)
        with pytest.raises(errors.ServiceError):
            await setup.wait(begun.request_id, NONCE, 0)

    asyncio.run(main())


def peer(uid=None, **hello):
    return SimpleNamespace(uid=uid, hello=Hello(wire=1, version="0", **hello))


def test_the_local_socket_knows_owners_and_other_users():
    assert auth.by_socket(peer(uid=0)).kind == auth.OWNER
    other = auth.by_socket(peer(uid=54321))
    assert (other.kind, other.owner) == (auth.USER, "uid:54321")
    with pytest.raises(errors.AuthError):
        auth.by_socket(peer(uid=54321, role="node"))


def test_a_token_must_fit_and_a_users_token_makes_no_node():
    token = auth.Token("ak-1", auth.hash_secret("as-1"), "laptop", owner="ada")
    assert auth.by_token(peer(), None).kind == auth.STRANGER
    assert auth.by_token(peer(token_id="ak-1", token_secret="as-1"), token).owner == "ada"
    with pytest.raises(errors.AuthError):
        auth.by_token(peer(token_id="ak-1", token_secret="as-2"), token)
    with pytest.raises(errors.AuthError):
        auth.by_token(peer(token_id="ak-1", token_secret="as-1"), None)
    with pytest.raises(errors.AuthError):
        auth.by_token(peer(token_id="ak-1", token_secret="as-1", role="node"), token)


def test_only_nodes_speak_for_containers_and_restricted_ones_say_nothing():
    node = auth.Principal(auth.NODE)
    known = auth.Principal(auth.CONTAINER, container_id="ta-1", app_id="ap-1", environment="main")
    assert auth.for_container(node, known) == known
    for asks, found in ((auth.Principal(auth.OWNER), known), (node, None)):
        with pytest.raises(errors.PermissionDeniedError):
            auth.for_container(asks, found)
    with pytest.raises(errors.PermissionDeniedError, match="restrict_modal_access"):
        auth.for_container(node, auth.Principal(auth.CONTAINER, restricted=True))


def test_sealed_values_open_only_with_their_key_and_their_id(tmp_path):
    vault = Vault(tmp_path / "key")
    sealed, key_id = vault.seal("st-1", {"TOKEN": "hunter2"})
    assert key_id == vault.key_id()
    assert b"hunter2" not in sealed
    assert vault.open("st-1", sealed) == {"TOKEN": "hunter2"}
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(errors.DataLossError):
        vault.open("st-2", sealed)
    (tmp_path / "key").unlink()
    with pytest.raises(errors.DataLossError, match="does not exist"):
        vault.open("st-1", sealed)


def test_a_blob_is_whole_or_not_there(tmp_path):
    async def pieces(*bodies):
        for body in bodies:
            yield b"", body

    async def main():
        blobs = Blobs(tmp_path / "blobs")
        blobs.open()
        digest = hashlib.sha256(b"abc").hexdigest()
        with pytest.raises(errors.DataLossError):
            await blobs.put(pieces(b"ab"), digest)
        assert blobs.missing([digest, digest]) == (digest,)
        assert await blobs.put(pieces(b"ab", b"c"), digest) == (digest, 3)
        assert blobs.missing([digest]) == ()
        assert b"".join([piece async for piece in blobs.read(digest)]) == b"abc"
        with pytest.raises(errors.InvalidError):
            blobs.path("../../etc/passwd")
        (tmp_path / "blobs/incoming/left").write_bytes(b"x")
        blobs.open()
        assert not list((tmp_path / "blobs/incoming").iterdir())

    asyncio.run(main())


def test_a_value_gets_a_name_of_ours_and_a_file_is_taken_only_as_it_was_announced(tmp_path):
    """What is shared with a container must never be content that others trust by its digest."""

    async def pieces(body):
        yield b"", body

    async def main():
        blobs = Blobs(tmp_path / "blobs")
        blobs.open()
        name, size = await blobs.put(pieces(b"value"))
        assert (name[0], len(name), size) == ("x", 65, 5)
        assert blobs.path(name).parent == blobs.given
        (blobs.incoming / ("a" * 32)).write_bytes(b"left")
        with pytest.raises(errors.InvalidError, match="announced"):
            blobs.adopt("a" * 32, 3)
        adopted = blobs.adopt("a" * 32, 4)
        assert blobs.path(adopted).read_bytes() == b"left"
        (blobs.incoming / ("b" * 32)).symlink_to("/etc/hostname")
        with pytest.raises(errors.InvalidError):
            blobs.adopt("b" * 32, (blobs.incoming / ("b" * 32)).lstat().st_size)
        for wrong in ("../given/x", "c" * 32, ""):
            with pytest.raises(errors.InvalidError):
                blobs.adopt(wrong, 4)
        digest = hashlib.sha256(b"kept").hexdigest()
        await blobs.put(pieces(b"kept"), digest)
        blobs.let_go(digest)
        blobs.let_go(adopted)
        await asyncio.get_running_loop().shutdown_default_executor()
        assert not blobs.path(adopted).exists()
        assert blobs.path(digest).exists()

    asyncio.run(main())
