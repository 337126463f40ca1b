"""No GPU is in two containers at any time, whatever is killed meanwhile: seen from outside, in what processes hold.

Server, agent, spawner and containers are killed at random moments while pretended GPUs go from hand to hand; GPUs break
and leak memory. An observer reads from /proc which living processes were given which device, and knows nothing of
Alight's own books. It sees a container from its first process on, its processes that outlive the first one, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.system.scripted import settled

SECONDS = 45
SEED = random.randrange(1 << 30)
GPUS = "A100-80GB:2,L4:2"
SHARE = 0.4  # two fit on one
APP = """
import os
import subprocess
import time

import alight

app = alight.App("gpu-stress", image=alight.Image.debian_slim(python_version="3.11"))
more = {"retries": 3, "timeout": 60, "scaledown_window": 2}


def hold(how, seconds):
    # Somebody who lives as long as the container, and says how it was given.
    subprocess.Popen(["sleep", "600"], env={**os.environ, "STRESS_HOLDS": how})
    time.sleep(seconds)
    return os.environ["NVIDIA_VISIBLE_DEVICES"]


@app.function(gpu="A100", **more)
def one(seconds):
    return hold("whole", seconds)


@app.function(gpu="A100:2", **more)
def two(seconds):
    return hold("whole", seconds)


@app.function(gpu=["L4!", "A100"], single_use_containers=True, **more)
def once(seconds):
    return hold("whole", seconds)


@app.function(gpu="any:SHARE", **more)
def part(seconds):
    return hold("part", seconds)
""".replace("SHARE", str(SHARE))
FEED = """
import random
import time

import alight

functions = [alight.Function.from_name("gpu-stress", name) for name in ("one", "two", "once", "part", "part")]
ends, calls, answers, failures = time.monotonic() + SECONDS, [], 0, {}
while time.monotonic() < ends or calls:
    if len(calls) < 12 and time.monotonic() < ends:
        calls.append(random.choice(functions).spawn(random.uniform(0.05, 1.0)))
        continue
    try:
        calls.pop(0).get(timeout=120)
        answers += 1
    except alight.exception.Error as error:  # its container was killed more often than it is tried again
        failures[type(error).__name__] = failures.get(type(error).__name__, 0) + 1
