"""Protects TLS of the web port: which certificate a client gets, what changed files do, and that nobody listens to the
world in plain HTTP without having been told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import socket
import ssl

import pytest

from alight.server import web_listen
from alight.server.settings import Settings, from_environment
from alight.server.web_tls import Certificates, Pair, pairs
from alight.wire import errors
from tests.unit.server.certificates import make


def live(test):
    """Run an async test in a loop of its own."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 30))

    return run


@contextlib.asynccontextmanager
async def listening(certificates):
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=certificates.context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def shown(port, name, alpn=("http/1.1",)):
    """The certificate that a client who asks for a name gets, and the protocol that was agreed on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(alpn))
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    try:
        found = writer.get_extra_info("ssl_object")
        return found.getpeercert(binary_form=True), found.selected_alpn_protocol()
    finally:
        writer.transport.abort()


def der(path):
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def replace(wanted, cert, key):
    """The files of a new certificate take the places of those of the old one."""
    for new, old in zip(wanted, (cert, key)):
        os.replace(new, old)


@live
async def test_the_certificate_follows_the_name_and_the_first_is_for_all_others(tmp_path):
    one = Pair(*make(tmp_path, "*.apps.example", called="wild"))
    two = Pair(*make(tmp_path, "api.example.com", called="api"))
    async with listening(Certificates((one, two))) as port:
        assert (await shown(port, "x.apps.example"))[0] == der(one.cert)
        assert (await shown(port, "api.example.com"))[0] == der(two.cert)
        assert (await shown(port, "other.example"))[0] == der(one.cert)
        assert await shown(port, "x.apps.example", ("h2", "http/1.1")) == (der(one.cert), "http/1.1")


@live
async def test_a_new_certificate_is_used_from_the_next_connection_on(tmp_path):
    cert, key = make(tmp_path, "*.apps.example")
    certificates = Certificates((Pair(cert, key),))
    before = der(cert)
    async with listening(certificates) as port:
        replace(make(tmp_path, "*.apps.example", called="next"), cert, key)
        assert (await shown(port, "x.apps.example"))[0] == before
        certificates.look()
        assert (await shown(port, "x.apps.example"))[0] == der(cert) != before


@live
async def test_a_broken_one_leaves_the_old_in_use_and_is_complained_about_once(tmp_path, caplog):
    cert, key = make(tmp_path, "*.apps.example")
    certificates = Certificates((Pair(cert, key),))
    before = der(cert)
    async with listening(certificates) as port:
        os.replace(make(tmp_path, "*.apps.example", called="next")[0], cert)  # its key is not there yet
        certificates.look()
        assert not caplog.records, "it may be half written"
        for _ in range(3):
            certificates.look()
        assert [one.levelno for one in caplog.records] == [logging.WARNING]
        assert str(cert) in caplog.text
        assert (await shown(port, "x.apps.example"))[0] == before
        os.replace(tmp_path / "next.key", key)
        certificates.look()
        assert (await shown(port, "x.apps.example"))[0] == der(cert)


@live
async def test_the_files_are_looked_at_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr("alight.server.web_tls._LOOK_SECONDS", 0.01)
    cert, key = make(tmp_path, "*.apps.example")
    certificates = Certificates((Pair(cert, key),))
    certificates.watch()
    try:
        async with listening(certificates) as port, asyncio.timeout(20):
            replace(make(tmp_path, "*.apps.example", called="next"), cert, key)
            while (await shown(port, "x.apps.example"))[0] != der(cert):
                pass
    finally:
        certificates.close()


def test_the_log_says_what_browsers_will_refuse(tmp_path, caplog):
    Certificates((Pair(*make(tmp_path, "*.other.example", days=-1)),), "apps.example")
    assert "*.apps.example" in caplog.text
    assert "*.other.example" in caplog.text
    assert "has expired" in caplog.text
    caplog.clear()
    Certificates((Pair(*make(tmp_path, "*.apps.example")),), "apps.example")
    assert not caplog.records


def test_what_is_no_certificate_is_refused_at_the_start(tmp_path):
    cert, key = make(tmp_path, "x.example")
    other = make(tmp_path, "x.example", called="other")[1]
    with pytest.raises(errors.InvalidError, match="no certificate with its key"):
        Certificates((Pair(cert, other),))
    with pytest.raises(errors.InvalidError, match="cannot be read: No such file"):
        Certificates((Pair(cert, tmp_path / "away"),))
    with pytest.raises(errors.InvalidError, match="names 1 files and ALIGHT_WEB_KEY 0"):
        pairs(str(cert), "")
    assert pairs(f"{cert}:{cert}", f"{key}:{key}") == (Pair(cert, key), Pair(cert, key))


@pytest.mark.parametrize("address", ["0.0.0.0:80", "[::]:80", "10.0.0.5:80", "box:80"])
def test_nobody_listens_to_the_world_in_plain_http_unasked(tmp_path, address):
    with pytest.raises(errors.InvalidError, match="without TLS"):
        web_listen.check(Settings(tmp_path, web_listen=address))
    web_listen.check(Settings(tmp_path, web_listen=address, web_plain=True))
    web_listen.check(Settings(tmp_path, web_listen=address, web_cert="c", web_key="k"))


@pytest.mark.parametrize("address", ["", "none", "127.0.0.1:80", "localhost:80", "[::1]:80"])
def test_loopback_needs_no_certificate(tmp_path, address):
    web_listen.check(Settings(tmp_path, web_listen=address))


def test_a_domain_is_checked(tmp_path, monkeypatch):
    for given, meant in (("Apps.Lab.example.", "apps.lab.example"), ("*.apps.example", "apps.example")):
        monkeypatch.setenv("ALIGHT_WEB_DOMAIN", given)
        assert from_environment(tmp_path, "").web_domain == meant
    monkeypatch.setenv("ALIGHT_WEB_DOMAIN", "https://apps.example")
    with pytest.raises(errors.InvalidError, match="is not the name of a domain"):
        from_environment(tmp_path, "")


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ({}, "http://l.localhost:{port}"),
        ({"web_domain": "a.example"}, "https://l.a.example"),
        ({"web_domain": "a.example", "web_plain": True}, "http://l.a.example:{port}"),
        ({"web_domain": "a.example", "web_cert": True}, "https://l.a.example:{port}"),
    ],
)
@live
async def test_urls_are_what_the_port_speaks(tmp_path, said, label):
    if said.pop("web_cert", False):
        said["web_cert"], said["web_key"] = map(str, make(tmp_path, "*.a.example"))
    settings = Settings(tmp_path, web_listen="127.0.0.1:0", **said)
    settings.run.mkdir()

    def bind(wanted, **_):
        return socket.create_server(wanted)

    made = await web_listen.listen(settings, asyncio.Protocol, bind)
    port = made.base.address.rpartition(":")[2]
    assert made.base.label("l") == label.format(port=port)
    for one in made.listeners:
        one.close()
    if made.certificates is not None:
        made.certificates.close()
