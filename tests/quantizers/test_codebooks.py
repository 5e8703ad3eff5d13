"""Codebooks and blocks: the published tables, methods and facts."""

from __future__ import annotations

import numpy as np
import pytest
from weight_tensors import gaussian, sqnr

from evolve.quantizers import find_quantizer
from evolve.quantizers.codebooks import NF4_LEVELS, THRESHOLD
from evolve.quantizers.minifloat import FP4_E2M1, FP8_E4M3
from evolve.quantizers.packing import BitPacking
from evolve.quantizers.scales import load_scales, store_scales


def test_nf4_levels_are_quantiles_of_the_normal_distribution():
    stats = pytest.importorskip("scipy.stats")
    # Dettmers 2023, section 3: eight steps below zero, eight above, each side to the same outermost quantile.
    end = 0.5 * ((1 - 1 / 32) + (1 - 1 / 30))
    above = stats.norm.ppf(np.linspace(end, 0.5, 9)[:-1])
    below = -stats.norm.ppf(np.linspace(end, 0.5, 8)[:-1])
    levels = np.sort([*below, 0, *above]) / above.max()
    np.testing.assert_allclose(NF4_LEVELS, levels, atol=1e-6)


def test_nf4_takes_the_nearest_level():
    weights = gaussian(4, 128)
    rounded = find_quantizer("NF4").dequantized(weights).reshape(8, 64)
    scales = load_scales(store_scales(np.abs(weights).reshape(8, 64).max(axis=1)))
    distances = np.abs(weights.reshape(8, 64, 1) / scales[:, None, None] - NF4_LEVELS)
    nearest = NF4_LEVELS[distances.argmin(axis=2)] * scales[:, None]
    np.testing.assert_array_equal(rounded, nearest)


def test_ternary_is_that_of_the_paper():
    weights = gaussian(4, 100)
    encoded = find_quantizer("TERNARY").encode(weights)
    for row, kept, scale in zip(
        weights, find_quantizer("TERNARY").decode(encoded), load_scales(encoded.scales), strict=True
    ):
        threshold = THRESHOLD * np.abs(row).mean()
        beyond = np.abs(row) > threshold
        assert scale == pytest.approx(np.abs(row[beyond]).mean(), rel=2**-10)
        np.testing.assert_array_equal(kept, np.sign(row) * beyond * scale)


def test_optimal_ternary_is_the_best_of_all_thresholds():
    weights = gaussian(1, 60)
    magnitudes = np.sort(np.abs(weights[0]).astype(np.float64))
    errors = []
    for threshold in magnitudes:
        beyond = np.abs(weights[0]) >= threshold
        scale = np.abs(weights[0][beyond]).mean(dtype=np.float64)
        errors.append(np.square(weights[0] - np.sign(weights[0]) * beyond * scale).sum())
    rounded = find_quantizer("TERNARY_MSE").dequantized(weights)
    assert np.square(weights - rounded, dtype=np.float64).sum() == pytest.approx(min(errors), rel=1e-5)


def test_ternary_beats_two_bits_at_fewer_bits():
    weights = np.random.default_rng(0).normal(size=(64, 576)).astype(np.float32) * np.float32(0.05)
    ratios = {
        name: sqnr(weights, find_quantizer(name).dequantized(weights))
        for name in ("INT2", "TERNARY", "TERNARY_MSE", "BINARY")
    }
    assert 1 < ratios["INT2"] < 4
    assert 7 < ratios["TERNARY"] <= ratios["TERNARY_MSE"] < 8
    # The mean magnitude explains 2/π of a Gaussian's variance.
    assert ratios["BINARY"] == pytest.approx(-10 * np.log10(1 - 2 / np.pi), abs=0.1)
    assert find_quantizer("TERNARY").bits(weights.shape) < find_quantizer("INT2").bits(weights.shape)


def test_binary_is_sign_times_mean_magnitude():
    weights = np.array([[1, -3, 0, 2], [0, 0, 0, 0]], np.float32)
    expected = [[1.5, -1.5, 1.5, 1.5], [0, 0, 0, 0]]
    assert find_quantizer("BINARY").dequantized(weights).tolist() == expected


def test_microscaling_blocks_follow_the_specification():
    weights = gaussian(8, 96)
    encoded = find_quantizer("MXFP4").encode(weights)
    blocks = weights.reshape(-1, 32)
    exponents = np.floor(np.log2(np.abs(blocks).max(axis=1))) - 2
    np.testing.assert_array_equal(encoded.scales, exponents + 127)
    scaled = np.clip(blocks / 2.0 ** exponents[:, None], -6, 6)
    nearest = np.abs(scaled[..., None] - FP4_E2M1.table()).min(axis=2)
    rounded = find_quantizer("MXFP4").dequantized(weights).reshape(-1, 32)
    np.testing.assert_allclose(np.abs(rounded / 2.0 ** exponents[:, None] - scaled), nearest, atol=1e-7)


def test_microscaling_takes_any_float32():
    weights = np.array([[3.4e38, -1e30], [1e-45, -1e-44], [0, 0]], np.float32)
    encoded = find_quantizer("MXFP4").encode(weights)
    assert encoded.scales[:2].tolist() == [127 + 125, 0]
    rounded = find_quantizer("MXFP4").decode(encoded)
    assert rounded[0, 0] == np.float32(6 * 2.0**125)
    assert rounded[2].tolist() == [0, 0]


def test_nvidia_blocks_use_the_whole_range_of_their_scales():
    weights = gaussian(8, 96)
    encoded = find_quantizer("NVFP4").encode(weights)
    assert encoded.tensor_scale.tolist() == [np.abs(weights).max() / np.float32(6 * 448)]
    scales = FP8_E4M3.decode(encoded.scales)
    assert scales.max() == 448
    symbols = BitPacking(4).unpack(encoded.codes, weights.size).reshape(-1, 16)
    expected = FP4_E2M1.decode(symbols) * (scales * encoded.tensor_scale)[:, None]
    np.testing.assert_array_equal(find_quantizer("NVFP4").decode(encoded).reshape(-1, 16), expected)
    again = find_quantizer("NVFP4").dequantized(expected)
    np.testing.assert_allclose(again, expected, rtol=1e-6)


def test_a_small_block_beside_a_large_one_is_not_lost():
    weights = np.concatenate([np.full((1, 16), 1000), np.full((1, 16), 1e-3)], axis=1).astype(np.float32)
    rounded = find_quantizer("NVFP4").dequantized(weights)
    assert (rounded[0, 16:] > 0).all()


def test_scales_are_fp16_unless_that_loses_small_ones():
    assert store_scales(np.array([0, 0.1, 6e4], np.float32)).dtype == np.float16
    for scales in ([1e-5, 0.1], [1e-30], [7e4]):
        stored = store_scales(np.array(scales, np.float32))
        assert stored.dtype == np.uint16
        np.testing.assert_allclose(load_scales(stored), scales, rtol=2**-8)
    assert load_scales(store_scales(np.array([3.4028235e38], np.float32))) == np.float32(3.3895314e38)
