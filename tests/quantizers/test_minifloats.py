"""Casts to narrower floating-point formats: bit for bit those of torch, and the published tables."""

from __future__ import annotations

import numpy as np
import pytest

from evolve.quantizers.minifloat import BF16, FP4_E2M1, FP8_E4M3, FP8_E5M2, FP16, Minifloat

NUMBERS = {"bfloat16": BF16, "float16": FP16, "float8_e4m3fn": FP8_E4M3, "float8_e5m2": FP8_E5M2}
E2M1 = (0, 0.5, 1, 1.5, 2, 3, 4, 6)


def interesting(number: Minifloat) -> np.ndarray:
    """Float32 of every sign and exponent: all numbers, all ties, their neighbours, and random ones."""
    rng = np.random.default_rng(0)
    values = number.decode(np.arange(number.max_code + 2, dtype=np.uint32)).astype(np.float64)
    values = values[np.isfinite(values)]
    ties = (values[1:] + values[:-1]) / 2
    beyond = values[-1] + np.array([0.25, 0.5, 0.75, 1, 2, 1e3]) * (values[-1] - values[-2])
    with np.errstate(over="ignore"):
        exact = np.concatenate([values, ties, beyond]).astype(np.float32)
    specials = np.array([np.inf, np.nan, 0, np.finfo(np.float32).max, 1e-45, 1e-38], np.float32)
    bits = np.concatenate([exact, specials]).view(np.uint32)
    near = np.concatenate([bits, bits + np.uint32(1), np.maximum(bits, 1) - np.uint32(1)])
    upper = np.arange(2**16, dtype=np.uint32) << np.uint32(16)
    every = (upper[:, None] | np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)).reshape(-1)
    noise = rng.integers(0, 2**32, 100_000, dtype=np.uint32)
    return np.concatenate([near, near | np.uint32(2**31), every, noise]).view(np.float32)


@pytest.mark.parametrize("name", NUMBERS)
def test_casts_are_those_of_torch(name):
    torch = pytest.importorskip("torch")
    number, values = NUMBERS[name], interesting(NUMBERS[name])
    cast = torch.from_numpy(values.copy()).to(getattr(torch, name))
    width = {16: torch.int16, 8: torch.uint8}[number.width]
    expected = cast.view(width).numpy().astype(np.uint32) & np.uint32(2**number.width - 1)
    codes = number.encode(values)
    nan = np.isnan(values)
    assert nan.any()
    np.testing.assert_array_equal(codes[~nan], expected[~nan])
    # A NaN stays one; its bits are not the same in all of torch's own code paths.
    assert np.isnan(number.decode(codes[nan])).all()
    assert np.isnan(cast.float().numpy()[nan]).all()


@pytest.mark.parametrize("name", NUMBERS)
def test_every_pattern_means_what_it_means_to_torch(name):
    torch = pytest.importorskip("torch")
    number = NUMBERS[name]
    patterns = np.arange(2**number.width, dtype=np.uint16 if number.width == 16 else np.uint8)
    expected = torch.from_numpy(patterns).view(getattr(torch, name)).float().numpy()
    found = number.decode(patterns)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    finite = ~np.isnan(found)
    np.testing.assert_array_equal(found[finite].view(np.uint32), expected[finite].view(np.uint32))


def test_float16_is_that_of_numpy():
    values = interesting(FP16)
    values = values[~np.isnan(values)]
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).view(np.uint16)
    np.testing.assert_array_equal(FP16.encode(values), expected)


@pytest.mark.parametrize("number", [*NUMBERS.values(), FP4_E2M1])
def test_every_number_is_its_own_nearest(number):
    codes = np.arange(2**number.width, dtype=np.uint32)
    numbers = number.table()
    kept = ~np.isnan(numbers)
    np.testing.assert_array_equal(number.encode(numbers[kept]), codes[kept])


@pytest.mark.parametrize(
    ("number", "largest"),
    [(BF16, 3.3895313892515355e38), (FP16, 65504), (FP8_E4M3, 448), (FP8_E5M2, 57344), (FP4_E2M1, 6)],
)
def test_largest_numbers(number, largest):
    assert number.max == largest
    over = np.array([largest * 1.0001, -largest * 1.0001], np.float32)
    assert abs(number.decode(number.encode(over))).tolist() == [number.max] * 2


def test_overflow_is_infinite_where_there_is_infinity():
    for number in (BF16, FP16, FP8_E5M2):
        assert number.decode(number.encode(np.array([-np.inf], np.float32))).tolist() == [-np.inf]
    assert FP16.decode(FP16.encode(np.array([65519.99, 65520], np.float32))).tolist() == [65504, np.inf]
    assert FP8_E4M3.decode(FP8_E4M3.encode(np.array([1e9, np.inf], np.float32))).tolist() == [448, 448]


def test_ties_of_e2m1_go_to_the_even_code():
    ties = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 7], np.float32)
    assert FP4_E2M1.decode(FP4_E2M1.encode(ties)).tolist() == [0, 1, 1, 2, 2, 4, 4, 6]
    assert FP4_E2M1.table().tolist() == [*E2M1, *(-each for each in E2M1)]


def test_e2m1_is_that_of_compressed_tensors():
    torch = pytest.importorskip("torch")
    fp4 = pytest.importorskip("compressed_tensors.quantization.utils.fp4_utils")
    values = np.concatenate([np.linspace(-7, 7, 5601), np.array([-0.0, 1e-9, 100])]).astype(np.float32)
    expected = fp4.cast_to_fp4(torch.from_numpy(values.copy())).numpy()
    np.testing.assert_array_equal(FP4_E2M1.decode(FP4_E2M1.encode(values)), expected)


def test_shape_is_kept():
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(BF16.decode(BF16.encode(values)), values)
