"""Scales in 16 bits: FP16 where all of a tensor's scales are within its normal range, BF16 otherwise.

FP16 is what GPTQ, AWQ and llama.cpp store. Its least normal number, 6e-5, is too large for the scales of
tiny weights, which an INT8 of weights below 0.01 has already; BF16 has the range of float32 in the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolve.quantizers.minifloat import BF16

FloatArray = NDArray[np.float32]

SCALE_BYTES = 2
_FP16 = np.finfo(np.float16)


def store_scales(scales: FloatArray) -> NDArray[Any]:
    """Return scales, (N,), none negative, in 16 bits: as ``float16``, or as ``uint16``, the bits of BF16."""
    used = scales[scales > 0]
    if not used.size or (used.min() >= _FP16.tiny and used.max() <= _FP16.max):
        return scales.astype(np.float16)
    largest = np.float32(BF16.max)
    return BF16.encode(np.minimum(scales, largest)).astype(np.uint16)


def load_scales(stored: NDArray[Any]) -> FloatArray:
    """Return what `store_scales` stored, as float32, (N,)."""
    if stored.dtype == np.float16:
        return stored.astype(np.float32)
    return BF16.decode(stored)


def divide(values: FloatArray, scales: FloatArray) -> FloatArray:
    """Return the values of each group over its scale, (N, M); 0 where the scale is 0."""
    safe = np.where(scales > 0, scales, np.float32(1))
    result: FloatArray = np.where(scales > 0, 1, 0).astype(np.float32)[:, None] * values
    result /= safe[:, None]
    return result
