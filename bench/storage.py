#!/usr/bin/env python3
"""Volumes against the bare disk that they lie on, and what commits and snapshots take.

    sudo .venv/bin/python bench/storage.py                 # some minutes; 4 GB files, 10 GB for the snapshots
    sudo .venv/bin/python bench/storage.py --scale 0.1     # a look, with a tenth of the bytes and files
    sudo .venv/bin/python bench/storage.py --json out.json
    sudo .venv/bin/python bench/storage.py --write         # and put the table into docs/performance.md

Container and bare disk take turns in every round, each round in another order, since a disk is not the same a minute
later: compare rows of one run. The share is of medians. Reads follow a flush of the file's pages.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import document
import machine as facts
import volume_transfers
from cold_start import Client
from measured import Bench

MARKS = ("<!-- bench/storage.py writes from here -->", "<!-- bench/storage.py writes to here -->")
GB = 10**9
VOLUME = "bench-storage"


@dataclass
class Row:
    """Samples in seconds, inside a container and outside; ``kept`` says in words whether a budget was."""

    what: str
    inside: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    budget: str = ""
    kept: str = ""


@dataclass
class Session:
    """A container with its volume, and a directory of the same filesystem."""

    client: Client
    bare: Path
    scale: float

    def inside(self, verb: str, size: float) -> float:
        return float(self.client.ask("inside", verb, int(size * self.scale)))

    def outside(self, verb: str, size: float) -> float:
        return float(self.client.ask("bare", verb, int(size * self.scale), self.bare))

    def turns(self, row: Row, verb: str, size: float, rounds: int) -> Row:
        """The same inside and outside, in turns."""
        for number in range(rounds):
            for where in ("inside", "bare") if number % 2 else ("bare", "inside"):
                ask = self.inside if where == "inside" else self.outside
                (row.inside if where == "inside" else row.bare).append(ask(verb, size))
        return row


def main() -> int:
    """Measure, print, and write if asked to."""
    options = arguments()
    described = facts.describe()
    bench = Bench.start(options.home)
    bare = options.home / "bare"
    shutil.rmtree(bare, ignore_errors=True)
    bare.mkdir()
    client = None
    try:
        client = start(bench)
        rows = measure(Session(client, bare, options.scale), bench, options.rounds, options.only)
    finally:
        if client is not None:
            client.close()
        shutil.rmtree(bare, ignore_errors=True)
        bench.alight("volume", "delete", VOLUME, "-y")
        bench.close()
    text = "\n".join(f"- {line}" for line in described) + "\n" + table(rows)
    print(text)
    if options.write:
        document.put(MARKS, text)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 0


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of each pair (5)")
    parser.add_argument("--scale", type=float, default=1.0, help="of bytes and files (1)")
    parser.add_argument("--home", type=Path, default=Path("/var/tmp/alight-bench"), help="state directory of the run")
    parser.add_argument("--json", type=Path, help="write the samples here")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--only", action="append", choices=[part.__name__ for part in PARTS], help="a part of it")
    options = parser.parse_args()
    options.only = options.only or [part.__name__ for part in PARTS]
    return options


def start(bench: Bench) -> Client:
    """The script, with its container up."""
    script = bench.folder / "cold_start_storage.py"
    source = Path(__file__).resolve().parent / "scripts" / "storage.py"
    script.write_text(source.read_text())
    return Client.of(bench, script)


def measure(session: Session, bench: Bench, rounds: int, parts: list[str]) -> list[Row]:
    """The rows of these parts."""
    rows: list[Row] = []
    for part in PARTS:
        if part.__name__ in parts:
            bench.say((part.__doc__ or "").strip())
            rows += part(session, bench, rounds)
            session.inside("clear", 0)
            session.outside("clear", 0)
    return rows


def large(session: Session, _: Bench, rounds: int) -> list[Row]:
    """One large file."""
    written = share(session.turns(Row("write and fsync 4 GB"), "write", 4 * GB, rounds), 0.95)
    return [written, share(session.turns(Row("read 4 GB from the disk"), "read", 4 * GB, rounds), 0.95)]


def small(session: Session, _: Bench, rounds: int) -> list[Row]:
    """Many small files."""
    return [share(session.turns(Row("create and stat 20,000 files"), "small", 20_000, rounds), 0.9)]


def commits(session: Session, _: Bench, rounds: int) -> list[Row]:
    """Commits of much and of nothing."""
    row = Row("commit of 1 GB (bare: fsync, in the container)")
    for number in range(2 * rounds):
        for verb in ("commit", "fsync") if number % 2 else ("fsync", "commit"):
            (row.inside if verb == "commit" else row.bare).append(session.inside(verb, GB))
    row.budget = "≤ fsync + 50 ms"
    over = 1000 * (statistics.median(row.inside) - statistics.median(row.bare))
    row.kept = f"{over:+.0f} ms: " + ("kept" if over <= 50 else "**over**")
    rows = [row]
    session.inside("clear", 0)
    session.inside("fill", 100_000)
    session.outside("fill", 100_000)
    row = session.turns(Row("commit of nothing, 100,000 files (bare: a walk)"), "idle", 0, rounds)
    return [*rows, limit(row, 0.05)]


def snapshots(session: Session, bench: Bench, rounds: int) -> list[Row]:
    """A first snapshot, and later ones."""
    session.inside("spread", 10 * GB)
    first = Row("first snapshot, 10 GB in 1,000 files (whole command)", [bench.alight("volume", "snapshot", VOLUME)])
    row = Row("second snapshot, one file changed (whole command)")
    for number in range(rounds):
        session.client.ask("inside", "touch", number)
        row.inside.append(bench.alight("volume", "snapshot", VOLUME))
    return [first, limit(row, 1.0)]


def transfers(session: Session, bench: Bench, rounds: int) -> list[Row]:
    """Files to and from outside, by the command line."""
    return volume_transfers.transfers(session, bench, rounds, Row, limit)


PARTS = (large, small, commits, snapshots, transfers)


def share(row: Row, least: float) -> Row:
    """Against a budget as a share of the bare disk's speed."""
    found = statistics.median(row.bare) / statistics.median(row.inside)
    row.budget = f"≥ {least:.0%} of the bare disk"
    row.kept = f"{found:.0%}: " + ("kept" if found >= least else "**under**")
    return row


def limit(row: Row, seconds: float) -> Row:
    """Against a budget in seconds."""
    row.budget = f"≤ {1000 * seconds:.0f} ms"
    row.kept = "kept" if statistics.median(row.inside) <= seconds else "**over**"
    return row


def table(rows: list[Row]) -> str:
    """As the documentation has it."""
    lines = ["", "| what | container, ms | bare, ms | n | budget | |", "| --- | ---: | ---: | ---: | --- | --- |"]
    for row in rows:
        cells = [f"{1000 * statistics.median(some):,.1f}" if some else "" for some in (row.inside, row.bare)]
        lines.append(f"| {row.what} | {' | '.join(cells)} | {len(row.inside)} | {row.budget} | {row.kept} |")
    return "\n".join(lines)


if __name__ == "__main__":
    began = time.monotonic()
    status = main()
    print(f"took {time.monotonic() - began:.0f} s", file=sys.stderr)
    sys.exit(status)
