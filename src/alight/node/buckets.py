"""How a bucket is asked for and shown: from a declaration and a secret to a request that checks it, and to what rclone
is told. Pure: no files, no network; time is an argument. Decision 0016.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from alight.node.engine.base import BucketPlan
from alight.wire.errors import InvalidError
from alight.wire.spec import BucketMount

AWS, CLOUDFLARE, GOOGLE, ALIBABA, OTHER, AZURE = "AWS", "Cloudflare", "GCS", "Alibaba", "Other", "azureblob"

_REGION = "us-east-1"
_IN_HOST = re.compile(r"s3[.-](?:dualstack\.)?([a-z]{2}-[a-z0-9-]+-\d)\.amazonaws\.com(?:\.cn)?")
#: Of a file that is read at the same time by many: the memory that rclone has for each open file.
_BUFFER = "4M"

#: Pieces of rclone's command line that all mounts have. What each is for, see decision 0016.
_COMMON = (
    *("--config", "", "--log-format", "", "--allow-non-empty", "--allow-other", "--umask", "022"),
    *("--vfs-cache-mode", "writes", "--vfs-write-back", "200ms"),
    *("--vfs-cache-max-age", "30s", "--vfs-cache-max-size", "1G", "--vfs-cache-poll-interval", "10s"),
    *("--dir-cache-time", "10s", "--attr-timeout", "1s", "--use-server-modtime"),
    *("--transfers", "16", "--buffer-size", _BUFFER),
    *("--contimeout", "10s", "--timeout", "60s", "--low-level-retries", "4"),
)


@dataclass(frozen=True)
class Keys:
    """What of a secret is for the store. Empty: the bucket is asked as anybody."""

    name: str = ""
    """The access key's id; of Azure the account."""
    secret: str = ""
    token: str = ""
    region: str = ""
    known: bool = False
    """The id is no secret: it stands in the endpoint."""

    @property
    def hidden(self) -> tuple[str, ...]:
        """What no message and no log may hold."""
        return tuple(one for one in (self.secret, self.token, "" if self.known else self.name) if one)


def provider_of(endpoint: str) -> str:
    """Who answers at an endpoint, by its host's name: rclone knows their ways by these words."""
    host = (urlsplit(endpoint).hostname or "") if endpoint else ""
    if not endpoint or re.search(r"\.amazonaws\.com(\.cn)?$", host):
        return AWS
    if host.endswith(".r2.cloudflarestorage.com"):
        return CLOUDFLARE
    if host == "storage.googleapis.com" or host.endswith(".storage.googleapis.com"):
        return GOOGLE
    if host.endswith(".aliyuncs.com"):
        return ALIBABA
    if host.endswith(".blob.core.windows.net"):
        return AZURE
    return OTHER


def words(mount: BucketMount) -> str:
    """A bucket in messages."""
    prefix = f"/{mount.key_prefix}" if mount.key_prefix else ""
    return f"the bucket {mount.bucket}{prefix} at {mount.endpoint or 'AWS'}"


