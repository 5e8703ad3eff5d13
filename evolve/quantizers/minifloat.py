"""Casts float32 to narrower floating-point formats and back, bit for bit as hardware and torch do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
CodeArray = NDArray[np.uint32]

_SIGN, _MANTISSA, _BIAS = 31, 23, 127  # of float32


@dataclass(frozen=True)
class Minifloat:
    """A binary floating-point format of at most 16 bits: sign, exponent, mantissa.

    Attributes:
        exponent: Bits of the exponent.
        mantissa: Bits of the mantissa.
        specials: What the largest exponent means. ``ieee``: infinity and NaN, as in IEEE 754. ``nan``: only
            the pattern of all ones is NaN, and there is no infinity (OCP FP8 E4M3, "fn"). ``none``: every
            pattern is a finite number (OCP FP4 E2M1).
    """

    exponent: int
    mantissa: int
    specials: Literal["ieee", "nan", "none"]

    @property
    def width(self) -> int:
        """Bits of a number."""
        return 1 + self.exponent + self.mantissa

    @property
    def bias(self) -> int:
        """What is added to an exponent to store it."""
        return int(2 ** (self.exponent - 1) - 1)

    @property
    def max_code(self) -> int:
        """Bits of the largest finite number."""
        largest = 2 ** (self.exponent + self.mantissa) - 1
        beyond = {"ieee": 2**self.mantissa, "nan": 1, "none": 0}[self.specials]
        return int(largest - beyond)

    @property
    def max(self) -> float:
        """The largest finite number."""
        return float(self.decode(np.array([self.max_code], np.uint32))[0])

    def encode(self, values: FloatArray) -> CodeArray:
        """Return the bits of the nearest numbers, ties to even, of the same shape.

        What is too large becomes infinity, or the largest number where there is no infinity, as in torch
        2.13 (in older ones an E4M3 too large is NaN). The bits of a NaN are all ones but the sign; those of
        torch differ from one of its code paths to the next. Where there is no NaN, none may come in.
        """
        bits = values.view(np.uint32)
        sign, magnitude = bits >> _SIGN, bits & np.uint32(2**_SIGN - 1)
        dropped = _MANTISSA - self.mantissa
        odd = (magnitude >> dropped) & np.uint32(1)
        codes: CodeArray = (magnitude + np.uint32(2 ** (dropped - 1) - 1) + odd) >> np.uint32(dropped)
        if self.bias != _BIAS:
            # Added to this, a number below the least normal one is rounded by the addition itself.
            magic = np.float32(2.0 ** (_MANTISSA + 1 - self.bias - self.mantissa))
            with np.errstate(over="ignore", invalid="ignore"):
                subnormal = (magnitude.view(np.float32) + magic).view(np.uint32) - magic.view(np.uint32)
            least_normal = (_BIAS + 1 - self.bias) << _MANTISSA
            rebased = codes - np.uint32((_BIAS - self.bias) << self.mantissa)
            codes = np.where(magnitude < least_normal, subnormal, rebased)
        overflow = self.max_code + (self.specials == "ieee")
        codes = np.minimum(codes, np.uint32(overflow))
        nan = 2 ** (self.exponent + self.mantissa) - 1
        codes = np.where(magnitude > 255 << _MANTISSA, np.uint32(nan), codes)
        return (codes | (sign << np.uint32(self.width - 1))).astype(np.uint32, copy=False)

    def decode(self, codes: NDArray[np.unsignedinteger[Any]]) -> FloatArray:
        """Return the numbers of these bits, exactly, of the same shape."""
        magnitude = codes.astype(np.uint32) & np.uint32(2 ** (self.width - 1) - 1)
        exponent = (magnitude >> self.mantissa).astype(np.int32)
        fraction = (magnitude & np.uint32(2**self.mantissa - 1)).astype(np.float32)
        fraction[exponent > 0] += np.float32(2**self.mantissa)
        with np.errstate(over="ignore"):  # BF16's infinity
            numbers = np.ldexp(fraction, np.maximum(exponent, 1) - (self.bias + self.mantissa))
        if self.specials != "none":
            numbers[magnitude > self.max_code] = np.nan
        if self.specials == "ieee":
            numbers[magnitude == self.max_code + 1] = np.inf
        negative = (codes >> (self.width - 1)).astype(bool)
        signed: FloatArray = np.where(negative, -numbers, numbers).astype(np.float32)
        return signed

    def table(self) -> FloatArray:
        """Return the number of every bit pattern, (2^width,)."""
        return self.decode(np.arange(2**self.width, dtype=np.uint32))


BF16 = Minifloat(8, 7, "ieee")
FP16 = Minifloat(5, 10, "ieee")
FP8_E4M3 = Minifloat(4, 3, "nan")
"""Micikevicius 2022; finite up to 448."""
FP8_E5M2 = Minifloat(5, 2, "ieee")
"""Micikevicius 2022; finite up to 57344."""
FP4_E2M1 = Minifloat(2, 1, "none")
"""OCP Microscaling Formats 1.0: 0, ½, 1, 1½, 2, 3, 4, 6 and their negatives."""
