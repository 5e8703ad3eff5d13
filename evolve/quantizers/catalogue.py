"""Every quantizer by the name of its format.

A name is a base and suffixes in this order: base, ``_ASYM``, scale, clipping.

| base | codes | plain name shares a scale over | suffixes |
| --- | --- | --- | --- |
| FP32, BF16, FP16 | casts | no scale | – |
| FP8_E4M3, FP8_E5M2 | casts | no scale | scale, with ``_CHANNEL`` |
| INT8, INT6, INT5, INT4, INT3, INT2 | symmetric, 2^b − 1 levels | a channel | ``_ASYM``, scale, clipping |
| LEVELS3, LEVELS5 … LEVELS29 (not 15) | symmetric, so many levels, in words | a channel | scale, clipping |
| NF4 | 16 quantiles of a Gaussian | 64 | – |
| MXFP4 | FP4 E2M1, E8M0 scale | 32 | – |
| NVFP4 | FP4 E2M1, E4M3 scale, float32 scale a tensor | 16 | – |
| TERNARY | −α, 0, α, five in a byte | a channel | scale, ``_MSE`` |
| BINARY | −α, α | a channel | scale |

| suffix | meaning |
| --- | --- |
| ``_ASYM`` | with a zero point: all 2^b levels between the least and the largest weight |
| ``_TENSOR``, ``_G32``, ``_G64``, ``_G128`` | the tensor, or so many weights of a channel, share a scale |
| ``_CHANNEL`` | a channel shares a scale, where the plain name has no scale |
| ``_MSE`` | clipped where the squared error is least, by grid search |
| ``_OCTAV`` | clipped at or near OCTAV's fixed point (Sakr 2022); not with ``_ASYM`` |

A scale takes 16 bits where the table says nothing else, a zero point the bits of a code. So INT4_G32 has
4.5 bits where 32 divides the channel, NF4 4.25, and INT4 4 + 16/n for n weights a channel.
LEVELS23 is the "4.6-bit" encoding, seven symbols in 32 bits, and LEVELS3 and TERNARY the "1.58-bit" one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import product
from types import MappingProxyType

from evolve.errors import FormatError
from evolve.quantizers.clipping import Clipping
from evolve.quantizers.codebooks import Binary, NormalFloat4, Ternary
from evolve.quantizers.floats import Cast, Float32, MicroscalingFP4, NvidiaFP4, ScaledCast
from evolve.quantizers.grouping import Granularity
from evolve.quantizers.minifloat import BF16, FP8_E4M3, FP8_E5M2, FP16
from evolve.quantizers.packing import BitPacking, densest
from evolve.quantizers.quantizer import Quantizer
from evolve.quantizers.uniform import Asymmetric, Symmetric

WIDTHS = (8, 6, 5, 4, 3, 2)
"""Bits of the integers."""
LEVELS = (3, 5, 7, 9, 11, 13, 17, 19, 21, 23, 25, 27, 29)
"""Levels of the symbols that are packed in words: up to 31 those that take less than whole bits that way."""

_GROUPS: tuple[tuple[str, Granularity], ...] = (
    ("_TENSOR", "tensor"),
    ("_G128", 128),
    ("_G64", 64),
    ("_G32", 32),
)
_SCALES: tuple[tuple[str, Granularity], ...] = (("", "channel"), *_GROUPS)
_CLIPPINGS: tuple[tuple[str, Clipping], ...] = (("", "absmax"), ("_MSE", "mse"), ("_OCTAV", "octav"))


def _floats() -> Iterator[Quantizer]:
    yield Quantizer("FP32", "float", Float32(), "tensor", BitPacking(32))
    for name, number in (("BF16", BF16), ("FP16", FP16), ("FP8_E4M3", FP8_E4M3), ("FP8_E5M2", FP8_E5M2)):
        yield Quantizer(name, "float", Cast(number), "tensor", BitPacking(number.width))
    for (name, number), (suffix, granularity) in product(
        (("FP8_E4M3", FP8_E4M3), ("FP8_E5M2", FP8_E5M2)), (("_CHANNEL", "channel"), *_GROUPS)
    ):
        yield Quantizer(name + suffix, "float", ScaledCast(number), granularity, BitPacking(8))
    yield Quantizer("MXFP4", "float", MicroscalingFP4(), 32, BitPacking(4))
    yield Quantizer("NVFP4", "float", NvidiaFP4(), 16, BitPacking(4))


def _integers() -> Iterator[Quantizer]:
    for bits, (suffix, granularity), (clip, clipping) in product(WIDTHS, _SCALES, _CLIPPINGS):
        packing = BitPacking(bits)
        symmetric = Symmetric(2 ** (bits - 1) - 1, clipping)
        yield Quantizer(f"INT{bits}{suffix}{clip}", "integer", symmetric, granularity, packing)
        if clipping != "octav":
            name = f"INT{bits}_ASYM{suffix}{clip}"
            yield Quantizer(name, "integer", Asymmetric(bits, clipping), granularity, packing)
    for levels, (suffix, granularity), (clip, clipping) in product(LEVELS, _SCALES, _CLIPPINGS):
        name, scheme = f"LEVELS{levels}{suffix}{clip}", Symmetric(levels // 2, clipping)
        yield Quantizer(name, "integer", scheme, granularity, densest(levels))


def _codebooks() -> Iterator[Quantizer]:
    yield Quantizer("NF4", "codebook", NormalFloat4(), 64, BitPacking(4))
    for suffix, granularity in _SCALES:
        yield Quantizer(f"TERNARY{suffix}", "codebook", Ternary(), granularity, densest(3))
        yield Quantizer(f"TERNARY{suffix}_MSE", "codebook", Ternary(optimal=True), granularity, densest(3))
        yield Quantizer(f"BINARY{suffix}", "codebook", Binary(), granularity, BitPacking(1))


QUANTIZERS: Mapping[str, Quantizer] = MappingProxyType(
    {each.name: each for each in (*_floats(), *_integers(), *_codebooks())}
)
"""Every quantizer by its name."""


def find_quantizer(name: str) -> Quantizer:
    """Return the quantizer of a format.

    Raises:
        FormatError: There is none of that name.
    """
    try:
        return QUANTIZERS[name]
    except KeyError:
        near = get_close_matches(name, QUANTIZERS, 3)
        raise FormatError(
            "no quantizer for this format",
            field="format",
            expected=f"one like {', '.join(near or ('FP16', 'INT8', 'INT4_G32', 'NF4'))}",
            found=name,
        ) from None
