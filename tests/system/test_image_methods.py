"""Image methods as a user writes them: built by a real node, run by a real container."""

from __future__ import annotations

import json
import shutil
import subprocess
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.registry import Registry, debian

if TYPE_CHECKING:
    from tests.system.machine import Machine

HEAD = """\
import os
import sys

import modal

app = modal.App("methods")
BASE = modal.Image.debian_slim("3.11")
"""
TAIL = """

@app.local_entrypoint()
def main():
    print("answer:", f.remote())
"""
FAKE_MICROMAMBA = Path(__file__).with_name("fake_micromamba.py")


def run(machine: Machine, folder: Path, body: str, *, status: int = 0, **env: str) -> str:
    """Run a script of this body; what it answered, and all that was said."""
    script = folder / "script.py"
    script.write_text(HEAD + textwrap.dedent(body) + TAIL)
    done = machine.run("run", str(script), cwd=folder, status=status, **env)
    return done.stdout + done.stderr


def test_a_function_runs_while_the_image_is_built_and_again_only_when_it_changes(machine, tmp_path):
    body = """
    volume = modal.Volume.from_name("methods-run-function", create_if_missing=True)
    SIZE = {size}

    def fetch(name, times=1):
        import six  # of the image so far
        os.makedirs("/models", exist_ok=True)
        with open("/models/" + name, "w") as file:
            file.write(os.environ["TOKEN"] * times * SIZE)
        with open("/vol/runs", "a") as file:
            file.write("x")
        print("fetching; local:", modal.is_local())

    image = BASE.pip_install("six").run_function(
        fetch, args=("a",), kwargs={{"times": 2}}, volumes={{"/vol": volume}},
        secrets=[modal.Secret.from_dict({{"TOKEN": "ab"}})],
    )

    @app.function(image=image, volumes={{"/vol": volume}})
    def f():
        # {comment}
        return open("/models/a").read(), open("/vol/runs").read(), os.path.exists("/opt/alight/build/source")
    """
    said = run(machine, tmp_path, body.format(size=2, comment="first"))
    assert "('abababab', 'x', False)" in said
    assert "fetching; local: False" in said
    said = run(machine, tmp_path, body.format(size=2, comment="another line of the script changes nothing"))
    assert "('abababab', 'x'," in said
    said = run(machine, tmp_path, body.format(size=1, comment="a global that it names does"))
    assert "('abab', 'xx'," in said
    assert "not cached: the function's source, its arguments or a global value that it names changed" in said


def test_what_a_function_raises_in_a_build_is_said(machine, tmp_path):
    said = run(
        machine,
        tmp_path,
        """
    def fetch():
        raise ValueError("no such model")

    @app.function(image=BASE.run_function(fetch))
    def f(): ...
    """,
        status=1,
    )
    assert ".run_function(script.fetch) failed with exit status 1: ValueError: no such model" in said


