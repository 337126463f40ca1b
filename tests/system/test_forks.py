"""Containers that are forks of a template: the same as plain ones to whoever is in them, and to whoever ends them.

The template here runs nothing of Alight (``plain_template``); what the runtime makes of it is tested elsewhere.
"""

# ruff: noqa: F811 fixtures are imported and then asked for by name
from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from alight.node import cgroups, filters
from alight.node.engine.base import Bind, EngineError, Limits
from alight.node.engine.forks import shape
from alight.node.engine.oci import OciEngine
from alight.node.filters import NoForks
from alight.node.network import Names
from tests.system.forked_lab import PROGRAM, TEMPLATE, ForkedLab, forked_lab, told  # noqa: F401 a fixture
from tests.system.lab import MIB, short_home  # noqa: F401 a fixture

FACTS = """
import ctypes, json, os, resource, socket, subprocess, time
ends = time.monotonic() + 10
while "/.." in open("/proc/self/cgroup").read() and time.monotonic() < ends:
    time.sleep(0.01)  # a group that limits nothing may be entered after the fork runs
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
facts = {key: status[key].strip() for key in (
    "Umask", "Uid", "Gid", "Groups", "SigBlk",
    "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
    "Cpus_allowed_list", "Mems_allowed_list",
)}
lines = open("/proc/self/mountinfo").read().splitlines()
facts["mounts"] = sorted(line.split(" ", 4)[4].split(" - ") for line in lines)
for name in ("limits", "oom_score_adj", "uid_map", "gid_map", "setgroups", "cgroup", "loginuid", "timerslack_ns"):
    facts[name] = open(f"/proc/self/{name}").read()
facts["files"] = sorted(os.listdir("/proc/self/fd"))
facts["where"] = [os.getcwd(), os.readlink("/proc/self/root"), socket.gethostname()]
facts["interfaces"] = sorted(name for _, name in socket.if_nameindex())
facts["environ"] = dict(os.environ)
facts["session"] = os.getsid(0) == os.getpid() or os.getsid(0)
facts["dumpable"] = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
facts["securebits"] = ctypes.CDLL(None).prctl(27, 0, 0, 0, 0)
facts["scheduler"] = [os.sched_getscheduler(0), os.nice(0)]
own = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in sorted(os.listdir("/proc/self/ns"))}
facts["first's namespaces"] = own == {kind: os.readlink(f"/proc/1/ns/{kind}") for kind in own}
facts["devices"] = sorted(os.listdir("/dev"))
facts["root"] = sorted(os.listdir("/"))
print(json.dumps(facts, default=str))
"""


@pytest.fixture(scope="module")
def lab(forked_lab):
    return forked_lab


def facts(lab, plan) -> dict:
    text = lab.ask(plan)
    assert text.endswith("[0]"), text
    return json.loads(text[:-3])


def test_a_fork_is_in_what_a_plain_container_is_in(lab, tmp_path):
    own = {"binds": (Bind(str(tmp_path), "/given"),), "limits": Limits(memory_bytes=256 * MIB, pids=100)}
    forked = facts(lab, lab.python(FACTS, **own))
    engine, lab.engine = lab.engine, lab.plain
    try:
        plain = facts(lab, lab.python(FACTS, **own))
    finally:
        lab.engine = engine
    assert forked["environ"].pop("CODE")
    del plain["environ"]["LC_CTYPE"]  # set by Python itself when it starts
    for name in ("uid_map", "gid_map"):
        # Its namespace is below that of the template, which has the same ids, and not right below the host's.
        assert (forked.pop(name).split(), plain.pop(name).split()[::2]) == (["0", "0", "65536"], ["0", "65536"])
    # What is mounted comes from directories that are named after the container.
    for one in (forked, plain):
        one["mounts"] = [[field for field in mount if "/c" not in field] for mount in one["mounts"]]
    assert forked == plain


