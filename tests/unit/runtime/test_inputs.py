"""Inputs and their outputs: values, exceptions, cancellation, large things."""

from __future__ import annotations

import os
import sys

from alight.wire import chunk, ids, payload
from alight.wire.codec import MAX_INLINE
from alight.wire.errors import InvalidError, RemoteError, SerializationError, from_wire
from tests.unit.runtime.conftest import CALL, OTHER, input_id


def failed(node, *args):
    node.give(1, *args)
    head, body = node.output()
    assert head.status == "exception", head
    return head, payload.loads(body) if head.failure.pickled else None


def test_output_is_flushed_before_the_result(node):
    """The node drains the pipes when it hears the output: nothing may still be in the process then."""
    node.start("def f():\n    print('no newline', end='')\n    return 1\n")
    os.set_blocking(node.process.stdout.fileno(), False)
    assert node.call() == 1
    assert os.read(node.process.stdout.fileno(), 100) == b"no newline"


def test_ids_are_known_while_the_input_runs(node):
    node.start(
        """
        import alight
        def f():
            return alight.current_input_id(), alight.current_function_call_id()
        """
    )
    node.give(0)
    assert payload.loads(node.output()[1]) == (ids.input_id(CALL, 0), CALL)
    node.give(7, flags=0)
    assert payload.loads(node.output()[1]) == (ids.input_id(CALL, 7), CALL)


def test_an_exception_keeps_its_type_its_lines_and_its_cause(node):
    node.start(
        """
        class Mine(Exception): ...
        def deeper(x):
            return 1 / x
        def f(x):
            try:
                deeper(x)
            except ZeroDivisionError as error:
                raise ValueError("no good") from error
        """
    )
    head, error = failed(node, 0)
    assert isinstance(error, ValueError)
    failure = head.failure
    assert failure.type == "builtins.ValueError"
    assert failure.message == "no good"
    assert [(frame.name, frame.line) for frame in failure.frames if frame.user] == [("f", 9)]
    assert failure.frames[-1].text == 'raise ValueError("no good") from error'
    assert failure.context_suppressed
    assert [(frame.name, frame.line) for frame in failure.cause.frames] == [("f", 7), ("deeper", 4)]
    assert node.call.__self__ is node  # the container lives on:
    assert failed(node, 0)[1].args == ("no good",)


def test_an_exception_that_cannot_travel_is_told_in_words(node):
    node.start(
        """
        import threading
        class Odd(Exception): ...
        def f():
            raise Odd(threading.Lock())
        """
    )
    head, _ = failed(node)
    assert not head.failure.pickled
    assert head.failure.type == "usercode.Odd"
    assert head.failure.frames


def test_an_exception_that_pickle_cannot_make_anew_travels_all_the_same(node, monkeypatch):
    """Many libraries' exceptions take other arguments than they hand to Exception."""
    node.start(
        """
        class Strict(Exception):
            def __init__(self, a, b):
                super().__init__(f"{a} and {b}")
                self.a = a
        def f():
            raise Strict(1, 2)
        """
    )
    monkeypatch.syspath_prepend(str(node.directory))
    try:
        _, error = failed(node)
    finally:
        sys.modules.pop("usercode", None)
    assert type(error).__name__ == "Strict"
    assert (str(error), error.a) == ("1 and 2", 1)


def test_exit_and_interrupt_in_a_function_are_failures(node):
    node.start("import sys\ndef f(x):\n    if x: raise KeyboardInterrupt\n    sys.exit('bye')\n")
    _, error = failed(node, 0)
    assert isinstance(error, RemoteError)
    assert "exit('bye')" in str(error)
    _, error = failed(node, 1)
    assert "KeyboardInterrupt" in str(error)


def test_a_result_that_cannot_be_pickled_is_named(node):
    node.start("import threading\ndef f():\n    return {'lock': threading.Lock()}\n")
    _, error = failed(node)
    assert isinstance(error, SerializationError)
    assert "the result of f() (of type dict)" in str(error)


def test_a_plain_function_may_not_return_something_that_runs_later(node):
    node.start("def f(x):\n    return (i for i in range(x))\n")
    _, error = failed(node, 3)
    assert isinstance(error, InvalidError)
    assert "returned a generator" in str(error)