def test_a_uv_project(machine, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    project.joinpath("pyproject.toml").write_text(
        '[project]\nname = "demo"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["six"]\n'
        '[dependency-groups]\nmore = ["iniconfig"]\n'
    )
    uv = shutil.which("uv") or _uv()
    subprocess.run([uv, "lock", "-q", "--directory", project], check=True, timeout=60)
    said = run(
        machine,
        tmp_path,
        """
    image = BASE.uv_sync("project", groups=["more"]).pip_install("idna")

    @app.function(image=image)
    def f():
        import idna, iniconfig, six
        return sys.executable, six.__file__.startswith("/.uv/.venv/"), idna.__file__.startswith("/.uv/.venv/")
    """,
    )
    assert "('/.uv/.venv/bin/python', True, True)" in said


@pytest.mark.slow
def test_a_poetry_project(machine, tmp_path):
    tmp_path.joinpath("pyproject.toml").write_text(
        '[tool.poetry]\nname = "demo"\nversion = "1"\ndescription = ""\nauthors = []\npackage-mode = false\n'
        '[tool.poetry.dependencies]\npython = "^3.11"\nsix = "*"\n'
    )
    # The hash is what poetry 2 says of those tables; the package's own is left out, as a lock may.
    tmp_path.joinpath("poetry.lock").write_text(
        '[[package]]\nname = "six"\nversion = "1.17.0"\ndescription = ""\noptional = false\npython-versions = "*"\n'
        'groups = ["main"]\nfiles = []\n\n[metadata]\nlock-version = "2.1"\npython-versions = "^3.11"\n'
        'content-hash = "1b762626410e55c45723fba90400e238319b0b1d1b528e6b290787fb83315758"\n'
    )
    said = run(
        machine,
        tmp_path,
        """
    @app.function(image=BASE.poetry_install_from_file("pyproject.toml"))
    def f():
        import importlib.util, six
        return six.__version__, importlib.util.find_spec("poetry")
    """,
    )
    assert "('1.17.0', None)" in said  # poetry itself is not in the image


@pytest.mark.slow
def test_a_private_repository(machine, tmp_path):
    said = run(
        machine,
        tmp_path,
        """
    project = '[project]\\\\nname="hidden"\\\\nversion="1"\\\\n[build-system]\\\\nrequires=["setuptools"]\\\\n' \\
        'build-backend="setuptools.build_meta"\\\\n'
    image = (
        BASE.apt_install("git")
        .run_commands(
            f"mkdir -p /srv/r/hidden && cd /srv/r && printf '{project}' > pyproject.toml && "
            "touch hidden/__init__.py && "
            "git init -q -b main . && git add . && git -c user.name=a -c user.email=a@b.c commit -qm x && "
            "git config --system url.file:///srv/r.insteadOf https://github.com/o/r && "
            "git config --system --add safe.directory '*'"
        )
        .pip_install_private_repos(
            "github.com/o/r@main", git_user="a", secrets=[modal.Secret.from_dict({"GITHUB_TOKEN": "tok-secret"})]
        )
    )

    @app.function(image=image)
    def f():
        import hidden
        return hidden.__name__
    """,
    )
    assert "answer: hidden" in said
    assert "tok-secret" not in said


@pytest.mark.slow
def test_conda_packages_from_a_channel(machine, tmp_path, fresh_machine):
    """The program is a stand-in: conda's channels cannot be had everywhere. What is tested is all around it."""
    said = run(
        fresh_machine,
        tmp_path,
        """
    channel = (
        "python - <<'END'\\nimport io, json, os, tarfile\\nos.makedirs('/channel/noarch')\\n"
        "for name in ('one', 'two'):\\n"
        "    with tarfile.open(f'/channel/noarch/{name}-1.tar.bz2', 'w:bz2') as archive:\\n"
        "        info = tarfile.TarInfo(f'lib/{name}.txt')\\n        info.size = 2\\n"
        "        archive.addfile(info, io.BytesIO(b'hi'))\\n"
        "packages = {f'{name}-1.tar.bz2': {'name': name} for name in ('one', 'two')}\\n"
        "json.dump({'packages': packages}, open('/channel/noarch/repodata.json', 'w'))\\nEND"
    )
    image = modal.Image.micromamba("3.11").run_commands(channel)
    image = image.micromamba_install("one", "two", channels=["file:///channel"])

    @app.function(image=image)
    def f():
        return sys.executable, sorted(os.listdir("/opt/conda/lib")), os.environ["PATH"].split(":")[0]
    """,
        ALIGHT_MICROMAMBA=str(FAKE_MICROMAMBA),
    )
    assert "('/opt/conda/bin/python', ['one.txt', 'two.txt'], '/opt/conda/bin')" in said


def test_imports_of_other_images_do_not_stop_a_function_and_its_own_do(machine, tmp_path):
    said = run(
        machine,
        tmp_path,
        """
    other = modal.Image.debian_slim("3.11").env({"OTHER": "1"})
    with other.imports():
        import not_there_at_all

    @app.function(image=BASE)
    def f():
        try:
            g.remote()
        except ImportError as error:
            return f"g: {error}"

    @app.function(image=other)
    def g(): ...
    """,
    )
    assert "answer: g: No module named 'not_there_at_all'" in said


@pytest.mark.slow
def test_images_are_listed_shown_and_removed(fresh_machine, tmp_path):
    body = """
    @app.function(image=BASE.pip_install("six").run_commands("echo said while building"))
    def f():
        return "ran"
    """
    run(fresh_machine, tmp_path, body)
    (one, *_) = fresh_machine.json("image", "list")
    assert one["title"] == ".run_commands('echo said while building')"
    (identity,) = one["ids"]
    assert "said while building" in fresh_machine.run("image", "logs", identity).stdout
    history = fresh_machine.run("image", "history", one["digest"][:12]).stdout
    assert '.pip_install("six")' in history
    deadline = time.monotonic() + 40
    while "is in use" in fresh_machine.run("image", "rm", "-y", identity, status=None).stderr:
        assert time.monotonic() < deadline
        time.sleep(1)
    assert identity not in json.dumps(fresh_machine.json("image", "list"))
    assert "took" in run(fresh_machine, tmp_path, body)  # and is built again


@pytest.mark.slow
def test_dockerfiles(machine, tmp_path, new_machine, base_layers):
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed")
    context = tmp_path / "context"
    context.mkdir()
    context.joinpath("kept.txt").write_text("kept")
    context.joinpath("left.log").write_text("left out")
    context.joinpath(".dockerignore").write_text("*.log\n")
    with Registry(tmp_path / "registry") as registry:
        registry.push("team/debian:1", debian(base_layers, Env=["PATH=/usr/local/bin:/usr/bin:/bin", "WORD=there"]))
        tmp_path.joinpath("Dockerfile").write_text(
            f"ARG BASE=none\nFROM scratch AS files\nCOPY . /files\nFROM {registry.host}/team/debian:$BASE\n"
            "COPY --from=files /files /srv/files\nARG WHO=nobody\nENV WHO=$WHO\nWORKDIR /srv\n"
            'RUN --mount=type=cache,target=/root/.cache pip install six && rm /etc/issue\nENTRYPOINT ["python3"]\n'
        )
        settings = tmp_path / "registries.conf"
        settings.write_text(f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n')
        fresh = new_machine(CONTAINERS_REGISTRIES_CONF=str(settings))
        body = """
        image = modal.Image.from_dockerfile(
            "Dockerfile", context_dir="context", build_args={{"BASE": "1", "WHO": "{who}"}}
        ).pip_install("idna")

        @app.function(image=image)
        def f():
            import idna, six
            facts = os.environ["WHO"], os.environ["WORD"], os.getcwd(), sorted(os.listdir("/srv/files"))
            return facts, os.path.exists("/etc/issue"), os.path.exists("/etc/pip.conf")
        """
        said = run(fresh, tmp_path, body.format(who="you"))
        assert "(('you', 'there', '/srv', ['.dockerignore', 'kept.txt']), False, False)" in said
        assert "Using cache" in run(fresh, tmp_path, body.format(who="me"))  # up to the ARG
        tmp_path.joinpath("Dockerfile").write_text(f"FROM {registry.host}/team/debian:1\nCOPY nothing /x\n")
        said = run(fresh, tmp_path, body.format(who="you"), status=1)
        assert "the Dockerfile copies /nothing, which is not in the context" in said
        fresh.close()


@pytest.mark.slow
def test_lines_of_a_dockerfile(machine, tmp_path):
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed")
    tmp_path.joinpath("local.txt").write_text("local")
    said = run(
        machine,
        tmp_path,
        """
    image = BASE.env({"ONE": "1"}).dockerfile_commands(
        "COPY named.txt /srv/named.txt",
        "ENV TWO=$ONE-2",
        "RUN --mount=type=secret,id=TOKEN wc -c < /run/secrets/TOKEN > /size",
        context_files={"named.txt": "local.txt"},
        secrets=[modal.Secret.from_dict({"TOKEN": "12345"})],
    ).pip_install("six")

    @app.function(image=image)
    def f():
        import six
        return open("/srv/named.txt").read(), os.environ["TWO"], open("/size").read().strip()
    """,
    )
    assert "('local', '1-2', '5')" in said


def _uv() -> str:
    from alight.builder.bases import find_uv

    return str(find_uv())
