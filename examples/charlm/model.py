"""A character-level language model in plain numpy: a multilayer perceptron over a window of characters.

The last ``window`` characters are embedded, laid side by side, and pass two hidden layers with a shortcut between them;
the last layer scores every character that could come next. The backward pass is written out by hand below the forward
pass, step by step, so that it can be read; ``tests/unit/examples`` checks it against finite differences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Weights = dict  # name -> array


@dataclass(frozen=True)
class Shape:
    """How large the model is."""

    characters: int
    window: int = 12
    embedding: int = 24
    hidden: int = 384


def initial(shape: Shape, rng: np.random.Generator, dtype=np.float32) -> Weights:
    """Weights before any training: small, so that the first loss is the log of the number of characters."""
    fan_in = shape.window * shape.embedding

    def normal(rows: int, columns: int, scale: float) -> np.ndarray:
        return (rng.standard_normal((rows, columns)) * scale).astype(dtype)

    return {
        "embed": normal(shape.characters, shape.embedding, 0.5),
        "w1": normal(fan_in, shape.hidden, (2 / fan_in) ** 0.5),
        "b1": np.zeros(shape.hidden, dtype),
        "w2": normal(shape.hidden, shape.hidden, (1 / shape.hidden) ** 0.5),
        "b2": np.zeros(shape.hidden, dtype),
        "w3": normal(shape.hidden, shape.characters, 0.01),
        "b3": np.zeros(shape.characters, dtype),
    }


def scores(weights: Weights, windows: np.ndarray) -> np.ndarray:
    """The score of every next character, for each row of character numbers."""
    return _forward(weights, windows)[-1]


def loss_and_gradients(weights: Weights, windows: np.ndarray, targets: np.ndarray) -> tuple[float, Weights]:
    """Mean cross-entropy in nats per character, and its derivative by every weight."""
    x, h1, mix, h2, logits = _forward(weights, windows)
    rows = np.arange(len(targets))
    logits = logits - logits.max(axis=1, keepdims=True)
    probabilities = np.exp(logits)
    total = probabilities.sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(total[:, 0]) - logits[rows, targets]))

    # The derivative of softmax and cross-entropy together is: what was said, less what was right.
    d_logits = probabilities / total
    d_logits[rows, targets] -= 1
    d_logits /= len(targets)

    gradients = {"w3": mix.T @ d_logits, "b3": d_logits.sum(axis=0)}
    d_mix = d_logits @ weights["w3"].T  # the shortcut: mix = h1 + h2, so both get it
    d_h2 = d_mix * (h2 > 0)
    gradients["w2"] = h1.T @ d_h2
    gradients["b2"] = d_h2.sum(axis=0)
    d_h1 = (d_mix + d_h2 @ weights["w2"].T) * (h1 > 0)
    gradients["w1"] = x.T @ d_h1
    gradients["b1"] = d_h1.sum(axis=0)
    d_x = (d_h1 @ weights["w1"].T).reshape(*windows.shape, -1)
    gradients["embed"] = _gather(windows, d_x, len(weights["embed"]))
    return loss, gradients


def loss(weights: Weights, windows: np.ndarray, targets: np.ndarray) -> float:
    """Mean cross-entropy in nats per character, without gradients."""
    logits = scores(weights, windows)
    logits = logits - logits.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(targets)), targets]))


class Adam:
    """Adam: each weight moves by its running mean gradient over the root of its running mean square."""

    def __init__(self, weights: Weights) -> None:
        self.steps = 0
        self._mean = {name: np.zeros_like(value) for name, value in weights.items()}
        self._square = {name: np.zeros_like(value) for name, value in weights.items()}

    def step(self, weights: Weights, gradients: Weights, rate: float) -> None:
        """Move ``weights`` in place."""
        self.steps += 1
        rate *= (1 - 0.999**self.steps) ** 0.5 / (1 - 0.9**self.steps)
        for name, gradient in gradients.items():
            mean, square = self._mean[name], self._square[name]
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient * gradient - square)
            weights[name] -= rate * mean / (np.sqrt(square) + 1e-8)


def sample(weights: Weights, prompt: list[int], length: int, temperature: float, rng: np.random.Generator) -> list[int]:
    """Continue ``prompt`` by ``length`` characters, drawn one at a time. The prompt must fill a window."""
    window = len(weights["w1"]) // weights["embed"].shape[1]
    text = list(prompt)
    for _ in range(length):
        logits = scores(weights, np.array([text[-window:]]))[0].astype(np.float64) / temperature
        odds = np.exp(logits - logits.max())
        text.append(int(rng.choice(len(odds), p=odds / odds.sum())))
    return text[len(prompt) :]


def _forward(weights: Weights, windows: np.ndarray) -> tuple[np.ndarray, ...]:
    x = weights["embed"][windows].reshape(len(windows), -1)
    h1 = np.maximum(x @ weights["w1"] + weights["b1"], 0)
    h2 = np.maximum(h1 @ weights["w2"] + weights["b2"], 0)
    mix = h1 + h2
    return x, h1, mix, h2, mix @ weights["w3"] + weights["b3"]


def _gather(windows: np.ndarray, d_x: np.ndarray, characters: int) -> np.ndarray:
    """Sum the derivatives of each character over all places where it stood, as one matrix product."""
    flat = windows.ravel()
    chosen = np.zeros((characters, len(flat)), d_x.dtype)
    chosen[flat, np.arange(len(flat))] = 1
    return chosen @ d_x.reshape(len(flat), -1)
