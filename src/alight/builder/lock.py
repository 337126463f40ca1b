"""What a built image holds, step by step, so that it can be built again the same; and what such a lock asks of a step.

A step's ``what["locked"]`` is plain data, written by ``describe`` and read here:

    pip      lines that install what the step added: "six==1.16.0", or "name @ git+https://…@commit"
    hashes   for each of those lines, in order, the digests of its files, where the index tells them
    apt      "name=version" of each Debian package that it added or changed
    conda    addresses (#md5) of conda packages, or name=version=build
    python   the whole version of the Python that it brought
    base     the digest of a registry's image; ``bases`` of those that a Dockerfile names

``pip_install``, ``pip_install_private_repos``, ``apt_install`` and the conda steps install exactly that. Commands and
functions see the Python packages as constraints. What cannot be held to its lock is compared afterwards, and said.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from alight.builder import bases, digest, installed, recipe
from alight.builder.chain import Chain, with_record, with_setting
from alight.builder.conda import locked_install
from alight.builder.hostconfig import HostConfig
from alight.builder.installs import Command, Indexes, locked_apt, locked_pip
from alight.builder.layers import LayerStore, Record
from alight.builder.steps import LENT
from alight.wire.errors import NotFoundError
from alight.wire.spec import ImageSpec

_KINDS = ("pip", "apt", "conda")
_EXACT = frozenset({"pip_install", "pip_private"})
_CONSTRAINED = frozenset({"run", "run_function"})
_CONDA = frozenset({"micromamba", "micromamba_install"})
_SHOWN = 5


async def describe(store: LayerStore, host: HostConfig, spec: ImageSpec) -> tuple[dict[str, Any], ...]:
    """What each step of a recipe that was built here brought, in order; {} for one that brought nothing of the kind.

    Raises NotFoundError when the image is not on this machine.
    """
    walked = await asyncio.to_thread(_walk, store, spec)
    found = []
    for step, minor, what in walked:
        hashes = await _hashes(what["pip"], minor, host, step) if what.get("pip") and step.op in _EXACT else []
        found.append({**what, **({"hashes": hashes} if any(hashes) else {})})
    return tuple(found)


def command(plain: Command, step: recipe.Step, python: str, constraints: str = "") -> Command:
    """What makes a step with a lock: the command without one, or what installs exactly what the lock says.

    ``constraints``: files that this machine constrains pip and uv with.
    """
    locked = step.what.get("locked")
    if not locked:
        return plain
    lines = [str(one) for one in locked.get("pip", ())]
    if step.op in _EXACT and not _elsewhere(step):
        text = requirements(lines, locked.get("hashes") or (), partly="uv" in plain.argv)
        return locked_pip(plain, python, text, _kept_options(step))
    if step.op == "apt_install":
        return locked_apt(plain, [str(one) for one in locked.get("apt", ())])
    if step.op in _CONDA and locked.get("conda"):
        return locked_install(plain, [str(one) for one in locked["conda"]], begins=step.op == "micromamba")
    if not lines or step.op not in _CONSTRAINED:
        return plain
    # An address is no constraint that every pip takes, and neither is a hash.
    text = "".join(f"{line}\n" for line in lines if " @ " not in line)
    place = f"{constraints} {LENT}/locked.txt".lstrip()
    env = {**plain.env, "PIP_CONSTRAINT": place, "UV_CONSTRAINT": place}
    return replace(plain, env=env, files={**plain.files, "locked.txt": text.encode()})


def requirements(lines: Sequence[str], hashes: Sequence[Sequence[str]], *, partly: bool) -> str:
    """A requirements file. Digests are in it if every line has some, or ``partly``: uv takes that, and pip does not."""
    told = len(hashes) == len(lines) and (partly or all(hashes))
    rows = (
        " ".join([line, *(f"--hash={one}" for one in (hashes[number] if told else ()))])
        for number, line in enumerate(lines)
    )
    return "".join(f"{row}\n" for row in rows)


def differences(locked: Mapping[str, Any], before: installed.State, after: installed.State) -> list[str]:
    """How what a step brought differs from its lock, a line for each kind."""
    came = installed.added(before, after)
    said = []
    for kind in _KINDS:
        wanted = {str(one) for one in locked.get(kind, ())}
        extra, missing = sorted(set(came[kind]) - wanted), sorted(wanted - set(came[kind]))
        if extra or missing:
            words = [f"+{one}" for one in extra] + [f"-{one}" for one in missing]
            more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
            said.append(f"not as locked ({kind}): {', '.join(words[:_SHOWN])}{more}")
    if said and locked.get("debian"):
        said.append("Debian's mirrors keep the newest only: ALIGHT_DEBIAN_MIRROR may name a snapshot of that day")
    return said


def _walk(store: LayerStore, spec: ImageSpec) -> list[tuple[recipe.Step, str, dict[str, Any]]]:
    """Each step with the minor version of Python that it leaves, and what it brought."""
    chain, state = Chain(), installed.State()
    found: list[tuple[recipe.Step, str, dict[str, Any]]] = []
    for step in recipe.parse(spec):
        if not step.makes_layer:
            chain = with_setting(chain, step)
            found.append((step, "", {}))
            continue
        record = store.record(digest.step_key(chain.key, step.what))
        if record is None:
            raise NotFoundError(
                f"the image is not on this machine: {step.title} was not built here", hint="build it first"
            )
        after = state_after(store, state, record)
        chain = with_record(chain, record)
        what: dict[str, Any] = {kind: lines for kind, lines in installed.added(state, after).items() if lines}
        what.update(_origin(step, record))
        if step.op in _EXACT:
            what.setdefault("pip", [])  # nothing, which is something to hold a step to
        if step.op == "apt_install":
            what.setdefault("apt", [])
        found.append((step, recipe.minor_of(chain.python_version), what))
        state = after
    return found


def state_after(store: LayerStore, before: installed.State, record: Record) -> installed.State:
    """What is installed once the layers of a step lie on top of what was installed ``before``."""
    for layer in reversed(record.layers):
        before = installed.applied(before, installed.change(store.path(layer)))
    return before


def _origin(step: recipe.Step, record: Record) -> dict[str, Any]:
    facts = record.facts
    if step.op == "registry":
        return {"base": facts["digest"]}
    if step.op == "from_dockerfile" and facts.get("bases"):
        return {"bases": json.loads(facts["bases"])}
    if step.op == "debian_slim":
        return {"python": facts["python_version"], "debian": "1"}
    if step.op == "python" and "version" in step.what:
        return {"python": facts["python_version"]}
    return {}


async def _hashes(lines: Sequence[str], minor: str, host: HostConfig, step: recipe.Step) -> list[list[str]]:
    """The digests of each line's files, as the index tells them; [] where it does not. No package is run for it, so
    that those without wheels have none.
    """
    plain = [line for line in lines if " @ " not in line]
    found = await _asked_hashes(plain, minor, host, step)
    if not found and len(plain) > 1:
        several = asyncio.Semaphore(8)

        async def alone(line: str) -> dict[str, list[str]]:
            async with several:
                return await _asked_hashes([line], minor, host, step)

        for one in await asyncio.gather(*map(alone, plain)):
            found.update(one)
    return [found.get(line.lower(), []) for line in lines]


async def _asked_hashes(lines: Sequence[str], minor: str, host: HostConfig, step: recipe.Step) -> dict[str, list[str]]:
    indexes: Indexes = host.indexes.joined(step.what)
    version = ["--python-version", minor] if minor else []
    process = await asyncio.create_subprocess_exec(
        bases.find_uv(), "pip", "compile", "-q", "--no-deps", "--no-build", "--generate-hashes", "--no-header",
        "--no-annotate", "--prerelease=allow", *version, "-",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env={**host.own_env(), **indexes.env()}, cwd="/",
    )  # fmt: skip
    text, _ = await process.communicate("\n".join(lines).encode())
    return parse_hashes(text.decode(errors="replace"))


def parse_hashes(text: str) -> dict[str, list[str]]:
    """What follows each "name==version" of a requirements file with digests; the names in lower case."""
    found: dict[str, list[str]] = {}
    for line in re.sub(r"\\\s*\n", " ", text).splitlines():
        words = line.split()
        if words and "==" in words[0]:
            found[words[0].lower()] = [one.partition("=")[2] for one in words[1:] if one.startswith("--hash=")]
    return found


def _options(step: recipe.Step) -> list[str]:
    return shlex.split(step.what.get("extra_options") or "")


def _elsewhere(step: recipe.Step) -> bool:
    """Whether it installs to where nobody would look, or what the machine itself holds."""
    return any(
        one.partition("=")[0] in ("-t", "--target", "--prefix", "-e", "--editable", "--root") for one in _options(step)
    )


def _kept_options(step: recipe.Step) -> list[str]:
    """Options that say how, not what: those that name files or ask for newer versions would contradict the lock."""
    dropped = {"-r", "--requirement", "-c", "--constraint", "--constraints", "--extra", "--override", "--overrides"}
    alone = {"-U", "--upgrade", "--all-extras", "--no-deps", "--require-hashes", "--pre"}
    kept: list[str] = []
    words = iter(_options(step))
    for one in words:
        name, equals, _ = one.partition("=")
        if name in dropped or name in ("-P", "--upgrade-package", "--exclude-newer", "--resolution"):
            if not equals:
                next(words, None)
        elif name not in alone:
            kept.append(one)
    return kept
