"""Weight tensors for the tests of quantizers."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

# A busy machine is not a failure of the code under test.
settings.register_profile("quantizers", deadline=None, max_examples=150)
settings.load_profile("quantizers")

Weights = NDArray[np.float32]


def gaussian(*shape: int, scale: float = 0.02, seed: int = 0) -> Weights:
    """Normal weights with a few outliers, as trained layers have them."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=shape) * scale
    return np.where(rng.random(shape) < 0.01, 5 * weights, weights).astype(np.float32)


def sqnr(weights: Weights, rounded: Weights) -> float:
    """Signal to quantization noise, in dB."""
    noise = np.square(weights - rounded, dtype=np.float64).sum()
    return float(10 * np.log10(np.square(weights, dtype=np.float64).sum() / noise))


@st.composite
def tensors(draw: st.DrawFn, smallest: float = 1e-4, largest: float = 1e4) -> Weights:
    """Tensors of one to four axes: zeros, constants, few and many values, of any magnitude in the bounds."""
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    if draw(st.booleans()):
        shape = (*shape[:1], draw(st.integers(1, 200)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(("normal", "zero", "constant", "few", "positive", "heavy", "dead channel")))
    scale = 10.0 ** draw(st.floats(np.log10(smallest) + 1, np.log10(largest) - 2))
    values = {
        "normal": rng.normal(size=shape),
        "zero": np.zeros(shape),
        "constant": np.full(shape, rng.choice((-1.0, 1.0))),
        "few": rng.integers(-2, 3, size=shape).astype(float),
        "positive": rng.random(shape) + 0.5,
        "heavy": np.clip(rng.standard_t(3, size=shape), -50, 50),
        "dead channel": rng.normal(size=shape),
    }[kind]
    weights = np.asarray(values * scale, np.float32)
    if kind == "dead channel":
        weights[0] = 0
    return weights
