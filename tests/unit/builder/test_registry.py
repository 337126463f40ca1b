"""Images of registries: found, logged in for, downloaded and stacked, against a registry that misbehaves on command."""

from __future__ import annotations

import asyncio
import base64
import datetime
import ipaddress
import os
import random
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from alight.builder.layers import LayerStore
from alight.builder.registry import pull as pulling
from alight.builder.registry import reference, transport
from alight.builder.registry.client import Client, Credentials
from alight.builder.registry.settings import Place, Registries, Way
from alight.wire.errors import ImageBuildError
from tests.unit.builder.archives import entry, folder, image, index, link, sha, tar
from tests.unit.builder.registryserver import Proxy, RegistryServer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacking changes its root directory, which needs root")

BOTTOM = tar(folder("etc"), entry("etc/name", b"bottom"), entry("gone", b"x"), link("bin", "usr/bin"))
TOP = tar(entry("etc/name", b"top"), entry(".wh.gone"))


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(transport, "_FIRST_DELAY", 0.01)
    with RegistryServer() as served:
        yield served


@pytest.fixture
def pull(tmp_path, registry):
    """Pull a name of the registry; ``settings`` replaces the setting that lets it speak plain HTTP."""
    store = LayerStore(tmp_path / "node")
    notes: list[str] = []

    def pull(name: str, *, secret: dict | None = None, settings: str | None = None, host: str = "", **more: str):
        file = tmp_path / "registries.conf"
        text = settings or f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n'
        file.write_text(text)
        registries = Registries.read({"CONTAINERS_REGISTRIES_CONF": str(file)}, tmp_path)
        wanted = pulling.Wanted(reference.parse(f"{host or registry.host}/{name}"), "x86_64", secret or {}, **more)
        return asyncio.run(pulling.pull(wanted, store, registries, Way(), notes.append))

    pull.notes = notes
    pull.store = store
    return pull


def test_an_image_becomes_layers_that_images_share(registry, pull):
    one, two = image(BOTTOM, TOP, Env=["A=1"]), image(BOTTOM, tar(entry("other", b"")))
    registry.push("a/b:1", one)
    registry.push("a/b:2", two)
    first = pull("a/b:1")
    assert (first.digest, first.config.env, len(first.layers)) == (one.digest, {"A": "1"}, 2)
    top, bottom = map(pull.store.path, first.layers)
    assert (bottom / "etc/name").read_bytes() == b"bottom"
    assert (top / "etc/name").read_bytes() == b"top"
    assert (top / "gone").is_char_device()
    registry.asked.clear()
    second = pull("a/b:2")
    assert second.layers[1] == first.layers[1]
    assert len(registry.blobs_asked()) == 2  # its configuration, and the layer that was not here
    assert pull(f"a/b@{one.digest}") == first
    assert not [path for path in (pull.store.path(".")).iterdir() if path.name.startswith("tmp-")]


def test_an_index_leads_to_this_machines_architecture(registry, pull):
    ours, theirs = image(BOTTOM), image(TOP, architecture="arm64")
    registry.push("a/b:1", index(arm64=theirs, amd64=ours), ours, theirs)
    assert pull("a/b:1").digest == ours.digest
    registry.push("a/b:2", index(arm64=theirs), theirs)
    with pytest.raises(ImageBuildError, match=r"nothing for this machine \(linux/amd64\): there is linux/arm64"):
        pull("a/b:2")
    registry.push("a/b:3", theirs)
    with pytest.raises(ImageBuildError, match="linux/arm64"):
        pull("a/b:3")


def test_a_layer_that_comes_twice_and_an_empty_one_are_stacked_once(registry, pull):
    registry.push("a/b:1", image(BOTTOM, TOP, bytes(1024), BOTTOM))
    layers = pull("a/b:1").layers
    assert len(layers) == 2
    assert (pull.store.path(layers[0]) / "etc/name").read_bytes() == b"bottom"


def test_a_layer_that_hides_its_whole_root_ends_the_stack(registry, pull):
    registry.push("a/b:1", image(BOTTOM, tar(entry(".wh..wh..opq"), entry("only", b""))))
    assert len(pull("a/b:1").layers) == 1


