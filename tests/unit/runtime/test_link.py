"""The node may be restarted at any moment: nothing given or answered is lost, nothing runs twice."""

from __future__ import annotations

import signal

from alight.wire import payload
from alight.wire.codec import Kind, loads_head
from alight.wire.commands import LinkStop, Run
from tests.unit.runtime.conftest import CALL


def test_an_unacknowledged_output_is_sent_again(node):
    node.start("def f(x):\n    return x\n")
    node.give(1, 1)
    node.output(acknowledge=False)
    node.hang_up()
    hello = node.accept()
    assert hello.ready
    assert hello.running == ()
    head, body = node.output()
    assert (head.position, payload.loads(body)) == (1, 1)


def test_an_acknowledged_output_is_not(node):
    node.start("def f(x):\n    return x\n")
    assert node.call(1) == 1
    node.give(2, 2)  # its output says that the acknowledgement before it was read
    node.output(acknowledge=False)
    node.hang_up()
    node.accept()
    assert node.output()[0].position == 2
    node.give(3, 3)
    assert node.output()[0].position == 3


def test_an_input_that_runs_goes_on_while_the_node_is_away(node):
    node.start(
        """
        import os, time
        def f(go):
            print("begun", flush=True)
            while not os.path.exists(go):
                time.sleep(0.005)
            return "done"
        """
    )
    go = node.directory / "go"
    node.give(1, str(go))
    assert node.process.stdout.readline() == "begun\n"
    node.hang_up()
    hello = node.accept()
    assert hello.running == (Run(CALL, 1, 2, 1),)
    node.give(1, str(go))  # a node that does not know may give it again
    go.touch()
    assert node.output()[0].position == 1
    node.give(2, str(go))
    assert node.output()[0].position == 2, "the input that was given twice ran once"


def test_stop_finishes_what_runs_and_leaves_cleanly(node):
    node.start(
        """
        import atexit, threading, time
        atexit.register(print, "at exit")
        def f():
            print("run", flush=True)
            time.sleep(0.1)
        """
    )
    node.give(1)
    assert node.process.stdout.readline() == "run\n"
    node.send(Kind.LINK_STOP, LinkStop(grace=5))
    assert node.returned() == []
    assert node.output()[0].status == "success"
    code, out, err = node.end()
    assert (code, out, err) == (0, "at exit\n", "")


def test_a_thread_that_never_ends_is_cut_short_after_the_grace(node):
    node.start("import threading\ndef f():\n    threading.Thread(target=threading.Event().wait).start()\n")
    node.call()
    assert node.stop(grace=0.6)[0] == 0


def test_sigterm_ends_a_running_input_as_terminated(node):
    node.start("import time\ndef f():\n    print('begun', flush=True)\n    time.sleep(60)\n")
    node.give(1)
    assert node.process.stdout.readline() == "begun\n"
    node.process.send_signal(signal.SIGTERM)
    head, _ = node.output(acknowledge=False)  # it does not wait for that: it was told to leave
    assert head.status == "terminated"
    assert "SIGTERM" in head.error["message"]
    assert node.end()[0] == 128 + signal.SIGTERM


def test_sigterm_ends_a_container_whose_node_is_away(node):
    node.start("def f(): ...\n")
    node.listener.close()
    node.path.unlink()
    node.hang_up()
    node.process.send_signal(signal.SIGTERM)
    assert node.end()[0] == 128 + signal.SIGTERM


def test_a_cancel_is_heard_however_often_short_and_long_inputs_take_turns(node):
    """Short inputs are read by the main thread, long ones leave that to the helper: every change of hands must work."""
    node.start("import time\ndef f(seconds):\n    time.sleep(seconds)\n    return seconds\n")
    for turn in range(4):
        for short in range(3):
            node.give(turn * 10 + short, 0)
            assert node.output()[0].status == "success"
        node.give(turn * 10 + 5, 0.03)
        assert node.output()[0].status == "success"
        node.give(turn * 10 + 7, 60)
        node.cancel(turn * 10 + 7)
        assert node.output()[0].status == "cancelled"


def test_an_idle_container_hears_again_after_its_helper_fell_asleep(node):
    node.start("def f():\n    return 1\n")
    assert node.call() == 1
    waited = signal.sigtimedwait([], 0.8)  # longer than the helper looks around
    assert waited is None
    node.give(2)
    assert payload.loads(node.output()[1]) == 1
    assert node.stop()[0] == 0


def test_a_helper_that_fails_ends_the_container_instead_of_leaving_it_deaf(node):
    node.start("import time\ndef f():\n    print('begun', flush=True)\n    time.sleep(60)\n")
    node.give(1)
    assert node.process.stdout.readline() == "begun\n"
    node.send_frame(Kind.LINK_CANCEL, b"not json", b"")
    code, _, err = node.end()
    assert code == 70
    assert "the thread that speaks to the node failed" in err
    assert "_help_for_ever" in err


def test_sigterm_ends_an_idle_container(node):
    node.start("def f(): ...\n")
    node.process.send_signal(signal.SIGTERM)
    assert node.end()[0] == 128 + signal.SIGTERM


def test_a_forked_child_is_a_program_of_its_own(node):
    """Signals end it, it is local, and it never speaks on the link."""
    node.start(
        """
        import multiprocessing, time, alight
        def child(queue):
            queue.put(alight.is_local())
            time.sleep(60)
        def f():
            context = multiprocessing.get_context("fork")
            queue = context.SimpleQueue()
            process = context.Process(target=child, args=(queue,))
            process.start()
            local = queue.get()
            process.terminate()
            process.join()
            return local, process.exitcode
        """
    )
    assert node.call() == (True, -signal.SIGTERM)


def test_spawned_children_do_not_run_the_runtime(node):
    node.start(
        """
        import multiprocessing
        def child(queue):
            queue.put(42)
        def f():
            context = multiprocessing.get_context("spawn")
            queue = context.SimpleQueue()
            process = context.Process(target=child, args=(queue,))
            process.start()
            process.join()
            return queue.get()
        """
    )
    assert node.call() == 42


def test_waiting_for_a_child_is_told(node):
    node.start(
        """
        from alight.wire import ambient
        def f():
            ambient.on_waiting(True)
            ambient.on_waiting(False)
        """
    )
    node.give(1)
    for count in (1, 0):
        frame = node.receive()
        assert frame.kind == Kind.LINK_WAITING
        assert loads_head(LinkStop, frame.head).count == count
    assert node.output()[0].status == "success"
