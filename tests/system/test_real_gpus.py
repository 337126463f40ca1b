"""Real GPUs: `pytest -m gpu` on a machine that has one, with NVIDIA's driver. Builds an image with PyTorch (3 GB).

Nothing here is pretended; where there is no GPU every test is skipped. What it printed on a machine belongs into
docs/performance.md, with the machine's name (`-s` shows it).
"""

# ruff: noqa: T201  what it prints is its product

from __future__ import annotations

import re

import pytest

from alight.node.gpus import NvmlGpus
from tests.system.scripted import Going, Script
from tests.system.test_faults import _ended  # noqa: F401  a fixture is used by its name

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800)]

FUNCTIONS = """
torch_image = alight.Image.debian_slim(python_version="3.11").pip_install("torch", "numpy")


def facts():
    import subprocess
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    names = [name for name in os.environ if name.startswith(("CUDA_", "NVIDIA_"))]
    return listed.stdout, {name: os.environ[name] for name in names}


@app.function(image=torch_image)
def without():
    import torch
    return torch.cuda.is_available(), sorted(name for name in os.listdir("/dev") if name.startswith("nvidia"))


@app.function(gpu="any", image=torch_image)
def see():
    return facts()


@app.function(gpu="any", image=torch_image, timeout=600)
def product(size, seconds=0.0):
    import torch
    one = torch.rand(size, size, device="cuda", dtype=torch.float32)
    want = (one[:8].double() @ one.double()).cpu()
    got = (one[:8] @ one).double().cpu()
    torch.cuda.synchronize()
    began, times = time.monotonic(), 0
    while time.monotonic() - began < seconds or not times:
        one @ one
        torch.cuda.synchronize()
        times += 1
    took = (time.monotonic() - began) / times
    error = float(((got - want).abs() / want.abs()).max())
    return {"name": torch.cuda.get_device_name(), "tflops": 2 * size**3 / took / 1e12, "error": error}


@app.function(gpu="any", image=torch_image, timeout=600)
def train(steps):
    import torch
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 1)).cuda()
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    x = torch.rand(4096, 64, device="cuda")
    y = x.sum(1, keepdim=True)
    losses = []
    for _ in range(steps):
        loss = torch.nn.functional.mse_loss(model(x), y)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


@app.function(gpu="any:0.4", image=torch_image, timeout=600)
def share(seconds):
    import torch
    one = torch.rand(2048, 2048, device="cuda")
    began, times = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        one @ one
        torch.cuda.synchronize()
        times += 1
    return times, facts()[1]


@app.function(gpu="any:0.4", image=torch_image, timeout=600)
def too_much(size):
    import torch
    try:
        torch.empty(size, dtype=torch.uint8, device="cuda")
    except torch.cuda.OutOfMemoryError:
        return "refused"
    return "given"
"""


@pytest.fixture(scope="module", autouse=True)
def here():
    """The GPUs of this machine."""
    found = NvmlGpus().gpus()
    if not found:
        pytest.skip("this machine has no GPU")
    return found


@pytest.fixture(scope="module")
def machine(new_machine):
    made = new_machine()
    yield made
    made.close()


@pytest.fixture(scope="module")
def script(machine, tmp_path_factory) -> Script:
    return Script(machine, tmp_path_factory.mktemp("real"), "test-real-gpus", FUNCTIONS)


def test_a_container_sees_its_own_gpu_and_no_other(script, here):
    available, devices = script("answer = without.remote()", timeout=1500)
    assert not available
    assert devices == []
    listed, env = script("answer = see.remote()", timeout=300)
    print(listed, env)
    assert len(re.findall(r"^GPU \d", listed, re.MULTILINE)) == 1
    uuids = {gpu.parent or gpu.uuid for gpu in here}
    assert any(uuid in listed for uuid in uuids)


def test_a_matrix_product_is_right_and_its_speed_is_told(script):
    found = script("answer = product.remote(8192, 3.0)", timeout=900)
    print(found)
    assert found["error"] < 1e-2


def test_a_model_learns(script):
    first, last = script("answer = train.remote(300)", timeout=900)
    print(first, last)
    assert last < first / 10


def test_two_containers_share_one_gpu(script, machine):
    going = Going(
        script,
        """
        first, second = share.spawn(20), share.spawn(20)
        assert until(lambda: share.get_current_stats().num_running_inputs == 2, 300)
        print("both", flush=True)
        answer = [first.get(), second.get()]
    """,
    )
    going.until("both")
    found = [one for one in machine.json("container", "list") if one["function"] == "share"]
    assert len({one["gpus"][0].partition("@")[0] for one in found}) == 1
    (one, _), (two, env) = going.answer(600)
    print(one, two, env)
    print(machine.run("container", "show", found[0]["container_id"]).stdout)
    assert one
    assert two


def test_a_part_s_memory_ends_where_mps_says(script, here):
    size = int(0.6 * min(gpu.memory for gpu in here)) << 20  # a container may see its part as all there is
    got, env = script(f"answer = [too_much.remote({size}), share.remote(0.1)[1]]", timeout=600)
    if "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT" not in env:
        pytest.skip("shared by time slicing or a MIG instance here")
    assert got == "refused"


def test_what_it_does_is_measured(script, machine):
    going = Going(script, 'print("runs", flush=True)\nanswer = product.remote(8192, 25.0)')
    going.until("runs")

    def used():
        found = [one for one in machine.json("container", "list") if one["function"] == "product"]
        return found[0].get("usage", {}) if found else {}

    best: dict[str, float] = {}
    while going.process.poll() is None and best.get("gpu_utilization", 0.0) < 0.5:
        best = max(best, used(), key=lambda one: one.get("gpu_utilization", 0.0))
    print(best)
    going.answer(600)
    assert best["gpu_utilization"] >= 0.5
    assert best["gpu_memory_bytes"] > 500e6