def test_a_download_goes_on_where_it_broke(registry, pull):
    content = tar(entry("file", random.Random(1).randbytes(300_000)))
    registry.push("a/b:1", image(content))
    registry.chunk = 50_000
    pull("a/b:1")
    ranges = [headers["Range"] for headers in registry.blobs_asked() if "Range" in headers]
    assert ranges[:2] == ["bytes=50000-", "bytes=100000-"]


def test_a_registry_that_ignores_ranges_is_asked_from_the_start(registry, pull):
    content = tar(entry("file", random.Random(1).randbytes(200_000)))
    made = image(content)
    registry.push("a/b:1", made)
    packed = next(blob for blob in made.blobs.values() if len(blob) > 1000)

    def half(handler) -> bool:
        if "/blobs/" not in handler.path or sha(packed) not in handler.path:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(packed)))
        handler.end_headers()
        handler.wfile.write(packed[:1000])
        handler.close_connection = True
        return True

    def whole(handler) -> bool:
        if "Range" not in handler.headers:
            return False
        handler.answer(200, packed)
        return True

    registry.instead = [half, whole]
    assert len(pull("a/b:1").layers) == 1
    assert not registry.instead


def test_content_that_is_not_what_was_promised_is_refused(registry, pull):
    made = image(BOTTOM)
    registry.push("a/b:1", made)
    name, packed = next((name, blob) for name, blob in made.blobs.items() if blob[:2] == b"\x1f\x8b")
    registry.blobs[name] = packed[:-1] + b"x"
    with pytest.raises(ImageBuildError, match="something else"):
        pull("a/b:1")
    registry.blobs[name] = packed + b"more"
    with pytest.raises(ImageBuildError, match="sends more"):
        pull("a/b:1")
    registry.push("a/b:2", image(BOTTOM, packed=[image(TOP).blobs.popitem()[1]]))
    with pytest.raises(ImageBuildError, match="something else than the image's configuration says"):
        pull("a/b:2")
    registry.manifests[f"a/b/{made.digest}"] = ("", image(TOP).manifest)
    with pytest.raises(ImageBuildError, match="something else than was asked for"):
        pull(f"a/b@{made.digest}")
    assert not list(pull.store.path(".").glob("tmp-*"))


def test_a_busy_registry_is_asked_again_and_a_dead_one_named(registry, pull):
    registry.push("a/b:1", image(BOTTOM))

    def busy(handler) -> bool:
        handler.answer(503, b"")
        return True

    registry.instead = [busy, busy]
    pull("a/b:1")
    registry.instead = [busy] * transport.ATTEMPTS
    with pytest.raises(ImageBuildError, match=rf"no answer from {registry.host}: it answers 503") as raised:
        pull("a/b:1")
    assert "registries.conf" in raised.value.hint
    assert "--substitute-base" in raised.value.hint


def test_an_unreachable_host_is_named_with_what_to_set(pull):
    with pytest.raises(ImageBuildError, match=r"127\.0\.0\.1:1: Connection refused") as raised:
        pull("a/b:1", host="127.0.0.1:1")
    assert "[[registry.mirror]]" in raised.value.hint


