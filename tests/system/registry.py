"""A real registry on loopback: Debian's docker-registry, filled by protocol with images that the test makes.

Plain HTTP; open, with users of an htpasswd file, or behind a server that exchanges passwords for tokens.
"""

from __future__ import annotations

import base64
import datetime
import functools
import hashlib
import http.client
import http.server
import json
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.system import base
from tests.unit.builder.archives import Made

USER, PASSWORD = "reader", "a long password"
HTPASSWD = (
    "reader:$2y$05$vDvCvAKXaBs63atoscAcruA6DADV.UiuahUcdGcbFX5zQ1y0ChWgG\n"  # `htpasswd -nbB reader "a long password"`
)


def program() -> str:
    """The path of docker-registry. Debian's package is unpacked, not installed: installed it would start a service."""
    found = shutil.which("docker-registry")
    if found is not None:
        return found
    place = base.cache() / "docker-registry"
    if not (place / "usr/bin/docker-registry").exists() and shutil.which("apt-get"):
        with tempfile.TemporaryDirectory(dir=base.cache()) as folder:
            for command in (["download", "-qq", "docker-registry"], ["update", "-qq"]) * 2:  # lists may be old or none
                if not list(Path(folder).glob("*.deb")):
                    subprocess.run(["apt-get", *command], cwd=folder, check=False, timeout=120)
            for package in Path(folder).glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", package, place], check=False)
    if not (place / "usr/bin/docker-registry").exists():
        pytest.skip("there is no docker-registry on this machine and apt-get does not bring it")
    return str(place / "usr/bin/docker-registry")


