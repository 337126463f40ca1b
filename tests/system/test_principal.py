"""A container is a principal: what code inside may not do, row by row, asked from a real function of a real app."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.machine import Machine

MARK = "m4rk3r"

SCRIPT = '''
import json
import os
import socket
import subprocess
import sys

import alight

image = alight.Image.debian_slim(python_version="3.11")
app = alight.App("principal", image=image)
mine = alight.Volume.from_name("principal-mine", create_if_missing=True)
named = alight.Secret.from_name("principal-own")
inline = alight.Secret.from_dict({"INLINE": "m4rk3r-inline", "MODAL_TASK_ID": "m4rk3r-forged", "ALIGHT_SDK": "/nowhere",
                                  "ALIGHT_LINK": "/nowhere", "ALIGHT_IS_REMOTE": "0",
                                  "MODAL_ENVIRONMENT": "m4rk3r-forged"})


def ask(method, args, reply=dict):
    """What the server says to this container: "ok …", or the error's type and text."""
    from alight.sdk.client import default_client
    from alight.sdk.sync import run

    try:
        return "ok " + json.dumps(run(default_client().call(method, args, reply)))
    except alight.exception.Error as error:
        return f"{type(error).__name__}: {error}"


@app.function(volumes={"/mine": mine}, secrets=[named, inline], env={"GIVEN": "m4rk3r-given"})
def try_all(rows: str) -> str:
    return json.dumps([ask(method, args) for method, args in json.loads(rows)])


@app.function(volumes={"/mine": mine.read_only()})
def commit_read_only() -> str:
    try:
        mine.commit()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "committed"


@app.function(secrets=[named, inline], env={"GIVEN": "m4rk3r-given"})
def what_is_seen() -> str:
    environs = b""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        environs += open(f"/proc/{pid}/environ", "rb").read()
    # Backwards: a result is kept, and what is kept must not hold a secret's value in this test.
    found = {name: os.environ.get(name, "")[::-1] for name in (
        "NAMED", "INLINE", "GIVEN", "MODAL_TASK_ID", "ALIGHT_TASK_ID", "ALIGHT_SDK", "ALIGHT_LINK", "ALIGHT_IS_REMOTE",
        "MODAL_IS_REMOTE", "MODAL_ENVIRONMENT")}
    code = "import os; print(os.environ['NAMED'])"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return json.dumps({"environs": "m4rk3r" in environs.decode(errors="replace"), "found": found,
                       "child": child.stdout.strip()[::-1], "again": second.remote(2)})


@app.function()
def second(number: int) -> int:
    return number * 2


def frames(stream_head, kind="OPEN"):
    from alight.wire.codec import PREFACE, FrameReader, Kind, encode_frame

    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    s.connect("/run/alight/sdk.sock")
    hello = json.dumps({"wire": 1, "version": "0", "role": "node", "token_id": "x", "token_secret": "y"}).encode()
    s.sendall(PREFACE + b"".join(encode_frame(Kind.HELLO, 0, hello)))
    s.sendall(b"".join(encode_frame(getattr(Kind, kind), 1, json.dumps(stream_head).encode())))
    reader = FrameReader()
    while True:
        data = s.recv(65536)
        if not data:
            return "closed"
        for frame in reader.feed(data):
            if frame.stream == 1:
                return frame.head.decode()


@app.function()
def forge(victim: str) -> str:
    link = subprocess.run([sys.executable, "-c", """
import json, socket, struct, sys
sys.path.append('/opt/alight/lib')
from alight.wire.codec import Kind, encode_frame
s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect('/run/alight/link.sock')
hello = json.dumps({'wire': 1, 'version': '0', 'pid': 2, 'python': '3.11.2', 'running': [], 'ready': True}).encode()
try:
    s.sendall(b''.join(encode_frame(Kind.HELLO, 0, hello)))
    print(s.recv(1000))
except OSError as error:
    print(type(error).__name__)
"""], capture_output=True, text=True)
    inside = socket.socket(socket.AF_UNIX)
    inside.settimeout(5)
    inside.connect("/run/alight/link.sock")
    try:
        inside.sendall(b"x" * 10)
        own = repr(inside.recv(1000))
    except OSError as error:
        own = type(error).__name__
    task = os.environ["MODAL_TASK_ID"]
    return json.dumps({
        "as another": frames({"method": "volume.list", "args": {}, "container": victim}),
        "tokens as another": frames({"method": "token.list", "args": {}, "container": victim}),
        "tokens as the server": frames({"method": "token.list", "args": {}, "container": ""}),
        "a node's session": frames({"method": "node.session", "args": {}}),
        "link from a child": link.stdout.strip() or link.stderr,
        "link again": own,
        "task": task,
    })


