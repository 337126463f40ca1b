"""Layers and images as registries hold them, made in memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from typing import Any

OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def entry(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One entry: a file, or what ``type`` and ``linkname`` say; ``mode``, ``uid``, ``mtime``, ``pax_headers``."""
    made = tarfile.TarInfo(name)
    made.size = len(content)
    made.mode = 0o755 if fields.get("type") == tarfile.DIRTYPE else 0o644
    made.mtime = 1_600_000_000
    for field_name, value in fields.items():
        setattr(made, field_name, value)
    return made, content


def folder(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, **fields)


def link(name: str, target: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=target, **fields)


def tar(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for made, content in entries:
            archive.addfile(made, io.BytesIO(content))
    return out.getvalue()


def sha(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass
class Made:
    """An image ready to be pushed: ``manifest`` and the blobs that it names."""

    manifest: bytes
    blobs: dict[str, bytes] = field(default_factory=dict)
    media_type: str = OCI

    @property
    def digest(self) -> str:
        return sha(self.manifest)


def image(*layers: bytes, packed: list[bytes] | None = None, architecture: str = "amd64", **config: Any) -> Made:
    """An image of plain layers (gzipped, or as ``packed`` says); ``config`` is Env, WorkingDir and so on."""
    packed = packed or [gzip.compress(layer, 1, mtime=0) for layer in layers]
    settings = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [sha(layer) for layer in layers]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": _descriptor(settings, "application/vnd.oci.image.config.v1+json"),
        "layers": [_descriptor(one, "application/vnd.oci.image.layer.v1.tar+gzip") for one in packed],
    }
    blobs = {sha(one): one for one in (settings, *packed)}
    return Made(json.dumps(manifest).encode(), blobs)


def index(**images: Made) -> Made:
    """One name for several architectures."""
    manifests = [
        {
            "mediaType": one.media_type,
            "digest": one.digest,
            "size": len(one.manifest),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture, one in images.items()
    ]
    return Made(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode(), {}, INDEX)


def _descriptor(content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha(content), "size": len(content)}