def keys_of(mount: BucketMount, secret: Mapping[str, str] | None) -> Keys:
    """Who to be. Raises InvalidError for a secret that lacks what this endpoint asks for: it names that."""
    if secret is None:
        return Keys()
    provider = provider_of(mount.endpoint)
    if provider == AZURE:
        account = _account(mount.endpoint)
        return Keys(account, _given(mount, secret, "AZURE_STORAGE_KEY"), known=True)
    region = secret.get("AWS_REGION") or secret.get("AWS_DEFAULT_REGION") or ""
    if provider == GOOGLE and "GOOGLE_ACCESS_KEY_ID" in secret:
        name, value = (_given(mount, secret, one) for one in ("GOOGLE_ACCESS_KEY_ID", "GOOGLE_ACCESS_KEY_SECRET"))
        return Keys(name, value, region=region)
    if provider == GOOGLE and "AWS_ACCESS_KEY_ID" not in secret:
        _given(mount, secret, "GOOGLE_ACCESS_KEY_ID")
    name, value = (_given(mount, secret, one) for one in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    return Keys(name, value, secret.get("AWS_SESSION_TOKEN", ""), region)


def region_of(mount: BucketMount, keys: Keys) -> str:
    """The region to begin with: the secret's, the endpoint's, or the one that the service takes for none."""
    if keys.region:
        return keys.region
    named = _IN_HOST.fullmatch(urlsplit(mount.endpoint).hostname or "") if mount.endpoint else None
    if named:
        return named[1]
    return "auto" if provider_of(mount.endpoint) in {CLOUDFLARE, GOOGLE} else _REGION


def in_path(mount: BucketMount) -> bool:
    """Whether the bucket is named in the path of a request, and not in its host."""
    if provider_of(mount.endpoint) not in {AWS, ALIBABA}:
        return True
    return mount.force_path_style or "." in mount.bucket  # no certificate is for a.b.s3.amazonaws.com


def origin_of(mount: BucketMount, region: str) -> str:
    """Scheme and host of this bucket's requests."""
    endpoint = mount.endpoint or f"https://s3.{region}.amazonaws.com"
    if in_path(mount):
        return endpoint
    scheme, _, host = endpoint.partition("://")
    return f"{scheme}://{mount.bucket}.{host}"


def is_allowed(endpoint: str, allowed: str) -> bool:
    """Whether the machine's owner named this endpoint in ``ALIGHT_BUCKET_HOSTS`` (host or host:port, by commas): it may
    then be on this machine itself."""
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    named = {one.strip().lower() for one in allowed.split(",")} - {""}
    host = (parts.hostname or "").lower()
    return bool(host) and bool({host, f"{host}:{port}"} & named)


def plan_of(
    number: int, target: str, mount: BucketMount, keys: Keys, region: str, *, on_this_machine: bool
) -> BucketPlan:
    """What rclone is told, and how. ``region`` is the one that the check found; ``on_this_machine``: it is reached from
    the machine's own network, since its owner said so."""
    options = _azure(mount, keys) if provider_of(mount.endpoint) == AZURE else _s3(mount, keys, region)
    env = {f"RCLONE_CONFIG_BUCKET_{name.upper()}": value for name, value in options.items() if value}
    arguments = [*_COMMON, *(["--read-only"] if mount.read_only else [])]
    return BucketPlan(
        number=number,
        target=target,
        words=f"{words(mount)}, mounted at {target}",
        remote=f"BUCKET:{mount.bucket}/{mount.key_prefix}".rstrip("/"),
        arguments=tuple(arguments),
        env=env,
        hidden=keys.hidden,
        read_only=mount.read_only,
        host_network=on_this_machine,
    )


def _s3(mount: BucketMount, keys: Keys, region: str) -> dict[str, str]:
    provider = provider_of(mount.endpoint)
    return {
        "type": "s3",
        # Google has a word of its own in newer versions only; "Other" is known to all.
        "provider": OTHER if provider == GOOGLE else provider,
        "endpoint": mount.endpoint,
        "region": region,
        "access_key_id": keys.name,
        "secret_access_key": keys.secret,
        "session_token": keys.token,
        "force_path_style": "true" if in_path(mount) else "false",
        "requester_pays": "true" if mount.requester_pays else "",
        "env_auth": "false",  # the machine's own identity is not the user's
        "no_check_bucket": "true",  # else a missing bucket would be made
        "disable_checksum": "true",  # of a whole large file, read once more before it is sent; parts have theirs
        "chunk_size": "16M",
        "upload_concurrency": "4",
        # Google's service changes this header on the way, and with it what was signed.
        "use_accept_encoding_gzip": "false" if provider == GOOGLE else "",
    }


def _azure(mount: BucketMount, keys: Keys) -> dict[str, str]:
    return {
        "type": AZURE,
        "account": keys.name or _account(mount.endpoint),
        "key": keys.secret,
        "no_check_container": "true",
        "env_auth": "false",
    }


def _account(endpoint: str) -> str:
    return (urlsplit(endpoint).hostname or "").partition(".")[0]


def _given(mount: BucketMount, secret: Mapping[str, str], name: str) -> str:
    value = secret.get(name, "").strip()
    if not value:
        has = ", ".join(sorted(secret)) or "none"
        raise InvalidError(f"the secret for {words(mount)} has no {name}", hint=f"its keys are: {has}")
    return value
