"""A template forks containers on request, and lives on whatever becomes of them."""

from __future__ import annotations

import os
import signal
import struct
import time
from pathlib import Path

import pytest

from alight.wire import forks as wire
from tests.unit.runtime.conftest import MAIN
from tests.unit.runtime.templates import ALLOW, Template

CODE = """
    import os, sys
    print("imported")
    def f(x):
        print("called", flush=True)
        return x * 2, os.environ["WHERE"], os.environ["TOKEN"], os.getcwd(), sys.argv, sys.path[-1], os.getpid()
    """


@pytest.fixture
def template(tmp_path):
    made = Template(tmp_path)
    yield made
    made.close()


def test_a_fork_with_a_link_finds_in_it_what_it_is_for_and_dials_when_it_breaks(template):
    template.up("", level=1)
    fork = template.park()
    node = fork.wake(cwd=str(template.directory), given=True, WHERE="here")
    ready, _ = node.start(CODE, template=1, environ={"TOKEN": "hush"})
    assert ready.failure is None
    assert node.call(21)[0] == 42
    node.hang_up()
    assert node.accept().ready
    assert node.call(4)[0] == 8


def test_a_fork_is_a_container(template):
    ready, _ = template.up("", level=1)
    assert ready.refused == ()
    assert ready.failure is None
    fork = template.park()
    node = fork.wake(cwd=str(template.directory), WHERE="here")
    ready, _ = node.start(CODE, template=1, environ={"TOKEN": "hush"})
    assert ready.failure is None
    assert ready.stages["import"] > 0
    value = node.call(21)
    library = str(MAIN.parents[2])
    assert value[:3] == (42, "here", "hush")
    assert value[3:6] == (str(template.directory), [str(node.directory / "usercode.py")], library)
    assert node.hello.pid == value[6] == fork.pid
    os.kill(fork.pid, signal.SIGTERM)
    assert fork.end() == 128 + signal.SIGTERM
    assert fork.out.read() == "imported\ncalled\n"
    assert fork.error.read() == ""


def test_forks_find_the_event_loop_of_web_functions_loaded(template):
    pytest.importorskip("uvloop")
    template.up("", level=1)
    fork = template.park()
    node = fork.wake(cwd=str(template.directory), given=True)
    ready, _ = node.start("import sys\n\ndef f():\n    return 'uvloop' in sys.modules\n", template=1)
    assert ready.failure is None
    assert node.call()


def test_a_container_of_a_fork_leads_a_session_of_its_own(template):
    template.up(CODE)
    fork = template.park()
    assert os.getsid(fork.pid) == fork.pid


def test_a_fork_exits_when_it_is_not_needed(template):
    template.up(CODE)
    fork = template.park()
    fork.control.close()
    assert fork.end() == 0


def test_a_template_ends_with_its_spawner(template):
    template.up(CODE)
    fork = template.park()
    template.door.close()
    assert template.node.process.wait() == 0
    assert fork.wake() is not None, "what is forked already lives on"


def test_a_spare_that_is_killed_is_replaced(template):
    template.up(CODE)
    for _ in range(3):
        killed = template.spare()
        os.kill(killed, signal.SIGKILL)
        while template.spare() == killed:
            time.sleep(0.01)
    assert template.park().pid


def test_a_template_outlives_its_forks(template):
    template.up("import os\ndef f():\n    os.kill(os.getpid(), 11)\n")
    node = template.container()
    node.give(0)
    assert template.forks[0].end() == -signal.SIGSEGV
    assert template.park().pid


def test_many_forks_at_once(template):
    template.up(CODE)
    forks = [template.request() for _ in range(20)]
    assert [fork.hear() for fork in forks] == [wire.PARKED] * 20
    assert len({fork.pid for fork in forks}) == 20


def test_what_does_not_work_is_said_to_who_asked(template):
    """The real template: entering our own namespaces is what the kernel forbids."""
    template.up("", level=1, main=MAIN)
    fork = template.request()
    assert fork.hear() == wire.FAILED
    assert "setns" in fork.said
    assert template.request().hear() == wire.FAILED, "and the template lives on"


def test_a_damaged_request_ends_nothing(template):
    template.up(CODE)
    template.door.send(b"x")
    assert template.park().pid


def test_a_fork_has_its_own_descriptors_only(template):
    """Besides those: files that the template had open for reading."""
    book = template.directory / "book"
    book.write_text("page one")
    template.up(
        f"""
        import os
        FILE = open({str(book)!r})
        def f():
            numbers = [int(name) for name in os.listdir("/proc/self/fd")]
            open_ = [f"/proc/self/fd/{{number}}" for number in numbers if number > 2]
            names = sorted(os.readlink(path) for path in open_ if os.path.lexists(path))
            return names, FILE.read(), os.readlink("/proc/self/fd/0")
        """
    )
    found, text, stdin = template.container().call()
    assert found[0] == str(book)
    assert len([one for one in found if one.startswith("socket:")]) == 1, "the link"
    assert len(found) <= 2 + 2, "and the pipe that stirs the link's helper"
    assert (text, stdin) == ("page one", "/dev/null")


