"""Classes: parameters, hooks and their order, methods, the end."""

from __future__ import annotations

import base64
import signal

import pytest

from alight.wire import payload
from alight.wire.codec import Kind
from alight.wire.commands import LinkStop
from alight.wire.errors import from_wire
from alight.wire.spec import MethodSpec

CODE = """
    import alight, asyncio, sys
    app = alight.App()
    said = []
    class Base:
        @alight.enter()
        def base_start(self):
            said.append("base")
        @alight.exit()
        def base_end(self):
            print("base left", flush=True)
    @app.cls()
    class C(Base):
        x: int = alight.parameter(default=3)
        y: str = alight.parameter()
        @alight.enter()
        async def start(self):
            await asyncio.sleep(0)
            said.append(f"start {self.x} {self.y}")
        @alight.enter()
        def later(self):
            said.append("later")
        @alight.exit()
        def broken(self):
            raise ValueError("a hook")
        @alight.exit()
        async def end(self):
            print("left", self.x, flush=True)
        @alight.method()
        def f(self, n):
            return [said, self.x + n, self.plain()]
        @alight.method()
        def items(self, n):
            yield from range(n)
        @alight.method()
        def sibling(self, n):
            return self.f(n)[1], callable(self.f.remote), self.f.local(n)[1]
        def plain(self):
            return "plain"
"""
METHODS = (MethodSpec("f"), MethodSpec("sibling"), MethodSpec("items", is_generator=True))


def start(node, code=CODE, methods=METHODS, **options):
    parameters = base64.b64encode(payload.dumps_bytes({"y": "why"})).decode()
    spec = {"class_name": "C", "methods": methods, "parameters": parameters, **options}
    return node.start(code, "C", name="C.*", **spec)


def call(node, method, *args):
    node.give_chunk(0, [payload.dumps_bytes((args, {}))], method=method)
    head, body = node.output()
    assert head.status == "success", head
    return payload.loads(body)


def test_hooks_run_in_order_and_parameters_are_set(node):
    ready, _ = start(node)
    assert ready.failure is None
    assert call(node, "f", 4) == [["base", "start 3 why", "later"], 7, "plain"]
    node.give_chunk(1, [payload.dumps_bytes(((2,), {}))], method="items")
    assert node.items(1)[0] == [0, 1]
    code, out, err = node.stop()
    assert (code, out) == (0, "base left\nleft 3\n")
    assert "ValueError: a hook" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_exit_hooks_run_when_a_signal_ends_the_container(node, number):
    start(node)
    node.process.send_signal(number)
    node.returned()
    code, out, _ = node.end()
    assert (code, out) == (128 + number, "base left\nleft 3\n")


def test_an_exit_hook_is_not_interrupted(node):
    start(
        node,
        """
        import alight, time
        app = alight.App()
        @app.cls()
        class C:
            @alight.exit()
            def end(self):
                print("leaving", flush=True)
                time.sleep(0.3)
                print("left", flush=True)
            @alight.method()
            def f(self): ...
        """,
        parameters="",
    )
    node.send(Kind.LINK_STOP, LinkStop(grace=5))
    assert node.process.stdout.readline() == "leaving\n"
    node.process.send_signal(signal.SIGTERM)
    assert node.returned() == []
    code, out, _ = node.end()
    assert (code, out) == (0, "left\n")


def test_an_enter_hook_that_raises_is_told_instead_of_ready(node):
    ready, body = start(
        node,
        """
        import alight
        app = alight.App()
        @app.cls()
        class C:
            @alight.enter()
            def start(self):
                raise KeyError("no model")
            @alight.method()
            def f(self): ...
        """,
        parameters="",
    )
    assert ready.failure.type == "builtins.KeyError"
    assert [frame.name for frame in ready.failure.frames if frame.user] == ["start"]
    assert isinstance(payload.loads(body), KeyError)
    assert node.end()[0] == 1


def test_a_context_manager_is_entered_and_left(node):
    start(
        node,
        """
        import alight
        app = alight.App()
        @app.cls()
        class C:
            def __enter__(self):
                self.value = 5
            def __exit__(self, *_):
                print("left", flush=True)
            @alight.method()
            async def f(self):
                return self.value
        """,
        (MethodSpec("f"),),
        parameters="",
    )
    assert call(node, "f") == 5
    assert node.stop()[:2] == (0, "left\n")


def test_methods_call_each_other_plainly_and_are_handles_too(node):
    start(node)
    assert call(node, "sibling", 4) == (7, True, 7)


def test_an_overridden_hook_runs_once_as_the_class_has_it(node):
    start(
        node,
        """
        import alight
        app = alight.App()
        said = []
        class Base:
            @alight.enter(snap=False)
            def start(self):
                said.append("base")
        @app.cls()
        class C(Base):
            def start(self):
                said.append("own")
            @alight.method()
            def f(self):
                return said
        """,
        (MethodSpec("f"),),
        parameters="",
    )
    assert call(node, "f") == ["own"]


def test_a_method_that_is_not_there_is_a_sentence(node):
    start(node)
    node.give_chunk(0, [payload.dumps_bytes(((), {}))], method="nothing")
    head, _ = node.output()
    assert "no method 'nothing'" in from_wire(head.error).message


def test_blocking_methods_of_an_async_class_run_outside_of_its_loop(node):
    """They may make a loop of their own, and the class's goes on after them."""
    start(
        node,
        """
        import alight, asyncio, warnings
        app = alight.App()
        @app.cls()
        class C:
            @alight.method()
            async def later(self, x):
                await asyncio.sleep(0.001)
                return x, asyncio.get_running_loop() is asyncio.get_event_loop()
            @alight.method()
            def f(self, x):
                return asyncio.run(asyncio.sleep(0.001, 10 * x))
            @alight.method()
            def items(self, count):
                for one in range(count):
                    yield asyncio.run(asyncio.sleep(0, one))
        """,
        (MethodSpec("later"), MethodSpec("f"), MethodSpec("items", is_generator=True)),
        parameters="",
    )
    assert call(node, "later", 1) == (1, True)
    assert call(node, "f", 2) == 20
    node.give_chunk(1, [payload.dumps_bytes(((2,), {}))], method="items")
    assert node.items(1)[0] == [0, 1]
    assert call(node, "later", 3) == (3, True)
    assert node.stop()[0] == 0
