"""What runs once in a template, what runs in each fork, and what must differ between forks."""

from __future__ import annotations

import functools
import subprocess

import pytest

from alight.wire import payload
from tests.unit.runtime.conftest import PYTHON
from tests.unit.runtime.templates import Template

CLASS = """
    import os
    class Shape:
        def __init__(self, **said):
            self.__dict__.update({"method": False, "batch": None, "enter": "", "exit": False, "is_generator": None})
            self.__dict__.update(said)
    def shaped(**said):
        def mark(raw):
            raw.shape = Shape(**said)
            return raw
        return mark
    class Model:
        @shaped(enter="snap")
        def load(self):
            self.loaded_in, self.steps = os.getpid(), ["snap"]
        @shaped(enter="snap")
        async def load_more(self):
            self.steps.append("async snap")
        @shaped(enter="start")
        def open(self):
            self.steps.append("start")
        @shaped(method=True)
        def steps_of(self):
            return self.steps, self.loaded_in
    """


@pytest.fixture
def template(tmp_path):
    made = Template(tmp_path)
    yield made
    made.close()


@functools.cache
def installed(name: str) -> bool:
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"
    return subprocess.run([PYTHON, "-c", look], capture_output=True, check=False).returncode == 0


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not installed(name), reason=f"{name} is not installed")


def test_hooks_before_the_snapshot_run_once_and_the_others_in_each_fork(template):
    ready, _ = template.up(CLASS, "Model", class_name="Model", name="Model.*")
    assert ready.failure is None, ready.failure
    assert set(ready.stages) == {"import", "enter"}
    for _ in range(2):
        node = template.container()
        steps, loaded_in = steps_of(node)
        assert steps == ["snap", "async snap", "start"]
        assert loaded_in == template.pid
        assert set(node.ready.stages) == {"enter"}


def steps_of(node):
    node.give_chunk(0, [payload.dumps_bytes(((), {}))], method="steps_of")
    head, body = node.output()
    assert head.status == "success", head
    return payload.loads(body)


def test_the_module_is_imported_once(template):
    template.up("import os\nIMPORTED_IN = os.getpid()\ndef f():\n    return IMPORTED_IN, os.getpid()\n")
    (first, mine), (second, other) = template.container().call(), template.container().call()
    assert first == second == template.pid
    assert mine != other


def test_a_fork_knows_who_it_is(template):
    template.up(
        """
        import os
        from alight import is_local
        from alight.wire import ambient
        THEN = is_local(), os.environ["NAME"]
        def f():
            return THEN, is_local(), os.environ["NAME"], ambient.container.container_id, ambient.on_waiting is not None
        """,
        environ={"NAME": "template"},
    )
    value = template.container(environ={"NAME": "fork"}).call()
    assert value == ((False, "template"), False, "fork", "ta-1", True)


def test_the_environment_is_the_containers_with_what_user_code_changed(template):
    template.up(
        """
        import os
        os.environ["TOKENIZERS"] = "off"
        del os.environ["UNWANTED"]
        def f():
            return {name: os.environ.get(name) for name in ("TOKENIZERS", "UNWANTED", "ONLY_TEMPLATE", "TOKEN", "TZ")}
        """,
        env={"UNWANTED": "1", "ONLY_TEMPLATE": "1"},
    )
    environ = {"TOKEN": "hush", "TOKENIZERS": "on", "TZ": "XYZ-3"}
    assert template.container(env={"UNWANTED": "1"}, environ=environ).call() == {
        "TOKENIZERS": "off",
        "UNWANTED": None,
        "ONLY_TEMPLATE": None,
        "TOKEN": "hush",
        "TZ": "XYZ-3",
    }


RANDOM = """
    import random, ssl, tempfile, uuid, multiprocessing.process
    random.random(); uuid.uuid1(); ssl.RAND_bytes(8); next(tempfile._get_candidate_names())
    def f():
        return {
            "random": random.random(),
            "uuid": str(uuid.uuid4()),
            "node": uuid._node,
            "tempfile": next(tempfile._get_candidate_names()),
            "ssl": ssl.RAND_bytes(8).hex(),
            "authkey": bytes(multiprocessing.process.current_process().authkey).hex(),
        }
    """