def test_limits_are_the_containers_whatever_the_template_did_to_its_own(lab):
    program = """
import os, resource
for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_STACK):
    resource.setrlimit(kind, (1 << 20 if kind == resource.RLIMIT_STACK else 150, resource.getrlimit(kind)[1]))
open("/proc/self/oom_score_adj", "w").write("900")
os.nice(7)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
"""
    upper = lab.open("tp-limits", program + PROGRAM)
    code = """
        import os
        print(open("/proc/self/limits").read(), open("/proc/self/oom_score_adj").read())
        print(os.nice(0), os.sched_getaffinity(0))
    """
    plan = lab.python(code)
    lab.run(lab.forks.start_fork("tp-limits", replace(told(plan), own_layers=(upper,))))
    lab.run(lab.engine.wait(plan.id))
    assert lab.printed(plan.id) + "[0]" == lab.ask(lab.python(code))
    lab.run(lab.engine.remove(plan.id))
    lab.run(lab.forks.close_template("tp-limits"))


def test_it_ends_as_it_ends(lab):
    assert lab.ask(lab.python("import sys; print('out'); sys.exit(7)")) == "out\n[7]"
    for number in (signal.SIGKILL, signal.SIGSEGV):
        plan = lab.python(f"import os; os.kill(os.getpid(), {int(number)})")
        lab.run(lab.engine.start(plan))
        state = lab.run(lab.engine.wait(plan.id))
        assert (state.signal, state.exit_code, state.oom_killed, state.how) == (number, None, False, "forked")
        lab.run(lab.engine.remove(plan.id))


