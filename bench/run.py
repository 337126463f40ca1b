#!/usr/bin/env python3
"""Measure Alight against its budgets on this machine, and print a table.

    sudo .venv/bin/python bench/run.py                 # everything, in an instance of its own; some minutes
    sudo .venv/bin/python bench/run.py warm cold       # the cases named
    sudo .venv/bin/python bench/run.py --peer ray      # a peer in the same run, when it is installed
    sudo .venv/bin/python bench/run.py --peer ray --peer-python /tmp/peers/bin/python   # where it is installed
    sudo .venv/bin/python bench/run.py --profile server --profile client map   # and where their time went
    sudo .venv/bin/python bench/run.py --write         # and put the table into docs/performance.md

Goes through the public API and the command line only, in a state directory that is removed afterwards. Asserts nothing:
a wall time depends on who else uses the machine. Compare rows of one run; keep a run with the machine it was taken on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import document
import machine as facts
import sampling
from cases import CASES
from measured import Bench, Reading

PEERS = ("ray", "pool", "dask", "celery")
PEER_TIMEOUT_S = 600
MARKS = ("<!-- bench/run.py writes from here -->", "<!-- to here -->")


def main() -> int:
    """Run what was asked for and print the table."""
    options = arguments()
    bench = Bench.start(options.home)
    readings: list[Reading] = []
    try:
        for name in options.cases or CASES:
            began = time.monotonic()
            print(f"# {name}", file=sys.stderr, flush=True)
            try:
                with sampling.sampled(options.profile, options.home, name):
                    readings += CASES[name](bench)
                bench.say(f"took {time.monotonic() - began:.0f} s")
            except Exception as error:  # noqa: BLE001  one case that cannot run must not hide the others
                readings.append(Reading(name, [], "", note=f"could not be measured: {str(error).splitlines()[0]}"))
                print(error, file=sys.stderr)
    finally:
        bench.close()
    for peer in options.peer:
        print(f"# {peer}", file=sys.stderr, flush=True)
        readings += of_peer(peer, options.peer_python)
    text = report(readings)
    print(text)
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in readings], indent=1))
    if options.write:
        document.put(MARKS, text)
    return 0


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default all")
    parser.add_argument("--peer", action="append", default=[], choices=PEERS, help="measure this too, in the same run")
    parser.add_argument(
        "--peer-python", default=sys.executable, metavar="PATH", help="the interpreter that has the peers"
    )
    parser.add_argument(
        "--profile",
        action="append",
        default=[],
        choices=list(sampling.KINDS),
        metavar="NAME",
        help=f"say where the time of this process went, of {', '.join(sampling.KINDS)}; slows the run",
    )
    parser.add_argument("--home", type=Path, default=Path("/var/tmp/alight-bench"), help="state directory of the run")
    parser.add_argument("--json", type=Path, help="write the samples here")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    if options.profile and options.write:
        parser.error("figures taken with --profile are not for the document: leave --write out")
    return options


def of_peer(peer: str, python: str) -> list[Reading]:
    """A peer's rows, from a process of its own: what it imports and starts is no part of ours."""
    script = Path(__file__).with_name(f"peer_{peer}.py")
    done = subprocess.run([python, script], stdout=subprocess.PIPE, text=True, timeout=PEER_TIMEOUT_S, check=False)
    if done.returncode:
        return [Reading(peer, [], "", note="could not be measured here")]
    return [Reading(**row) for row in json.loads(done.stdout.splitlines()[-1])]


def report(readings: list[Reading]) -> str:
    """The table, with the machine above it."""
    lines = [*(f"- {line}" for line in facts.describe()), ""]
    lines += ["| what | p50 | p90 | n | budget | |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    lines += [row(one) for one in readings]
    return "\n".join(lines)


def row(one: Reading) -> str:
    """One line of the table."""
    if not one.samples:
        return f"| {one.what} | | | 0 | {budget(one)} | {one.note} |"
    middle = statistics.median(one.samples)
    worse = sorted(one.samples, reverse=one.more_is_better)[min(len(one.samples) - 1, int(0.9 * len(one.samples)))]
    verdict = ""
    if one.budget is not None:
        kept = middle >= one.budget if one.more_is_better else middle <= one.budget
        missed = f"{100 * middle / one.budget:.0f} % of" if one.more_is_better else f"{middle / one.budget:.1f} times"
        verdict = "within" if kept else f"**{missed} the budget**"
    note = ". ".join(part for part in (verdict, one.note) if part)
    return (
        f"| {one.what} | {figure(middle)} {one.unit} | {figure(worse)} | {len(one.samples)} | {budget(one)} | {note} |"
    )


def budget(one: Reading) -> str:
    """The budget as words."""
    if one.budget is None:
        return ""
    return f"{'≥' if one.more_is_better else '≤'} {figure(one.budget)} {one.unit}"


def figure(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
