"""Object storage as a directory: declared like a volume, in `volumes=`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from alight.sdk.secret import Secret
from alight.wire.errors import InvalidError


@dataclass
class CloudBucketMount:
    """A bucket of S3 or of something that speaks S3 (R2 and GCS are told by the endpoint's host name).

    ``key_prefix`` shows one "directory" of it and ends with "/". ``secret`` holds the keys; without one the bucket must
    be public. Files can be read and written whole: no appending, no renaming.
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
        if self.key_prefix is not None and not self.key_prefix.endswith("/"):
            raise InvalidError(f"the key prefix {self.key_prefix!r} must end with '/'", hint=f"{self.key_prefix}/")
        if self.requester_pays and self.secret is None:
            raise InvalidError("a bucket whose reader pays needs a secret with the reader's keys")
        if self.bucket_endpoint_url and not self.bucket_endpoint_url.startswith(("http://", "https://")):
            raise InvalidError(
                f"the bucket's endpoint {self.bucket_endpoint_url!r} must begin with https:// or http://"
            )
        if self.secret is not None and self.oidc_auth_role_arn is not None:
            raise InvalidError("a bucket takes a secret or a role, not both")
