"""Handles of calls: started here, asked for elsewhere, cancelled, gathered, looked into."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.system.scripted import Script

FUNCTIONS = '''
@app.function()
def double(x):
    return 2 * x


@app.function()
def nap(seconds, value=None):
    time.sleep(seconds)
    return value


@app.function()
def refuse(x, bad=()):
    if x in bad:
        raise ValueError(f"no {x} here")
    return x


@app.function()
def who_am_i():
    return [alight.current_input_id(), alight.current_function_call_id(), alight.is_local()]


@app.function()
def middle(x):
    return double.remote(x) + 1


@app.function()
def top(x):
    return sum(middle.map([x, x + 1]))


@app.function()
def patient(path):
    """Sleeps until it is told to stop, and leaves a word about it."""
    print("patient began", flush=True)
    try:
        time.sleep(60)
    except BaseException as error:
        print("patient was ended by", type(error).__name__, flush=True)
        raise


@app.function()
async def patient_async():
    print("patient_async began", flush=True)
    try:
        await asyncio.sleep(60)
    except BaseException as error:
        print("patient_async was ended by", type(error).__name__, flush=True)
        raise
'''


@pytest.fixture(scope="module")
def script(machine, tmp_path_factory) -> Script:
    return Script(machine, tmp_path_factory.mktemp("calls"), "test-calls", FUNCTIONS)


def test_a_call_of_one_process_read_by_another(script):
    call_id, many_id, failed_id = script("""
        one, failed = double.spawn(21), refuse.spawn(1, [1])
        many = double.experimental_spawn_map(range(4))
        answer = [one.object_id, many.object_id, failed.object_id]
        one.get(), list(many.iter()), raised(failed.get)
    """)
    assert script(
        """
        call, many = alight.FunctionCall.from_id(sys.argv[1]), alight.FunctionCall.from_id(sys.argv[2])
        failed = alight.FunctionCall.from_id(sys.argv[3])
        answer = [call.get(), call.get(timeout=0), call.num_inputs(), many.num_inputs(), many.get(index=3),
                  list(many.iter()), list(many.iter(start=1, end=3)), raised(failed.get)]
    """,
        call_id,
        many_id,
        failed_id,
    ) == [42, 42, 1, 4, 6, [0, 2, 4, 6], [2, 4], ["ValueError", "no 1 here"]]


def test_not_ready_is_the_builtin_timeout(script):
    answer = script("""
        call = nap.spawn(1.5, "done")
        kinds = []
        for limit in (0, 0.2):
            began = time.monotonic()
            try:
                call.get(timeout=limit)
            except TimeoutError as error:
                kinds.append([type(error).__module__, time.monotonic() - began < limit + 1])
        answer = [kinds, call.get(timeout=30), call.get()]
    """)
    assert answer == [[["builtins", True], ["builtins", True]], "done", "done"]


def test_outputs_of_a_call_that_still_runs_are_followed(script):
    answer = script("""
        call = nap.experimental_spawn_map([0.01, 1.0], [1, 2])
        began = time.monotonic()
        seen = []
        for value in call.iter():
            seen.append([value, time.monotonic() - began])
        answer = [seen, raised(call.get, index=7)]
    """)
    values = [value for value, _ in answer[0]]
    assert values == [1, 2]
    assert answer[0][0][1] < answer[0][1][1] - 0.5, "the first output was kept back until the second was there"
    assert answer[1][0] == "NotFoundError"


def test_spawn_map_returns_nothing_and_runs_everything(script):
    answer, lines = script.output("""
        nothing = nap.spawn_map([0.0] * 4, range(4))
        told = double.spawn_map(range(300))
        answer = [nothing, told, quiet(nap), quiet(double)]
    """)
    assert answer == [None, None, True, True]
    assert not [line for line in lines if "Traceback" in line]


def test_gather(script):
    assert script("""
        calls = [nap.spawn(0.3 / n, n) for n in (1, 2, 3)]
        bad = [double.spawn(1), refuse.spawn(2, [2]), nap.spawn(30)]
        began = time.monotonic()
        answer = [
            alight.FunctionCall.gather(*calls),
            raised(alight.FunctionCall.gather, *bad),
            time.monotonic() - began < 15,
            asyncio.run(alight.FunctionCall.gather.aio(*calls)),
        ]
        bad[2].cancel()
    """) == [[1, 2, 3], ["ValueError", "no 2 here"], True, [1, 2, 3]]


def test_cancelling_reaches_what_runs_and_what_waits(script):
    answer, lines = script.output("""
        calls = [patient.spawn("x"), patient_async.spawn()]
        for function in (patient, patient_async):
            assert until(lambda: function.get_current_stats().num_running_inputs)
        time.sleep(0.3)
        began = time.monotonic()
        many = nap.experimental_spawn_map([30.0] * 50)
        for one in (*calls, many):
            one.cancel()
            one.cancel()
        answer = [[raised(one.get)[0] for one in calls], raised(list, many.iter())[0]]
        answer += [quiet(patient), quiet(patient_async), quiet(nap), time.monotonic() - began < 15, double.remote(4)]
    """)
    assert answer == [["RemoteError", "RemoteError"], "RemoteError", True, True, True, True, 8]
    assert "patient was ended by InputCancellation" in lines
    assert "patient_async was ended by CancelledError" in lines


def test_cancelling_with_containers(script):
    assert script("""
        before = who_am_i.get_current_stats()
        call = nap.spawn(60)
        assert until(lambda: nap.get_current_stats().num_running_inputs == 1)
        call.cancel(terminate_containers=True)
        answer = [raised(call.get)[0], until(lambda: nap.get_current_stats().num_total_runners == 0, 5)]
    """) == ["RemoteError", True]


def test_what_is_done_stays_done(script):
    assert script("""
        call = double.spawn(4)
        value = call.get()
        call.cancel()
        answer = [value, call.get()]
    """) == [8, 8]


def test_who_calls_whom(script):
    answer = script("""
        call = top.spawn(1)
        value = call.get()
        def shown(one):
            return [one.function_name, one.status.name, one.function_call_id.startswith("fc-"),
                    one.input_id.startswith("in-"), [shown(child) for child in one.children]]
        answer = [value, [shown(one) for one in call.get_call_graph()]]
    """)
    leaf = ["double", "SUCCESS", True, True, []]
    branch = ["middle", "SUCCESS", True, True, [leaf]]
    assert answer == [8, [["top", "SUCCESS", True, True, [branch, branch]]]]


def test_what_an_input_knows_of_itself(script):
    answer = script("""
        call = who_am_i.spawn()
        one = call.get()
        many = list(who_am_i.starmap([()] * 20))
        answer = [one, call.object_id, many, [alight.current_input_id(), alight.is_local()]]
    """)
    (input_id, call_id, local), spawned, many, outside = answer
    assert (call_id, local) == (spawned, False)
    assert input_id.startswith("in-")
    assert len({one[0] for one in many}) == 20, "inputs of a map share an id"
    assert len({one[1] for one in many}) == 1
    assert outside == [None, True]


def test_ctrl_c_cancels_the_call(script):
    """As `timeout` and shells send it. The call of an app that ends is cancelled with it."""
    path = script.write("""
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            list(nap.map([30.0] * 3))
        except KeyboardInterrupt:
            answer = [True, quiet(nap)]
    """)
    done = subprocess.run(
        [sys.executable, str(path)],
        env=script.machine.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["[true, true]"], done.stderr
    assert done.returncode != -signal.SIGINT
