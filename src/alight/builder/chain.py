"""What the steps of an image add up to, and one step on its way. Plain data: nothing here touches a disk."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from alight.builder import digest, layers, recipe, trouble
from alight.wire.errors import ImageBuildError

#: What every container starts with; an image's own ``env`` steps win.
STANDARD_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
PYTHON = "/usr/local/bin/python"


@dataclass(frozen=True)
class Chain:
    """What the steps so far add up to. ``layers`` are ids, the topmost first."""

    key: str = digest.ROOT
    layers: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: dict(STANDARD_ENV))
    workdir: str = "/root"
    shell: tuple[str, ...] = ("/bin/sh", "-c")
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    python_version: str = ""
    python: str = PYTHON
    uv: bool = True  # whether the image has one
    bare: bool = False  # nothing in it could run a command
    base: Mapping[str, str] = field(default_factory=dict)  # of a registry: the tag, and the digest that it had


@dataclass(frozen=True)
class Job:
    """One step being made, and whom to tell."""

    step: recipe.Step
    chain: Chain
    key: str
    secrets: Mapping[str, Mapping[str, str]]
    owner: str
    redact: trouble.Redactor
    tell: Callable[[str, str, float], None]  # kind, line, seconds

    def output(self) -> trouble.Output:
        return trouble.Output(self.redact, self.note)

    def note(self, line: str) -> None:
        self.tell("log", line, 0.0)


def with_record(chain: Chain, record: layers.Record) -> Chain:
    """The chain with what a step's record adds."""
    facts = record.facts
    if "config" in facts:
        chain = _with_config(chain, json.loads(facts["config"]), facts)
    env = {**chain.env, "PATH": f"{facts['path']}:{chain.env['PATH']}"} if "path" in facts else chain.env
    return replace(
        chain,
        key=record.key,
        layers=record.layers + chain.layers,
        env=env,
        python_version=facts.get("python_version", chain.python_version),
        python=facts.get("python", chain.python),
        uv=facts.get("uv", "1" if chain.uv else "") != "",
        bare=chain.bare or "bare" in facts,
    )


def _with_config(chain: Chain, config: Mapping[str, Any], facts: Mapping[str, str]) -> Chain:
    """What a registry image says of itself. Its USER is not taken over: functions run as root, as on every image."""
    return replace(
        chain,
        env={**chain.env, **config["env"]},
        workdir=config["workdir"] if config["workdir"].startswith("/") else chain.workdir,
        entrypoint=tuple(config["entrypoint"]),
        cmd=tuple(config["cmd"]),
        shell=tuple(config["shell"]) or chain.shell,
        python="",
        base={"tag": facts["tag"], "digest": facts["digest"]},
    )


def with_setting(chain: Chain, step: recipe.Step) -> Chain:
    """The chain with a setting changed, which makes no layer."""
    what = step.what
    # Even what makes no layer changes what later commands do.
    chain = replace(chain, key=digest.step_key(chain.key, what))
    if step.op == "env":
        values = {name: str(value) for name, value in what.get("vars", {}).items()}
        if what.get("expand"):
            values = {name: _expanded(value, chain.env) for name, value in values.items()}
        return replace(chain, env={**chain.env, **values})
    if step.op == "workdir":
        return replace(chain, workdir=recipe.normal_path(what["path"]))
    args = tuple(str(one) for one in what.get("args", ()))
    if step.op == "shell":
        return replace(chain, shell=args or ("/bin/sh", "-c"))
    if step.op == "entrypoint":
        return replace(chain, entrypoint=args)
    if step.op == "cmd":
        return replace(chain, cmd=args)
    return chain  # an install of nothing


def _expanded(value: str, env: Mapping[str, str]) -> str:
    """As a Dockerfile's ENV does: $NAME and ${NAME} are what they were before."""
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: env.get(found[1] or found[2], ""), value)


def secret_values(step: recipe.Step, secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What a step's secrets put into its environment. Raises ImageBuildError for one that was not given."""
    values: dict[str, str] = {}
    for one in step.secrets:
        if one not in secrets:
            raise ImageBuildError(f"the image step {step.title} asks for a secret that was not given")
        values.update(secrets[one])
    return values
