"""Where a uniform quantizer clips: what lies beyond the clip is rounded to it.

Shapes: N groups of at most M weights, short groups filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Clipping = Literal["absmax", "mse", "octav"]

Error = Callable[[FloatArray], NDArray[np.float64]]
"""Maps a share of the full range for each group, (N,), to the squared error of each group, (N,)."""

COARSE, STEPS = 0.9, 40
"""Shares of the full range that a search tries first: 0.9^0 to 0.9^39 = 0.016."""
FINE = 12
"""Shares tried after that between the neighbours of the best."""
ITERATIONS = 10


def absmax(values: FloatArray) -> FloatArray:
    """Return the largest magnitude of each group, (N,)."""
    largest: FloatArray = np.maximum(values.max(axis=1), -values.min(axis=1))
    return largest


def search_clip(num_groups: int, error: Error) -> FloatArray:
    """Return for each group the share of its full range whose squared error is least, (N,).

    A grid search in two passes: 40 shares in steps of 10 %, then 12 between the neighbours of the best one,
    in steps of about 1.5 %. Of equals the widest is kept, so what can be stored exactly stays as it is.
    """
    full = np.ones(num_groups, np.float32)
    centre = best_share([full * np.float32(COARSE**step) for step in range(STEPS)], error)
    near = [COARSE ** (2 * step / (FINE + 1) - 1) for step in range(1, FINE + 1)]
    return best_share([centre, *(np.minimum(centre * np.float32(each), 1) for each in near)], error)


def best_share(shares: Sequence[FloatArray], error: Error) -> FloatArray:
    """Return for each group the share of least squared error, the first of equals, (N,)."""
    best, least = shares[0].copy(), error(shares[0])
    for share in shares[1:]:
        now = error(share)
        better = now < least
        best[better], least[better] = share[better], now[better]
    return best


def octav_clip(values: FloatArray, counts: NDArray[np.int64], max_level: float) -> FloatArray:
    """Return OCTAV's clip of each group, (N,): the fixed point of Sakr 2022, equation 7.

    ``s ← Σ|w|[|w| > s] / (c·n[0 < |w| ≤ s] + n[|w| > s])``, where ``c·s²`` is the noise of rounding, one
    twelfth of the squared step. With the step ``s / max_level`` that is ``c = 1 / (12·max_level²)``, which is
    the paper's ``4^−b / 3`` for its ``2^(b−1)`` steps on each side.

    Args:
        values: Weights by group, (N, M).
        counts: Weights of each group, (N,).
        max_level: Steps between zero and the clip.
    """
    magnitudes = np.abs(values)
    noise = 1 / (12 * max_level**2)
    clip = magnitudes.sum(axis=1, dtype=np.float64) / counts
    for _ in range(ITERATIONS):
        outside = magnitudes > clip[:, None]
        num_outside = outside.sum(axis=1)
        total = np.where(outside, magnitudes, 0).sum(axis=1, dtype=np.float64)
        clip = total / np.maximum(noise * (counts - num_outside) + num_outside, 1e-300)
    fixed_point: FloatArray = clip.astype(np.float32)
    return fixed_point


def squared_distance(rounded: FloatArray, values: FloatArray) -> NDArray[np.float64]:
    """Return the squared error of each group, (N,); the first argument, (N, M), is overwritten."""
    rounded -= values
    rounded *= rounded
    total: NDArray[np.float64] = rounded.sum(axis=1, dtype=np.float64)
    return total