@app.function(restrict_modal_access=True)
def restricted() -> str:
    found = sorted(os.listdir("/run/alight"))
    try:
        second.remote(1)
    except Exception as error:
        return json.dumps([found, f"{type(error).__name__}: {error}"])
    return json.dumps([found, "called"])


@app.function(block_network=True)
def blocked() -> str:
    names = [name for _, name in socket.if_nameindex()]
    tried = []
    for target in (("1.1.1.1", 53), ("169.254.169.254", 80), ("deb.debian.org", 80)):
        try:
            socket.create_connection(target, timeout=3).close()
            tried.append("reached")
        except OSError as error:
            tried.append(type(error).__name__)
    return json.dumps([names, tried, second.remote(4)])


@app.function(secrets=[named], timeout=20)
def says_it() -> None:
    raise ValueError("no secret of mine is in any log of Alight's")
'''

_ROWS = {
    "list tokens": ("token.list", {}),
    "create a token": ("token.create", {"name": "mine"}),
    "create a machine's token": ("token.create", {"node": True}),
    "delete a token": ("token.delete", {"token_id": "to-1"}),
    "approve a set-up": ("setup.approve", {"code": "AAAA-AAAA"}),
    "see who wants to be let in": ("setup.pending", {}),
    "begin a set-up": ("setup.begin", {"nonce": "0" * 32, "hostname": "x"}),
    "poll a set-up": ("setup.poll", {"request_id": "x", "nonce": ""}),
    "stop the server": ("server.stop", {}),
    "read the server's settings": ("server.info", {}),
    "make an app": ("app.create", {"name": "evil"}),
    "publish": ("app.publish", {"app_id": "ap-0000000000000000000000", "functions": []}),
    "stop an app": ("app.stop", {"app_id": "ap-0000000000000000000000"}),
    "detach an app": ("app.detach", {"app_id": "ap-0000000000000000000000"}),
    "list apps": ("app.list", {}),
    "watch an app": ("app.watch", {"app_id": "ap-0000000000000000000000"}),
    "build an image": ("image.ensure", {"app_id": "ap-0000000000000000000000", "image": {}}),
    "read how an image is made": ("image.get", {"image_id": "im-0000000000000000000000"}),
    "list secrets": ("secret.list", {}),
    "make a secret": ("secret.create", {"name": "evil", "values": {"A": "b"}}),
    "delete a secret": ("secret.delete", {"name": "principal-own"}),
    "rename a volume": ("volume.rename", {"name": "principal-mine", "new_name": "evil"}),
    "be a machine": ("node.session", {}),
    "ask a machine to build": ("node.build", {}),
    "ask a machine for a volume": ("node.volume", {}),
    "look up another environment's secret": ("secret.lookup", {"name": "theirs", "environment": "elsewhere"}),
    "look up another environment's volume": ("volume.ensure", {"name": "theirs", "environment": "elsewhere"}),
    "list another environment's volumes": ("volume.list", {"environment": "elsewhere"}),
    "delete another environment's volume": ("volume.delete", {"name": "theirs", "environment": "elsewhere"}),
    "delete it by its id": ("volume.delete", {"volume_id": "THEIRS"}),
    "list its files": ("volume.files", {"volume_id": "THEIRS", "path": "/"}),
    "read its files": ("volume.read", {"volume_id": "THEIRS", "path": "/note"}),
    "write its files": ("volume.write", {"volume_id": "THEIRS", "path": "/evil"}),
    "remove its files": ("volume.remove", {"volume_id": "THEIRS", "path": "/note"}),
    "copy its files": ("volume.copy", {"volume_id": "THEIRS", "path": "/b", "sources": ["/note"]}),
    "commit it": ("volume.commit", {"volume_id": "THEIRS"}),
    "reload it": ("volume.reload", {"volume_id": "THEIRS"}),
    "look up another app's function": ("function.lookup", {"name": "f", "app_id": "ap-0000000000000000000000"}),
    "call another's function": (
        "call.start",
        {
            "call_id": "fc-0000000000000000000000",
            "input_id": "in-0000000000000000000000",
            "function_id": "FUNCTION",
        },
    ),
    "read another's result": ("call.result", {"call_id": "CALL", "timeout": 1}),
    "cancel another's call": ("call.cancel", {"call_id": "CALL"}),
    "use a method that nobody has": ("server.secrets", {}),
}


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("principal") / "job.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module", autouse=True)
def _objects(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A secret of our own, and a volume with a file and a secret in an environment that is not ours."""
    note = tmp_path_factory.mktemp("note") / "note"
    note.write_text(f"{MARK}-of-the-volume")
    machine.run("secret", "create", "principal-own", f"NAMED={MARK}-named")
    machine.run("secret", "create", "-e", "elsewhere", "theirs", f"THEIRS={MARK}-theirs")
    machine.run("volume", "create", "-e", "elsewhere", "theirs")
    machine.run("volume", "put", "-e", "elsewhere", "theirs", note, "/note")
    yield
    machine.run("secret", "delete", "--yes", "--allow-missing", "principal-own")
    machine.run("secret", "delete", "--yes", "--allow-missing", "-e", "elsewhere", "theirs")
    machine.run("volume", "delete", "--yes", "--allow-missing", "-e", "elsewhere", "theirs")
    machine.run("volume", "delete", "--yes", "--allow-missing", "principal-mine")


def result(machine: Machine, script: Path, tmp_path: Path, function: str, *words: str):
    machine.run("run", "-q", "-w", tmp_path / "result", f"{script}::{function}", *words)
    return json.loads((tmp_path / "result").read_text())


def _ids(machine: Machine) -> dict[str, str]:
    """Ids that a container could only have guessed: here it knows them."""
    import sqlite3

    with sqlite3.connect(f"file:{machine.home}/server/alight.db?mode=ro", uri=True) as database:
        volume = database.execute("select volume_id from volumes where environment = 'elsewhere'").fetchone()[0]
        row = database.execute(
            "select c.function_id, c.call_id from calls c join apps a using (app_id) where a.environment = 'elsewhere'"
        ).fetchone()
    database.close()
    return {"THEIRS": volume, "FUNCTION": row[0], "CALL": row[1]}


@pytest.fixture(scope="module")
def answers(machine, script, tmp_path_factory) -> dict[str, str]:
    """What a container was told at each row, asked at once."""
    folder = tmp_path_factory.mktemp("answers")
    other = folder / "other.py"
    other.write_text(
        "import alight\n"
        "app = alight.App('theirs', image=alight.Image.debian_slim(python_version='3.11'))\n"
        "@app.function()\ndef f():\n    return 1\n"
    )
    machine.run("run", "-e", "elsewhere", "--detach", f"{other}::f")
    known = _ids(machine)
    rows = [
        (method, {name: known.get(value, value) if isinstance(value, str) else value for name, value in args.items()})
        for method, args in _ROWS.values()
    ]
    text = result(machine, script, folder, "try_all", "--rows", json.dumps(rows))
    machine.run("app", "stop", "--yes", "-e", "elsewhere", "theirs", status=None)
    return dict(zip(_ROWS, text, strict=True))


@pytest.mark.parametrize("row", _ROWS)
def test_code_in_a_container_may_not(answers, row):
    assert not answers[row].startswith("ok"), answers[row]
    assert MARK not in answers[row]
    kind = answers[row].partition(":")[0]
    assert kind in {"PermissionDeniedError", "UnimplementedError", "NotFoundError", "AuthError"}, answers[row]


def test_after_all_that_nothing_has_changed(machine, answers):
    assert answers
    # Other tests of this machine let laptops in, under their own names.
    assert not {token["name"] for token in machine.json("token", "list")} & {"mine", ""}
    assert machine.run("volume", "get", "-e", "elsewhere", "theirs", "note", "-").stdout == f"{MARK}-of-the-volume"
    assert machine.run("volume", "ls", "-e", "elsewhere", "theirs").stdout.split() == ["note"]


def test_a_volume_mounted_read_only_cannot_be_committed(machine, script, tmp_path):
    machine.run("run", "-q", "-w", tmp_path / "result", f"{script}::commit_read_only")
    assert "read-only" in (tmp_path / "result").read_text()


def test_secrets_are_where_they_were_asked_for_and_nowhere_else(machine, script, tmp_path):
    seen = result(machine, script, tmp_path, "what_is_seen")
    found = {name: value[::-1] for name, value in seen["found"].items()}
    assert (found["NAMED"], found["INLINE"], found["GIVEN"]) == (f"{MARK}-named", f"{MARK}-inline", f"{MARK}-given")
    assert seen["child"][::-1] == f"{MARK}-named"
    assert not seen["environs"], "a value can be read in /proc/…/environ"
    # What says who the container is cannot be forged by a secret, nor where Alight is found.
    assert found["MODAL_TASK_ID"] == found["ALIGHT_TASK_ID"] != f"{MARK}-forged"
    assert re.fullmatch(r"ta-\w{22}", found["MODAL_TASK_ID"])
    assert (found["ALIGHT_IS_REMOTE"], found["MODAL_IS_REMOTE"]) == ("1", "1")
    assert found["MODAL_ENVIRONMENT"] == "main"
    assert found["ALIGHT_SDK"] != "/nowhere"
    assert found["ALIGHT_LINK"] != "/nowhere"
    assert seen["again"] == 4
    # Not on disk either: not while it ran (logs, start files), not in the database, not in its journal.
    assert _files_with(machine.home, MARK.encode()) == []


def test_no_file_holds_a_secret_while_its_container_runs(machine, script, tmp_path):
    sleeper = tmp_path / "sleeper.py"
    sleeper.write_text(
        SCRIPT + "\n\n@app.function(secrets=[named, inline], env={'GIVEN': 'm4rk3r-given'})\n"
        "def sleeps():\n    import time\n    print('up', flush=True)\n    time.sleep(600)\n"
    )
    process = machine.start("run", f"{sleeper}::sleeps")
    assert process.stdout.readline() == "up\n", process.stderr.read()
    try:
        assert _files_with(machine.home, MARK.encode()) == []
        assert _environs_with(machine, MARK.encode()) == []
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_a_container_cannot_speak_for_another(machine, script, tmp_path):
    victim = tmp_path / "victim.py"
    victim.write_text(
        "import alight, os, time\n"
        "app = alight.App('victim', image=alight.Image.debian_slim(python_version='3.11'))\n"
        "@app.function()\ndef f():\n    print(os.environ['MODAL_TASK_ID'], flush=True)\n    time.sleep(600)\n"
    )
    process = machine.start("run", "-e", "elsewhere", f"{victim}::f")
    other = process.stdout.readline().strip()
    assert other.startswith("ta-"), process.stderr.read()
    try:
        told = result(machine, script, tmp_path, "forge", "--victim", other)
    finally:
        process.terminate()
        process.communicate(timeout=60)
    # It is answered as itself, in its own environment, whatever container it names.
    assert "theirs" not in told["as another"]
    assert "principal-mine" in told["as another"]
    for row in ("tokens as another", "tokens as the server", "a node's session"):
        assert "permission_denied" in told[row] or "unimplemented" in told[row], (row, told[row])
    assert told["link from a child"] in ("b''", "ConnectionResetError", "BrokenPipeError"), told["link from a child"]
    assert told["link again"] in ("b''", "ConnectionResetError", "BrokenPipeError")
    assert told["task"] != other


def test_a_restricted_function_has_no_api(machine, script, tmp_path):
    sockets, said = result(machine, script, tmp_path, "restricted")
    assert sockets == ["link.sock"]
    assert "restrict_modal_access" in said


def test_a_blocked_function_has_no_network_and_still_calls_functions(machine, script, tmp_path):
    names, tried, called = result(machine, script, tmp_path, "blocked")
    assert names == ["lo"]
    assert "reached" not in tried
    assert called == 8


def _files_with(folder: Path, marker: bytes) -> list[str]:
    """Files of the state directory that hold the marker. What the user's own script says is the user's."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and not {"layers", "__pycache__"} & set(path.parts):
            data = path.read_bytes()
            if marker in data and b"alight.Secret.from_dict" not in data:
                found.append(str(path.relative_to(folder)))
    return sorted(one for one in found if not one.startswith("node/volumes/"))


def _environs_with(machine: Machine, marker: bytes) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker in path.read_bytes():
                found.append((path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it ended meanwhile
    return found
