"""Protects how a reference finds the function that is meant, and what wrong ones get."""

from __future__ import annotations

import sys

import pytest

from alight.cli import loading, main, references
from alight.cli.errors import UsageError, UserCodeError
from alight.wire.errors import Error

HEAD = "import alight\napp = alight.App('it')\n"


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch):
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    yield
    for name in set(sys.modules) - before:
        if not name.startswith(("alight", "rich", "click", "encodings")):
            del sys.modules[name]


@pytest.fixture
def script(tmp_path):
    def write(body, name="script_under_test.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + body)
        return path

    return write


def found(text, *, module=False):
    reference = loading.parse(text, module=module)
    return references.find(loading.load(reference), reference)


def kind_and_name(path, thing=""):
    runnable = found(f"{path}::{thing}" if thing else str(path))
    return runnable.kind, runnable.name


FUNCTION = "@app.function()\ndef {}(x: int = 1): ...\n"
ENTRYPOINT = "@app.local_entrypoint()\ndef {}(): ...\n"


def test_the_only_entrypoint_comes_before_functions(script):
    assert kind_and_name(script(FUNCTION.format("f") + ENTRYPOINT.format("go"))) == ("entrypoint", "go")


def test_the_only_function(script):
    assert kind_and_name(script(FUNCTION.format("f"))) == ("function", "f")


def test_what_the_module_shows_comes_before_what_its_app_has(script):
    body = FUNCTION.format("a") + FUNCTION.format("b") + "hidden = [b]\ndel b\n"
    assert kind_and_name(script(body)) == ("function", "a")


def test_what_only_the_app_knows(script):
    assert kind_and_name(script(FUNCTION.format("f") + "kept = [f]\ndel f\n")) == ("function", "f")


def test_one_function_under_two_names_is_one(script):
    assert kind_and_name(script(FUNCTION.format("f") + "g = f\n")) == ("function", "f")


def test_by_name(script):
    path = script(FUNCTION.format("f") + FUNCTION.format("g") + ENTRYPOINT.format("go"))
    assert kind_and_name(path, "g") == ("function", "g")
    assert kind_and_name(path, "go") == ("entrypoint", "go")
    assert kind_and_name(path, "app.f") == ("function", "f")


def test_by_the_name_that_the_app_knows(script):
    path = script("@app.function(name='other')\ndef f(): ...\n")
    assert kind_and_name(path, "other") == ("function", "other")
    assert kind_and_name(path, "f") == ("function", "other")


def test_methods(script):
    path = script("@app.cls()\nclass Model:\n    @alight.method()\n    def go(self, n: int): ...\n")
    assert kind_and_name(path, "Model.go") == ("method", "Model.go")
    assert kind_and_name(path, "Model") == ("method", "Model.go")


def test_a_module(script, monkeypatch):
    path = script(FUNCTION.format("f"), "pkg_under_test/jobs.py")
    (path.parent / "__init__.py").touch()
    monkeypatch.chdir(path.parent.parent)
    assert found("pkg_under_test.jobs::f", module=True).name == "f"
    assert found("pkg_under_test.jobs", module=True).name == "f"


def test_no_bytecode_appears_beside_the_script(script):
    path = script(FUNCTION.format("f"))
    found(str(path))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_neighbour_can_be_imported(script, tmp_path):
    (tmp_path / "neighbour_under_test.py").write_text("value = 3\n")
    assert kind_and_name(script("import neighbour_under_test\n" + FUNCTION.format("f"))) == ("function", "f")


@pytest.mark.parametrize(
    ("text", "module", "message", "hint"),
    [
        ("x.py:f", False, "one colon", "x.py::f"),
        ("x.py::", False, "names nothing", "x.py"),
        ("x.py", True, "is a path", "leave `-m` out"),
        ("-", True, "standard input", ""),
    ],
)
def test_references_that_cannot_be(text, module, message, hint):
    with pytest.raises(UsageError, match=message) as caught:
        loading.parse(text, module=module)
    assert hint in (caught.value.hint or "")


def test_a_windows_path_has_a_colon():
    assert loading.parse("C:\\work\\x.py::f", module=False) == loading.Reference("C:\\work\\x.py", "f")


def test_missing_files_get_a_guess(script, tmp_path, monkeypatch):
    script("")
    with pytest.raises(UsageError, match="no file") as caught:
        found(str(tmp_path / "scrip_under_test.py"))
    assert "script_under_test.py" in (caught.value.hint or "")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        found("script_under_test")
    assert "script_under_test.py?" in (caught.value.hint or "")


def test_files_that_cannot_be_scripts(script, tmp_path):
    (tmp_path / "notes.txt").touch()
    for path in (tmp_path, tmp_path / "notes.txt", script("", "my.script.py"), script("", "click.py")):
        with pytest.raises(UsageError):
            found(str(path))


def test_two_candidates_are_listed(script):
    with pytest.raises(UsageError, match="2 functions") as caught:
        found(str(script(FUNCTION.format("first") + FUNCTION.format("second"))))
    assert "first, second" in (caught.value.hint or "")


def test_an_unknown_name_gets_a_guess(script):
    path = script(FUNCTION.format("train"))
    with pytest.raises(UsageError, match="'trian'") as caught:
        found(f"{path}::trian")
    assert "::train?" in (caught.value.hint or "")


def test_no_app(tmp_path):
    (tmp_path / "plain_under_test.py").write_text("x = 1\n")
    with pytest.raises(UsageError, match="no app"):
        found(str(tmp_path / "plain_under_test.py"))


def test_an_app_with_nothing_in_it(script):
    with pytest.raises(UsageError, match="no function"):
        found(str(script("")))


def test_web_functions_are_for_serving(script):
    path = script("@app.function()\n@alight.fastapi_endpoint()\ndef page(): ...\n")
    for text in (str(path), f"{path}::page"):
        with pytest.raises(UsageError, match="web function"):
            found(text)


@pytest.mark.parametrize("body", ["1/0\n", "def f(:\n", "import nowhere_to_be_found\n", "raise alight.Error('x')\n"])
def test_what_a_script_raises_is_the_scripts(script, body):
    path = script(body)
    with pytest.raises(UserCodeError):
        found(str(path))


def test_running_at_import_is_refused(script):
    with pytest.raises(UserCodeError) as caught:
        found(str(script(FUNCTION.format("f") + "with app.run():\n    pass\n")))
    assert isinstance(caught.value.error, Error)


@pytest.mark.parametrize(
    ("body", "code", "first"),
    [
        ("def f(:\n", 1, '  File "'),
        ("def f():\n    1/0\nf()\n", 1, "Traceback"),
        ("import nowhere_to_be_found\n", 1, "Traceback"),
        ("import sys\nsys.exit(5)\n", 5, ""),
        ("", 2, "Error: "),
    ],
)
def test_what_the_user_reads(script, body, code, first, capsys, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert main.run(["run", str(script(body))]) == code
    text = capsys.readouterr().err
    assert text.startswith(first)
    assert "alight/cli" not in text


def test_help_of_a_function_needs_no_server(script, capsys):
    assert main.run(["run", f"{script(FUNCTION.format('f'))}::f", "--help"]) == 0
    assert "--x INTEGER" in capsys.readouterr().out