def test_a_signal_goes_to_the_fork(lab):
    code = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
        print("up", flush=True)
        while True: time.sleep(1)
    """
    plan = lab.python(code)
    lab.started(plan)
    lab.run(lab.engine.signal(plan.id, signal.SIGTERM))
    assert lab.run(lab.engine.wait(plan.id)).exit_code == 3
    lab.run(lab.engine.remove(plan.id))


def test_its_end_is_the_end_of_all_in_it(lab):
    code = """
        import os, subprocess, sys, time
        subprocess.Popen(["sleep", "1000"]); subprocess.Popen(["setsid", "sh", "-c", "sleep 1000 & sleep 1000"])
        print("up", flush=True)
        if sys.stdin.read() == "": time.sleep({})
    """
    for seconds, killed in ((0.2, False), (1000, True)):
        plan = lab.python(code.format(seconds))
        state = lab.started(plan)
        assert lab.run(lab.engine.inside(plan.id)) >= {state.pid}
        group = lab.plain._group(plan.id)
        if killed:
            lab.run(lab.engine.kill(plan.id))
        ended = lab.run(lab.engine.wait(plan.id))
        assert (ended.signal, ended.exit_code) == ((signal.SIGKILL, None) if killed else (None, 0))
        assert cgroups.processes(group) == set()
        lab.run(lab.engine.remove(plan.id))
        assert not any(os.path.exists(f"{tree}{group}") for tree in cgroups.trees())


def test_a_parked_fork_becomes_the_container_with_what_was_laid_out_for_it(lab):
    def plan(name: str):
        folder = lab.engine.prepare(name)
        (folder / "sock").mkdir()
        code = """
            import socket
            with socket.socket(socket.AF_UNIX) as one:
                one.connect("/sockets/door"); print(one.recv(10), open("/sockets/note").read())
        """
        return replace(lab.python(code, binds=(Bind(str(folder / "sock"), "/sockets"),)), id=name)

    waiting = plan("sh-1")
    lab.park(waiting, "sh-1")
    wanted = plan("taken")
    form = shape(wanted, str(lab.engine.directory("taken")))
    assert lab.forks.parked(TEMPLATE) == {form: 1}
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(lab.engine.directory("taken") / "sock" / "door"))
        door.listen()
        (lab.engine.directory("taken") / "sock" / "note").write_text("hello")
        state = lab.run(lab.engine.start(wanted))
        with door.accept()[0] as guest:
            guest.send(b"in")
    assert state.how == "parked"
    assert lab.forks.parked(TEMPLATE) == {}
    assert lab.run(lab.engine.wait("taken")).exit_code == 0
    assert lab.printed("taken") == "b'in' hello\n"
    kept = json.loads((lab.engine.directory("taken") / "state.json").read_text())
    assert (kept["id"], kept["exit_code"], kept["how"]) == ("taken", 0, "parked")
    lab.until(lambda: not lab.engine.directory("sh-1").exists())
    lab.run(lab.engine.remove("taken"))
    assert not lab.engine.directory("taken").exists()


def test_one_parked_fork_serves_one_of_two(lab):
    plans = [lab.python("print('up', flush=True); import time; time.sleep(1000)") for _ in range(2)]
    lab.park(plans[0], "sh-2")

    async def both():
        return await asyncio.gather(*(lab.engine.start(one) for one in plans))

    assert sorted(one.how for one in lab.run(both())) == ["forked", "parked"]
    for one in plans:
        lab.run(lab.engine.remove(one.id))


def test_another_shape_is_not_served_by_a_parked_fork(lab):
    plan = lab.python("pass")
    lab.park(plan, "sh-3")
    state = lab.run(lab.engine.start(replace(plan, limits=Limits(pids=50))))
    assert state.how == "forked"
    lab.run(lab.engine.remove(plan.id))
    (form,) = lab.forks.parked(TEMPLATE)
    lab.run(lab.forks.unpark(TEMPLATE, form))
    assert lab.forks.parked(TEMPLATE) == {}
    assert not lab.engine.directory("sh-3").exists()


def test_a_parked_fork_that_died_is_not_counted_and_not_missed(lab):
    plan = lab.python("print('ran')")
    lab.park(plan, "sh-4")
    cgroups.signal_all(lab.plain._group("sh-4"), signal.SIGKILL)
    lab.until(lambda: lab.forks.parked(TEMPLATE) == {})
    assert lab.ask(plan) == "ran\n[0]"
    assert not lab.engine.directory("sh-4").exists()


def test_a_template_sees_no_file_that_is_open_and_writes_none_after_it_is_armed(lab):
    program = "open_file = open('/tmp/held', 'w')\n" + PROGRAM
    with pytest.raises(EngineError, match="open for writing"):
        lab.open("tp-writes", program)
    lab.run(lab.forks.close_template("tp-writes"))
    program = PROGRAM.replace(
        "def main():",
        """def main():
    open("/made-before", "w").write("x")
    import threading, time
    def later():
        while True:
            time.sleep(0.05)
            try:
                open("/made-after", "w")
            except OSError as error:
                os.write(1, error.strerror.encode())
                return
    # A thread of the template's: forks have only the one that forks.
    threading.Thread(target=later, daemon=True).start()""",
    )
    upper = lab.open("tp-armed", program)
    lab.until(lambda: "Read-only" in lab.printed("tp-armed"))
    plan = lab.python("import os; print(os.path.exists('/made-before')); open('/made-before', 'a').write('y')")
    lab.run(lab.forks.start_fork("tp-armed", replace(told(plan), own_layers=(upper,))))
    assert lab.run(lab.engine.wait(plan.id)).exit_code == 0
    assert lab.printed(plan.id) == "True\n"
    assert Path(upper, "made-before").read_text() == "x"
    lab.run(lab.engine.remove(plan.id))
    lab.run(lab.forks.close_template("tp-armed"))


def test_forks_live_on_without_their_template_and_a_start_without_one_leaves_nothing(lab):
    lab.open("tp-dies")
    plan = lab.python("print('up', flush=True); import time; time.sleep(0.5); print('done')")
    lab.run(lab.forks.start_fork("tp-dies", told(plan)))
    lab.run(lab.engine.kill("tp-dies"))
    assert lab.run(lab.engine.wait("tp-dies")).signal == signal.SIGKILL
    assert lab.run(lab.engine.wait(plan.id)).exit_code == 0
    assert lab.printed(plan.id) == "up\ndone\n"
    lab.run(lab.engine.remove(plan.id))
    after = lab.python("print('plainly')")
    (lab.engine.prepare(after.id) / "sock").mkdir()
    with pytest.raises(EngineError, match=r"no template tp-dies"):
        lab.run(lab.forks.start_fork("tp-dies", told(after)))
    assert os.listdir(lab.engine.directory(after.id)) == ["sock"]
    assert lab.run(lab.plain.start(after)).how == "plain"
    lab.run(lab.engine.wait(after.id))
    assert lab.printed(after.id) == "plainly\n"
    lab.run(lab.engine.remove(after.id))
    lab.run(lab.forks.close_template("tp-dies"))


@pytest.mark.slow
def test_a_template_that_hangs_is_killed_and_the_start_refused(lab):
    lab.open("tp-hangs", PROGRAM.replace("service = socket", "import time; time.sleep(1000); service = socket"))
    plan = lab.python("pass")
    before = set(cgroups.children(Names.of(str(lab.home)).group))
    began = time.monotonic()
    with pytest.raises(EngineError, match=r"no fork within 5 s"):
        lab.run(lab.forks.start_fork("tp-hangs", told(plan)))
    assert 4.5 < time.monotonic() - began < 12
    assert lab.run(lab.engine.wait("tp-hangs")).signal == signal.SIGKILL
    assert os.listdir(lab.engine.directory(plan.id)) == []
    assert cgroups.children(Names.of(str(lab.home)).group) == before - {"tp-hangs"}
    lab.run(lab.engine.remove(plan.id))
    lab.run(lab.forks.close_template("tp-hangs"))


def test_a_machine_that_allows_no_forks_offers_none_and_says_so_once(lab, monkeypatch, caplog):
    async def refuse(op, **_):
        if op == "discard":
            return
        raise NoForks("the kernel does not tell")

    with monkeypatch.context() as patched:
        patched.setattr(lab.plain, "ask", refuse)
        for _ in range(2):
            with pytest.raises(NoForks):
                lab.run(lab.forks.start_fork(TEMPLATE, told(lab.python("pass"))))
    try:
        assert lab.plain.forks is None
        assert sum("start plainly" in one.message for one in caplog.records) == 1
    finally:
        lab.plain._can_fork = True


def test_the_filter_of_a_process_is_read_from_the_kernel(lab):
    lab.started(plan := lab.python("print('up', flush=True); import time; time.sleep(1000)"))
    fork = next(one.pid for one in lab.run(lab.engine.list()) if one.id == plan.id)
    (first,) = lab.run(lab.engine.inside(plan.id)) - {fork}
    # The first process has the OCI runtime's; the fork got the same bytes, on top of its template's.
    assert filters.of_process(first) == filters.of_process(fork, 1) != filters.of_process(fork)
    assert len(filters.of_process(first)) % 8 == 0
    assert filters.of_process(os.getpid()) == b""
    lab.run(lab.engine.remove(plan.id))


def test_a_fork_that_lies_about_itself_is_refused(lab):
    # It says that it is there from where it is, and not from its shell.
    program = PROGRAM.replace("if libc.setns(shell, CLONE_ALL) != 0:", "if False:")
    lab.open("tp-lies", program)
    plan = lab.python("print('never')")
    with pytest.raises(EngineError, match=r"not in its shell|could not fork"):
        lab.run(lab.forks.start_fork("tp-lies", told(plan)))
    lab.run(lab.engine.remove(plan.id))
    lab.run(lab.forks.close_template("tp-lies"))


def test_a_killed_outer_process_ends_its_own_and_nobody_else(lab):
    lab.open("tp-other", image="another")
    plan = lab.python("print('up', flush=True); import time; time.sleep(1000)")
    mine = lab.python("print('up', flush=True); import time; time.sleep(1000)")
    lab.run(lab.forks.start_fork("tp-other", told(plan)))
    lab.started(mine)
    outer = parents_of(lab.run(lab.engine.inside("tp-other")))
    assert len(outer) == 1
    os.kill(outer.pop(), signal.SIGKILL)
    state = lab.run(lab.engine.wait(plan.id))
    assert (state.signal, state.error) == (signal.SIGKILL, "the outer process of its templates and forks was killed")
    assert lab.run(lab.engine.wait("tp-other")).error
    assert {one.id: one.status for one in lab.run(lab.engine.list())}[mine.id] == "running"
    for one in (plan.id, mine.id):
        lab.run(lab.engine.remove(one))
    lab.run(lab.forks.close_template("tp-other"))
    lab.open("tp-other", image="another")
    lab.run(lab.forks.close_template("tp-other"))


def test_a_new_agent_keeps_containers_and_nothing_else(base_layers, short_home):
    lab = ForkedLab(base_layers, short_home)
    try:
        plan = lab.python("print('up', flush=True); import time; time.sleep(4); print('done'); raise SystemExit(5)")
        lab.park(plan, "sh-1")
        lab.started(plan)  # takes it
        lab.park(plan, "sh-2")
        lab.run(lab.plain.close())
        second = OciEngine(short_home, str(short_home))
        lab.run(second.open())
        assert [(one.id, one.how) for one in lab.run(second.list())] == [(plan.id, "parked")]
        assert os.listdir(short_home / "node" / "containers") == [plan.id]
        assert lab.run(second.stats(plan.id)).pids == 2
        state = lab.run(second.wait(plan.id))
        assert state.exit_code == 5
        assert lab.printed(plan.id) == "up\ndone\n"
        lab.run(second.remove(plan.id))
        assert cgroups.children(Names.of(str(short_home)).group) == set()
        lab.run(second.close())
    finally:
        lab.close()


def test_a_killed_spawner_leaves_nothing(base_layers, short_home):
    lab = ForkedLab(base_layers, short_home)
    try:
        plan = lab.python("print('up', flush=True); import time; time.sleep(1000)")
        lab.park(plan, "sh-1")
        lab.started(plan)
        lab.park(plan, "sh-2")
        group = Names.of(str(short_home)).group
        inside = {pid for one in cgroups.children(group) for pid in cgroups.processes(f"{group}/{one}")}
        outer = parents_of(inside)
        spawner = lab.run(lab.plain.ask("hello"))["pid"]
        os.kill(spawner, signal.SIGKILL)
        state = lab.run(lab.engine.wait(plan.id))
        assert state.error == "its parent process on the node was killed"
        lab.until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in inside | outer))
        lab.until(lambda: os.listdir(short_home / "node" / "containers") == [plan.id])
        assert cgroups.children(group) == set()
        # And everything can begin anew.
        lab.open("tp-again")
        again = lab.python("print('again')")
        lab.run(lab.forks.start_fork("tp-again", told(again)))
        assert lab.run(lab.engine.wait(again.id)).exit_code == 0
    finally:
        lab.close()


def parents_of(pids: set[int]) -> set[int]:
    """Who is above them and not among them, but the spawner."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            parent = int(fields[1])
            if parent not in pids and "NSpid" in (text := Path(f"/proc/{parent}/status").read_text()):
                numbers = next(line.split()[1:] for line in text.splitlines() if line.startswith("NSpid"))
                if len(numbers) > 1:
                    found.add(parent)
    return found