def test_users_and_passwords(registry, pull):
    registry.push("a/b:1", image(BOTTOM))
    registry.user = "me:secret"
    with pytest.raises(ImageBuildError, match="does not let everybody have a/b") as raised:
        pull("a/b:1")
    assert "REGISTRY_USERNAME" in raised.value.hint
    with pytest.raises(ImageBuildError, match="does not let the user 'me'"):
        pull("a/b:1", secret={"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "wrong"})
    with pytest.raises(ImageBuildError, match="has the keys WRONG"):
        pull("a/b:1", secret={"WRONG": "x"})
    assert pull("a/b:1", secret={"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "secret"}).layers


@pytest.mark.parametrize("user", ["", "me:secret"])
def test_tokens_are_asked_for_once(registry, pull, user):
    registry.push("a/b:1", image(BOTTOM, TOP))
    registry.tokens, registry.user = True, user
    secret = dict(zip(("REGISTRY_USERNAME", "REGISTRY_PASSWORD"), user.split(":"), strict=False)) if user else {}
    pull("a/b:1", secret=secret)
    assert len([path for path, _ in registry.asked if path.startswith("/token")]) == 1


def test_credentials_go_to_nobody_else(registry, pull):
    """Blobs often lie elsewhere: the redirect is followed without the password."""
    made = image(BOTTOM)
    registry.push("a/b:1", made)
    registry.user = "me:secret"
    with RegistryServer() as elsewhere:
        elsewhere.push("a/b:1", made)

        def away(handler) -> bool:
            if "/blobs/" not in handler.path or "Authorization" not in handler.headers:
                return False
            handler.answer(307, b"", Location=f"http://{elsewhere.host}{handler.path}")
            return True

        registry.instead = [away, away]
        pull("a/b:1", secret={"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "secret"})
        assert len(elsewhere.asked) == 2
        assert not [headers for _, headers in elsewhere.asked if "Authorization" in headers]


def test_a_token_server_without_tls_gets_no_password_from_a_registry_with_it(pull, registry):
    client = Client(transport.Transport(Way()), Place("r.example", "a/b"), Credentials("me", "secret"))
    with pytest.raises(ImageBuildError, match="not a secure address"):
        client._token(f'Bearer realm="http://{registry.host}/token",service="here"')
    assert not registry.asked


def test_plain_http_has_to_be_allowed(registry, pull):
    with pytest.raises(ImageBuildError, match="answers without TLS") as raised:
        pull("a/b:1", settings='unqualified-search-registries = ["docker.io"]')
    assert "insecure = true" in raised.value.hint
    assert registry.host in raised.value.hint


def test_a_mirror_is_asked_first_and_the_registry_when_it_has_nothing(registry, pull):
    made = image(BOTTOM)
    registry.push("hub/library/thing:1", made)
    settings = (
        '[[registry]]\nprefix = "docker.io"\nlocation = "127.0.0.1:1"\n'
        f'[[registry.mirror]]\nlocation = "127.0.0.1:1/nobody"\n'
        f'[[registry.mirror]]\nlocation = "{registry.host}/hub"\ninsecure = true\n'
    )
    secret = {"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "secret"}
    assert pull("thing:1", host="docker.io", settings=settings, secret=secret).digest == made.digest
    assert not [headers for _, headers in registry.asked if "Authorization" in headers]  # a mirror is somebody else
    with pytest.raises(ImageBuildError, match=r"manifest unknown; 127\.0\.0\.1:1: Connection refused"):
        pull("thing:2", host="docker.io", settings=settings)


def test_settings_that_cannot_be_read_are_said_by_who_needs_them(pull):
    with pytest.raises(ImageBuildError, match="registry settings cannot be read"):
        pull("a/b:1", settings="this is no TOML")
    with pytest.raises(ImageBuildError, match="blocks"):
        pull("a/b:1", host="bad.example", settings='[[registry]]\nprefix = "*.example"\nblocked = true\n')


@pytest.fixture
def certificate(tmp_path):
    """Of 127.0.0.1, signed by itself: (file with both, file with the certificate alone)."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - day).not_valid_after(now + day)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = made.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    text = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "ca.crt").write_bytes(text)
    (tmp_path / "both.pem").write_bytes(text + key.private_bytes(serialization.Encoding.PEM, form, plain))
    return tmp_path / "both.pem", tmp_path / "ca.crt"


def test_a_registry_with_an_authority_of_its_own(tmp_path, certificate, pull):
    both, authority = certificate
    settings = "# nothing\n"
    with RegistryServer(both) as secure:
        secure.push("a/b:1", image(BOTTOM))
        with pytest.raises(ImageBuildError, match=f"certificate of {secure.host} is not trusted") as raised:
            pull("a/b:1", host=secure.host, settings=settings)
        assert f"/etc/containers/certs.d/{secure.host}/ca.crt" in raised.value.hint
        place = tmp_path / "etc/containers/certs.d" / secure.host
        place.mkdir(parents=True)
        (place / "ca.crt").write_bytes(authority.read_bytes())
        assert pull("a/b:1", host=secure.host, settings=settings).layers


@pytest.mark.parametrize("tls", [False, True])
def test_this_machines_proxy_is_used(tmp_path, certificate, registry, tls):
    """HTTPS through a tunnel, HTTP by its whole address; each with the proxy's own credentials."""
    both, authority = certificate
    with RegistryServer(both if tls else None) as served, Proxy() as proxy:
        served.push("a/b:1", image(BOTTOM))
        way = Way({"http_proxy": proxy.url, "https_proxy": proxy.url}, ca_bundle=str(authority))
        place = Place(served.host, "a/b", insecure=not tls)
        body, _ = Client(transport.Transport(way), place, None).manifest("1")
        assert body == served.manifests["a/b/1"][1]
        line, credentials = proxy.asked[0]
        assert line.startswith(f"CONNECT {served.host}" if tls else f"GET http://{served.host}/v2/a/b/manifests/1")
        assert credentials == "Basic " + base64.b64encode(b"me:p@ss").decode()
        aside = Way({**way.proxies, "no_proxy": "127.0.0.1"}, ca_bundle=str(authority))
        Client(transport.Transport(aside), place, None).manifest("1")
        assert len(proxy.asked) == 1


def test_a_cancelled_pull_ends_soon_and_leaves_whole_layers_only(registry, pull, tmp_path):
    registry.push("a/b:1", image(BOTTOM, tar(entry("file", random.Random(1).randbytes(100_000)))))
    stuck = asyncio.Event()

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def hang(handler) -> bool:
            if "/blobs/" not in handler.path or handler.path.endswith(image(BOTTOM).digest):
                return False
            loop.call_soon_threadsafe(stuck.set)
            handler.rfile.read(1)  # until the other side goes
            handler.close_connection = True
            return True

        registry.instead = [hang]
        file = tmp_path / "registries.conf"
        file.write_text(f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n')
        registries = Registries.read({"CONTAINERS_REGISTRIES_CONF": str(file)})
        wanted = pulling.Wanted(reference.parse(f"{registry.host}/a/b:1"), "x86_64", {})
        work = asyncio.ensure_future(pulling.pull(wanted, pull.store, registries, Way(), print))
        await stuck.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(work, 5)

    asyncio.run(run())
    assert not list(pull.store.path(".").glob("tmp-*"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("python", "docker.io/library/python:latest"),
        ("nvidia/cuda:12.8.1-devel-ubuntu24.04", "docker.io/nvidia/cuda:12.8.1-devel-ubuntu24.04"),
        ("ghcr.io/owner/name", "ghcr.io/owner/name:latest"),
        ("localhost/x:1", "localhost/x:1"),
        ("127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000/a/b/c:x"),
        (f"name:tag@sha256:{'0' * 64}", f"docker.io/library/name@sha256:{'0' * 64}"),
    ],
)
def test_names_are_read_as_people_write_them(text, shown):
    assert str(reference.parse(text)) == shown


@pytest.mark.parametrize("text", ["", "Upper/case", "a b", "x:", "x@sha256:12", "../x", "https://ghcr.io/x", "a//b"])
def test_what_is_no_name_is_refused(text):
    from alight.wire.errors import InvalidError

    with pytest.raises(InvalidError, match="not the name of an image"):
        reference.parse(text)


def test_the_settings_of_a_machine(tmp_path):
    assert not Registries.read({}, tmp_path).rules
    folder = tmp_path / "etc/containers"
    (folder / "registries.conf.d").mkdir(parents=True)
    (folder / "registries.conf").write_text('[[registry]]\nprefix = "a.example/team"\nlocation = "b.example/x"\n')
    (folder / "registries.conf.d/1.conf").write_text('[[registry]]\nlocation = "a.example"\ninsecure = true\n')
    (folder / "certs.d/b.example").mkdir(parents=True)
    (folder / "certs.d/b.example/ca.crt").touch()
    read = Registries.read({}, tmp_path)
    (place,) = read.places(reference.parse("a.example/team/name:1"))
    assert (place.host, place.repository, place.insecure, place.own) == ("b.example", "x/name", False, False)
    assert [Path(one).name for one in place.certificates] == ["ca.crt"]
    (place,) = read.places(reference.parse("a.example/teams/name:1"))
    assert (place.host, place.insecure, place.own) == ("a.example", True, True)
    own = tmp_path / "home"
    own.mkdir()
    (own / "registries.conf").write_text("")
    assert not Registries.read({"ALIGHT_HOME": str(own)}, tmp_path).rules
