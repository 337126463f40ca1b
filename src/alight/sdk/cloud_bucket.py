"""Object storage as a directory: declared like a volume, in `volumes=`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from alight.sdk.secret import Secret
from alight.wire.errors import InvalidError, UnimplementedError
from alight.wire.spec import BucketMount

#: As wide as any of the services allows: old buckets of S3 have capitals, those of Google underscores and 222 letters.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,221}")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9._-]+(:[0-9]{1,5})?/?")


@dataclass
class CloudBucketMount:
    """A bucket of S3 or of something that speaks S3 (R2 and GCS are told by the endpoint's host name), or a container
    of Azure's blob storage.

    ``key_prefix`` shows one "directory" of it and ends with "/". ``secret`` holds the keys; without one the bucket
    must be public. ``requester_pays`` says that the owner of these keys pays for what is read. ``force_path_style``
    matters for AWS alone: all others are asked like that. Files are written whole: no appending, no renaming.
    """

    bucket_name: str
    bucket_endpoint_url: Optional[str] = None
    key_prefix: Optional[str] = None
    secret: Optional[Secret] = None
    oidc_auth_role_arn: Optional[str] = None
    read_only: bool = False
    requester_pays: bool = False
    force_path_style: bool = False

    def __post_init__(self) -> None:
        if not self.bucket_name:
            raise InvalidError("CloudBucketMount() needs the name of a bucket")
        if not _BUCKET.fullmatch(self.bucket_name):
            hint = "the name alone, without s3:// and without a path; key_prefix= shows a part of a bucket"
            raise InvalidError(f"{self.bucket_name!r} is no name of a bucket", hint=hint)
        if self.key_prefix is not None:
            _check_prefix(self.key_prefix)
        if self.requester_pays and self.secret is None:
            raise InvalidError("a bucket whose reader pays needs a secret with the reader's keys")
        if self.bucket_endpoint_url and not self.bucket_endpoint_url.startswith(("http://", "https://")):
            raise InvalidError(
                f"the bucket's endpoint {self.bucket_endpoint_url!r} must begin with https:// or http://"
            )
        if self.bucket_endpoint_url and not _ENDPOINT.fullmatch(self.bucket_endpoint_url):
            raise InvalidError(
                "the bucket's endpoint is more than https://host or https://host:port",
                hint="without path, bucket, query, user or password: those are parameters of their own",
            )
        given: object = self.secret
        if given is not None and not isinstance(given, Secret):
            kind = type(given).__name__
            raise InvalidError(f"secret= of a bucket is {kind}, not a Secret", hint='Secret.from_name("…")')
        if self.secret is not None and self.oidc_auth_role_arn is not None:
            raise InvalidError("a bucket takes a secret or a role, not both")

    def _spec(self, path: str) -> BucketMount:
        """As the server hears it, but for its secret."""
        if self.oidc_auth_role_arn is not None:
            raise UnimplementedError(
                f"the bucket at {path} asks for the role {self.oidc_auth_role_arn}, which a cloud gives to its own "
                "containers only",
                hint="use secret= with an access key that may do the same",
            )
        return BucketMount(
            path=path,
            bucket=self.bucket_name,
            endpoint=(self.bucket_endpoint_url or "").rstrip("/"),
            key_prefix=self.key_prefix or "",
            read_only=bool(self.read_only),
            requester_pays=bool(self.requester_pays),
            force_path_style=bool(self.force_path_style),
        )


def _check_prefix(prefix: str) -> None:
    if not prefix.endswith("/"):
        raise InvalidError(f"the key prefix {prefix!r} must end with '/'", hint=f"{prefix}/")
    parts = prefix[:-1].split("/")
    if any(part in {"", ".", ".."} for part in parts) or not prefix.isprintable():
        raise InvalidError(
            f"the key prefix {prefix!r} cannot be shown as a directory",
            hint='names between single slashes, such as "data/2026/", without one in front',
        )