def held_by(lab) -> dict:
    """All that starts could leave behind: in the spawner, on the machine, on the disk."""
    spawner = lab.run(lab.plain.ask("hello"))["pid"]
    names = Names.of(str(lab.home))
    return {
        "descriptors": len(os.listdir(f"/proc/{spawner}/fd")),
        "mounts": len(Path(f"/proc/{spawner}/mounts").read_text().splitlines()),
        "groups": sorted(cgroups.children(names.group)),
        "directories": sorted(os.listdir(lab.home / "node" / "containers")),
        "runtime": sorted(os.listdir(lab.home / "run" / "runtime")),
        "children": len(Path(f"/proc/{spawner}/task/{spawner}/children").read_text().split()),
    }


def interfaces(lab) -> set[str]:
    prefix = Names.of(str(lab.home)).prefix
    return {one for _, one in socket.if_nameindex() if one.startswith(prefix)}


@pytest.mark.parametrize("count", [20, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_starts_and_stops_leave_nothing(lab, count):
    lab.ask(lab.python("pass"))
    before, there = held_by(lab), interfaces(lab)
    for one in range(count):
        plan = lab.python("print('up', flush=True); import time; time.sleep(1000)")
        if one % 2:
            lab.park(plan, f"sh-leak{one}")
        lab.started(plan)
        lab.run(lab.engine.remove(plan.id))

    assert held_by(lab) == before
    # Devices go a moment after their last holder.
    lab.until(lambda: interfaces(lab) <= there)
