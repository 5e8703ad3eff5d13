"""What the weights of a layer alone say about it."""

from __future__ import annotations

import numpy as np

from evolve.networks.network import WeightArray

#: Of a format that keeps every bit: beyond any that rounds.
HIGHEST_SQNR = 200.0


def weight_statistics(weights: WeightArray) -> dict[str, float]:
    """Return mean, standard deviation and extent of weights, by the names of a profile's signals."""
    exact = weights.astype(np.float64)
    return {
        "weight_mean": float(exact.mean()),
        "weight_std": float(exact.std()),
        "weight_range": float(exact.max() - exact.min()),
    }


def condition_number(weights: WeightArray) -> float:
    """Return the ratio of the largest to the smallest singular value of a layer's matrix.

    Args:
        weights: Output channels first; the other axes are one. A vector stands for a diagonal matrix.

    Returns:
        At least 1, and at most where singular values are told from 0 in float32: a singular matrix has
        no larger one.
    """
    matrix = weights.reshape(len(weights), -1).astype(np.float64)
    if weights.ndim == 1:
        values = np.abs(matrix[:, 0])
    elif min(matrix.shape) == 1:
        return 1.0
    else:
        small = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        # The squares are cheaper by far where one side is long, and exact enough for float32 weights.
        values = np.sqrt(np.maximum(np.linalg.eigvalsh(small @ small.T), 0))
    largest = float(values.max())
    if largest == 0:
        return 1.0
    least = largest * max(matrix.shape) * float(np.finfo(np.float32).eps)
    return largest / max(float(values.min()), least)


def squared_error(weights: WeightArray, rounded: WeightArray) -> float:
    """Return the sum of squared differences."""
    difference = rounded.astype(np.float64) - weights
    return float((difference**2).sum())


def sqnr(weights: WeightArray, error: float) -> float:
    """Return the signal-to-quantization-noise ratio in dB, at most `HIGHEST_SQNR`.

    Args:
        weights: The unrounded weights.
        error: The sum of squared differences of the rounded ones.
    """
    power = float((weights.astype(np.float64) ** 2).sum())
    if error <= 0 or power <= 0:
        return HIGHEST_SQNR
    return min(HIGHEST_SQNR, float(10 * np.log10(power / error)))
