"""Protects how `alight secret create` gets its values: from pairs, an editor, standard input and files; never shown."""

from __future__ import annotations

import io

import pytest

from alight.cli import main, session, terminal
from alight.wire.errors import NotFoundError
from alight.wire.stored import SecretInfo


@pytest.fixture
def made(monkeypatch):
    """What was asked to be made; there is no secret yet but "taken"."""
    requests = []

    def ask(method, request, reply):
        if method == "secret.lookup" and request.name != "taken":
            raise NotFoundError("there is none")
        if method == "secret.create":
            requests.append(request)
        return reply("st-1", request.name, "main")

    monkeypatch.setattr(session, "ask", ask)
    assert SecretInfo("st-1", "s", "main")
    return requests


def with_editor(monkeypatch, tmp_path, script):
    editor = tmp_path / "editor"
    editor.write_text(f"#!/bin/sh\n{script}\n")
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setattr(terminal, "is_terminal", lambda stream: True)


def test_an_editor_gives_a_value_that_leaves_nothing_behind(made, monkeypatch, tmp_path, capsys):
    seen = tmp_path / "seen"
    with_editor(monkeypatch, tmp_path, f'printf "hunter2\\nline 2\\n" > "$1"; cp "$1" "$1~"; echo "$1" > {seen}')
    assert main.run(["secret", "create", "s", "A/B=-", "C=d=-"]) == 0
    assert made[0].values == {"A/B": "hunter2\nline 2", "C": "d=-"}
    assert not (tmp_path / seen.read_text().strip()).parent.exists()
    assert "hunter2" not in "".join(capsys.readouterr())


def test_no_editor_opens_for_a_name_that_is_taken(made, monkeypatch, tmp_path, capsys):
    with_editor(monkeypatch, tmp_path, f"touch {tmp_path}/opened")
    assert main.run(["secret", "create", "taken", "A=-"]) == 1
    assert "--force" in capsys.readouterr().err
    assert not (tmp_path / "opened").exists()
    assert main.run(["secret", "create", "s", "A=-"]) == 1
    assert "no value was given for A" in capsys.readouterr().err
    assert not made


def test_standard_input_gives_one_value(made, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("-----BEGIN-----\nx\n\n"))
    assert main.run(["secret", "create", "s", "PEM=-"]) == 0
    assert made[0].values == {"PEM": "-----BEGIN-----\nx\n"}
    assert main.run(["secret", "create", "s", "A=-", "B=-"]) == 2
    assert "one value only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (".env", "A=1\nhunter2 =\n\nhunter2\n", "line 4 of"),
        (".env", "# nothing\n", "holds no values"),
        ("v.json", '{"A": "hunter2"', "is not JSON"),
        ("v.json", '["hunter2"]', "one JSON object"),
        ("v.json", '{"A": "hunter2", "B": 5}', "'B' is no string"),
        ("v.json", "{}", "holds no values"),
    ],
)
def test_a_file_that_cannot_be_taken_is_said_without_its_values(made, tmp_path, capsys, name, content, said):
    (tmp_path / name).write_text(content)
    kind = "--from-json" if name.endswith("json") else "--from-dotenv"
    assert main.run(["secret", "create", "s", kind, str(tmp_path / name)]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert "hunter2" not in err
    assert not made


def test_words_that_contradict_each_other_are_refused(made, tmp_path, capsys):
    (tmp_path / "v.json").write_text('{"A": "1"}')
    assert main.run(["secret", "create", "s", "A=1", "--from-json", str(tmp_path / "v.json")]) == 2
    assert main.run(["secret", "create", "s", "A=1", "A=2"]) == 2
    assert main.run(["secret", "create", "s", "--from-json", str(tmp_path / "none.json")]) == 2
    assert "there is no file" in capsys.readouterr().err
    assert not made
