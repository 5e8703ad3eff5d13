"""What every quantizer promises."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from weight_tensors import gaussian, sqnr, tensors

from evolve.errors import FormatError, InputError
from evolve.formats import PrecisionFormat, known_formats
from evolve.quantizers import QUANTIZERS, Encoded, find_quantizer
from evolve.quantizers.catalogue import LEVELS, WIDTHS
from evolve.quantizers.floats import Float32
from evolve.quantizers.scales import load_scales
from evolve.quantizers.uniform import Asymmetric, Symmetric

NAMES = st.sampled_from(tuple(QUANTIZERS))
#: One of each scheme and clipping, for what is slow or needs no more.
SOME = [
    "FP32", "BF16", "FP16", "FP8_E4M3", "FP8_E5M2_G32", "INT8", "INT4_MSE", "INT3_G32_OCTAV",
    "INT5_ASYM_TENSOR", "INT2_ASYM_G64_MSE", "LEVELS23", "LEVELS5_G32", "NF4", "MXFP4", "NVFP4", "TERNARY",
    "TERNARY_G64_MSE", "BINARY_TENSOR",
]  # fmt: skip


class TestAll:
    @given(name=NAMES, weights=tensors())
    def test_what_is_stored_is_what_is_counted(self, name, weights):
        quantizer = QUANTIZERS[name]
        encoded = quantizer.encode(weights)
        assert (encoded.name, encoded.shape) == (name, weights.shape)
        assert encoded.nbytes == quantizer.num_bytes(weights.shape)
        assert quantizer.bits(weights.shape) == 8 * encoded.nbytes / weights.size
        assert quantizer.format(weights.shape) == PrecisionFormat(
            name, quantizer.bits(weights.shape), quantizer.kind
        )

    @given(name=NAMES, weights=tensors())
    def test_dequantized_is_decoded(self, name, weights):
        quantizer = QUANTIZERS[name]
        before = weights.copy()
        rounded = quantizer.dequantized(weights)
        decoded = quantizer.decode(quantizer.encode(weights))
        for each in (rounded, decoded):
            assert each.dtype == np.float32
            assert each.shape == weights.shape
        np.testing.assert_array_equal(rounded.view(np.uint32), decoded.view(np.uint32))
        np.testing.assert_array_equal(weights, before)

    @given(name=NAMES.filter(lambda name: "_ASYM" not in name and name != "NVFP4"), weights=tensors())
    def test_what_was_rounded_stays(self, name, weights):
        rounded = QUANTIZERS[name].dequantized(weights)
        np.testing.assert_array_equal(QUANTIZERS[name].dequantized(rounded), rounded)

    @given(name=NAMES, weights=tensors(1e-2, 1e2), exponent=st.integers(-6, 6))
    def test_twice_the_weights_is_twice_the_result(self, name, weights, exponent):
        quantizer, scaled = QUANTIZERS[name], weights * np.float32(2.0**exponent)
        # A cast has a least and a largest number; scales in FP16 are not rounded as those in BF16 are.
        assume(isinstance(quantizer.scheme, Float32) or quantizer.scheme.group_bytes)
        assume(quantizer.encode(weights).scales.dtype == quantizer.encode(scaled).scales.dtype)
        expected = quantizer.dequantized(weights) * np.float32(2.0**exponent)
        np.testing.assert_array_equal(quantizer.dequantized(scaled), expected)

    @given(name=NAMES, weights=tensors())
    def test_zeros_stay(self, name, weights):
        np.testing.assert_array_equal(QUANTIZERS[name].dequantized(np.zeros_like(weights)), 0)

    @pytest.mark.parametrize("name", QUANTIZERS)
    def test_constants_stay_nearly(self, name):
        weights = np.full((3, 50), -0.3, np.float32)
        tolerance = 0.2 if re.match("MXFP4|FP8|BF16", name) else 2**-10
        np.testing.assert_allclose(QUANTIZERS[name].dequantized(weights), weights, rtol=tolerance)

    @pytest.mark.parametrize("name", SOME)
    def test_memory_order_does_not_matter(self, name):
        weights = gaussian(12, 70)
        expected = QUANTIZERS[name].dequantized(weights)
        for view in (np.asfortranarray(weights), np.repeat(weights, 2, axis=1)[:, ::2]):
            assert not view.flags.c_contiguous
            np.testing.assert_array_equal(QUANTIZERS[name].dequantized(view), expected)
        read_only = weights.copy()
        read_only.flags.writeable = False
        np.testing.assert_array_equal(QUANTIZERS[name].dequantized(read_only), expected)

    @pytest.mark.parametrize("name", SOME)
    def test_other_axes_are_flattened(self, name):
        weights = gaussian(8, 5, 3, 3)
        flat = QUANTIZERS[name].dequantized(weights.reshape(8, 45))
        np.testing.assert_array_equal(QUANTIZERS[name].dequantized(weights).reshape(8, 45), flat)

    @pytest.mark.parametrize("name", SOME)
    def test_one_axis_is_one_channel(self, name):
        weights = gaussian(100)
        row = QUANTIZERS[name].dequantized(weights[None])[0]
        np.testing.assert_array_equal(QUANTIZERS[name].dequantized(weights), row)

    @pytest.mark.parametrize("name", SOME)
    def test_channels_do_not_mix(self, name):
        weights = gaussian(4, 70)
        if QUANTIZERS[name].granularity == "tensor" or name == "NVFP4":
            return
        each = [QUANTIZERS[name].dequantized(weights[row : row + 1]) for row in range(4)]
        np.testing.assert_array_equal(QUANTIZERS[name].dequantized(weights), np.concatenate(each))

    @pytest.mark.parametrize("name", SOME)
    @pytest.mark.parametrize("magnitude", [1e-44, 1e-38, 1e-30, 1e-12, 1e12, 1e30, 3.4e38])
    def test_any_magnitude_stays_finite(self, name, magnitude):
        weights = (np.clip(gaussian(4, 70, scale=0.3), -1, 1) * magnitude).astype(np.float32)
        rounded = QUANTIZERS[name].dequantized(weights)
        assert np.isfinite(rounded).all()
        if 1e-30 <= magnitude <= 1e30 and re.match(r"INT[458]|LEVELS23|NF4|TERNARY|MXFP4", name):
            assert sqnr(weights, rounded) > 4

    @pytest.mark.parametrize("name", SOME)
    def test_other_widths_are_rounded_to_float32_first(self, name):
        weights = gaussian(6, 40).astype(np.float64) * 1.000000001
        expected = QUANTIZERS[name].dequantized(weights.astype(np.float32))
        np.testing.assert_array_equal(QUANTIZERS[name].dequantized(weights), expected)
        half = weights.astype(np.float16)
        np.testing.assert_array_equal(
            QUANTIZERS[name].dequantized(half), QUANTIZERS[name].dequantized(half.astype(np.float32))
        )


class TestRefusals:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("name", ["FP32", "INT4", "NF4"])
    def test_weights_that_are_not_finite(self, name, value):
        weights = gaussian(3, 4)
        weights[1, 2] = value
        for method in (QUANTIZERS[name].dequantized, QUANTIZERS[name].encode):
            with pytest.raises(InputError, match=rf"weights\[1, 2\]: not finite.*found {value}"):
                method(weights)

    def test_weights_beyond_float32(self):
        with pytest.raises(InputError, match=r"weights\[1\]: not finite.*found 1e\+300"):
            find_quantizer("INT4").dequantized(np.array([1.0, 1e300]))

    @pytest.mark.parametrize("dtype", [np.int32, bool, complex, str])
    def test_weights_that_are_not_floating_point(self, dtype):
        with pytest.raises(InputError, match="not floating-point"):
            find_quantizer("INT4").dequantized(np.ones((2, 2)).astype(dtype))

    @pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 3)])
    def test_shapes_without_weights(self, shape):
        quantizer = find_quantizer("INT4")
        for method, argument in ((quantizer.bits, shape), (quantizer.dequantized, np.zeros(shape))):
            with pytest.raises(InputError, match="no weights"):
                method(argument)

    def test_what_another_format_stored(self):
        with pytest.raises(InputError, match=r"another format; expected INT4, found 'INT8'"):
            find_quantizer("INT4").decode(find_quantizer("INT8").encode(gaussian(3, 4)))

    @pytest.mark.parametrize("field", ["codes", "scales", "zero_points"])
    def test_what_was_stored_in_part(self, field):
        quantizer = find_quantizer("INT4_ASYM")
        encoded = quantizer.encode(gaussian(3, 4))
        parts = {**vars(encoded), field: getattr(encoded, field)[:-1]}
        with pytest.raises(InputError, match="bad"):
            quantizer.decode(Encoded(**parts))


class TestNames:
    def test_a_quantizer_has_its_name(self):
        assert all(find_quantizer(name).name == name for name in QUANTIZERS)

    def test_the_contract(self):
        bases = ["FP32", "BF16", "FP16", "FP8_E4M3", "FP8_E5M2", "NF4", "MXFP4", "NVFP4", "TERNARY", "BINARY"]
        integers = [
            f"INT{width}{zero}{scale}{clip}"
            for width, zero, scale, clip in itertools.product(
                WIDTHS, ("", "_ASYM"), ("", "_TENSOR", "_G32", "_G64", "_G128"), ("", "_MSE", "_OCTAV")
            )
            if (zero, clip) != ("_ASYM", "_OCTAV")
        ]
        assert {*bases, *integers} <= set(QUANTIZERS)

    @pytest.mark.parametrize(
        ("name", "near"), [("INT4_G23", "INT4_G32"), ("INT7", "INT2"), ("NF5", "NF4"), ("MSE", "FP16")]
    )
    def test_an_unknown_name_lists_the_nearest(self, name, near):
        with pytest.raises(FormatError) as caught:
            find_quantizer(name)
        assert f"found {name!r}" in str(caught.value)
        assert near in str(caught.value) or name == "INT7"

    def test_every_registered_format_has_a_quantizer_of_its_nominal_bits(self):
        for each in known_formats():
            exact = find_quantizer(each.name).format((1000, 64 * 1000))
            assert exact.kind == each.kind
            assert each.bits <= exact.bits + 1e-9 < each.bits + 0.002


class TestBits:
    @pytest.mark.parametrize(
        ("name", "shape", "bits"),
        [
            ("INT4_G32", (64, 64), 4.5),
            ("INT4_G32", (64, 48), 4 + 2 * 16 / 48),
            ("INT4_G128", (8, 2, 32), 4.25),
            ("INT4", (10, 64), 4.25),
            ("INT4_TENSOR", (10, 64), 4 + 16 / 640),
            ("INT4", (64,), 4.25),
            ("INT4_ASYM", (10, 64), 4 + 20 / 64),
            ("INT3_ASYM", (1, 8), 3 + 16 / 8 + 8 / 8),
            ("INT3", (1, 5), 8 * (2 + 2) / 5),
            ("NF4", (8, 128), 4.25),
            ("MXFP4", (8, 64), 4.25),
            ("NVFP4", (8, 64), 4.5 + 32 / 512),
            ("TERNARY", (10, 500), 1.6 + 16 / 500),
            ("LEVELS23", (10, 700), 32 / 7 + 16 / 700),
            ("LEVELS25", (10, 1300), 64 / 13 + 16 / 1300),
            ("BINARY", (10, 64), 1.25),
            ("FP8_E4M3", (10, 64), 8),
            ("FP8_E4M3_CHANNEL", (10, 64), 8.25),
            ("FP32", (3, 3), 32),
        ],
    )
    def test_scales_and_zero_points_are_counted(self, name, shape, bits):
        assert find_quantizer(name).bits(shape) == pytest.approx(bits, rel=1e-12)


class TestError:
    @given(
        name=st.sampled_from(
            [name for name in QUANTIZERS if re.fullmatch(r"(INT|LEVELS)\d+(_[GT]\w*)?", name)]
        ),
        weights=tensors(),
    )
    def test_symmetric_integers_are_off_by_half_a_step_at_most(self, name, weights):
        assert isinstance(QUANTIZERS[name].scheme, Symmetric)
        if name.endswith(("_MSE", "_OCTAV")):
            return
        assert (_off(name, weights) <= 0.5 + 1e-4).all()

    @given(
        bits=st.sampled_from(WIDTHS), suffix=st.sampled_from(["", "_TENSOR", "_G32"]), weights=tensors(1e-1)
    )
    def test_asymmetric_integers_are_off_by_little_more(self, bits, suffix, weights):
        name = f"INT{bits}_ASYM{suffix}"
        assert isinstance(QUANTIZERS[name].scheme, Asymmetric)
        # The rounding of the zero point, and that of the scale over the whole range.
        assert (_off(name, weights) <= 0.5 * (1 + 1 / 2 ** (bits - 1)) + 2 ** (bits - 9)).all()

    def test_the_smaller_the_groups_the_smaller_the_error(self):
        weights = gaussian(64, 512)
        for base in ("INT4", "INT8_ASYM", "LEVELS9", "TERNARY", "BINARY"):
            suffixes = ("_TENSOR", "", "_G128", "_G64", "_G32")
            ratios = [sqnr(weights, QUANTIZERS[base + each].dequantized(weights)) for each in suffixes]
            assert ratios == sorted(ratios)

    def test_more_levels_have_less_error(self):
        weights = gaussian(64, 512)
        for names in (
            [f"INT{bits}" for bits in sorted(WIDTHS)],
            [f"INT{bits}_ASYM_G32_MSE" for bits in sorted(WIDTHS)],
            [f"LEVELS{levels}" for levels in LEVELS],
            ["BINARY", "TERNARY", "INT3_MSE", "INT4_MSE"],
        ):
            ratios = [sqnr(weights, QUANTIZERS[name].dequantized(weights)) for name in names]
            assert ratios == sorted(ratios)

    def test_as_many_levels_packed_otherwise_are_the_same_weights(self):
        weights = gaussian(16, 100)
        for bits in (2, 3):
            packed = find_quantizer(f"LEVELS{2**bits - 1}").dequantized(weights)
            np.testing.assert_array_equal(packed, find_quantizer(f"INT{bits}").dequantized(weights))

    def test_one_group_a_channel_is_a_channel(self):
        weights = gaussian(16, 32)
        for base in ("INT4{}", "INT4_ASYM{}", "INT4_ASYM{}_MSE", "INT3{}_OCTAV", "TERNARY{}", "BINARY{}"):
            grouped, plain = find_quantizer(base.format("_G32")), find_quantizer(base.format(""))
            np.testing.assert_array_equal(grouped.dequantized(weights), plain.dequantized(weights))


def _off(name, weights):
    """How far each weight moved, in steps of its group."""
    quantizer = find_quantizer(name)
    scales = load_scales(quantizer.encode(weights).scales)
    channels = len(weights) if weights.ndim > 1 else 1
    length = weights.size // channels
    size = {"tensor": weights.size, "channel": length}.get(quantizer.granularity, quantizer.granularity)
    if quantizer.granularity == "tensor":
        steps = np.full(weights.size, scales[0])
    else:
        steps = np.repeat(scales.reshape(channels, -1), size, axis=1)[:, :length].reshape(-1)
    moved = np.abs(quantizer.dequantized(weights).astype(np.float64) - weights).reshape(-1)
    return np.where(steps > 0, moved / np.where(steps > 0, steps, 1), np.where(moved > 0, np.inf, 0))
