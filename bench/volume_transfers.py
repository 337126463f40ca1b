"""Files to and from a volume by the command line, beside `cp` of the same files. Rows of storage.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

VOLUME = "bench-storage"
BIG = 2 * 10**9
SMALL = 10_000


def transfers(session, bench, rounds, row_of, limit):
    """Files to and from outside."""
    folder = bench.folder / "transfers"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        big, many = folder / "big", folder / "many"
        with big.open("wb") as file:
            for _ in range(int(BIG * session.scale) >> 20):
                file.write(os.urandom(1 << 20))
        many.mkdir()
        for number in range(int(SMALL * session.scale)):
            (many / f"f{number}").write_bytes(os.urandom(2000))
        rows = []
        seconds = {"2 GB": BIG * session.scale / 500e6, "10,000 files": 5.0 * max(session.scale, 0.2)}
        for what, source in (("2 GB", big), ("10,000 files", many)):
            verbs = ("put", "put -f, all there,", "get")
            put, again, get = (row_of(f"volume {verb} {what} (bare: cp)") for verb in verbs)
            for number in range(rounds):
                os.sync()
                put.inside.append(bench.alight("volume", "put", VOLUME, str(source), f"/t{number}"))
                os.sync()  # before each: who writes after others waits for what they wrote
                again.inside.append(bench.alight("volume", "put", "-f", VOLUME, str(source), f"/t{number}"))
                os.sync()
                get.inside.append(bench.alight("volume", "get", VOLUME, f"/t{number}", str(folder / "got")))
                shutil.rmtree(folder / "got", ignore_errors=True)
                (folder / "got").unlink(missing_ok=True)
                bench.alight("volume", "rm", "-r", VOLUME, f"/t{number}")
                os.sync()
                put.bare.append(_copied(source, folder / "copy"))
            get.bare = put.bare
            rows += [limit(one, seconds[what]) for one in (put, again, get)]
        return rows
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copied(source: Path, target: Path) -> float:
    begun = time.perf_counter()
    subprocess.run(["cp", "-r", source, target], check=True)
    took = time.perf_counter() - begun
    shutil.rmtree(target, ignore_errors=True)
    target.unlink(missing_ok=True)
    return took
