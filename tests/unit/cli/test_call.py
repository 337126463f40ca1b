"""Protects what `alight call` asks of a server and what it prints, with a server that answers as it is told."""

from __future__ import annotations

import json
import time

import pytest

from alight.cli import following, main, session
from alight.wire import chunk, ids, payload
from alight.wire.billing import CostTold
from alight.wire.calling import (
    CallCancel,
    CallDetails,
    CallGraph,
    CallList,
    CallListed,
    CallSummary,
    CallUpdate,
    RunningInput,
    Waiting,
)
from alight.wire.codec import dumps_head
from alight.wire.errors import PermissionDeniedError
from alight.wire.failure import Failure

CALL = "fc-" + "1" * 22
PARENT = "fc-" + "2" * 22
APP = "ap-" + "3" * 22
BOX = "ta-" + "4" * 22


def summary(state="running", **fields):
    now = time.time()
    known = {"call_id": CALL, "function": "fit", "function_id": "fu-1", "app_id": APP, "app": "trainer", "verb": "map"}
    ended = {"done_at": now - 5} if state == "done" else {}
    return CallSummary(**{**known, "state": state, "created_at": now - 65, **ended, **fields})


HALF = {"accepted": 10, "total": 10, "waiting": 3, "running": 2, "succeeded": 4, "failed": 1}
WHOLE = {"accepted": 10, "total": 10, "succeeded": 10}


class Server:
    """Answers by method; a list is answered one by one, the last one for ever."""

    def __init__(self):
        self.asked = []
        self.answers = {"usage.call": CostTold(0.0, "USD", small=True)}

    def ask(self, method, request, reply):
        self.asked.append((method, request))
        answer = self.answers[method]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, reply)
        return answer

    def tell(self, method, request):
        self.asked.append((method, request))

    def stream(self, method, request):
        self.asked.append((method, request))
        yield from self.answers[method]


@pytest.fixture
def server(monkeypatch):
    made = Server()
    for name in ("ask", "tell", "stream"):
        monkeypatch.setattr(session, name, getattr(made, name))
    monkeypatch.setattr(following, "_FIRST", 0.001)
    return made


def show(server, capsys, details):
    server.answers["call.show"] = details
    assert main.run(["call", "show", CALL]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


# list


def test_a_list_asks_for_what_was_chosen_and_says_what_else_there_is(server, capsys):
    server.answers["call.list"] = CallListed((summary(**HALF),), True, 1_234_567, 1)
    chosen = ["--app", "trainer", "--function", "fit", "--state", "running", "--limit", "1", "-e", "lab"]
    assert main.run(["call", "list", *chosen]) == 0
    assert server.asked == [("call.list", CallList("lab", "trainer", "fit", "running", 1))]
    printed = capsys.readouterr()
    head, row = printed.out.splitlines()
    assert " ".join(head.split()) == "Call ID App Function Verb State Waiting Running Done Failed Created at"
    assert row.split()[:9] == [CALL, "trainer", "fit", "map", "running", "3", "2", "5", "1"]
    assert printed.err.strip() == (
        "(1,234,567 inputs waiting, 1 running; the newest 1 calls are shown; --limit 0 shows all)"
    )


def test_a_list_for_programs(server, capsys):
    server.answers["call.list"] = CallListed((summary(**HALF),))
    assert main.run(["call", "list", "--json"]) == 0
    printed = capsys.readouterr()
    (row,) = json.loads(printed.out)
    assert (row["call_id"], row["state"], row["waiting"], row["done"]) == (CALL, "running", 3, 5)
    assert printed.err == ""


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        (WHOLE, "done"),
        ({**WHOLE, "failed": 1}, "failed"),
        ({**WHOLE, "failed": 1, "cancelled": True}, "cancelled"),
        ({**WHOLE, "caller_gone": True}, "incomplete"),
    ],
)
def test_done_says_how(server, capsys, fields, word):
    server.answers["call.list"] = CallListed((summary("done", **fields),))
    main.run(["call", "list"])
    assert capsys.readouterr().out.splitlines()[1].split()[4] == word


def test_no_calls(server, capsys):
    server.answers["call.list"] = CallListed()
    main.run(["call", "list"])
    assert capsys.readouterr().err == "No calls yet. `alight run script.py` makes one.\n"
    main.run(["call", "list", "--state", "waiting"])
    assert capsys.readouterr().err == "No calls like that.\n"


# show


def test_a_call_is_shown_with_its_caller_and_its_inputs(server, capsys):
    running = (RunningInput(5, ids.input_id(CALL, 5), BOX, time.time() - 4, 2),)
    details = CallDetails(
        summary(**HALF, parent_input=ids.input_id(PARENT, 3)), None, running, ((2, "ValueError: bad\nrow"),)
    )
    lines = show(server, capsys, details)
    assert lines[0] == f"call {CALL} running"
    assert lines[1] == f"function fit() of trainer ({APP})"
    assert lines[2].endswith(f"(1 min 5 s ago), by input 3 of {PARENT} (map)")
    assert lines[3:] == [
        "inputs 5 of 10 done, 1 failed, 2 running, 3 waiting",
        f"running input 5 in {BOX} for 4 s, attempt 2",
        "and 1 more",
        "failed input 2: ValueError: bad row",
    ]