def test_a_fork_writes_itself_into_groups(template, tmp_path):
    template.up(CODE)
    tasks = tmp_path / "tasks"
    with tasks.open("wb") as file:
        template.park(groups=[file.fileno()])
    assert tasks.read_text() == "0"


def test_a_fork_has_the_limit_of_files_that_it_is_given(template):
    template.up(CODE)
    fork = template.park(files=333)
    assert "333                  333" in Path(f"/proc/{fork.pid}/limits").read_text()


def test_rights_are_gone_before_user_code_runs_in_a_fork(template):
    """A module may have registered something for forks: it finds a container's rights, and runs once."""
    if os.getuid() != 0:
        pytest.skip("needs rights to drop")
    template.up(
        """
        import os
        def rights():
            with open("/proc/self/status") as file:
                lines = [line.split() for line in file]
            return {line[0]: line[1] for line in lines if line[0][:3] in {"Cap", "NoN", "Sec"}}
        SEEN = []
        os.register_at_fork(after_in_child=lambda: SEEN.append(rights()))
        def f():
            return SEEN, rights()
        """
    )
    mask = 1 << 0 | 1 << 7  # CAP_CHOWN, CAP_SETUID
    node = template.container(template.park(mask=mask, instructions=deny_mkdir()))
    seen, now = node.call()
    assert len(seen) == 1
    assert seen[0] == now
    assert {now[name] for name in ("CapPrm:", "CapEff:", "CapBnd:")} == {f"{mask:016x}"}
    assert {now[name] for name in ("CapInh:", "CapAmb:")} == {f"{0:016x}"}
    assert (now["NoNewPrivs:"], now["Seccomp:"]) == ("1", "2")


def deny_mkdir() -> bytes:
    number = {"x86_64": 83, "aarch64": 34}[os.uname().machine]
    return b"".join(
        struct.pack("=HBBI", *one)
        for one in [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | 95), (0x06, 0, 0, 0x7FFF0000)]
    )


def test_the_filter_holds(template):
    template.up(
        """
        import os
        def f(path):
            try:
                os.mkdir(path)
            except OSError as error:
                return error.errno
        """
    )
    path = str(template.directory / "new")
    node = template.container(template.park(instructions=ALLOW))
    assert node.call(path) is None
    node = template.container(template.park(instructions=deny_mkdir()))
    assert node.call(path + "2") == 95


def test_output_goes_to_the_forks_own_pipes(template):
    """Also through a stream that a module got hold of before the snapshot."""
    template.up(
        """
        import logging, sys
        print("before")
        logging.basicConfig(stream=sys.stderr, format="%(message)s")
        def f():
            print("after")
            logging.warning("logged")
        """
    )
    node = template.container()
    node.call()
    os.kill(template.forks[0].pid, signal.SIGTERM)
    template.forks[0].end()
    assert template.forks[0].out.read() == "after\n"
    assert template.forks[0].error.read() == "logged\n"
    template.door.close()
    out, error = template.node.process.communicate()
    assert (out, error) == ("before\n", "")


def test_files_of_the_user_win_over_modules_that_templates_import(template):
    """As in a plain container, where nothing has imported ``json`` before."""
    template.up("", level=1)
    fork = template.park()
    fork.directory.mkdir()
    (fork.directory / "json.py").write_text("MINE = True")
    node = fork.wake()
    ready, _ = node.start("import json\ndef f():\n    return json.MINE\n", template=1)
    assert ready.failure is None, ready.failure
    assert node.call() is True


def test_a_fork_of_a_template_of_another_function_refuses(template):
    template.up(CODE)
    ready, _ = template.park().wake().start("def other(): ...", "other", template=2)
    assert "a template of f" in ready.failure.message


def test_a_failing_import_is_told_as_by_a_container(template):
    ready, _ = template.up("raise ValueError('not today')")
    assert (ready.failure.type, ready.failure.message) == ("builtins.ValueError", "not today")
    assert template.node.process.wait() == 1


def test_slow_imports_are_named(template):
    """Outermost ones, once, with their seconds."""
    (template.directory / "slow.py").write_text("import time, slower\ntime.sleep(0.12)")
    (template.directory / "slower.py").write_text("import time\ntime.sleep(0.12)")
    ready, _ = template.up("import slow, json\nfrom slow import time\ndef f(): ...")
    assert [name for name, _ in ready.imports] == ["slow"]
    assert 0.24 <= ready.imports[0][1] <= ready.stages["import"]
    assert "import" not in template.container().ready.stages
