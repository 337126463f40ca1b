#!/usr/bin/env python3
"""From a call to the first line of the user's function, in a container that is not there yet.

    sudo .venv/bin/python bench/cold_start.py                  # nothing and numpy imported; some minutes
    sudo .venv/bin/python bench/cold_start.py --kind torch     # and torch, whose image takes minutes to build once
    sudo .venv/bin/python bench/cold_start.py --write          # and put the tables into docs/performance.md

Plainly, from a template of level 1 and from one of level 2 (docs/templates.md), for functions whose module imports
nothing, numpy or torch; the first container of a function and the hundredth; beside `podman run` and a bare `python -c`
on the same root file system. One sample of each in turn, so that all meet the same machine: compare rows of one run.

Both clocks are CLOCK_MONOTONIC: the client's before `.remote()`, and the container's, which the function returns.
"""

from __future__ import annotations

import argparse
import collections
import json
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import document
import machine as facts
from bare import Bare
from measured import SCRIPTS, Bench

MARKS = ("<!-- bench/cold_start.py writes from here -->", "<!-- bench/cold_start.py writes to here -->")
KINDS = ("nothing", "numpy", "torch")
WAYS = ("plain", "level 1", "level 2", "podman run", "`python -c`")
STAGES = (
    "wait",
    "place",
    "image",
    "mounts",
    "network",
    "exec",
    "fork",
    "runtime",
    "import",
    "enter",
    "first_input",
    "other",
)
#: What the design asks of the median, in ms.
BUDGETS = {"plain": 80.0, "level 2": 15.0}
#: Starts that are not counted, while templates are made and forks get parked, and how long that may take.
SETTLING, SETTLING_S = 3, 20.0


@dataclass
class Client:
    """A process with an app of one kind on one instance."""

    process: subprocess.Popen[str]
    errors: Path

    @classmethod
    def start(cls, bench: Bench, kind: str) -> Client:
        """Builds the image when it is not there. Raises RuntimeError when that fails."""
        script = bench.folder / f"cold_start_{kind}.py"
        script.write_text((SCRIPTS / "cold_start.py").read_text().replace('KIND = "nothing"', f'KIND = "{kind}"'))
        return cls.of(bench, script)

    @classmethod
    def of(cls, bench: Bench, script: Path) -> Client:
        """A script that says ``ready`` and then answers line by line. Raises RuntimeError when it ends before."""
        errors = bench.folder / f"{script.stem}.stderr"
        with errors.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, str(script)],
                env=bench.environment(),
                cwd=bench.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        client = cls(process, errors)
        client._line("ready")
        return client

    def ask(self, *words: object) -> Any:
        """One of the script's commands, and its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return json.loads(self._line())

    def close(self) -> None:
        """Stop the app."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _line(self, wanted: str = "") -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not wanted or line.strip() == wanted:
                return line
        raise RuntimeError(f"the script ended: {self.errors.read_text()[-2000:]}")


@dataclass
class Subject:
    """One row: a way to start, of functions of one kind."""

    way: str
    kind: str
    client: Client | None = None
    function: str = "once"
    bare: Bare | None = None
    first: float | None = None
    samples: list[float] = field(default_factory=list)
    hundredth: list[float] = field(default_factory=list)
    containers: list[str] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)
    """Where the counted ones went: ``how``, and ms by stage."""

    def sample(self) -> float:
        """One start, in ms."""
        if self.client is None:
            assert self.bare is not None
            return self.bare.podman() if self.way == "podman run" else self.bare.python()
        found = self.client.ask("cold", self.function)
        self.containers.append(str(found["container"]))
        return float(found["ms"])


def main() -> int:
    """Measure what was asked for and print the tables."""
    options = arguments()
    began, machine = time.monotonic(), facts.describe()
    plain_home = options.home.with_name(f"{options.home.name}-plain")
    templates = Bench.start(options.home, ALIGHT_TEMPLATES="on")
    plain: Bench | None = None
    clients: list[Client] = []
    subjects: list[Subject] = []
    notes: list[str] = []
    try:
        for kind in options.kind:
            templates.say(f"an app that imports {kind}; its image is built when it is not there")
            try:
                clients.append(Client.start(templates, kind))
            except RuntimeError as error:
                notes.append(f"{kind}: left out, its image could not be built: {str(error).strip().splitlines()[-1]}")
                continue
            subjects.append(Subject("level 1", kind, clients[-1]))
            subjects.append(Subject("level 2", kind, clients[-1], "snapped"))
        copy_images(options.home, plain_home)
        plain = Bench.start(plain_home, ALIGHT_TEMPLATES="off")
        for kind in dict.fromkeys(one.kind for one in subjects):
            clients.append(Client.start(plain, kind))
            subjects.append(Subject("plain", kind, clients[-1]))
            bare = Bare(options.home, kind)
            subjects.append(Subject("`python -c`", kind, bare=bare))
            subjects.append(Subject("podman run", kind, bare=bare))
            try:
                bare.podman()
            except (OSError, RuntimeError) as error:
                subjects.pop()
                notes.append(f"podman run with {kind}: left out: {error}")
        measure(subjects, options, templates)
    finally:
        for client in clients:
            client.close()
        for subject in subjects:
            if subject.bare is not None:
                subject.bare.close()
        templates.close()
        if plain is not None:
            plain.close()
            shutil.rmtree(plain_home, ignore_errors=True)
    tables = report(subjects, [*machine, *notes])
    print(tables)
    templates.say(f"took {time.monotonic() - began:.0f} s")
    if options.json:
        options.json.write_text(json.dumps([_plain(one) for one in subjects], indent=1))
    if options.write:
        document.put(MARKS, tables)
    return 0


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", action="append", choices=KINDS, help="what is imported; default nothing and numpy")
    parser.add_argument("--starts", type=int, default=20, metavar="N", help="samples of each row (20)")
    parser.add_argument("--hundredth", type=int, default=8, metavar="N", help="starts beside 99 busy ones (8; 0: none)")
    parser.add_argument("--home", type=Path, default=Path("/var/tmp/alight-bench"), help="state directory of the run")
    parser.add_argument("--json", type=Path, help="write the samples here")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    options = parser.parse_args()
    options.kind = list(dict.fromkeys(options.kind or ["nothing", "numpy"]))
    return options


