"""What a quantizer stores of a weight tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Encoded:
    """A quantized weight tensor, as it would lie in a file.

    Attributes:
        name: Format name.
        shape: Shape of the tensor.
        codes: Packed codes of all weights in row-major order, bytes, (B,).
        scales: One a group in the order of the groups, (N,), or (0,): ``float16``; ``uint16`` are the bits
            of BF16 and ``uint8`` those of the format's own scale (E8M0, E4M3).
        zero_points: Packed zero points of the groups, bytes, (Z,); (0,) where zero is always code zero.
        tensor_scale: Scale of all scales, ``float32``, (1,), or (0,).
    """

    name: str
    shape: tuple[int, ...]
    codes: NDArray[np.uint8]
    scales: NDArray[Any]
    zero_points: NDArray[np.uint8]
    tensor_scale: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Bytes stored: codes, scales and zero points."""
        return self.codes.nbytes + self.scales.nbytes + self.zero_points.nbytes + self.tensor_scale.nbytes
