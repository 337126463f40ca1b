"""What an import costs. Counted in modules, in a fresh interpreter: seconds depend on the machine, modules do not."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

from tests.shape import tree

HEAVY = {"ssl", "asyncio", "click", "rich", "socket", "http", "sqlite3", "msgspec", "uvloop", "multiprocessing"}


def modules_after(code: str) -> set[str]:
    """The modules that ``code`` added, in an interpreter that has nothing but the source tree on its path."""
    script = "import json, sys\nbefore = set(sys.modules)\n" + textwrap.dedent(code)
    script += "\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    answer = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={"PYTHONPATH": str(tree.SOURCE)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return set(json.loads(answer.stdout.splitlines()[-1]))


def test_import_alight_is_almost_free():
    modules = modules_after("import alight")
    assert len({name for name in modules if name.split(".")[0] == "alight"}) <= 5, sorted(modules)
    assert not HEAVY & {name.split(".")[0] for name in modules}, sorted(modules)


def test_declaring_an_app_imports_no_network_and_no_colours():
    modules = modules_after(
        """
        import alight
        image = alight.Image.debian_slim().pip_install("numpy").env({"A": "1"})
        app = alight.App("weight", image=image, volumes={"/data": alight.Volume.from_name("data")})
        @app.function(secrets=[alight.Secret.from_name("s")], gpu="A100", timeout=10)
        def f(x: int) -> int:
            return x
        @app.local_entrypoint()
        def main() -> None:
            f.remote(1)
        """
    )
    heavy = (HEAVY - {"socket"}) & {name.split(".")[0] for name in modules}
    assert not heavy, f"declaring pulls in {sorted(heavy)}"
    islands = {name.split(".")[1] for name in modules if name.startswith("alight.")}
    assert islands <= {"wire", "sdk", "exception", "types"}, islands


@pytest.mark.parametrize("name", ["click", "rich", "msgspec", "uvloop", "starlette", "ray"])
def test_a_container_needs_none_of_ours(name):
    modules = modules_after("import alight.runtime.__main__ as _")
    assert name not in {module.split(".")[0] for module in modules}


def test_the_runtime_starts_without_asyncio():
    assert "asyncio" not in modules_after("import alight.runtime.__main__ as _")


def test_the_runtime_starts_with_what_the_interpreter_has():
    """Each of these takes milliseconds of every cold start."""
    slow = {"dataclasses", "typing", "re", "enum", "socket", "json", "threading", "inspect", "contextlib", "pathlib"}
    modules = modules_after("import alight.runtime.serve, alight.compat")
    assert not slow & modules, sorted(slow & modules)


def test_declaring_compiles_no_dataclass():
    modules = modules_after("import alight; alight.App('x', image=alight.Image.debian_slim())")
    assert not {"dataclasses", "inspect", "hashlib", "tempfile", "socket"} & modules
