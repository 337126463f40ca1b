"""Asks an object store whether a bucket can be mounted, before anything of a container exists.

Asked from the machine's own network, so it is looked where that leads: not to this machine or to what is next to it by
link, unless the machine's owner said so. The request goes to the very address that was looked at.
"""

from __future__ import annotations

import contextlib
import datetime
import http.client
import socket
import ssl
import time
from ipaddress import ip_address
from urllib.parse import urlsplit

from alight.node import bucket_request, buckets
from alight.node.bucket_request import Question
from alight.node.buckets import Keys
from alight.wire import errors
from alight.wire.spec import BucketMount

#: Seconds for all of a check, and for one attempt.
PATIENCE = 10.0
_TRY = 8.0
_MOST = 64 << 10
_REDIRECTS = 3


def check(mount: BucketMount, keys: Keys, *, allowed: bool, patience: float = PATIENCE) -> str:
    """The bucket's region, once it has let itself be listed. Blocks.

    ``allowed``: the endpoint may be on this machine. Raises Error with a sentence for whoever called the function.
    """
    until = time.monotonic() + patience
    region = buckets.region_of(mount, keys)
    moved = 0
    while True:
        asked = bucket_request.question(mount, keys, region, datetime.datetime.now(datetime.timezone.utc))
        try:
            status, headers, body = _get(asked, mount, allowed=allowed)
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() + 1.0 < until and not isinstance(error, ssl.SSLCertVerificationError):
                time.sleep(0.5)
                continue
            raise _unreachable(mount, asked, error) from error
        other = bucket_request.region_in(status, headers, region)
        if other and moved < _REDIRECTS:
            region, moved = other, moved + 1
            continue
        if status >= 500 and time.monotonic() + 1.0 < until:
            time.sleep(0.5)
            continue
        wrong = bucket_request.complaint(mount, keys, status, body)
        if wrong is not None:
            raise wrong
        return region


def _get(asked: Question, mount: BucketMount, *, allowed: bool) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(asked.origin)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    family, address = _address(host, port, mount, allowed=allowed)
    raw = socket.socket(family, socket.SOCK_STREAM)
    try:
        raw.settimeout(_TRY)
        raw.connect(address)
        if secure:
            raw = ssl.create_default_context().wrap_socket(raw, server_hostname=host)
    except BaseException:
        raw.close()
        raise
    connection = http.client.HTTPConnection(host, port, timeout=_TRY)
    connection.sock = raw
    try:
        connection.putrequest("GET", asked.target, skip_host=True, skip_accept_encoding=True)
        for name, value in asked.headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read(_MOST)
    finally:
        connection.close()


def _address(host: str, port: int, mount: BucketMount, *, allowed: bool) -> tuple[int, tuple[str, int]]:
    """The first address that may be asked. IPv4: containers, and so their buckets, reach no other."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=socket.AF_INET)
    addresses = [str(one[4][0]) for one in found]
    open_ones = [one for one in addresses if not is_here(one) or (allowed and not ip_address(one).is_link_local)]
    if open_ones:
        return socket.AF_INET, (open_ones[0], port)
    refused = f"{buckets.words(mount)} cannot be mounted at {mount.path}: {addresses[0]} is"
    if ip_address(addresses[0]).is_link_local:
        raise errors.InvalidError(f"{refused} on the link of the machine, where containers reach nothing")
    raise errors.InvalidError(
        f"{refused} the machine itself that the container is to run on, and containers reach no port of it",
        hint=f"its owner allows this one by ALIGHT_BUCKET_HOSTS={host}:{port} where its node starts",
    )


def is_here(address: str) -> bool:
    """Whether an address is this machine's own, or of its link (the metadata service of clouds is there)."""
    one = ip_address(address)
    if one.is_loopback or one.is_link_local or one.is_unspecified or one.is_multicast:
        return True
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.bind((address, 0))
        return True
    return False


def _unreachable(mount: BucketMount, asked: Question, error: Exception) -> errors.Error:
    origin = asked.origin
    if isinstance(error, socket.gaierror):
        why = f"the name {urlsplit(origin).hostname} is not known"
    elif isinstance(error, ssl.SSLCertVerificationError):
        why = f"its certificate is not trusted: {error.verify_message}"
    elif isinstance(error, TimeoutError):
        why = f"{origin} does not answer"
    elif isinstance(error, http.client.HTTPException):
        why = f"{origin} answers with something that is not HTTP"
    else:
        why = f"{origin} cannot be reached: {getattr(error, 'strerror', None) or error}"
    return errors.InvalidError(
        f"{buckets.words(mount)} cannot be mounted at {mount.path}: {why}",
        hint="check bucket_endpoint_url, and that the machine that runs the container reaches it",
    )
