"""Credentials of cloud registries: the exchanges, against servers that check what they are sent."""

from __future__ import annotations

import base64
import datetime
import http.server
import json
import threading
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from alight.builder.registry import clouds
from alight.builder.registry.settings import Way
from alight.builder.registry.transport import Transport
from alight.wire.errors import ImageBuildError

AWS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


class Server:
    """Answers every POST with ``status`` and ``answer``; keeps what it was sent."""

    def __init__(self) -> None:
        self.status, self.answer = 200, {}
        self.sent: list[tuple[dict[str, str], bytes]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.sent.append(({name.lower(): value for name, value in self.headers.items()}, body))
                said = json.dumps(outer.answer).encode()
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture
def transport():
    return Transport(Way())


def test_an_access_key_is_exchanged_for_ecrs_password(server, transport):
    token = base64.b64encode(b"AWS:twelve-hours").decode()
    server.answer = {"authorizationData": [{"authorizationToken": token}]}
    values = {**AWS, "AWS_SESSION_TOKEN": "session", "AWS_ENDPOINT_URL_ECR": server.url}
    for auth in ("aws", ""):  # said by the script, or by the keys
        found = clouds.credentials(values, ECR, transport, auth)
        assert found == clouds.Credentials("AWS", "twelve-hours")
    headers, body = server.sent[0]
    assert body == b"{}"
    assert headers["x-amz-target"].endswith(".GetAuthorizationToken")
    assert headers["x-amz-security-token"] == "session"
    assert "/eu-west-1/ecr/aws4_request, SignedHeaders=content-type;host;x-amz-date;" in headers["authorization"]
    again = datetime.datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ")  # noqa: DTZ007  it ends in Z
    assert (
        clouds.signed(values, server.url + "/", "eu-west-1", body, again)["authorization"] == headers["authorization"]
    )
    assert AWS["AWS_SECRET_ACCESS_KEY"] not in str(server.sent)


def test_what_aws_says_and_what_lacks_is_told(server, transport):
    values = {**AWS, "AWS_ENDPOINT_URL_ECR": server.url}
    server.status, server.answer = 400, {"__type": "X", "message": "The security token is invalid"}
    with pytest.raises(ImageBuildError, match=r"answers 400: The security token is invalid"):
        clouds.credentials(values, ECR, transport)
    with pytest.raises(ImageBuildError, match="lacks AWS_SECRET_ACCESS_KEY"):
        clouds.credentials({"AWS_ACCESS_KEY_ID": "x"}, ECR, transport)
    with pytest.raises(ImageBuildError, match=r"region of my\.host is not known") as raised:
        clouds.credentials(AWS, "my.host", transport)
    assert "AWS_REGION" in raised.value.hint
    with pytest.raises(ImageBuildError, match="lacks") as raised:
        clouds.credentials({"AWS_ROLE_ARN": "arn"}, ECR, transport, "aws")
    assert "AWS_ROLE_ARN" in raised.value.hint


def test_a_service_account_signs_for_a_token_and_keeps_its_key(server, transport):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    account = {"private_key": pem, "private_key_id": "7", "client_email": "me@project", "token_uri": server.url}
    server.answer = {"access_token": "ya29.token"}
    found = clouds.credentials({"SERVICE_ACCOUNT_JSON": json.dumps(account)}, "europe-docker.pkg.dev", transport)
    assert found == clouds.Credentials("oauth2accesstoken", "ya29.token")
    ((_, body),) = server.sent
    assertion = parse_qs(body.decode())["assertion"][0]
    head, claims, signature = assertion.split(".")
    key.public_key().verify(_bytes(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
    said = json.loads(_bytes(claims))
    assert (said["iss"], said["aud"]) == ("me@project", server.url)
    assert said["exp"] - said["iat"] == 3600
    assert "PRIVATE" not in body.decode()


@pytest.mark.parametrize("text", ["", "{}", "no json", '{"private_key": "x", "client_email": "", "token_uri": ""}'])
def test_a_key_file_that_is_none_is_said(transport, text):
    with pytest.raises(ImageBuildError, match="SERVICE_ACCOUNT_JSON"):
        clouds.credentials({"SERVICE_ACCOUNT_JSON": text}, "gcr.io", transport)


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
