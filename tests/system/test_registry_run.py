"""Registry images as users meet them: scripts run by `alight run`, on a machine with its registry settings."""

from __future__ import annotations

import signal
import time

import pytest

from tests.system.registry import PASSWORD, USER, Registry, debian
from tests.unit.builder.archives import image, tar
from tests.unit.builder.registryserver import RegistryServer

SCRIPT = f"""
import modal

app = modal.App("registry")
secret = modal.Secret.from_dict({{"REGISTRY_USERNAME": "{USER}", "REGISTRY_PASSWORD": "{PASSWORD}"}})
image = modal.Image.from_registry("HOST/team/debian:1", secret=secret).pip_install("six")


@app.function(image=image)
def show():
    import os, six

    print("seen", os.environ["WORD"], os.getcwd(), os.getuid(), "REGISTRY_PASSWORD" in os.environ)


without = modal.App("without")


@without.function(image=modal.Image.from_registry("nowhere.invalid/cuda:12", add_python="3.11").env({{"A": "1"}}))
def stand_in():
    import os

    print("stood in", os.environ["A"])
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory, base_layers):
    with Registry(tmp_path_factory.mktemp("registry") / "closed", "token") as served:
        served.push("team/debian:1", debian(base_layers, Env=["WORD=there"], WorkingDir="/srv", User="nobody"))
        yield served


@pytest.fixture
def prepared(fresh_machine, registry, tmp_path):
    """A machine whose settings let the registry be, and the script."""
    allow(fresh_machine, registry.host)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("HOST", registry.host))
    return fresh_machine, script


def allow(machine, host: str) -> None:
    (machine.home / "registries.conf").write_text(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')


@pytest.mark.slow
def test_a_script_runs_on_a_private_registry_image(prepared, registry):
    machine, script = prepared
    done = machine.run("run", f"{script}::app.show")
    assert done.stdout == "seen there /srv 0 False\n"
    assert "1 to download" in done.stderr
    assert PASSWORD not in done.stderr
    asked = len(registry._tokens.asked)
    again = machine.run("run", f"{script}::app.show")
    assert again.stdout == done.stdout
    assert len(registry._tokens.asked) == asked  # what is built asks nobody


@pytest.mark.slow
def test_a_registry_that_is_away_is_named_and_a_base_can_stand_in(prepared):
    machine, script = prepared
    failed = machine.run("run", f"{script}::without.stand_in", status=1)
    assert "no answer from nowhere.invalid: its name cannot be resolved" in failed.stderr
    assert "--substitute-base" in failed.stderr
    for _ in range(2):  # each time, also when everything is there
        words = ("run", "--substitute-base", "nowhere.invalid/cuda:*=debian_slim", f"{script}::without.stand_in")
        done = machine.run(*words)
        assert done.stdout == "stood in 1\n"
        assert "nowhere.invalid/cuda:12 is not used: debian_slim stands in for it" in done.stderr
    wrong = machine.run("run", "--substitute-base", "rubbish", str(script), status=1)
    assert "does not say which base image" in wrong.stderr


@pytest.mark.slow
def test_an_interrupted_pull_leaves_nothing_and_the_next_one_works(fresh_machine, tmp_path, base_layers):
    """The registry stops in the middle of a layer; whoever waits presses Ctrl-C."""
    made = debian(base_layers, tar())
    with RegistryServer() as slow:
        slow.push("a/b:1", made)
        biggest = max(made.blobs, key=lambda name: len(made.blobs[name]))

        def hang(handler) -> bool:
            if biggest not in handler.path:
                return False
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(made.blobs[biggest])))
            handler.end_headers()
            handler.wfile.write(made.blobs[biggest][:1_000_000])
            handler.rfile.read(1)  # until the other side goes
            handler.close_connection = True
            return True

        slow.instead = [hang]
        allow(fresh_machine, slow.host)
        script = tmp_path / "script.py"
        script.write_text(
            "import modal\napp = modal.App('slow')\n"
            f"@app.function(image=modal.Image.from_registry('{slow.host}/a/b:1'))\ndef f():\n    print('ran')\n"
        )
        running = fresh_machine.start("run", str(script))
        layers = fresh_machine.home / "node/layers"
        wait_for(lambda: [file for file in layers.glob("tmp-*/scratch/archive") if file.stat().st_size == 1_000_000])
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
        assert running.returncode == 130, err
        wait_for(lambda: not list(layers.glob("tmp-*")))
        assert fresh_machine.run("run", str(script)).stdout == "ran\n"


@pytest.mark.slow
def test_a_layer_that_lies_ends_the_build_with_its_name(fresh_machine, tmp_path):
    made = image(tar())
    with RegistryServer() as lying:
        lying.push("a/b:1", made)
        for name, content in made.blobs.items():
            lying.blobs[name] = content[:-1] + b"x"
        allow(fresh_machine, lying.host)
        script = tmp_path / "script.py"
        script.write_text(
            "import modal\napp = modal.App('lies')\n"
            f"@app.function(image=modal.Image.from_registry('{lying.host}/a/b:1'))\ndef f():\n    pass\n"
        )
        failed = fresh_machine.run("run", str(script), status=1)
        assert f"{lying.host} gives something else than sha256:" in failed.stderr


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
