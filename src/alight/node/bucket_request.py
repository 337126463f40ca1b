"""One cheap question to an object store: may these keys list this bucket? How it is asked, and what an answer means.

Pure: time is an argument, nothing here talks to anybody. See ``bucket_check`` for who does.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

from alight.node import buckets
from alight.node.buckets import Keys
from alight.wire import errors
from alight.wire.spec import BucketMount

_EMPTY = hashlib.sha256(b"").hexdigest()
_AZURE_VERSION = "2020-10-02"
_SAID = 300


@dataclass(frozen=True)
class Question:
    """A GET. ``target`` is path and query as they are sent."""

    origin: str
    target: str
    headers: Mapping[str, str]


def question(mount: BucketMount, keys: Keys, region: str, now: datetime.datetime) -> Question:
    """At most one name of the bucket below the prefix."""
    if buckets.provider_of(mount.endpoint) == buckets.AZURE:
        return _azure(mount, keys, now)
    query = {"list-type": "2", "max-keys": "1"}
    if mount.key_prefix:
        query["prefix"] = mount.key_prefix
    origin = buckets.origin_of(mount, region)
    path = f"/{mount.bucket}" if buckets.in_path(mount) else "/"
    text = urlencode(sorted(query.items()), quote_via=quote, safe="-_.~")
    headers = {"host": urlsplit(origin).netloc, "x-amz-content-sha256": _EMPTY}
    if mount.requester_pays:
        headers["x-amz-request-payer"] = "requester"
    if keys.name:
        headers |= _signed(keys, region, path, text, headers, now)
    return Question(origin, f"{path}?{text}", headers)


def region_in(status: int, headers: Mapping[str, str], asked: str) -> str:
    """The region that an answer sends us to; "" when it does not."""
    said = {name.lower(): value for name, value in headers.items()}.get("x-amz-bucket-region", "")
    return said if status in {301, 307, 400} and said != asked else ""


def complaint(mount: BucketMount, keys: Keys, status: int, body: bytes) -> errors.Error | None:
    """What is wrong by the answer, in a sentence without the keys; None when nothing is."""
    text = body.decode("utf-8", "replace")
    if status == 200 and re.search(r"<(ListBucketResult|EnumerationResults)\b", text):
        return None
    what = buckets.words(mount)
    code, said = _tag(text, "Code"), _tag(text, "Message")
    answered = hide(" ".join(f"{status} {code}".split()) + (f": {said}" if said else ""), keys)
    if status == 200:
        return errors.InvalidError(
            f"{what} cannot be mounted at {mount.path}: what answers there is no object store",
            hint="check bucket_endpoint_url: it is the address of the S3 API, and not of a console or a web page",
        )
    return errors.InvalidError(
        f"{what} cannot be mounted at {mount.path}: {_meaning(status, code, keys)} (it answered {answered})",
        hint=_remedy(status, code, keys),
    )


def hide(text: str, keys: Keys) -> str:
    """A text of others without anything of the secret."""
    for one in keys.hidden:
        text = text.replace(one, "***")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_SAID]


_WRONG_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed", "InvalidToken", "ExpiredToken"}


def _meaning(status: int, code: str, keys: Keys) -> str:
    if code in {"NoSuchBucket", "ContainerNotFound"} or status == 404:
        return "there is no such bucket"
    if code == "InvalidAccessKeyId":
        return "the access key is not known there"
    if code in {"SignatureDoesNotMatch", "AuthenticationFailed"}:
        return "the secret of the access key is wrong"
    if code in {"ExpiredToken", "InvalidToken", "TokenRefreshRequired"}:
        return "the session token is not valid (any more)"
    if code == "RequestTimeTooSkewed":
        return "the clocks of this machine and of the store differ too much"
    if status in {401, 403}:
        return "the keys may not list it" if keys.name else "it may not be listed without keys"
    if status in {301, 307}:
        return "it is somewhere else"
    if status >= 500:
        return "the store has a trouble of its own"
    return "the store refuses the request"


def _remedy(status: int, code: str, keys: Keys) -> str:
    if code in {"NoSuchBucket", "ContainerNotFound"} or status == 404:
        return "make it first, or correct bucket_name and bucket_endpoint_url: a mount never makes a bucket"
    if code in _WRONG_KEY:
        return "put the right keys into the secret: `alight secret create NAME … --force`"
    if code == "RequestTimeTooSkewed":
        return "set this machine's clock"
    if status in {401, 403} and not keys.name:
        return "without secret= only public buckets can be mounted"
    if status in {401, 403}:
        return "allow them to list the bucket and to read (and write) its objects, or use other keys"
    if status in {301, 307, 400}:
        return "check the endpoint, and put the bucket's region into the secret as AWS_REGION"
    return "try again later, or ask who runs the store"


def _tag(text: str, name: str) -> str:
    found = re.search(rf"<{name}>([^<]*)</{name}>", text)
    return found[1].strip() if found else ""


def _signed(
    keys: Keys, region: str, path: str, query: str, headers: Mapping[str, str], now: datetime.datetime
) -> dict[str, str]:
    # AWS Signature Version 4.
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    added = {"x-amz-date": stamp} | ({"x-amz-security-token": keys.token} if keys.token else {})
    signed = {**headers, **added}
    names = ";".join(sorted(signed))
    lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    request = "\n".join(("GET", quote(path), query, lines, names, _EMPTY))
    scope = f"{day}/{region}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{keys.secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    who = f"{keys.name}/{scope}"
    added["authorization"] = f"AWS4-HMAC-SHA256 Credential={who}, SignedHeaders={names}, Signature={signature}"
    return added


def _azure(mount: BucketMount, keys: Keys, now: datetime.datetime) -> Question:
    # Azure's "Shared Key" for its blob service.
    query = {"comp": "list", "maxresults": "1", "restype": "container"}
    if mount.key_prefix:
        query["prefix"] = mount.key_prefix
    date = now.strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {"host": urlsplit(mount.endpoint).netloc, "x-ms-date": date, "x-ms-version": _AZURE_VERSION}
    if keys.secret:
        named = "".join(f"{name}:{headers[name]}\n" for name in ("x-ms-date", "x-ms-version"))
        resource = "\n".join(
            (f"/{keys.name}/{mount.bucket}", *(f"{name}:{value}" for name, value in sorted(query.items())))
        )
        text = f"GET{chr(10) * 12}{named}{resource}"
        try:
            key = base64.b64decode(keys.secret, validate=True)
        except ValueError:
            raise errors.InvalidError(
                f"AZURE_STORAGE_KEY in the secret for {buckets.words(mount)} is no storage account's key",
                hint="it is the base64 text that the portal shows under Access keys",
            ) from None
        digest = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
        headers["authorization"] = f"SharedKey {keys.name}:{digest}"
    return Question(mount.endpoint, f"/{mount.bucket}?{urlencode(sorted(query.items()))}", headers)