def measure(subjects: list[Subject], options: argparse.Namespace, bench: Bench) -> None:
    """All samples of all rows, in turn."""
    bench.say("the first container of each function")
    for subject in subjects:
        subject.first = subject.sample()
    bench.say("some that are not counted, until templates are made and forks wait")
    settled = time.monotonic() + SETTLING_S
    for _ in range(SETTLING):
        for subject in subjects:
            subject.sample()
        time.sleep(max(0.0, min(SETTLING_S / SETTLING, settled - time.monotonic())))
    for subject in subjects:
        subject.containers.clear()
    for number in range(options.starts):
        if number % 5 == 0:
            bench.say(f"round {number + 1} of {options.starts}")
        for subject in subjects:
            subject.samples.append(subject.sample())
    for subject in subjects:
        if subject.client is not None:
            subject.starts = subject.client.ask("starts", "-", *subject.containers)
    if options.hundredth:
        crowded = [one for one in subjects if one.client is not None and one.kind == "nothing"]
        for subject in crowded:
            assert subject.client is not None
            took = subject.client.ask("fill", subject.function, 99)["seconds"]
            bench.say(f"{subject.way}: 99 containers of one function were up after {float(took):.1f} s")
        for _ in range(options.hundredth):
            for subject in crowded:
                subject.hundredth.append(subject.sample())
        bench.say("they end")
        for subject in crowded:
            assert subject.client is not None
            subject.client.ask("drain", subject.function)


def copy_images(source: Path, target: Path) -> None:
    """Let another instance have the images, as hard links."""
    shutil.rmtree(target, ignore_errors=True)
    (target / "node").mkdir(parents=True)
    for folder in (target, target / "node"):
        folder.chmod(0o711)
    for part in ("layers", "images"):
        subprocess.run(["cp", "-al", source / "node" / part, target / "node" / part], check=True)


def report(subjects: list[Subject], notes: list[str]) -> str:
    """The tables, with the machine above them."""
    lines = [*(f"- {line}" for line in notes), ""]
    lines += ["| start | imports | p50 ms | p90 | p99 | n | first | hundredth | budget |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"]
    ordered = sorted(subjects, key=lambda one: (KINDS.index(one.kind), WAYS.index(one.way)))
    lines += [row(one) for one in ordered]
    return "\n".join([*lines, "", *ledger([one for one in ordered if one.starts])])


def row(one: Subject) -> str:
    """One line of the table."""
    cells = [one.way, one.kind]
    cells += [figure(at(one.samples, share)) for share in (0.5, 0.9, 0.99)] if one.samples else ["", "", ""]
    cells += [str(len(one.samples)), figure(one.first), figure(at(one.hundredth, 0.5)) if one.hundredth else ""]
    return "| " + " | ".join([*cells, verdict(one)]) + " |"


def verdict(one: Subject) -> str:
    """Against the budget, where there is one for this row."""
    budget = BUDGETS.get(one.way)
    if budget is None or not one.samples:
        return ""
    middle = statistics.median(one.samples)
    kept = "within" if middle <= budget else f"**{middle / budget:.1f} times**"
    return f"≤ {figure(budget)} ms: {kept}"


def at(samples: list[float], share: float) -> float:
    """The value that so much of them does not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def figure(value: float | None) -> str:
    """Three digits that mean something."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ledger(subjects: list[Subject]) -> list[str]:
    """Where the counted starts went, as Alight itself keeps it: the median of each stage."""
    names = [name for name in STAGES if any(name in start["stages"] for one in subjects for start in one.starts)]
    lines = ["| start | imports | how | " + " | ".join(name.replace("_", " ") for name in names) + " |"]
    lines += ["| --- | --- | --- |" + " ---: |" * len(names)]
    for one in subjects:
        hows = collections.Counter(start["how"] for start in one.starts)
        how = ", ".join(f"{count} {name.removesuffix(' 0')}" for name, count in hows.most_common())
        medians = []
        for name in names:
            took = [start["stages"].get(name) for start in one.starts]
            known = [value for value in took if value is not None]
            medians.append(figure(statistics.median(known)) if known else "")
        lines.append("| " + " | ".join([one.way, one.kind, how, *medians]) + " |")
    reasons = collections.Counter(f"{one.way}, {one.kind}: {why}" for one in subjects for why in _refused(one))
    return [*lines, *(["", *(f"- {count} times {why}" for why, count in reasons.items())] if reasons else [])]


def _refused(one: Subject) -> list[str]:
    return [why for start in one.starts for why in start["refused"]]


def _plain(one: Subject) -> dict[str, object]:
    return {name: getattr(one, name) for name in ("way", "kind", "first", "samples", "hundredth", "starts")}


if __name__ == "__main__":
    sys.exit(main())