def test_random_numbers_and_names_differ_between_forks(template):
    ready, _ = template.up(RANDOM)
    assert ready.refused == ()
    one, other = template.container().call(), template.container().call()
    assert one["node"] is None
    alike = [name for name in one if name != "node" and one[name] == other[name]]
    assert not alike


@needs("numpy")
def test_numpys_random_numbers_differ(template):
    template.up("import numpy\nnumpy.random.seed(7)\ndef f():\n    return float(numpy.random.rand())\n")
    assert template.container().call() != template.container().call()


@needs("numpy")
def test_a_matrix_product_before_the_snapshot_does_not_hang_the_first_call(template):
    code = CLASS.replace("import os\n", "import os, numpy\n", 1).replace(
        'self.steps.append("async snap")', "self.product = numpy.ones((600, 600)) @ numpy.ones((600, 600))"
    )
    code = code.replace("return self.steps, self.loaded_in", "return float((self.product @ self.product)[0, 0])")
    ready, _ = template.up(code, "Model", class_name="Model", name="Model.*")
    assert (ready.refused, ready.failure) == ((), None)
    assert steps_of(template.container()) == 600.0**3


@needs("numpy")
def test_thread_pools_have_the_containers_number_again(template):
    template.up(THREADS, env={"OPENBLAS_NUM_THREADS": "3"})
    before, now, said = template.container(env={"OPENBLAS_NUM_THREADS": "3"}).call()
    assert before == 1
    assert now == 3
    assert said == "3"


THREADS = """
    import ctypes, os
    import numpy
    def threads():
        paths = {line.split()[-1] for line in open("/proc/self/maps") if "openblas" in line}
        library = ctypes.CDLL(paths.pop())
        for name in ("scipy_openblas_get_num_threads64_", "openblas_get_num_threads64_", "openblas_get_num_threads"):
            if hasattr(library, name):
                return getattr(library, name)()
    BEFORE = threads()
    def f():
        return BEFORE, threads(), os.environ["OPENBLAS_NUM_THREADS"]
    """


@pytest.mark.slow
@needs("torch")
def test_torch_works_in_forks_and_has_its_threads_and_seeds(template):
    ready, _ = template.up(
        """
        import torch
        BEFORE = torch.get_num_threads()
        PRODUCT = torch.ones(300, 300) @ torch.ones(300, 300)
        torch.rand(1)
        def f():
            return BEFORE, torch.get_num_threads(), float((PRODUCT @ PRODUCT)[0, 0]), float(torch.rand(1))
        """,
        env={"OMP_NUM_THREADS": "2"},
    )
    assert (ready.refused, ready.failure) == ((), None)
    one = template.container(env={"OMP_NUM_THREADS": "2"}).call()
    other = template.container(env={"OMP_NUM_THREADS": "2"}).call()
    assert one[:3] == (1, 2, 300.0**3)
    assert one[3] != other[3]


@pytest.mark.slow
@needs("torch")
def test_a_torch_pool_that_has_run_is_refused(template):
    ready, _ = template.up(
        "import torch\ntorch.set_num_threads(4)\ntorch.ones(900, 900) @ torch.ones(900, 900)\ndef f(): ...\n"
    )
    assert "native thread" in ready.refused[0]
    assert "libgomp" in ready.refused[0]


def test_signal_handlers_of_user_code_stay(template):
    template.up(
        """
        import signal
        signal.signal(signal.SIGTERM, lambda *_: print("mine", flush=True))
        def f():
            signal.raise_signal(signal.SIGTERM)
            return signal.getsignal(signal.SIGUSR1) not in (signal.SIG_DFL, None)
        """
    )
    assert template.container().call() is True
    assert template.forks[0].out.readline() == "mine\n"
