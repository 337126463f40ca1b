"""The example's model: its hand-written gradient is right, it learns, and its text is reproducible."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "charlm"


@pytest.fixture(scope="module")
def model():
    """`model.py`, loaded by path as a container would find it beside the script."""
    spec = importlib.util.spec_from_file_location("charlm_model", EXAMPLE / "model.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def tiny(model):
    """A model small enough for finite differences, in double precision, and a batch in which characters repeat."""
    shape = model.Shape(characters=5, window=3, embedding=2, hidden=7)
    rng = np.random.default_rng(3)
    weights = model.initial(shape, rng, np.float64)
    for name in weights:
        weights[name] = weights[name] + 0.1 * rng.standard_normal(weights[name].shape)
    return weights, rng.integers(0, 5, (11, 3)), rng.integers(0, 5, 11)


def test_gradient_agrees_with_finite_differences(model, tiny):
    weights, windows, targets = tiny
    _, gradients = model.loss_and_gradients(weights, windows, targets)
    assert gradients.keys() == weights.keys()
    for name, value in weights.items():
        numeric = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            kept = value[index]
            value[index] = kept + 1e-6
            above = model.loss(weights, windows, targets)
            value[index] = kept - 1e-6
            below = model.loss(weights, windows, targets)
            value[index] = kept
            numeric[index] = (above - below) / 2e-6
        np.testing.assert_allclose(gradients[name], numeric, atol=1e-7, err_msg=name)


def test_the_two_losses_are_one(model, tiny):
    weights, windows, targets = tiny
    with_gradients, _ = model.loss_and_gradients(weights, windows, targets)
    assert with_gradients == pytest.approx(model.loss(weights, windows, targets))


def test_it_starts_at_chance(model):
    shape = model.Shape(characters=65)
    rng = np.random.default_rng(0)
    weights = model.initial(shape, rng)
    windows = rng.integers(0, 65, (256, shape.window))
    assert model.loss(weights, windows, rng.integers(0, 65, 256)) == pytest.approx(np.log(65), abs=0.1)


def test_it_learns_a_pattern(model):
    shape = model.Shape(characters=4, window=3, embedding=3, hidden=16)
    rng = np.random.default_rng(0)
    weights = model.initial(shape, rng)
    adam = model.Adam(weights)
    text = np.arange(400) % 4
    starts = np.arange(len(text) - 3)
    windows, targets = text[starts[:, None] + np.arange(3)], text[starts + 3]
    for _ in range(60):
        _, gradients = model.loss_and_gradients(weights, windows, targets)
        adam.step(weights, gradients, 0.02)
    assert model.loss(weights, windows, targets) < 0.05
    assert model.sample(weights, [0, 1, 2], 6, 0.5, rng) == [3, 0, 1, 2, 3, 0]


def test_a_seed_gives_the_same_text(model, tiny):
    weights, _, _ = tiny
    once, again = (model.sample(weights, [0, 1, 2], 30, 1.0, np.random.default_rng(5)) for _ in range(2))
    assert once == again
    assert len(once) == 30
