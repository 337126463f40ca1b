"""buildah, Debian's and everybody's front end for Dockerfiles: commands of it, in a storage of the builder's own.

It runs on the machine itself and not in a container of ours: it is what makes the containers. Its storage keeps what it
built, instruction by instruction, so that a changed last line costs that line; what comes out is taken over as layers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alight.wire.errors import ImageBuildError

#: Every command runs in a mount namespace of its own, so that no mount outlives it, however it ends.
_ALONE = ("unshare", "-m", "--propagation", "private")

#: Lays layers (the words after the settings, topmost first) over each other and makes an image of what is seen. In one
#: go: what buildah mounts for it is there in this namespace only.
_ADD = """\
set -e
name="$0"; seen="$1"; root="$2"; run="$3"; settings="$4"; shift 4
b() { buildah --root "$root" --runroot "$run" --storage-driver overlay "$@"; }
container=$(b from scratch)
trap 'b rm "$container" >/dev/null 2>&1' EXIT
to=$(b mount "$container")
while [ "$settings" -gt 0 ]; do
  b config "$1" "$2" "$container"
  shift 2; settings=$((settings - 1))
done
lowers="$1"; shift
for one; do lowers="$lowers:$one"; done
case "$lowers" in
  *:*) mount -t overlay overlay -o "ro,lowerdir=$lowers" "$seen" ;;
  *) mount --bind "$lowers" "$seen" ;;
esac
cp -a "$seen/." "$to/"
b commit -q "$container" "$name"
"""


@dataclass(frozen=True)
class Made:
    """What a build left in the storage: directories of its layers above the base, the topmost first, and settings."""

    layers: tuple[tuple[str, Path], ...]  # (digest, directory as overlayfs wrote it)
    config: Mapping[str, Any]


class Buildah:
    """One storage. Everything may raise ImageBuildError."""

    def __init__(self, home: Path) -> None:
        self._home = home / "buildah"

    def check(self, title: str) -> None:
        """Raise the sentence that says what to install."""
        if shutil.which("buildah") is None:
            raise ImageBuildError(
                f"the image step {title} needs buildah, which is not on the machine that builds",
                hint="apt-get install buildah (or dnf install buildah), then run again",
            )

    async def has(self, name: str) -> bool:
        """Whether an image of that name is in the storage."""
        status, _ = await self._quietly("inspect", "--type", "image", "--format", "{{.FromImageID}}", name)
        return status == 0

    async def add(self, name: str, lowers: Sequence[Path], scratch: Path, config: Mapping[str, Any]) -> None:
        """Make an image of directories (topmost first). Its files are copied: buildah's storage is its own."""
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        seen = scratch / "seen"
        seen.mkdir()
        settings = _settings(config)
        words = [name, str(seen), str(self._home / "storage"), str(self._home / "run"), str(len(settings) // 2)]
        status, said = await _run([*_ALONE, "sh", "-c", _ADD, *words, *settings, *map(str, lowers)])
        if status != 0:
            raise ImageBuildError(f"the image so far could not be handed to buildah: {said.strip()[-400:]}")

    async def name(self, known: str, also: str) -> None:
        """Let an image of the storage be found under another name, too."""
        await self._said("tag", known, also)

    async def build(
        self, arguments: Sequence[str], context: Path, env: Mapping[str, str], on_output: Callable[[bytes], None]
    ) -> int:
        """`buildah bud` with layers kept. A cancelled one leaves no process. Returns the exit status."""
        common = ["bud", "--layers", "--pull=never", "--isolation", "chroot", "--network", "host", "--format", "oci"]
        process = await asyncio.create_subprocess_exec(
            *self._command(), *common, *arguments, str(context), env={**_environment(), **env}, start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            while piece := await process.stdout.read(1 << 16):
                on_output(piece)
            return await process.wait()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    async def made(self, name: str, base: str) -> Made:
        """What the image ``name`` holds above ``base`` ("" for nothing)."""
        described = json.loads(await self._said("inspect", "--type", "image", name))
        layers = {one["id"]: one for one in self._table("overlay-layers/layers.json")}
        top = self._top_layer(name)
        below = self._top_layer(base) if base else ""
        found: list[tuple[str, Path]] = []
        while top and top != below:
            found.append((layers[top]["diff-digest"], self._home / "storage/overlay" / top / "diff"))
            top = layers[top].get("parent", "")
        if top != below:
            raise ImageBuildError("what buildah made does not stand on the image that it was given")
        return Made(tuple(found), described.get("OCIv1", {}).get("config", {}))

    def stands_on(self, name: str, bases: Sequence[str]) -> str:
        """Which of the given images ``name`` stands on; "" for none."""
        layers = {one["id"]: one for one in self._table("overlay-layers/layers.json")}
        tops = {self._top_layer(base): base for base in bases}
        at = self._top_layer(name)
        while at:
            if at in tops:
                return tops[at]
            at = layers[at].get("parent", "")
        return ""

    def _top_layer(self, name: str) -> str:
        for image in self._table("overlay-images/images.json"):
            if f"{name}:latest" in image.get("names", ()) or name in image.get("names", ()):
                return str(image.get("layer", ""))
        raise ImageBuildError(f"buildah's storage has no image {name}", hint="run again with ALIGHT_FORCE_BUILD=1")

    def _table(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self._home / "storage" / name).read_bytes())
        return found

    async def _said(self, *arguments: str) -> str:
        status, said = await self._quietly(*arguments)
        if status != 0:
            raise ImageBuildError(f"buildah {arguments[0]} failed: {said.strip()[-400:]}")
        return said.strip()

    async def _quietly(self, *arguments: str) -> tuple[int, str]:
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return await _run([*self._command(), *arguments])

    def _command(self) -> list[str]:
        return [
            *_ALONE, "buildah", "--root", str(self._home / "storage"), "--runroot", str(self._home / "run"),
            "--storage-driver", "overlay",
        ]  # fmt: skip


def _settings(config: Mapping[str, Any]) -> list[str]:
    """Options of `buildah config` for what an image says of itself."""
    options = [word for name, value in config.get("env", {}).items() for word in ("--env", f"{name}={value}")]
    if config.get("workdir"):
        options += ["--workingdir", config["workdir"]]
    for name, option in (("entrypoint", "--entrypoint"), ("cmd", "--cmd"), ("shell", "--shell")):
        words = list(config.get(name) or ())
        if words and name == "entrypoint":
            options += [option, json.dumps(words)]
        elif words:
            options += [option, " ".join(words)]
    return options


def _environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE")
    return {name: os.environ[name] for name in kept if name in os.environ}


async def _run(argv: Sequence[str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *argv, env=_environment(), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return process.returncode or 0, said.decode("utf-8", "replace")
