"""What may not be forked is refused, in a sentence that says what was found and where it belongs."""

from __future__ import annotations

import stat

import pytest

from alight.runtime.forkable import Descriptor, Facts, gather, kept, refusals
from tests.unit.runtime.templates import Template


@pytest.fixture
def template(tmp_path):
    made = Template(tmp_path)
    yield made
    made.close()


def test_nothing_found_is_nothing_refused():
    fine = (Descriptor(5, "/data/book", stat.S_IFREG), Descriptor(6, "/dev/null", stat.S_IFCHR, writes=True))
    facts = Facts(descriptors=fine, pools=("/lib/libgomp.so.1",))
    assert refusals(facts) == []
    assert kept(facts) == [5, 6]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts(python_threads=("loader",)), "1 thread (loader)"),
        (Facts(python_threads=("a", "b", "c", "d", "e")), "5 threads (a, b, c and 2 more)"),
        (Facts(native_threads=("python",), pools=("/lib/libgomp.so.1",)), "libgomp.so.1: more than one thread"),
        (Facts(native_threads=("grpc_global_tim",)), "1 native thread (grpc_global_tim) of gRPC"),
        (Facts(cuda=True), "CUDA was initialised"),
        (Facts(descriptors=(Descriptor(9, "/dev/nvidia0", stat.S_IFCHR, writes=True),)), "CUDA was initialised"),
        (Facts(children=("sleep",)), "1 child process (sleep)"),
        (Facts(descriptors=(Descriptor(9, "socket:[1]", stat.S_IFSOCK, writes=True),)), "a socket"),
        (Facts(descriptors=(Descriptor(9, "pipe:[1]", stat.S_IFIFO),)), "a pipe"),
        (Facts(descriptors=(Descriptor(9, "anon_inode:[eventpoll]", 0, writes=True),)), "an event loop"),
        (Facts(descriptors=(Descriptor(9, "/tmp/log", stat.S_IFREG, writes=True),)), "a file for writing (/tmp/log)"),
        (Facts(descriptors=(Descriptor(9, "/data", stat.S_IFDIR),)), "a directory (/data)"),
        (Facts(descriptors=(Descriptor(9, "/dev/kvm", stat.S_IFCHR, writes=True),)), "a device (/dev/kvm)"),
        (Facts(shared=("/dev/zero (deleted)",)), "memory shared between processes"),
        (Facts(has_gil=False), "global interpreter lock"),
        (Facts(unseen=("/proc/self/task: denied",)), "it cannot be known"),
    ],
)
def test_each_thing_is_refused_by_name(facts, words):
    (said,) = refusals(facts)
    assert words in said
    assert "before the snapshot" in said or facts.unseen or not facts.has_gil


def test_several_of_a_kind_are_one_sentence():
    sockets = tuple(Descriptor(number, "socket:[1]", stat.S_IFSOCK, writes=True) for number in range(4, 9))
    assert len(refusals(Facts(descriptors=sockets))) == 1


def test_looking_finds_what_this_process_has(tmp_path):
    with (tmp_path / "out").open("w") as file, (tmp_path / "out").open() as reading:
        found = {one.number: one for one in gather(set()).descriptors}
        assert found[file.fileno()] == Descriptor(file.fileno(), str(tmp_path / "out"), stat.S_IFREG, writes=True)
        assert not found[reading.fileno()].writes
        assert file.fileno() not in {one.number for one in gather({file.fileno()}).descriptors}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "import threading as t\nt.Thread(target=t.Event().wait, daemon=True, name='idler').start()",
            "1 thread (idler)",
        ),
        ("import socket\nS = socket.socket()", "a socket"),
        ("import os\nP = os.pipe()", "a pipe"),
        ("F = open('written', 'w')", "a file for writing"),
        ("import subprocess\nP = subprocess.Popen(['sleep', '3'], stdout=-3, stderr=-3)", "1 child process (sleep)"),
        ("import asyncio\nL = asyncio.new_event_loop()", "an event loop"),
        ("import mmap\nM = mmap.mmap(-1, 4096)", "memory shared between processes"),
        ("import os\nD = os.open('.', os.O_RDONLY)", "a directory"),
    ],
)
def test_a_template_with_it_is_refused(template, code, words):
    ready, _ = template.up(code + "\ndef f(): ...\n")
    assert words in " ".join(ready.refused)
    assert ready.failure is None
    assert template.node.process.wait() == 0


def test_a_pool_that_a_thread_leaves_behind_is_no_thread(template):
    """An executor that was closed is gone."""
    ready, _ = template.up(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor() as pool:\n    pool.submit(int).result()\n"
        "def f():\n    return 5\n"
    )
    assert ready.refused == ()
    assert template.container().call() == 5


def test_native_threads_that_python_did_not_start_are_refused(template):
    """As a library's pool would leave them."""
    ready, _ = template.up(
        """
        import ctypes
        libc = ctypes.CDLL(None)
        made = ctypes.c_ulong()
        libc.pthread_create(ctypes.byref(made), None, ctypes.cast(libc.pause, ctypes.c_void_p), None)
        def f(): ...
        """
    )
    assert "1 native thread" in ready.refused[0]


def test_a_fork_that_hangs_is_found_before_anybody_waits_for_one(template):
    code = "import os, time\nos.register_at_fork(after_in_child=lambda: time.sleep(99))\ndef f(): ...\n"
    ready, _ = template.up(code, env={"CANARY_PATIENCE": "0.3"})
    assert "did not finish" in ready.refused[0]
    assert template.node.process.wait() == 0


def test_a_fork_that_crashes_is_found_too(template):
    code = "import os\nos.register_at_fork(after_in_child=os.abort)\ndef f(): ...\n"
    ready, _ = template.up(code)
    assert "killed by signal 6" in ready.refused[0]


def test_using_alight_before_the_snapshot_is_refused_with_the_way_out(template):
    ready, _ = template.up(
        """
        import alight
        NAMES = alight.Function.from_name("app", "names").remote()
        def f(): ...
        """,
    )
    assert ready.failure is None
    assert "@enter() without snap=True" in ready.refused[0]
