"""Teach a small language model to write like Shakespeare, in three functions: prepare, train, sample.

    alight run examples/charlm/train.py
    alight run examples/charlm/train.py --steps 500 --temperature 0.6
    alight run examples/charlm/train.py::sample --length 200

Every function runs in a container of its own, in an image with numpy; what they share lies on a volume. The secret
`charlm` holds the words that the model has to continue. The model is in `model.py` beside this file: plain numpy, on
the CPU, in well under a minute.
"""

import json
import pathlib
import time

import alight

HERE = pathlib.Path(__file__).parent
TEXT = "/root/tinyshakespeare.txt"
DATA = pathlib.Path("/data")

image = (
    alight.Image.debian_slim(python_version="3.11")
    .uv_pip_install("numpy")
    .add_local_file(HERE / "tinyshakespeare.txt", TEXT)
    .add_local_file(HERE / "model.py", "/root/model.py")
)
volume = alight.Volume.from_name("charlm", create_if_missing=True)
app = alight.App("charlm", image=image, volumes={str(DATA): volume})


@app.function()
def prepare() -> dict:
    """Turn the text into numbers, nine tenths of it to learn from and the rest to be tested on."""
    import numpy as np

    text = pathlib.Path(TEXT).read_text()
    characters = sorted(set(text))
    numbers = np.searchsorted(characters, list(text)).astype(np.uint8)
    cut = len(numbers) * 9 // 10
    np.save(DATA / "train.npy", numbers[:cut])
    np.save(DATA / "test.npy", numbers[cut:])
    (DATA / "characters.json").write_text(json.dumps(characters))
    volume.commit()
    return {"characters": len(characters), "train": cut, "test": len(numbers) - cut}


@app.function(cpu=1, timeout=600)  # one core: products this small only wait for a second thread
def train(steps: int = 3000, batch: int = 256, rate: float = 0.003) -> float:
    """Train, save the weights, and return the loss on text that was never trained on, in nats per character."""
    import model
    import numpy as np

    characters = json.loads((DATA / "characters.json").read_text())
    train_text, test_text = np.load(DATA / "train.npy"), np.load(DATA / "test.npy")
    shape = model.Shape(characters=len(characters))
    rng = np.random.default_rng(1564)
    weights = model.initial(shape, rng)
    adam = model.Adam(weights)

    def draw(text, count):
        starts = rng.integers(0, len(text) - shape.window, count)
        return text[starts[:, None] + np.arange(shape.window)], text[starts + shape.window]

    examination = draw(test_text, 8192)
    print(f"{sum(value.size for value in weights.values()):,} weights, {steps:,} steps", flush=True)
    began = time.monotonic()
    smooth = np.log(len(characters))
    for step in range(1, steps + 1):
        loss, gradients = model.loss_and_gradients(weights, *draw(train_text, batch))
        adam.step(weights, gradients, rate * schedule(step, steps))
        smooth += 0.02 * (loss - smooth)
        if step % 50 == 0 or step == steps:
            pace = step / (time.monotonic() - began)
            print(f"\rstep {step:5,} of {steps:,}   loss {smooth:.3f}   {pace:.0f} steps/s ", end="", flush=True)
        if step % 500 == 0 and step < steps:
            print(f"  test {model.loss(weights, *examination):.3f}", flush=True)
    test = model.loss(weights, *examination)
    print(f"\ntest loss {test:.4f} nats per character after {time.monotonic() - began:.1f} s", flush=True)
    np.savez(DATA / "weights.npz", **weights)
    volume.commit()
    return test


@app.function(secrets=[alight.Secret.from_name("charlm")])
def sample(length: int = 400, temperature: float = 0.6, seed: int = 7) -> str:
    """Let the trained model continue the secret's words."""
    import os

    import model
    import numpy as np

    volume.reload()
    characters = json.loads((DATA / "characters.json").read_text())
    weights = dict(np.load(DATA / "weights.npz"))
    opening = os.environ["OPENING"]
    known = [characters.index(character) for character in opening if character in characters]
    prompt = [characters.index("\n")] * model.Shape(len(characters)).window + known
    written = model.sample(weights, prompt, length, temperature, np.random.default_rng(seed))
    text = opening + "".join(characters[number] for number in written)
    print(text)
    return text


@app.local_entrypoint()
def main(steps: int = 3000, temperature: float = 0.6, length: int = 400, loss_below: float = 0.0):
    """Prepare, train, sample. With --loss-below, fail when the model has not learnt that well."""
    sizes = prepare.remote()
    print(f"{sizes['train']:,} characters to learn from, {sizes['test']:,} to be tested on")
    loss = train.remote(steps=steps)
    sample.remote(length=length, temperature=temperature)
    print(f"test loss: {loss:.4f}")
    if loss_below and not loss < loss_below:
        raise SystemExit(f"the loss is {loss:.4f}, and had to fall below {loss_below}")


def schedule(step: int, steps: int) -> float:
    """The share of the learning rate at a step: a short warm-up, then half a cosine down to almost nothing."""
    import math

    return min(1.0, step / 100) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / steps)))
