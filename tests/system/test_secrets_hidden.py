"""Values of secrets reach the containers that ask for them and are nowhere else: each place is searched for them."""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from pathlib import Path

import pytest

SCRIPT = """
import os, resource
import alight

app = alight.App("hidden")
at_build = alight.Secret.from_dict({"BUILD": os.environ.get("WORD_BUILD", "")})
image = alight.Image.debian_slim("3.11").run_commands('test -n "$BUILD" && echo made > /made', secrets=[at_build])
named = alight.Secret.from_name("hidden", required_keys=["NAMED"])
anonymous = alight.Secret.from_dict({"ANONYMOUS": os.environ.get("WORD_ANONYMOUS", "")})


@app.function(image=image, secrets=[named, anonymous], env={"ENV": os.environ.get("WORD_ENV", "")})
def holds(fail):
    if fail:
        token = os.environ["NAMED"]
        raise RuntimeError("it failed")
    return [name for name in ("NAMED", "ANONYMOUS", "ENV", "BUILD") if os.environ.get(name)]


@app.function(image=image, secrets=[named], enable_memory_snapshot=True)
def snapped():
    return "NAMED" in os.environ


@app.function(image=image)
def plain():
    return "NAMED" in os.environ, resource.getrlimit(resource.RLIMIT_CORE)[0]
"""
CALLS = """
import alight

def call(name, *args):
    return alight.Function.from_name("hidden", name).remote(*args)

assert call("holds", False) == ["NAMED", "ANONYMOUS", "ENV"], call("holds", False)
assert call("snapped") and call("snapped")
assert call("plain") == (False, 0), call("plain")
try:
    call("holds", True)
except RuntimeError:
    import traceback
    traceback.print_exc()
"""


class Search:
    """Looks for words and notes where it found them."""

    def __init__(self, words: dict[str, str]) -> None:
        self._words = {name: word.encode() for name, word in words.items()}
        self.found: list[tuple[str, str]] = []

    def text(self, where: str, content: bytes | str) -> None:
        content = content.encode() if isinstance(content, str) else content
        self.found += [(name, where) for name, word in self._words.items() if word in content]

    def files(self, root: Path) -> None:
        """Every file: the database with its journal, logs, layers, what runtimes keep, the bundles of containers."""
        for folder, _, names in os.walk(root):
            for path in (Path(folder, name) for name in names):
                if path.is_file() and not path.is_symlink():
                    try:
                        self.text(str(path), path.read_bytes())
                    except OSError:
                        continue  # gone meanwhile

    def processes(self) -> None:
        """What everybody on the machine may see of processes, and what their user may."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) not in {os.getpid(), os.getppid()}:
                for what in ("cmdline", "environ"):
                    try:
                        self.text(str(entry / what), (entry / what).read_bytes())
                    except OSError:
                        continue

    def memory(self, pid: int) -> set[str]:
        """Which words are in a process's memory."""
        before, self.found = self.found, []
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for line in maps:
                start, end, access = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line).groups()
                if "r" in access and "[v" not in line:
                    memory.seek(int(start, 16))
                    try:
                        self.text("memory", memory.read(int(end, 16) - int(start, 16)))
                    except OSError:
                        continue
        found, self.found = {name for name, _ in self.found}, before
        return found


@pytest.fixture
def words():
    return {name: f"zq{secrets.token_hex(12)}" for name in ("NAMED", "ANONYMOUS", "ENV", "BUILD")}


@pytest.mark.slow
def test_values_are_in_no_file_log_layer_process_list_or_answer(fresh_machine, tmp_path, words):
    machine, search = fresh_machine, Search(words)
    script, program, values = tmp_path / "hidden.py", tmp_path / "program.py", tmp_path / "values.env"
    script.write_text(SCRIPT)
    program.write_text(CALLS)
    values.write_text(f"NAMED='{words['NAMED']}'\n")
    at_home = {f"WORD_{name}": word for name, word in words.items()}
    said = [machine.run("secret", "create", "hidden", "--from-dotenv", values)]
    said.append(machine.run("deploy", script, **at_home))
    said.append(machine.python(program))
    node = next(pid for pid, line in machine.processes().items() if "alight.node --home" in line)
    # It handed them to containers, and has not used all of that memory for something else since.
    assert search.memory(node) & {"NAMED", "ANONYMOUS", "ENV"}, "the search finds nothing where it must"
    for pid, line in machine.processes().items():
        if "alight.node.spawner" in line:
            assert search.memory(pid) == set(), f"the spawner has seen a value: {line}"
    machine.run("secret", "create", "hidden", "--force", "--from-dotenv", values)
    machine.run("server", "backup", tmp_path / "backup", "--with-key")

    search.processes()
    for root in (machine.home, Path("/run"), tmp_path / "backup"):
        search.files(root)
    commands = [
        "container list --all --json", "app list --json", "call list --json", "secret list --json", "image list --json",
        "app history hidden --json", "server status --json", "config show", "server logs -n 10000", "doctor",
        "server logs --of node", "server logs --of spawner",
    ]  # fmt: skip
    commands += [f"container show {row['container_id']} --json" for row in machine.json("container", "list")]
    for row in machine.json("image", "list"):
        commands += [f"image show {row['digest'][:12]} --json", f"image logs {row['digest'][:12]} --all"]
    said += [machine.run(*command.split(), status=None) for command in commands]
    for one in said:
        search.text(f"the output of {one.args}", one.stdout + one.stderr)
    assert "it failed" in said[2].stderr
    assert search.found == []

    with (machine.home / "log/server.log").open("a") as file:
        file.write(words["NAMED"])
    search.files(machine.home)
    assert search.found == [("NAMED", str(machine.home / "log/server.log"))], "the search finds what is there"


def test_templates_of_an_image_never_see_a_value(fresh_machine, tmp_path, words):
    machine, search = fresh_machine, Search(words)
    script, program = tmp_path / "hidden.py", tmp_path / "program.py"
    script.write_text(SCRIPT)
    program.write_text(CALLS)
    machine.run("secret", "create", "hidden", f"NAMED={words['NAMED']}")
    machine.run("deploy", script, **{f"WORD_{name}": word for name, word in words.items()})
    machine.python(program)
    until = time.monotonic() + 120
    while not _shared_templates(machine):
        assert time.monotonic() < until, "there is no template of the image"
        time.sleep(0.2)
    machine.python(program)  # forks of it get values now
    looked_at = 0
    for pid in _shared_templates(machine):
        try:
            assert search.memory(pid) == set()
            looked_at += 1
        except FileNotFoundError:
            continue  # it has ended meanwhile
    assert looked_at, "there is no template of the image"


def _shared_templates(machine) -> list[int]:
    """Processes of level 1 templates: of an image, for all functions of an owner."""
    try:
        rows = json.loads((machine.home / "run/templates.json").read_text())["templates"]
    except FileNotFoundError:
        return []
    names = [row["id"] for row in rows if row["level"] == 1 and row["ready"]]
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                groups = (entry / "cgroup").read_text()
            except OSError:
                continue
            if any(name in groups for name in names):
                found.append(int(entry.name))
    return found