def test_a_waiting_call_says_what_for_and_that_nobody_will_return_it(server, capsys):
    held = f"1 container of serve() of app llm ({APP})"
    waiting = Waiting(
        time.time() - 60,
        f"waiting for a GPU (H100): {held} holds it",
        "1 x H100",
        12,
        (f"{held}, for 5 min",),
        "never by itself",
        True,
    )
    lines = show(server, capsys, CallDetails(summary("waiting", accepted=1, total=1, waiting=1), waiting))
    assert lines[4].startswith("waits for a GPU (H100), since 20")
    assert lines[4].endswith("(1 min 0 s ago)")
    assert lines[5:] == [
        "line 12 inputs of this function come first",
        "needs 1 x H100",
        f"held by {held}, for 5 min",
        "starts never by itself",
        "nobody will ever return what it needs",
    ]


def test_what_is_not_known_is_not_said(server, capsys):
    waiting = Waiting(why="waiting for a container: 1 starting", starts_when="a container is ready")
    lines = show(server, capsys, CallDetails(summary("waiting", accepted=1, total=None, waiting=1), waiting))
    assert lines[3:] == [
        "inputs 0 done of 1 accepted so far, 1 waiting",
        "more inputs may come from its caller, which counts as dead when it has been gone for a while",
        "waits for a container: 1 starting",
        "starts when a container is ready",
    ]


def test_what_a_dead_caller_left_is_said(server, capsys):
    lines = show(server, capsys, CallDetails(summary("done", **WHOLE, caller_gone=True)))
    assert lines[0] == f"call {CALL} incomplete"
    assert lines[-1] == (
        "its caller died after 10 inputs were accepted; whatever it had not sent by then was never run"
    )


def test_a_cancelled_call_names_what_failed_before(server, capsys):
    ended = summary("done", accepted=10, total=10, succeeded=4, failed=6, cancelled=True)
    lines = show(server, capsys, CallDetails(ended, failed=((-1, "the call was cancelled"), (2, "ValueError: bad"))))
    assert lines[-2:] == ["failed the rest: the call was cancelled", "input 2: ValueError: bad"]


def test_a_call_for_programs_has_every_field(server, capsys):
    server.answers["call.show"] = CallDetails(summary(**HALF), Waiting(never=True), failed=((2, "bad"),))
    assert main.run(["call", "show", CALL, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["call"]["waiting"], shown["call"]["cancelled"]) == (3, False)
    assert (shown["waiting"]["never"], shown["waiting"]["ahead"]) == (True, 0)
    assert shown["failed"] == [{"position": 2, "error": "bad"}]


def test_a_word_that_is_no_call(server, capsys):
    for command in ("show", "cancel", "attach", "graph"):
        assert main.run(["call", command, "fit"]) == 2
        assert "'fit' is not the id of a call" in capsys.readouterr().err
    assert server.asked == []


# cancel


def test_cancelling_asks_first_and_says_what_stays(server, capsys):
    server.answers["call.show"] = CallDetails(summary(**HALF))
    assert main.run(["call", "cancel", CALL]) == 1
    assert f"Cancel {CALL} of fit() (3 inputs waiting, 2 running)" in capsys.readouterr().err
    assert server.asked[1:] == []
    assert main.run(["call", "cancel", CALL, "-y", "--terminate-containers"]) == 0
    assert server.asked[-1] == ("call.cancel", CallCancel(CALL, True))
    assert capsys.readouterr().err == f"Cancelled {CALL}; what was done (5 inputs) keeps its results\n"


def test_what_has_ended_is_not_cancelled(server, capsys):
    server.answers["call.show"] = CallDetails(summary("done", **WHOLE))
    assert main.run(["call", "cancel", CALL]) == 0
    assert capsys.readouterr().err == f"{CALL} had ended already: nothing was cancelled\n"
    assert [method for method, _ in server.asked] == ["call.show"]


# attach


def test_attaching_follows_to_the_end(server, capsys):
    looks = [CallDetails(summary(**HALF)), CallDetails(summary(**HALF)), CallDetails(summary("done", **WHOLE))]
    server.answers["call.show"] = looks
    assert main.run(["call", "attach", CALL]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        f"· {CALL}: fit() of trainer, 5 of 10 done, 1 failed, 2 running, 3 waiting",
        f"✓ {CALL} ended after 1 min 0 s: 10 of 10 done",
    ]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"succeeded": 9, "failed": 1}, f"{CALL} ended after 1 min 0 s: 10 of 10 done, 1 failed"),
        ({"succeeded": 9, "failed": 1, "cancelled": True}, f"{CALL} was cancelled after 1 min 0 s"),
        ({"succeeded": 10, "caller_gone": True}, "its caller died after 10 inputs were accepted"),
    ],
)
def test_the_status_of_attaching_is_that_of_the_call(server, capsys, fields, words):
    server.answers["call.show"] = CallDetails(summary("done", accepted=10, total=10, **fields))
    assert main.run(["call", "attach", CALL]) == 1
    assert words in capsys.readouterr().err


