"""A lab whose containers are forks of a template that runs nothing of Alight, and fixtures over both kinds of lab."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alight.node.engine.base import ContainerPlan, ContainerState
from alight.node.engine.oci import OciEngine
from alight.node.users import CannotMap
from tests.system.lab import Lab

PROGRAM = Path(__file__).with_name("plain_template.py").read_text(encoding="utf-8")
TEMPLATE = "tp-lab"
_EXECUTE = """
import os, signal
for one in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(one, signal.SIG_DFL)
os.execvp({0!r}, {1!r})
"""


class ForkingEngine:
    """An engine whose ``start`` forks; the rest is the engine's own."""

    def __init__(self, engine: OciEngine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def start(self, plan: ContainerPlan) -> ContainerState:
        try:
            return await self._engine.forks.start_fork(TEMPLATE, told(plan))
        except CannotMap:
            # Such a plan has the host's users and no fork, as the node's agent would find out, too.
            return await self._engine.start(plan)


class ForkedLab(Lab):
    """A lab with a template in it, which ends with it."""

    def __init__(self, layers: tuple[str, ...], home: Path, runtime: str = "runc") -> None:
        super().__init__(layers, home, runtime)
        self.plain = self.engine
        self.forks = self.engine.forks
        if self.forks is None:
            self.close()
            pytest.skip("this machine's kernel has no user namespaces or idmapped mounts")
        self.engine = ForkingEngine(self.engine)
        self.upper = self.open(TEMPLATE)

    def open(self, template_id: str, program: str = PROGRAM, image: str = "image") -> str:
        """Make a template; what it wrote."""
        plan = ContainerPlan(template_id, self.layers, ("python3", "-c", program), {"PATH": "/usr/bin:/bin"})
        self.run(self.forks.open_template(plan, image))
        self.until(lambda: "template up" in self.printed(template_id))
        return self.run(self.forks.arm(template_id))

    def park(self, plan: ContainerPlan, name: str) -> None:
        """Have a fork wait for a plan like this."""
        self.run(self.forks.park(TEMPLATE, replace(told(plan), id=name)))

    def close(self) -> None:
        self.engine = self.plain
        super().close()


def told(plan: ContainerPlan) -> ContainerPlan:
    """The plan, whose command the template's fork runs: Python code in it, other programs in its place."""
    code = plan.argv[2] if plan.argv[:2] == ("python3", "-c") else _EXECUTE.format(plan.argv[0], list(plan.argv))
    return replace(plan, env={**plan.env, "CODE": code})


def _lab(kind: type[Lab], layers: tuple[str, ...]) -> Any:
    home = Path(tempfile.mkdtemp(prefix="alight-"))
    try:
        lab = kind(layers, home)
        yield lab
        lab.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def forked_lab(base_layers):
    yield from _lab(ForkedLab, base_layers)


@pytest.fixture(scope="module", params=[Lab, ForkedLab], ids=["plain", "forked"])
def lab(request, base_layers):
    """Both kinds, for tests of what a container is, however it came to be."""
    yield from _lab(request.param, base_layers)
