#!/usr/bin/env python3
"""Measure how fast images are made, beside bare uv and `buildah bud` in the same run, and print a table.

    sudo .venv/bin/python bench/images.py                # everything: ten minutes, 25 GB of disk while it runs
    sudo .venv/bin/python bench/images.py pip tree       # of pip, tree, big, pull
    sudo .venv/bin/python bench/images.py --write        # and put the table into docs/performance.md

buildah gets the same base, the same network and its own layer cache; uv and buildah get a cache of packages that is
warm, as Alight's is. Goes through the public API and the command line; see run.py for what figures are worth.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import document
import machine as facts
from measured import Bench, Reading
from run import row
from scripts.images import WRITE, fill

MARKS = ("<!-- bench/images.py writes from here -->", "<!-- images to here -->")
PACKAGES = ("pandas", "scikit-learn", "httpx", "rich", "sqlalchemy")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Peer:
    """buildah with a storage of its own, and the base that Alight's images stand on."""

    def __init__(self, folder: Path, bench: Bench) -> None:
        self.folder = folder
        self.cache = folder / "uv-cache"
        self.cache.mkdir()
        self._storage = folder / "storage"
        image = bench.python("images.py", "base", "1")
        layers = json.loads(_said(bench, "image", "history", str(image), "--json"))
        container = self.run("from", "scratch").strip()
        root = Path(self.run("mount", container).strip())
        for layer in layers:
            place = bench.home / "node" / "layers" / layer["layer"]
            subprocess.run(["cp", "-a", f"{place}/.", root], check=True)
        self.run("config", "--env", f"PATH={PATH}", container)
        self.run("commit", "-q", container, "base")
        self.run("umount", container)
        self.run("rm", container)

    def run(self, *words: str, storage: Path | None = None) -> str:
        """One command of buildah; what it printed."""
        place = storage or self._storage
        own = ["--root", str(place / "root"), "--runroot", str(place / "run"), "--storage-driver", "overlay"]
        done = subprocess.run(["buildah", *own, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"buildah {words[0]} failed: {done.stderr[-1000:]}")
        return done.stdout + done.stderr

    def bud(self, lines: str, context: Path, name: str, *words: str) -> tuple[float, str]:
        """Seconds to build a Dockerfile, and what was printed."""
        (context / "Dockerfile").write_text(f"FROM localhost/base\n{lines}\n")
        lent = ["--isolation", "chroot", "--network", "host", "-v", f"{self.cache}:/root/.cache/uv"]
        for path in host_folders():
            lent += ["-v", f"{path}:{path}:ro"]
        if authority():
            lent += ["-v", f"{authority()}:/authority.pem:ro"]
        began = time.perf_counter()
        said = self.run("bud", *lent, *words, "-t", name, "-f", str(context / "Dockerfile"), str(context))
        return time.perf_counter() - began, said


def _said(bench: Bench, *words: str) -> str:
    """What a command of Alight printed."""
    command = [sys.executable, "-m", "alight", *words]
    return subprocess.run(command, env=bench.environment(), capture_output=True, text=True, check=True).stdout


def host_folders() -> list[str]:
    """Folders of packages that this machine's settings name, so that all have the same."""
    from alight.builder import HostConfig

    return [path for path, _, _ in HostConfig.read().step_binds()]


def lines_of_settings() -> str:
    """The same as lines of a Dockerfile."""
    found = {**index_settings(), "SSL_CERT_FILE": "/authority.pem" if authority() else ""}
    return "".join(f"ENV {name}={json.dumps(value)}\n" for name, value in found.items() if value)


def authority() -> str:
    """The certificates that this machine trusts."""
    from alight.builder import HostConfig

    return HostConfig.read().ca_bundle


def index_settings() -> dict[str, str]:
    """This machine's package index, as uv reads it."""
    from alight.builder import HostConfig

    return HostConfig.read().indexes.env()


def pip(bench: Bench, peer: Peer, rounds: int) -> list[Reading]:
    """A layer of packages, whose files are in each one's cache."""
    ours, bare, theirs = [], [], []
    words = " ".join(PACKAGES)
    env = {"UV_CACHE_DIR": str(peer.cache), **index_settings()}
    settings = lines_of_settings()
    run_line = f"{settings}RUN uv pip install --system --compile-bytecode {words}"
    _bare_uv(peer.folder / "warm-up", env)
    bench.python("images.py", "pip", "1", *PACKAGES)
    peer.bud(run_line, _empty(peer.folder / "pip"), "pip", "--no-cache")
    for number in range(rounds):
        bare.append(_bare_uv(peer.folder / f"bare-{number}", env))
        ours += bench.python("images.py", "pip", "1", *PACKAGES)["made"]  # type: ignore[index]
        theirs.append(peer.bud(run_line, peer.folder / "pip", "pip", "--no-cache")[0])
    again = bench.python("images.py", "pip", "0", *PACKAGES)["again"]  # type: ignore[index]
    peer.bud(run_line, peer.folder / "pip", "pip", "--layers")
    theirs_again = [peer.bud(run_line, peer.folder / "pip", "pip", "--layers")[0] for _ in range(rounds)]
    beyond = [one - other for one, other in zip(ours, bare, strict=True)]
    return [
        Reading(f"a layer of {len(PACKAGES)} packages and what they need", ours, "s"),
        Reading("bare `uv pip install --compile-bytecode`", bare, "s"),
        Reading("a layer of packages beyond bare uv, same round", beyond, "s", 0.5),
        Reading("`buildah bud --no-cache`, the same", theirs, "s"),
        Reading("that image again, nothing changed", [1e3 * one for one in again], "ms", 50),
        Reading("`buildah bud --layers`, nothing changed", [1e3 * one for one in theirs_again], "ms"),
    ]


def _bare_uv(target: Path, env: dict[str, str]) -> float:
    from alight.builder.bases import find_uv

    command = [find_uv(), "pip", "install", "-q", "--python", "3.11", "--compile-bytecode", "--target", str(target)]
    began = time.perf_counter()
    subprocess.run([*command, *PACKAGES], env={**os.environ, **env}, check=True)
    took = time.perf_counter() - began
    shutil.rmtree(target)
    return took


def tree(bench: Bench, peer: Peer, rounds: int) -> list[Reading]:
    """A directory of 10,000 files, 45 MB."""
    found = bench.python("images.py", "tree", str(rounds), "10000")
    theirs, changed = [], []
    for number in range(rounds):
        context = _empty(peer.folder / f"tree-{number}")
        (context / "data").mkdir()
        fill(context / "data", 10_000)
        theirs.append(peer.bud("COPY data /root/data", context, "tree", "--layers")[0])
        (context / "data/0/5").write_text(str(random.random()))
        changed.append(peer.bud("COPY data /root/data", context, "tree", "--layers")[0])
        shutil.rmtree(context)
    assert isinstance(found, dict)
    return [
        Reading("`add_local_dir` of 10,000 files, entering an app", found["new"], "s", 3.0),
        Reading("the same, one file changed", found["changed"], "s", 0.3),
        Reading("the same, nothing changed", found["same"], "s"),
        Reading("`add_local_dir(copy=True)` of 10,000 files", found["copied"], "s"),
        Reading("the same, one file changed", found["changed copy"], "s"),
        Reading("`buildah bud`, COPY of 10,000 files", theirs, "s"),
        Reading("the same, one file changed", changed, "s"),
    ]


def big(bench: Bench, peer: Peer, rounds: int) -> list[Reading]:
    """A step that writes 5 GB: what is left of its time once the writing is taken away."""
    del rounds
    ((seconds, wrote),) = bench.python("images.py", "big", "1")  # type: ignore[misc]
    context = _empty(peer.folder / "big")
    (context / "write.py").write_text(WRITE)
    took, said = peer.bud("COPY write.py /write.py\nRUN python3 /write.py", context, "big", "--no-cache")
    theirs = float(next(line for line in said.splitlines() if line.startswith("WROTE")).split()[1])
    return [
        Reading("a step that writes 5 GB, without the writing", [seconds - wrote], "s", note=f"writing {wrote:.0f} s"),
        Reading("`buildah bud`, the same", [took - theirs], "s", note=f"writing {theirs:.0f} s"),
    ]


def pull(bench: Bench, peer: Peer, rounds: int) -> list[Reading]:
    """An image of two layers from a registry on loopback."""
    del rounds
    from tests.system.registry import Registry

    with Registry(peer.folder / "registry") as registry:
        (bench.home / "registries.conf").write_text(f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n')
        bench.alight("server", "stop")
        context = _empty(peer.folder / "pull")
        words = ("--no-cache", "--layers")
        run_line = f"RUN --mount=type=bind,source=.,target=/x uv pip install --system {PACKAGES[0]}"
        settings = lines_of_settings()
        peer.bud(settings + run_line, context, "pulled", *words)
        tag = f"{registry.host}/bench/pulled:1"
        peer.run("push", "-q", "--tls-verify=false", "localhost/pulled", f"docker://{tag}")
        size = sum(path.stat().st_size for path in (peer.folder / "registry").rglob("data") if path.is_file())
        bench.alight("run", "hello.py")
        ours = bench.python("images.py", "pull", "1", tag)
        began = time.perf_counter()
        peer.run("pull", "-q", "--tls-verify=false", tag, storage=peer.folder / "fresh")
        theirs = time.perf_counter() - began
    assert isinstance(ours, list)
    return [
        Reading(f"an image of a registry on loopback, {size / 1e6:.0f} MB packed", ours, "s"),
        Reading("`buildah pull`, the same", [theirs], "s"),
    ]


CASES: dict[str, Callable[[Bench, Peer, int], list[Reading]]] = {"pip": pip, "tree": tree, "big": big, "pull": pull}


def main() -> int:
    """Run what was asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", choices=[[], *CASES], help=f"of {', '.join(CASES)}")
    parser.add_argument("--home", type=Path, default=Path("/var/tmp/alight-bench-images"))
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is done; 5 GB and the pull once")
    asked = parser.parse_args()
    readings: list[Reading] = []
    with _instance(asked.home) as bench, tempfile.TemporaryDirectory(dir=asked.home) as folder:
        peer = Peer(Path(folder), bench)
        for name in asked.cases or CASES:
            bench.say(name)
            try:
                readings += CASES[name](bench, peer, asked.rounds)
            except Exception as error:  # noqa: BLE001  one case that cannot run must not hide the others
                readings.append(Reading(name, [], "", note=f"could not be measured: {str(error).splitlines()[0]}"))
                print(error, file=sys.stderr)
    lines = [*(f"- {line}" for line in facts.describe()), f"- {_version('buildah', '--version')}", ""]
    lines += ["| what | p50 | p90 | n | budget | |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    text = "\n".join([*lines, *(row(one) for one in readings)])
    print(text)
    if asked.write:
        document.put(MARKS, text)
    return 0


@contextlib.contextmanager
def _instance(home: Path) -> Iterator[Bench]:
    """An instance that is gone afterwards: five gigabytes are not for keeping."""
    bench = Bench.start(home)
    try:
        yield bench
    finally:
        bench.close()
        subprocess.run(["rm", "-rf", home], check=False)


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _version(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
