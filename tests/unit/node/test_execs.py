"""What a program that joins a container starts with: the container's environment, and nothing of ours replaced."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from alight.node.engine.base import ContainerPlan
from alight.node.engine.execs import ProgramError
from alight.node.execs import Execs, remember
from alight.wire import errors
from alight.wire.execs import ExecStart, ExecWord, NodeExec


class Engine:
    """An engine in which no program can be started. It keeps what it was asked for."""

    def __init__(self, folder, says='exec: "x": executable file not found in $PATH'):
        self.folder = folder
        self.says = says
        self.plan = None

    def directory(self, container_id):
        return self.folder

    async def list(self):
        return []

    async def exec(self, container_id, plan):
        self.plan = plan
        raise ProgramError(self.says)


class Stream:
    def __init__(self, asked):
        self.asked = asked
        self.said = []

    def arguments(self, kind):
        assert kind is NodeExec
        return self.asked

    async def send(self, word, body=b""):
        self.said.append(word)


def serve(engine, start, env, *, running=True):
    stream = Stream(NodeExec(start, env))
    containers = {"ta-1": SimpleNamespace(running=running)}
    asyncio.run(Execs(engine, containers).serve(stream))
    return stream.said


@pytest.fixture
def engine(tmp_path):
    plan = ContainerPlan("ta-1", (), ("python",), {"PATH": "/bin", "ALIGHT_TASK_ID": "ta-1"}, cwd="/work")
    remember(tmp_path, SimpleNamespace(plan=plan, env={"ALIGHT_TASK_ID": "ta-1"}))
    assert (tmp_path / "exec.json").stat().st_mode & 0o077 == 0
    return Engine(tmp_path)


def test_it_has_the_containers_environment_and_the_functions_secrets(engine):
    start = ExecStart("ta-1", ("x",), env={"MINE": "1"}, terminal=True, rows=7, columns=9, term="xterm")
    serve(engine, start, {"TOKEN": "secret", "ALIGHT_TASK_ID": "another"})
    assert engine.plan.env == {
        "PATH": "/bin",
        "ALIGHT_TASK_ID": "ta-1",  # a secret of that name changes nothing
        "TOKEN": "secret",
        "TERM": "xterm",
        "MINE": "1",
    }
    assert (engine.plan.cwd, engine.plan.terminal) == ("/work", (7, 9))


@pytest.mark.parametrize(
    ("says", "status"),
    [('"x": executable file not found in $PATH', 127), ("no such file or directory", 127), ("permission denied", 126)],
)
def test_a_program_that_cannot_be_started_ends_like_in_a_shell(engine, says, status):
    engine.says = says
    assert serve(engine, ExecStart("ta-1", ("x",)), {}) == [ExecWord("ended", status, says)]


def test_a_container_that_does_not_run_has_no_programs(engine):
    with pytest.raises(errors.NotFoundError, match="ta-1 does not run"):
        serve(engine, ExecStart("ta-1", ("x",)), {}, running=False)
    with pytest.raises(errors.NotFoundError, match="ta-2 does not run"):
        serve(engine, ExecStart("ta-2", ("x",)), {})
