"""From `app.run()` to a result: the order of what is asked, what ends a run early, and how calls come back."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import alight
from alight.sdk import progress, waits
from alight.sdk.carrier import LostError
from alight.wire import calling, chunk, errors, messages, payload
from alight.wire.codec import MAX_INLINE, loads_head
from alight.wire.failure import Failure, FailureFrame


class Recorder(progress.Silent):
    def __init__(self):
        self.told = []

    def note(self, text):
        self.told.append(("note", text))

    def warn(self, text):
        self.told.append(("warn", text))

    def output(self, container, function, fd, data):
        self.told.append(("output", container, fd, data))

    def build_line(self, image, data):
        self.told.append(("build", data))

    def waiting(self, call, why):
        self.told.append(("waiting", why))


def double(x):
    return x * 2


def other(x):
    return x


@pytest.fixture
def server(far):
    """A server that runs functions on the spot, in this process."""
    far.impossible = {}
    far.watch = []
    far.names = {}
    far.functions = {"double": double, "other": other}
    far.blobs = {}
    far.update = {}

    def publish(asked):
        done = []
        for number, spec in enumerate(asked.args["functions"]):
            far.names[f"fu-{number}"] = spec["name"]
            done.append(messages.PublishedFunction(spec["name"], f"fu-{number}", far.impossible.get(spec["name"])))
        asked.answer(messages.AppPublished(tuple(done)))

    def stop(asked):
        asked.answer()
        for watch in far.watch:
            watch.answer(messages.AppEvent("stopped"))

    def start(asked):
        message = loads_head(calling.CallStart, _head(asked.args))
        data = asked.body or far.blobs[message.payload.blob]
        args, kwargs = payload.loads(data)
        name = far.names[message.function_id]
        value = payload.dumps_bytes(far.functions[name](*args, **kwargs))
        if message.wait:
            asked.value(message.call_id, value, **far.update)
        else:
            asked.answer(calling.CallUpdate(message.call_id, "accepted", accepted=1))

    def put(asked):
        data = b"".join(asked.pieces)
        digest = asked.args.get("digest") or "made-by-server"
        far.blobs[digest] = data
        asked.answer(messages.BlobPut(digest, len(data)))

    far.answers.update(
        {
            "app.create": lambda asked: asked.answer(messages.AppCreated("ap-1", "main")),
            "app.watch": far.watch.append,
            "blob.missing": lambda asked: asked.answer(messages.BlobMissing(tuple(asked.args["digests"]))),
            "app.publish": publish,
            "image.ensure": lambda asked: asked.answer(messages.ImageReady("im-1")),
            "app.stop": stop,
            "call.start": start,
            "call.cancel": lambda asked: asked.answer(),
        }
    )
    far.at_end["blob.put"] = put
    return far


def _head(args):
    import json

    return json.dumps(args).encode()


@pytest.fixture
def app():
    made = alight.App("test-app")
    made.function()(double)
    made.function(gpu="H200")(other)
    return made


def order(far):
    return [method for method in far.methods() if method != "blob.put"]


def test_a_run_asks_in_order_and_stops_what_it_started(server, client, app):
    with app.run(client=client) as running:
        assert running is app
        assert app.app_id == "ap-1"
        assert app._functions["double"].remote(21) == 42
        assert app._functions["double"].object_id == "fu-0"
    assert order(server) == [
        "app.create", "app.watch", "blob.missing", "blob.put_many",
        "app.publish", "image.ensure", "call.start", "app.stop",
    ]  # fmt: skip
    with pytest.raises(errors.ExecutionError, match="not running"):
        app._functions["double"].remote(1)


def test_the_spec_says_where_the_code_is(server, client, app):
    with app.run(client=client):
        pass
    spec = server.of("app.publish")[0].args["functions"][0]
    assert spec["module"].split(".")[-1] == "test_run"
    assert spec["qualname"] == "double"
    assert spec["files"][0]["path"].startswith("/root")
    assert spec["files"][0]["tree"] in server.blobs
    assert any(b"def double" in blob for blob in server.blobs.values())


def test_the_same_works_on_an_event_loop(server, client, app):
    async def main():
        async with app.run(client=client):
            function = app._functions["double"]
            assert await asyncio.gather(*[function.remote.aio(n) for n in range(5)]) == [0, 2, 4, 6, 8]

    asyncio.run(main())
    assert order(server)[-1] == "app.stop"


def test_a_needed_function_that_no_machine_can_run_ends_it_before_any_build(server, client, app):
    server.impossible["other"] = errors.to_wire(errors.ResourceExhaustedError("no H200 here", hint="--gpu none"))
    with pytest.raises(errors.ResourceExhaustedError, match="no H200"), app.run(client=client, _needed={"other"}):
        pytest.fail("it must not run")
    assert "image.ensure" not in server.methods()
    assert order(server)[-1] == "app.stop"


def test_one_that_is_not_needed_is_only_warned_of(server, client, app):
    server.impossible["other"] = errors.to_wire(errors.ResourceExhaustedError("no H200 here"))
    recorder = Recorder()
    with progress.showing(recorder), app.run(client=client):
        assert app._functions["double"].remote(1) == 2
    assert ("warn", "other cannot run here: no H200 here") in recorder.told


def test_the_gpu_of_the_command_line_replaces_the_declared_one(server, client, app):
    for given, meant in (("none", None), ("t4", ["T4"]), (None, ["H200"])):
        with app.run(client=client, _gpu=given):
            pass
        spec = server.of("app.publish")[-1].args["functions"][1]
        assert spec.get("resources", {}).get("gpus") == meant


def test_what_the_block_raises_stops_the_app_and_goes_on(server, client, app):
    with pytest.raises(KeyError, match="mine"), app.run(client=client):
        raise KeyError("mine")
    assert server.of("app.stop")[0].args["reason"] == "KeyError"
    with pytest.raises(KeyboardInterrupt), app.run(client=client):
        raise KeyboardInterrupt
    assert len(server.of("app.stop")) == 2


def test_a_detached_app_goes_on(server, client, app):
    with app.run(client=client, detach=True):
        pass
    assert "app.stop" not in server.methods()
    assert server.of("app.create")[0].args["kind"] == "detached"


def test_a_run_within_a_run_and_while_importing_is_refused(server, client, app, monkeypatch):
    with app.run(client=client), pytest.raises(errors.ExecutionError, match="running already"), app.run(client=client):
        pass
    from alight.wire import ambient

    monkeypatch.setattr(ambient, "importing", True)
    with pytest.raises(errors.ExecutionError, match="while the script is imported"), app.run(client=client):
        pass


def test_a_missing_file_of_a_needed_function_names_it(server, client):
    app = alight.App("a", image=alight.Image.debian_slim().add_local_dir("/surely/not/here", "/data"))
    app.function()(double)
    with pytest.raises(errors.InvalidError, match="/surely/not/here"), app.run(client=client):
        pass
    assert order(server)[-1] == "app.stop"


def test_what_only_others_lack_waits_for_their_call(server, client):
    app = alight.App("a")
    app.function()(double)
    app.function(image=alight.Image()._with({"op": "later", "sentence": "this needs a newer version"}))(other)
    with app.run(client=client, _needed={"double"}):
        assert app._functions["double"].remote(2) == 4
        with pytest.raises(errors.UnimplementedError, match="newer version"):
            app._functions["other"].remote(1)


def test_large_arguments_go_as_blobs(server, client, app):
    data = b"x" * (MAX_INLINE + 10)
    with app.run(client=client):
        assert len(app._functions["double"].remote(data)) == 2 * len(data)
    started = server.of("call.start")[0]
    assert started.args["payload"]["blob"] == "made-by-server"
    assert started.body == b""


def test_large_results_come_as_blobs_and_writable(server, client, app):
    value = payload.dumps_bytes(bytearray(b"big"))
    server.answers["blob.get"] = lambda asked: asked.answer({}, value)
    server.answers["call.start"] = lambda asked: asked.value(
        "fc", chunk.reference("d", len(value)), flags=chunk.REFERENCE
    )
    with app.run(client=client):
        assert app._functions["double"].remote(1) == b"big"


def test_an_argument_that_cannot_be_pickled_is_named(server, client, app):
    with app.run(client=client):
        with pytest.raises(errors.SerializationError, match=r"the argument 'x' of double\(\)"):
            app._functions["double"].remote(threading.Lock())
        with pytest.raises(errors.SerializationError, match=r"the argument 'y' of double\(\)"):
            app._functions["double"].remote(1, y=threading.Lock())


def test_remote_exceptions_are_raised_as_themselves(server, client, app):
    failure = Failure("builtins.ValueError", "bad", (FailureFrame("/root/x.py", 3, "f", "raise"),), pickled=True)
    server.answers["call.start"] = lambda asked: asked.answer(
        calling.CallUpdate("fc", "done", status="exception", failure=failure, container="ta-1"),
        payload.dumps_bytes(ValueError("bad")),
    )
    with app.run(client=client), pytest.raises(ValueError, match="bad") as caught:
        app._functions["double"].remote(1)
    assert str(caught.traceback[-1].path).endswith("x.py")


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        ("timeout", errors.FunctionTimeoutError("ran longer than 3 s"), errors.FunctionTimeoutError),
        ("terminated", errors.RemoteError("killed for memory"), errors.RemoteError),
        ("impossible", errors.ResourceExhaustedError("no such GPU"), errors.ResourceExhaustedError),
        ("cancelled", None, errors.RemoteError),
    ],
)
def test_other_endings_are_errors_of_their_own(server, client, app, status, error, kind):
    plain = None if error is None else errors.to_wire(error)
    server.answers["call.start"] = lambda asked: asked.answer(
        calling.CallUpdate("fc", "done", status=status, error=plain)
    )
    with app.run(client=client), pytest.raises(kind):
        app._functions["double"].remote(1)


def test_output_that_belongs_before_a_result_is_seen_before_it(server, client, app):
    recorder = Recorder()
    server.update = {"container": "ta-1", "log_offset": 20}

    def later():
        time.sleep(0.02)
        server.watch[0].say(messages.AppEvent("output", container="ta-1", fd=1, offset=20, time=1.0), b"hello\n")

    with progress.showing(recorder), app.run(client=client):
        thread = threading.Thread(target=later)
        thread.start()
        app._functions["double"].remote(1)
        assert ("output", "ta-1", 1, b"hello\n") in recorder.told
        thread.join()


def test_a_restarted_server_gets_calls_again_by_id_and_no_line_is_drawn_twice(server, client, app):
    recorder = Recorder()
    finish = server.answers["call.start"]
    server.answers["call.start"] = lambda asked: None
    line = messages.AppEvent("output", container="ta-1", fd=1, offset=20, time=time.time())

    with progress.showing(recorder), app.run(client=client):
        server.watch[0].say(line, b"once\n")

        def crash():
            while not server.of("call.start"):
                time.sleep(0.001)
            server.answers["call.start"] = finish
            server.answers["app.watch"] = lambda asked: (server.watch.append(asked), asked.say(line, b"once\n"))
            server.watch.clear()
            server.ends[0].break_off()

        thread = threading.Thread(target=crash)
        thread.start()
        assert app._functions["double"].remote(4) == 8
        thread.join()
        while not server.watch:
            time.sleep(0.001)
    first, second = server.of("call.start")
    assert first.args["call_id"] == second.args["call_id"]
    assert first.body == second.body
    assert second.args["resend"] is True
    assert [what for what in recorder.told if what[0] == "output"] == [("output", "ta-1", 1, b"once\n")]
    assert ("note", "the server was restarted; picked up 1 call") in recorder.told


def test_spawn_returns_at_once_and_the_result_is_had_later(server, client, app):
    polls = []

    def result(asked):
        polls.append(asked.args.get("timeout"))
        if len(polls) == 1:
            asked.fail(errors.TimeoutError("not yet"))
        else:
            asked.value("fc", payload.dumps_bytes(7))

    server.answers["call.result"] = result
    with app.run(client=client):
        call = app._functions["double"].spawn(1)
        assert server.of("call.start")[0].args["wait"] is False
        with pytest.raises(TimeoutError) as caught:
            call.get(timeout=0)
        assert type(caught.value) is TimeoutError
        assert call.get() == 7
        assert alight.FunctionCall.from_id(call.object_id, client).get(timeout=3) == 7
        assert alight.FunctionCall.gather(call, call) == [7, 7]
        call.cancel()
    assert polls[:2] == [0.0, None] or polls[:2] == [0, None]
    with pytest.raises(errors.InvalidError, match="not the id of a call"):
        alight.FunctionCall.from_id("nonsense")


def test_an_interrupted_call_is_cancelled(server, client, app):
    server.answers["call.start"] = lambda asked: None

    async def main():
        async with app.run(client=client):
            task = asyncio.create_task(app._functions["double"].remote.aio(1))
            while not server.of("call.start"):  # noqa: ASYNC110  the far side is a thread
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while not server.of("call.cancel"):  # noqa: ASYNC110  the far side is a thread
                await asyncio.sleep(0.001)

    asyncio.run(main())
    assert server.of("call.cancel")[0].args["call_id"] == server.of("call.start")[0].args["call_id"]


def test_why_a_call_waits_is_told_once_it_is_long(server, client, app, monkeypatch):
    monkeypatch.setattr(waits, "WONDER", 0.02)
    recorder = Recorder()

    def slow(asked):
        asked.say(calling.CallUpdate("fc", "waiting", why="waiting for a container: 1 starting"))
        threading.Timer(0.08, lambda: asked.value("fc", payload.dumps_bytes(1))).start()

    server.answers["call.start"] = slow
    with progress.showing(recorder), app.run(client=client):
        assert app._functions["double"].remote(1) == 1
    told = [what[1] for what in recorder.told if what[0] == "waiting"]
    assert told == ["waiting for a container: 1 starting", ""]


def test_inside_a_container_siblings_are_found_by_name(far, client, app, monkeypatch):
    from alight.wire import ambient

    inside = ambient.Container("ta-1", "ap-1", "test-app", "main", "fu-9", "double", "im-1")
    waits = []
    monkeypatch.setattr(ambient, "container", inside)
    monkeypatch.setattr(ambient, "on_waiting", waits.append)
    monkeypatch.setattr("alight.sdk.handle.default_client", lambda: client)
    far.answers["function.lookup"] = lambda asked: asked.answer(messages.PublishedFunction("other", "fu-2"))
    far.answers["call.start"] = lambda asked: asked.value("fc", payload.dumps_bytes(asked.args["function_id"]))
    assert app._functions["other"].remote(1) == "fu-2"
    assert app._functions["double"].remote(1) == "fu-9"
    assert app._functions["other"].remote(1) == "fu-2"
    assert len(far.of("function.lookup")) == 1
    assert waits == [True, False] * 3


def test_a_lost_error_is_a_connection_error():
    assert issubclass(LostError, errors.ConnectionError)
