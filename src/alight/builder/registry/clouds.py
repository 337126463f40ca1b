"""Credentials of registries: from the keys of a Secret, with the exchanges that cloud registries want. Blocking."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from alight.builder.registry.client import Credentials
from alight.builder.registry.transport import Transport
from alight.wire.errors import ImageBuildError

_SMALL = 1 << 20
_ECR_HOST = re.compile(r"\d+\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.(amazonaws\.com(?:\.cn)?)")
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_only https://www.googleapis.com/auth/cloud-platform"


def credentials(values: Mapping[str, str], host: str, transport: Transport, auth: str = "") -> Credentials | None:
    """Who to be for the registry ``host``, from a Secret's values; None without any.

    ``auth`` is "aws" or "gcp" where the script says which; else the keys tell.
    Raises: ImageBuildError for keys that fit nothing and for an exchange that is refused; Unreachable.
    """
    if auth == "aws" or (not auth and "AWS_ACCESS_KEY_ID" in values):
        return _aws(values, host, transport)
    if auth == "gcp" or (not auth and "SERVICE_ACCOUNT_JSON" in values):
        return _google(values, transport)
    if "REGISTRY_USERNAME" in values and "REGISTRY_PASSWORD" in values:
        return Credentials(values["REGISTRY_USERNAME"], values["REGISTRY_PASSWORD"])
    if values:
        raise ImageBuildError(
            f"the secret for {host} has the keys {', '.join(sorted(values))}, and none that let anybody in",
            hint="REGISTRY_USERNAME and REGISTRY_PASSWORD, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "SERVICE_ACCOUNT_JSON",
        )
    return None


def _aws(values: Mapping[str, str], host: str, transport: Transport) -> Credentials:
    """ECR's password for twelve hours, for an access key. The region is the host's; the endpoint may be named."""
    missing = [name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if not values.get(name)]
    if missing:
        raise ImageBuildError(
            f"the secret for {host} lacks {' and '.join(missing)}",
            hint="roles (AWS_ROLE_ARN) need an identity provider, which this server is not: use an access key",
        )
    named = _ECR_HOST.fullmatch(host.partition(":")[0])
    region = named[1] if named else values.get("AWS_REGION") or values.get("AWS_DEFAULT_REGION") or ""
    if not region:
        raise ImageBuildError(f"the region of {host} is not known", hint="put AWS_REGION into the secret")
    domain = named[2] if named else "amazonaws.com"
    endpoint = values.get("AWS_ENDPOINT_URL_ECR") or f"https://api.ecr.{region}.{domain}"
    url = endpoint.rstrip("/") + "/"
    body = b"{}"
    headers = signed(values, url, region, body, datetime.datetime.now(datetime.timezone.utc))
    answer = _post(transport, url, headers, body)
    try:
        data = answer["authorizationData"][0]["authorizationToken"]
        user, colon, password = base64.b64decode(data).decode().partition(":")
    except (LookupError, TypeError, ValueError):
        colon = user = password = ""
    if not colon:
        raise ImageBuildError(f"{urlsplit(url).netloc} answers without a token for {host}")
    return Credentials(user, password)


def signed(
    values: Mapping[str, str], url: str, region: str, body: bytes, now: datetime.datetime, service: str = "ecr"
) -> dict[str, str]:
    """The headers of a request for an authorization token, signed (AWS Signature Version 4)."""
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "host": urlsplit(url).netloc,
        "x-amz-date": stamp,
        "x-amz-target": "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
    }
    if values.get("AWS_SESSION_TOKEN"):
        headers["x-amz-security-token"] = values["AWS_SESSION_TOKEN"]
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    path = urlsplit(url).path or "/"
    request = "\n".join(("POST", path, "", lines, names, hashlib.sha256(body).hexdigest()))
    scope = f"{day}/{region}/{service}/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{values['AWS_SECRET_ACCESS_KEY']}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    who = f"{values['AWS_ACCESS_KEY_ID']}/{scope}"
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={who}, SignedHeaders={names}, Signature={signature}"
    return headers


def _google(values: Mapping[str, str], transport: Transport) -> Credentials:
    """An access token for a service account: its private key signs a request and is sent nowhere."""
    try:
        account = json.loads(values["SERVICE_ACCOUNT_JSON"])
        key = serialization.load_pem_private_key(account["private_key"].encode(), None)
        email, url = str(account["client_email"]), str(account["token_uri"])
        assert isinstance(key, rsa.RSAPrivateKey)
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError):
        raise ImageBuildError(
            "the secret has no key SERVICE_ACCOUNT_JSON with a service account's key",
            hint="its value is the whole JSON file of the key, as Google Cloud gives it",
        ) from None
    now = int(time.time())
    claims = {"iss": email, "scope": _SCOPE, "aud": url, "iat": now, "exp": now + 3600}
    head = {"alg": "RS256", "typ": "JWT", "kid": str(account.get("private_key_id", ""))}
    text = f"{_plain(json.dumps(head).encode())}.{_plain(json.dumps(claims).encode())}"
    assertion = f"{text}.{_plain(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
    answer = _post(transport, url, {"content-type": "application/x-www-form-urlencoded"}, urlencode(form).encode())
    token = answer.get("access_token")
    if not isinstance(token, str) or not token:
        raise ImageBuildError(f"{urlsplit(url).netloc} answers without a token")
    return Credentials("oauth2accesstoken", token)


def _post(transport: Transport, url: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    host = urlsplit(url).netloc

    def attempt() -> tuple[int, bytes]:
        with transport.request("POST", url, headers, body=body) as response:
            return response.status, response.body(_SMALL)

    status, content = transport.repeat(host, attempt)
    try:
        answer = json.loads(content)
    except ValueError:
        answer = {}
    if status != 200 or not isinstance(answer, dict):
        said = answer if isinstance(answer, dict) else {}
        words = str(
            said.get("error_description") or said.get("message") or said.get("__type") or said.get("error") or ""
        )
        raise ImageBuildError(
            f"{host} gives no token (it answers {status}{': ' + words[:300] if words else ''})",
            hint="check the keys of the secret, and the clock of the machine that builds",
        )
    return answer


def _plain(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
