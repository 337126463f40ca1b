"""Protects the last thing that users read: one sentence, one hint, the right exit code, and no traceback of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from alight.cli import errors, main, tracebacks
from alight.cli.errors import UsageError, UserCodeError
from alight.cli.terminal import Style
from alight.wire.errors import InvalidError, NotFoundError

PLAIN = Style(colour=False)


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.delenv("ALIGHT_TRACEBACK", raising=False)
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InvalidError("it cannot be", hint="do this"), 1, "Error: it cannot be\nhint: do this\n"),
        (NotFoundError("there is none"), 1, "Error: there is none\n"),
        (UsageError("wrong words", hint="these"), 2, "Error: wrong words\nhint: these\n"),
        (click.UsageError("No such option."), 2, "Error: no such option\n"),
        (KeyboardInterrupt(), 130, "Interrupted\n"),
        (click.exceptions.Exit(7), 7, ""),
        (SystemExit(3), 3, ""),
        (SystemExit("bye"), 1, "bye\n"),
        (SystemExit(), 0, ""),
    ],
)
def test_words_and_codes(error, code, words, capsys):
    assert errors.report(error) == code
    assert capsys.readouterr().err == words


def test_a_fault_of_ours_is_one_sentence(capsys):
    assert errors.report(ZeroDivisionError("x")) == 1
    text = capsys.readouterr().err
    assert text.startswith("Error: a fault of Alight's own: ZeroDivisionError: x\nhint: ALIGHT_TRACEBACK=1")


def test_messages_cannot_draw_on_the_terminal(capsys):
    errors.report(InvalidError("no volume '\x1b[2Jx'"))
    assert "\x1b" not in capsys.readouterr().err


def user_error(source, name="/home/me/train.py"):
    space = {"__name__": "train"}
    try:
        exec(compile(source, name, "exec"), space)  # as the CLI runs scripts
    except BaseException as error:  # noqa: BLE001  whatever the source raised
        return error
    raise AssertionError("the source did not raise")


def test_a_users_traceback_shows_their_frames_only():
    source = "def f():\n    raise ValueError('bad')\ndef main():\n    f()\nmain()\n"
    text = tracebacks.render(user_error(source), PLAIN)
    assert 'File "/home/me/train.py", line 5, in <module>' in text
    assert text.endswith("ValueError: bad\n")
    assert "test_errors" not in text.replace(__file__, "") or "alight/cli" not in text


def test_causes_are_chained():
    source = "try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e\n"
    text = tracebacks.render(user_error(source), PLAIN)
    assert text.index("ZeroDivisionError") < text.index("direct cause") < text.index("KeyError: 'k'")


def test_frames_of_a_container_are_marked():
    remote = {"__name__": "remote"}
    exec(compile("def fit():\n    raise ValueError('there')\n", "<ta-1>:/root/train.py", "exec"), remote)
    with pytest.raises(ValueError) as caught:
        remote["fit"]()
    text = tracebacks.render(caught.value, PLAIN)
    assert "── in container ta-1 ──" in text
    assert 'File "/root/train.py", line 2, in fit' in text


def test_an_error_of_ours_in_a_users_script_says_where(capsys):
    error = user_error("from alight.wire.errors import InvalidError\nraise InvalidError('no', hint='h')\n")
    assert errors.report(UserCodeError(error)) == 1
    assert capsys.readouterr().err == "Error: no (at /home/me/train.py:2)\nhint: h\n"


def test_a_script_with_a_syntax_error_gets_pythons_words(capsys):
    with pytest.raises(SyntaxError) as caught:
        compile("def f(:\n", "/home/me/train.py", "exec")
    assert errors.report(UserCodeError(caught.value.with_traceback(None))) == 1
    text = capsys.readouterr().err
    assert text.startswith('  File "/home/me/train.py", line 1\n')
    assert "SyntaxError" in text
    assert "Traceback" not in text


def test_all_frames_when_asked_for(monkeypatch, capsys):
    monkeypatch.setenv("ALIGHT_TRACEBACK", "1")
    errors.report(user_error("from alight.wire.errors import InvalidError\nraise InvalidError('no')\n"))
    assert "in user_error" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["rnu"], 2, "did you mean `alight run`?"),
        (["train.py"], 2, "did you mean `alight run train.py`?"),
        (["run"], 2, "REF"),
        (["run", "-i", "x.py"], 2, "needs a terminal"),
        (["run", "-i", "-q", "x.py"], 2, "exclude each other"),
        (["secret", "create", "x"], 2, "no values"),
        (["secret", "create", "x", "hunter2"], 2, "KEY=VALUE"),
        (["setup"], 2, "no server"),
        (["python"], 2, "no script"),
        (["python", "/nowhere/x.py"], 2, "no file"),
    ],
)
def test_wrong_commands(words, code, part, capsys):
    assert main.run(words) == code
    text = capsys.readouterr().err
    assert part in text
    assert "Traceback" not in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--max-cost", "5"], "alight run --max-cost … "),
        (["--detach"], "alight run --detach "),
        (["--nope"], "no such option '--nope'"),
    ],
)
def test_an_option_of_run_behind_the_script_is_told_where_it_belongs(words, part):
    script = "import alight\napp = alight.App()\n@app.function()\ndef work(): ...\n"
    done = subprocess.run(
        [sys.executable, "-m", "alight", "run", "-", *words], input=script, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert part in done.stderr


def test_help_is_where_help_belongs(capsys):
    assert main.run([]) == 0
    assert "Run a function" in capsys.readouterr().out
    assert main.run(["run", "--help"]) == 0
    assert "--detach" in capsys.readouterr().out


def test_every_command_of_the_table_loads():
    for panel in main.PANELS.values():
        for name in panel:
            command = main.main.get_command(click.Context(main.main), name)
            assert command is not None
            assert command.name == name
            assert command.help


def test_help_loads_no_command(tmp_path):
    import os
    import subprocess

    source = str(Path(main.__file__).parents[2])
    code = "import sys; from alight.cli.main import run; run(['--help']); print(sorted(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": source}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    assert loaded.count("'alight.cli.") == 1
    assert "'alight.sdk" not in loaded
    assert "'rich" not in loaded


def test_the_name_of_a_file_keeps_its_capital(capsys: pytest.CaptureFixture[str]) -> None:
    errors.report(click.UsageError("TrainModel.py has 4 functions, and none was named"))
    assert "Error: TrainModel.py has" in capsys.readouterr().err


def test_output_that_nobody_reads_ends_with_141(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "alight", "config", "show"],
            stdout=writer,
            stderr=subprocess.PIPE,
            env={**os.environ, "ALIGHT_CONFIG_PATH": str(tmp_path / "none.toml"), "PYTHONUNBUFFERED": "1"},
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