print(answers, failures)
"""


class Observer:
    """Reads who holds what, over and over, until ``stop``. ``seen``: containers by device; ``wrong``: in words."""

    def __init__(self, prefix: str) -> None:
        self.seen: dict[str, set[str]] = {}
        self.wrong: set[str] = set()
        self.looks = 0
        self._prefix = f"ALIGHT_FAKE_GPUS={prefix}".encode()
        self._known: dict[str, tuple[float, str, str, tuple[str, ...]]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            self._look()

    def _look(self) -> None:
        self.looks += 1
        holders: dict[str, dict[str, set[str]]] = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            found = self._read(pid)
            if found is not None:
                container, how, devices = found
                for device in devices:
                    holders.setdefault(device, {}).setdefault(container, set()).add(how)
        for device, containers in holders.items():
            self.seen.setdefault(device, set()).update(containers)
            hows = set().union(*containers.values())
            if len(containers) > 2 or (len(containers) > 1 and "whole" in hows):
                self.wrong.add(f"{device}: {containers}")

    def _read(self, pid: str) -> tuple[str, str, tuple[str, ...]] | None:
        """Its container (by its process namespace), how it was given, and devices; None for all others. A process that
        is ending has no environment any more, and holds nothing."""
        try:
            said = Path(f"/proc/{pid}/environ").read_bytes()
            if self._prefix not in said:
                return None
            container = os.readlink(f"/proc/{pid}/ns/pid")
        except OSError:
            return None
        words = dict(one.split("=", 1) for one in said.decode(errors="replace").split("\0") if "=" in one)
        return container, words.get("STRESS_HOLDS", ""), tuple(words["ALIGHT_FAKE_GPUS"].split(","))


class Chaos:
    """Things that go wrong, one at a time."""

    def __init__(self, machine, rng: random.Random) -> None:
        self.machine, self.rng = machine, rng
        self.done: list[str] = []
        self._file = machine.home / "run" / "fake-gpus.json"

    def act(self) -> None:
        name = self.rng.choice(
            ["node", "node", "server", "server", "spawner", "container", "container", "fault", "leak"]
        )
        self.done.append(name)
        if name in {"fault", "leak"}:
            what = {"fault": "it is lost"} if name == "fault" else {"used": 5000}
            self._file.write_text(json.dumps({str(self.rng.randrange(4)): what}))
            time.sleep(self.rng.uniform(0.3, 1.5))
            self.heal()
            return
        for pid in self._of(name):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if name in {"node", "server"}:
            time.sleep(self.rng.uniform(0.0, 0.5))
            self.machine.run("server", "start", status=None)

    def heal(self) -> None:
        self._file.unlink(missing_ok=True)
        listed = self.machine.run("gpu", "list", "--json", status=None)
        for one in json.loads(listed.stdout or "[]") if listed.returncode == 0 else []:
            if one["health"] != "well":
                self.machine.run("gpu", "restore", one["uuid"], status=None)

    def _of(self, name: str) -> list[int]:
        if name in {"node", "server"}:
            with contextlib.suppress(OSError, ValueError):
                return [json.loads((self.machine.home / "run" / f"{name}.json").read_text())["pid"]]
            return []
        if name == "spawner":
            return [pid for pid, words in self.machine.processes().items() if "spawner" in words]
        sleeping = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if _holds(path)]
        return [self.rng.choice(sleeping)] if sleeping else []


def _holds(path: Path) -> bool:
    try:
        return b"STRESS_HOLDS=" in path.read_bytes()
    except OSError:
        return False


def test_the_observer_sees_what_must_not_be():
    observer, device = Observer("GPU-fake-both"), "GPU-fake-both-0"
    command = ["unshare", "--pid", "--fork", "--kill-child", "sleep", "60"]
    try:
        env = {**os.environ, "ALIGHT_FAKE_GPUS": device}
        with contextlib.ExitStack() as stack:
            for how in ("part", "part", "whole"):
                assert not observer.wrong
                child = stack.enter_context(subprocess.Popen(command, env={**env, "STRESS_HOLDS": how}))
                stack.callback(child.kill)
                settled(lambda: observer.seen.get(device) and observer.looks > 3)
            settled(lambda: observer.wrong)
    finally:
        observer.stop()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("templates", ["off", "on"])
def test_no_gpu_is_in_two_containers_at_any_time(new_machine, tmp_path, templates):
    machine = new_machine(ALIGHT_FAKE_GPUS=GPUS, ALIGHT_TEMPLATES=templates, ALIGHT_HOLDER_GRACE="2")
    machine.run("server", "start")
    uuid = machine.json("gpu", "list")[0]["uuid"]
    (tmp_path / "stress.py").write_text(APP)
    (tmp_path / "feed.py").write_text(FEED.replace("SECONDS", str(SECONDS)))
    machine.run("deploy", tmp_path / "stress.py")
    observer, rng = Observer(uuid.rpartition("-")[0]), random.Random(SEED)
    chaos = Chaos(machine, rng)
    fed: list[object] = []
    feeder = threading.Thread(
        target=lambda: fed.append(machine.python(tmp_path / "feed.py", status=None, timeout=300)), daemon=True
    )
    feeder.start()
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        time.sleep(rng.uniform(0.3, 1.5))
        chaos.act()
    chaos.heal()
    machine.run("server", "start", status=None)
    feeder.join(280)
    observer.stop()
    told = f"seed {SEED}, {observer.looks} looks, {chaos.done}"
    assert not observer.wrong, f"{told}\n" + "\n".join(sorted(observer.wrong))
    assert len(fed) == 1, f"calls are left: {told}\n{machine.logs()}"
    answers = fed[0].stdout.split()
    assert fed[0].returncode == 0, f"{told}\n{fed[0].stdout}\n{fed[0].stderr}"
    assert int(answers[0]) > SECONDS / 2, told
    assert {device: len(containers) for device, containers in observer.seen.items() if len(containers) < 2} == {}, told
    assert len(observer.seen) == 4, told
    settled(lambda: all(not one["held_by"] for one in machine.json("gpu", "list")), 30)
    print(told, fed[0].stdout)  # noqa: T201  with -s
    machine.run("app", "stop", "gpu-stress", "--yes", status=None)
    machine.close()
