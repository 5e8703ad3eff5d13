"""Exponential and logarithm that are the same to the last bit on every processor.

Those of numpy come from the C library or from the vector unit, whichever the machine has, and differ in the
last bit. A search that goes by them would not repeat elsewhere. These are made of sums, products, quotients
and shifts alone, which are rounded in one way (IEEE 754). They err by little more than one unit in the last
place. Numbers too small to be normal count as 0.

Methods: range reduction by a multiple of log 2 and a polynomial; the logarithm's series in s = f / (2 + f),
as in the C library of FreeBSD (Ng, "fdlibm"); the corrections of 1 + x are Kahan's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

#: Values computed together: some arrays of so many fit into the processor's cache.
_BLOCK = 8192
#: Between these the exponential is a normal number, so that its exponent can be added to.
_LEAST, _MOST = -708.0, 709.0
#: Added to a small number, this leaves it rounded to a whole one in the lowest bits.
_ROUNDER = 1.5 * 2.0**52
#: Bits after the point of a constant that is multiplied by whole numbers exactly.
_EXACT_BITS = 38
_EXPONENT_BITS = 52

with localcontext() as _context:
    _context.prec = 40
    _LN2 = Decimal(2).ln()
    _LN2_HIGH = float(round(_LN2 * 2**_EXACT_BITS)) / 2.0**_EXACT_BITS
    _LN2_LOW = float(_LN2 - Decimal(_LN2_HIGH))
    _LOG2_E = float(1 / _LN2)
_HALF_ROOT_BITS = np.int64(np.float64(0.5**0.5).view(np.int64))
#: Coefficients, that of the highest power first: what is left out is below half a unit in the last place.
_TAYLOR = [np.float64(1.0 / math.factorial(power)) for power in range(13, -1, -1)]
_SERIES = [2.0 / (2 * power + 1) for power in range(10, 0, -1)]


def exp(values: ArrayLike) -> FloatArray:
    """Return e to the power of each value."""
    return _in_blocks(_exp, values, _LEAST, _MOST, (0.0, math.inf))


def log(values: ArrayLike) -> FloatArray:
    """Return the natural logarithm of each value; −∞ of 0, NaN of what is negative."""
    given = np.asarray(values, dtype=np.float64)
    limits = np.finfo(np.float64)
    found = _in_blocks(_log, given, float(limits.tiny), float(limits.max), (-math.inf, math.inf))
    return found if not (given < 0.0).any() else np.where(given < 0.0, math.nan, found)


def log1p(values: ArrayLike) -> FloatArray:
    """Return the logarithm of one more than each value, as exact for small ones."""
    given = np.asarray(values, dtype=np.float64)
    with np.errstate(all="ignore"):
        more = given + 1.0
        found = log(more)
        # What was lost in adding, in parts of the sum.
        found += np.where(np.isfinite(found), (given - (more - 1.0)) / more, 0.0)
    return found


def expm1(values: ArrayLike) -> FloatArray:
    """Return one less than `exp` of each value, as exact for small ones."""
    given = np.asarray(values, dtype=np.float64)
    with np.errstate(all="ignore"):
        power = exp(given)
        less = power - 1.0
        near = np.where(power == 1.0, given, less * (given / log(power)))
    return np.where(np.abs(given) < 1.0, near, less)


def portable_numpy() -> ModuleType:
    """Return numpy with these functions in the place of its own."""
    module = ModuleType("numpy", "numpy, its elementary functions the same on every processor.")
    module.__dict__.update(vars(np))
    module.__dict__.update({"exp": exp, "log": log, "log1p": log1p, "expm1": expm1})
    return module


def _exp(values: FloatArray, found: FloatArray) -> None:
    whole = values * _LOG2_E
    whole += _ROUNDER
    shift = whole.view(np.int64) << _EXPONENT_BITS
    whole -= _ROUNDER
    rest = whole * -_LN2_HIGH
    rest += values
    whole *= _LN2_LOW
    rest -= whole
    _polynomial(rest, _TAYLOR, found)
    bits = found.view(np.int64)
    bits += shift


def _log(values: FloatArray, found: FloatArray) -> None:
    bits = values.view(np.int64)
    exponent = bits - _HALF_ROOT_BITS
    exponent >>= _EXPONENT_BITS
    part = (bits - (exponent << _EXPONENT_BITS)).view(np.float64)
    part -= 1.0
    quotient = part / (part + 2.0)
    square = quotient * quotient
    _polynomial(square, _SERIES, found)
    found *= square
    np.subtract(part, found, out=found)
    found *= quotient
    whole = exponent.astype(np.float64)
    found -= whole * _LN2_LOW
    np.subtract(part, found, out=found)
    whole *= _LN2_HIGH
    found += whole


def _polynomial(values: FloatArray, coefficients: Sequence[float], found: FloatArray) -> None:
    np.multiply(values, coefficients[0], out=found)
    for each in coefficients[1:-1]:
        found += each
        found *= values
    found += coefficients[-1]


def _in_blocks(
    kernel: Callable[[FloatArray, FloatArray], None],
    values: ArrayLike,
    least: float,
    most: float,
    beyond: tuple[float, float],
) -> FloatArray:
    """Return what a kernel makes of values within its bounds, and what is given for those below and above."""
    given = np.ascontiguousarray(values, dtype=np.float64)
    found = np.empty_like(given)
    flat, out = given.reshape(-1), found.reshape(-1)
    with np.errstate(all="ignore"):
        for start in range(0, flat.size, _BLOCK):
            kernel(flat[start : start + _BLOCK], out[start : start + _BLOCK])
        within = (flat >= least) & (flat <= most)
        if not within.all():
            outside = np.where(flat < least, beyond[0], np.where(flat > most, beyond[1], math.nan))
            np.copyto(out, outside, where=~within)
    return found.reshape(np.shape(values))
