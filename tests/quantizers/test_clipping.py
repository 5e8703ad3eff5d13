"""Clipping: near the best clip there is, never worse than none."""

from __future__ import annotations

import numpy as np
import pytest
from weight_tensors import gaussian, sqnr

from evolve.quantizers import find_quantizer
from evolve.quantizers.clipping import absmax, octav_clip, search_clip

SIZE = 20_000
DISTRIBUTIONS = {
    "normal": lambda rng: rng.normal(size=SIZE),
    "laplace": lambda rng: rng.laplace(size=SIZE),
    "student": lambda rng: rng.standard_t(4, size=SIZE),
    "logistic": lambda rng: rng.logistic(size=SIZE),
    "mixture": lambda rng: rng.normal(size=SIZE) * np.where(rng.random(SIZE) < 0.02, 8, 1),
}


def squared_error(weights, clip, max_level):
    """Mean squared error of a uniform quantizer with that clip, as plainly as can be."""
    step = clip / max_level
    return np.mean((np.clip(np.rint(weights / step), -max_level, max_level) * step - weights) ** 2)


def finest(weights, max_level, points=1500):
    """The least error of a fine grid search of the clip."""
    clips = np.abs(weights).max() * np.linspace(1 / points, 1, points)
    return min(squared_error(weights, clip, max_level) for clip in clips)


@pytest.fixture(params=DISTRIBUTIONS)
def weights(request):
    return (0.02 * DISTRIBUTIONS[request.param](np.random.default_rng(1))).astype(np.float32)


@pytest.mark.parametrize("bits", [3, 4, 5, 6, 8])
def test_the_fixed_point_is_within_a_percent_of_the_best_clip(weights, bits):
    max_level = 2 ** (bits - 1) - 1
    (clip,) = octav_clip(weights[None], np.array([weights.size]), max_level)
    assert squared_error(weights, clip, max_level) <= 1.01 * finest(weights, max_level)


@pytest.mark.parametrize("clipping", ["OCTAV", "MSE"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_clipping_formats_are_within_a_percent_of_the_best_clip(request, weights, bits, clipping):
    # Three levels serve the bulk or the outliers, and there the better clip is five times OCTAV's.
    allowed = 1.05 if request.node.callspec.id == "mixture-2-OCTAV" else 1.01
    rounded = find_quantizer(f"INT{bits}_{clipping}").dequantized(weights)
    error = np.mean((rounded.astype(np.float64) - weights) ** 2)
    assert error <= allowed * finest(weights, 2 ** (bits - 1) - 1)


def test_the_fixed_point_solves_its_equation(weights):
    magnitudes = np.abs(weights.astype(np.float64))
    for max_level in (3, 7, 8):
        (clip,) = octav_clip(weights[None], np.array([weights.size]), max_level)
        beyond = magnitudes > clip
        # The paper's 4^-b / 3 is this for 2^(b-1) steps on each side.
        noise = 1 / (12 * max_level**2)
        again = magnitudes[beyond].sum() / (noise * (~beyond).sum() + beyond.sum())
        assert clip == pytest.approx(again, rel=0.01)


def test_filling_does_not_move_the_fixed_point():
    weights = gaussian(1, 50)
    filled = np.pad(weights, ((0, 0), (0, 14)))
    counts = np.array([50])
    np.testing.assert_array_equal(octav_clip(weights, counts, 7), octav_clip(filled, counts, 7))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("scale", ["", "_TENSOR", "_G32"])
def test_never_worse_than_no_clipping_and_the_search_never_far_behind(bits, scale):
    weights = gaussian(32, 96)
    plain, octav, mse = (
        sqnr(weights, find_quantizer(f"INT{bits}{scale}{clip}").dequantized(weights))
        for clip in ("", "_OCTAV", "_MSE")
    )
    # Scales are rounded to 16 bits after the choice.
    assert octav >= plain - 0.01
    assert mse >= plain - 0.01
    assert abs(mse - octav) < 0.3


def test_clipping_halves_the_error_of_int4_channels():
    weights = 0.02 * np.random.default_rng(0).standard_t(4, size=(64, 1024)).astype(np.float32)
    for clip in ("_MSE", "_OCTAV"):
        clipped = sqnr(weights, find_quantizer(f"INT4{clip}").dequantized(weights))
        assert clipped > sqnr(weights, find_quantizer("INT4").dequantized(weights)) + 10 * np.log10(2)


def test_asymmetric_ranges_are_clipped_at_both_ends():
    weights = gaussian(8, 512) + np.float32(0.03)
    plain = sqnr(weights, find_quantizer("INT3_ASYM").dequantized(weights))
    assert sqnr(weights, find_quantizer("INT3_ASYM_MSE").dequantized(weights)) > plain + 2


def test_a_search_keeps_the_widest_of_equals():
    assert search_clip(3, lambda share: np.zeros(len(share))).tolist() == [1, 1, 1]


def test_a_search_finds_the_least_of_each_group():
    targets = np.array([0.9, 0.5, 0.123, 0.05])
    found = search_clip(4, lambda share: np.abs(np.log(share / targets)))
    np.testing.assert_allclose(found, targets, rtol=0.01)


def test_absmax_sees_both_signs():
    assert absmax(np.array([[1, -3], [2, 0]], np.float32)).tolist() == [3, 2]