class Registry:
    """``with Registry(folder, auth="")``; ``auth`` is "", "htpasswd" or "token"."""

    def __init__(self, folder: Path, auth: str = "") -> None:
        self.auth = auth
        self._folder = folder
        self._tokens: _Tokens | None = None
        folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Registry:  # noqa: PYI034  Python 3.9 has no Self
        config: dict = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(self._folder / "data")}},
            "http": {"addr": self.host, "secret": secrets.token_hex(8)},
            "log": {"accesslog": {"disabled": True}, "level": "warn"},
        }
        if self.auth == "htpasswd":
            (self._folder / "htpasswd").write_text(HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(self._folder / "htpasswd")}}
        if self.auth == "token":
            self._tokens = _Tokens(self._folder)
            config["auth"] = {"token": self._tokens.config}
        (self._folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        argv = [program(), "serve", str(self._folder / "config.yml")]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError((self._folder / "log").read_text()) from None
                time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        if self._tokens is not None:
            self._tokens.close()

    def push(self, name: str, *images: Made) -> None:
        """The last image gets the tag of ``name``; those before it are what an index names."""
        repository, _, tag = name.partition(":")
        for image in images:
            for digest, content in image.blobs.items():
                self._upload(repository, digest, content)
            last = image is images[-1]
            self._send(
                "PUT",
                f"/v2/{repository}/manifests/{tag if last else image.digest}",
                image.manifest,
                {"Content-Type": image.media_type},
            )

    def _upload(self, repository: str, digest: str, content: bytes) -> None:
        if self._send("HEAD", f"/v2/{repository}/blobs/{digest}", b"", {}, missing=True)[0] == 200:
            return
        _, headers = self._send("POST", f"/v2/{repository}/blobs/uploads/", b"", {})
        place = urlsplit(headers["Location"])
        path = f"{place.path}?{place.query}&digest={digest}"
        self._send("PUT", path, content, {"Content-Type": "application/octet-stream"})

    def _send(
        self, method: str, path: str, body: bytes, headers: dict, *, missing: bool = False
    ) -> tuple[int, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        if self.auth == "htpasswd":
            headers = {**headers, "Authorization": _basic(USER, PASSWORD)}
        if self._tokens is not None:
            repository = path.removeprefix("/v2/").split("/blobs/")[0].split("/manifests/")[0]
            token = self._tokens.token(f"repository:{repository}:pull,push")
            headers = {**headers, "Authorization": f"Bearer {token}"}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        assert answer.status < 300 or missing, (method, path, answer.status, said)
        return answer.status, answer.headers


class _Tokens:
    """A token server: signs what a registry with its certificate believes. ``asked`` are scopes, with the user."""

    def __init__(self, folder: Path) -> None:
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tokens")])
        now = datetime.datetime.now(datetime.timezone.utc)
        day = datetime.timedelta(days=1)
        built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self._key.public_key())
        built = built.serial_number(1).not_valid_before(now - day).not_valid_after(now + day)
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        certificate = built.sign(self._key, hashes.SHA256())
        (folder / "tokens.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self._chain = [base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()]
        self.asked: list[tuple[str, str]] = []
        tokens = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                scope = parse_qs(urlsplit(self.path).query).get("scope", [""])[0]
                known = self.headers.get("Authorization") == _basic(USER, PASSWORD)
                tokens.asked.append((scope, USER if known else ""))
                body = json.dumps({"token": tokens.token(scope if known else "")}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.config = {
            "realm": f"http://127.0.0.1:{self._server.server_port}/token",
            "service": "registry",
            "issuer": "tokens",
            "rootcertbundle": str(folder / "tokens.pem"),
        }

    def token(self, scope: str) -> str:
        now = int(time.time())
        access = []
        if scope:
            kind, name, actions = scope.split(":", 2)
            access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        claims = {"iss": "tokens", "aud": "registry", "sub": USER, "nbf": now - 60, "exp": now + 600, "iat": now}
        head = {"typ": "JWT", "alg": "RS256", "x5c": self._chain}
        text = ".".join(_plain(json.dumps(one).encode()) for one in (head, {**claims, "jti": "1", "access": access}))
        signature = self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{_plain(signature)}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def debian(layers: tuple[str, ...], *more: bytes, **config: object) -> Made:
    """The test's own base image as an image of a registry: its directories as gzip layers, ``more`` layers on top."""
    parts = [_packed(directory) for directory in reversed(layers)]
    for plain in more:
        packed = subprocess.run(["gzip", "-1n"], input=plain, capture_output=True, check=True).stdout
        parts.append(("sha256:" + hashlib.sha256(plain).hexdigest(), packed))
    settings = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [diff for diff, _ in parts]},
        }
    ).encode()
    blobs = {"sha256:" + hashlib.sha256(one).hexdigest(): one for one in (settings, *(packed for _, packed in parts))}
    digests = list(blobs)
    kinds = ["application/vnd.oci.image.config.v1+json", *["application/vnd.oci.image.layer.v1.tar+gzip"] * len(parts)]
    described = [
        {"mediaType": kind, "digest": digest, "size": len(blobs[digest])}
        for kind, digest in zip(kinds, digests, strict=True)
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described[0],
        "layers": described[1:],
    }
    return Made(json.dumps(manifest).encode(), blobs)


@functools.cache
def _packed(directory: str) -> tuple[str, bytes]:
    # Another test process may hard-link the same layer's files into a home meanwhile. That changes their ctime,
    # for which tar ends with 1 ("file changed as we read it"); a layer's bytes do not change.
    packing = subprocess.run(
        ["tar", "-C", directory, "--warning=no-file-changed", "--xattrs", "--numeric-owner", "-cf", "-", "."],
        capture_output=True,
        check=False,
    )
    if packing.returncode > 1 or packing.stderr:
        raise RuntimeError(f"tar could not pack {directory} ({packing.returncode}): {packing.stderr.decode()}")
    plain = packing.stdout
    packed = subprocess.run(["gzip", "-1n"], input=plain, capture_output=True, check=True).stdout
    return "sha256:" + hashlib.sha256(plain).hexdigest(), packed


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _plain(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