def test_arguments_of_a_missing_class_are_a_sentence(node):
    node.start("def f(x): ...\n")
    node.give_chunk(1, [b"\0\0\0\1" + b"\0" * 7 + b"\1."])
    head, _ = node.output()
    assert "the arguments of f()" in from_wire(head.error).message


def test_an_endless_recursion_is_cut_to_its_ends(node):
    node.start("def f(x):\n    return f(x + 1)\n")
    head, error = failed(node, 0)
    assert isinstance(error, RecursionError)
    assert len(head.failure.frames) <= 120


def test_large_results_go_through_a_file(node):
    node.start("def f(n):\n    return bytes(n)\n")
    node.give(1, MAX_INLINE + 1)
    head, bodies = node.outputs()
    assert head.is_reference
    name, size = chunk.read_reference(bodies[0])
    spooled = node.directory / name
    assert spooled.stat().st_size == size
    assert payload.loads(spooled.read_bytes()) == bytes(MAX_INLINE + 1)


def test_large_arguments_come_through_a_file_and_may_be_changed(node):
    node.start("def f(x):\n    x[0] = 7\n    return x[0], len(x)\n")
    import pickle

    value = bytearray(3 << 20)
    parts = payload.dumps(((pickle.PickleBuffer(value),), {}))
    (node.directory / "big").write_bytes(b"".join(bytes(part) for part in parts))
    node.give(1, reference="big")
    head, body = node.output()
    assert payload.loads(body) == (7, 3 << 20), head
    assert (node.directory / "big").read_bytes()[-(3 << 20)] == 0, "the node's file is not the function's to change"


def test_a_full_disk_is_a_failure_of_that_input(node):
    node.start("def f(n):\n    return bytes(n)\n")
    (node.directory / f"out-{input_id(1)}-1").mkdir()  # nothing can be written there
    _, error = failed(node, MAX_INLINE + 1)
    assert isinstance(error, RemoteError)
    assert "could not be kept" in str(error)


def test_a_running_input_is_cancelled_and_the_next_one_runs(node):
    node.start(
        """
        import time
        def f(x):
            if not x:
                try:
                    print("sleeping", flush=True)  # inside: the signal may come as soon as this is read
                    time.sleep(60)
                finally:
                    print("cleaned up")
            return x
        """
    )
    node.give(0, 0)
    assert node.process.stdout.readline() == "sleeping\n"
    node.give(2, 2)
    node.give(3, 3)
    node.cancel(3)
    node.cancel(0)
    head, _ = node.output()
    assert (head.position, head.status) == (0, "cancelled")
    assert node.process.stdout.readline() == "cleaned up\n"
    head, body = node.output()
    assert (head.position, payload.loads(body)) == (2, 2)
    head, _ = node.output()
    assert (head.position, head.status) == (3, "cancelled"), "it had not begun"


def test_cancelling_what_is_over_does_nothing(node):
    node.start("def f(x):\n    return x\n")
    assert node.call(1) == 1
    node.cancel(1)
    node.cancel(77)
    node.cancel(call=OTHER)
    node.give(2, 2)
    assert payload.loads(node.output()[1]) == 2


def test_async_functions_share_one_loop_that_lives_on(node):
    node.start(
        """
        import asyncio
        ticks = []
        async def tick():
            while True:
                ticks.append(1)
                await asyncio.sleep(0.001)
        background = None
        async def f():
            global background
            if background is None:
                background = asyncio.ensure_future(tick())
                return 0
            while len(ticks) < 5:
                await asyncio.sleep(0.001)
            return len(ticks)
        """
    )
    assert node.call() == 0
    node.give(2)
    assert payload.loads(node.output()[1]) >= 5
    code, _, err = node.stop()
    assert (code, err) == (0, "")


def test_an_async_input_is_cancelled(node):
    node.start(
        """
        import asyncio
        async def f(x):
            if not x:
                print("waiting", flush=True)
                await asyncio.sleep(60)
            if x == 9:
                raise ValueError("nine")
            return x
        """
    )
    node.give(0, 0)
    assert node.process.stdout.readline() == "waiting\n"
    node.cancel(0)
    head, _ = node.output()
    assert head.status == "cancelled"
    assert node.call(1) == 1
    _, error = failed(node, 9)
    assert isinstance(error, ValueError)