def test_why_it_waits_is_said_while_nothing_runs(server, capsys, monkeypatch):
    said = []
    monkeypatch.setattr("alight.cli.render.Drawing.waiting", lambda self, call, why: said.append(why))
    waits = CallDetails(summary("waiting", accepted=1, total=1, waiting=1), Waiting(why="waiting for a GPU"))
    runs = CallDetails(summary(**HALF), Waiting(why="waiting for a GPU"))
    server.answers["call.show"] = [waits, waits, runs, CallDetails(summary("done", **WHOLE))]
    assert main.run(["call", "attach", CALL]) == 0
    assert said == ["waiting for a GPU", "", ""]


def test_a_call_with_a_silent_caller_says_what_it_waits_for(server, capsys, monkeypatch):
    said = []
    monkeypatch.setattr("alight.cli.render.Drawing.waiting", lambda self, call, why: said.append(why))
    idle = CallDetails(summary("waiting", accepted=5, succeeded=5, total=None))
    server.answers["call.show"] = [idle, idle, CallDetails(summary("done", **WHOLE, caller_gone=True))]
    assert main.run(["call", "attach", CALL]) == 1
    assert said[0].startswith("everything that was accepted is done; more inputs may come from its caller")
    assert said[1] == ""


def test_results_are_printed_as_they_come(server, capsys):
    one, other = payload.dumps_bytes("one"), payload.dumps_bytes([2])
    failure = Failure("builtins.ValueError", "bad row")
    server.answers["call.result"] = [
        (dumps_head(CallUpdate(CALL, "waiting", why="waiting for a container")), b""),
        (chunk.Outputs(CALL, (3, 1), (len(one), len(other))).encode(), one + other),
        (dumps_head(CallUpdate(CALL, "done", 2, "exception", failure=failure)), b""),
        (chunk.Outputs(CALL, range(4, 5), (12,), flags=chunk.REFERENCE).encode(), chunk.reference("blob", 100 << 20)),
        (chunk.Outputs(CALL, range(5, 6), (3,)).encode(), b"???"),
        (chunk.Outputs(CALL, range(1), (len(one),), flags=chunk.ITEMS, position=6).encode(), one),
        (dumps_head(CallUpdate(CALL, "done", 6, "success", items=1)), b""),
    ]
    server.answers["call.show"] = CallDetails(summary("done", **WHOLE))
    assert main.run(["call", "attach", CALL, "--results"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[:3] == ["3\t'one'", "1\t[2]", "4\t(100.0 MiB: too large to print)"]
    assert lines[3].startswith("5\t(a result of fit() is damaged")
    assert lines[4:] == ["6\t'one'"]
    assert "input 2: ValueError: bad row\n" in printed.err


def test_an_interrupted_attach_says_that_the_call_goes_on(server, capsys):
    server.answers["call.show"] = [CallDetails(summary(**HALF)), KeyboardInterrupt()]
    assert main.run(["call", "attach", CALL]) == 130
    assert f"the call goes on; `alight call attach {CALL}` follows it again" in capsys.readouterr().err
    assert "call.cancel" not in [method for method, _ in server.asked]


def test_a_call_of_somebody_else(server, capsys):
    server.answers["call.show"] = PermissionDeniedError("this call belongs to somebody else")
    assert main.run(["call", "attach", CALL]) == 1
    assert capsys.readouterr().err == "Error: this call belongs to somebody else\n"


# graph


def test_a_graph_is_indented_by_who_called(server, capsys):
    def node(call, position, status="", container="", parent=""):
        input_id = ids.input_id(call, position)
        known = {"input_id": input_id, "call_id": call, "function": "fit", "module": "job"}
        return {**known, "status": status, "container": container, "parent": parent}

    first, second, below = node(CALL, 0, "success", BOX), node(CALL, 1, "", BOX), node(PARENT, 0)
    below["parent"], below["function"] = first["input_id"], "step"
    server.answers["call.graph"] = CallGraph(CALL, (first, second, below))
    assert main.run(["call", "graph", CALL]) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()[1:]] == [
        f"{first['input_id']}    fit()     success  {BOX}",
        f"  {below['input_id']}  step()    waiting",
        f"{second['input_id']}  fit()     running  {BOX}",
    ]
    assert main.run(["call", "graph", CALL, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[2]["function"] == "step"
