"""What user code finds when it starts, and what the node hears when it does not start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from alight.wire import payload
from alight.wire.errors import DeserializationError, ExecutionError, InvalidError, RemoteError, from_wire
from alight.wire.version import WIRE_VERSION

SOURCE = str(Path(__file__).parents[3] / "src")


def test_hello_says_who_it_is(bare_node):
    hello = bare_node.run()
    assert hello.wire == WIRE_VERSION
    assert hello.pid == bare_node.process.pid
    assert [part.isdigit() for part in hello.python.split(".")] == [True] * 3
    assert not hello.ready
    assert hello.running == ()


def test_environment_is_set_before_the_module_is_imported(node):
    ready, _ = node.start(
        """
        import os
        SECRET = os.environ["TOKEN"]
        def f():
            return SECRET
        """,
        environ={"TOKEN": "hush"},
    )
    assert ready.failure is None
    assert node.call() == "hush"


def test_alight_comes_last_and_its_files_shadow_nothing(node):
    """A user's module may be called link, load or context; an image's own packages win over ours."""
    (node.directory / "link.py").write_text("MINE = True")
    node.start(
        """
        import sys, link
        def f():
            return sys.path, link.MINE, sys.argv, sys.modules["__main__"].__dict__.get("__file__"), __name__
        """
    )
    path, mine, argv, main_file, name = node.call()
    assert path[0] == str(node.directory)
    assert path[-1] == SOURCE
    assert not any(entry.endswith("runtime") for entry in path)
    assert mine
    assert argv == [str(node.directory / "usercode.py")]
    assert main_file is None
    assert name == "usercode"


def test_a_module_of_a_package_is_imported_by_its_name(node):
    package = node.directory / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "sibling.py").write_text("VALUE = 5")
    (package / "work.py").write_text("from .sibling import VALUE\ndef f():\n    return VALUE, __name__")
    ready, _ = node.start("", definition="module", module="pkg.work", source_path="")
    assert ready.failure is None
    assert node.call() == (5, "pkg.work")


def test_the_time_zone_holds_from_the_first_line(node):
    node.start("import time\nHERE = time.tzname[0]\ndef f():\n    return HERE\n", environ={"TZ": "XYZ-3"})
    assert node.call() == "XYZ"


def test_modal_means_alight_inside(node):
    ready, _ = node.start(
        """
        import modal, alight, modal.exception
        def f():
            return modal is alight, modal.is_local(), modal.exception.NotFoundError is alight.exception.NotFoundError
        """
    )
    assert ready.failure is None
    assert node.call() == (True, False, True)


def test_handles_are_taken_off_the_function(node):
    """The module has the SDK's handle under the function's name."""
    node.start(
        """
        class Handle:
            def __init__(self, raw):
                self._raw = raw
        class Service:
            @Handle
            def f(x):
                return x * 2
        """,
        "Service.f",
    )
    assert node.call(21) == 42


def test_what_importing_raised_reaches_the_caller_with_its_line(node):
    ready, body = node.start("import os\n\nvalue = os.environ['NO_SUCH_NAME']\ndef f(): ...\n")
    assert ready.failure.type == "builtins.KeyError"
    last = ready.failure.frames[-1]
    user = [frame for frame in ready.failure.frames if frame.user]
    assert user[0].file.endswith("usercode.py")
    assert user[0].line == 3
    assert user[0].text == "value = os.environ['NO_SUCH_NAME']"
    assert not ready.failure.frames[0].user, "the runtime's own frames are not the user's business"
    assert last.name == "__getitem__"
    assert isinstance(payload.loads(body), KeyError)
    assert node.end()[0] == 1


def test_a_syntax_error_points_at_its_line(node):
    ready, body = node.start("def f():\n    return (\n")
    assert ready.failure.type == "builtins.SyntaxError"
    assert ready.failure.frames[-1].file.endswith("usercode.py")
    assert ready.failure.frames[-1].line == 2
    assert isinstance(payload.loads(body), SyntaxError)


def test_a_module_that_exits_is_a_failure_and_not_an_end(node):
    ready, body = node.start("import sys\nsys.exit(3)\n")
    assert isinstance(payload.loads(body), RemoteError)
    assert "exit(3)" in from_wire(ready.error).message


def test_a_function_that_is_only_there_outside(node):
    ready, body = node.start("def g(): ...\n")
    error = payload.loads(body)
    assert isinstance(error, ExecutionError)
    assert "no f inside the container" in str(error)
    assert error.hint
    assert from_wire(ready.error).message == str(error)


def test_a_script_with_the_name_of_a_loaded_module(node):
    source = node.directory / "types.py"
    source.write_text("def f(): ...")
    _, body = node.start("", module="types", source_path=str(source))
    error = payload.loads(body)
    assert isinstance(error, InvalidError)
    assert "rename types.py" in error.hint


def test_a_missing_package_is_named(node):
    ready, body = node.start("import no_such_package_at_all\n")
    assert ready.failure.type == "builtins.ModuleNotFoundError"
    assert payload.loads(body).name == "no_such_package_at_all"


def test_serialized_function(node):
    ours = "{}.{}".format(*sys.version_info[:2])
    if node.python != ours:
        pytest.skip("code is serialized for one minor version of Python")
    factor = 3
    code = payload.dumps_bytes(lambda x: x * factor, by_value=True)
    ready, _ = node.start("", definition="serialized", python_version=ours, body=code)
    assert ready.failure is None
    assert node.call(14) == 42


def test_serialized_by_another_python_names_both(node):
    ready, body = node.start("", definition="serialized", python_version="3.8", body=b"x")
    error = payload.loads(body)
    assert isinstance(error, DeserializationError)
    assert "Python 3.8" in str(error)
    assert f"Python {node.python}" in str(error)
    assert ready.failure.pickled
