"""The same numbers as the libraries that run such weights: torchao, ONNX Runtime, compressed-tensors."""

from __future__ import annotations

import numpy as np
import pytest
from weight_tensors import gaussian

from evolve.quantizers import find_quantizer
from evolve.quantizers.codebooks import NF4_LEVELS
from evolve.quantizers.minifloat import FP4_E2M1, FP8_E4M3
from evolve.quantizers.packing import BitPacking
from evolve.quantizers.scales import load_scales

SHAPE = (24, 256)
WEIGHTS = gaussian(*SHAPE, scale=0.3)  # large enough for FP16 scales at 8 bits


def codes_of(encoded, bits):
    return BitPacking(bits).unpack(encoded.codes, int(np.prod(encoded.shape))).reshape(encoded.shape)


def zero_points_of(encoded, bits):
    return BitPacking(bits).unpack(encoded.zero_points, len(encoded.scales))


def block_of(suffix):
    """Weights that share a scale, along each axis."""
    if suffix.startswith("_G"):
        return [1, int(suffix.removeprefix("_G"))]
    return [1, SHAPE[1]] if not suffix else list(SHAPE)


@pytest.mark.parametrize("suffix", ["", "_G32", "_G64", "_G128", "_TENSOR"])
@pytest.mark.parametrize("bits", [8, 6, 5, 4, 3, 2])
class TestTorchao:
    def test_symmetric_integers(self, bits, suffix):
        torch = pytest.importorskip("torch")
        affine = pytest.importorskip("torchao.quantization.quant_primitives")
        top = 2 ** (bits - 1) - 1
        block = block_of(suffix)
        tensor = torch.from_numpy(WEIGHTS)
        scale, zero = affine.choose_qparams_affine(
            tensor, affine.MappingType.SYMMETRIC, block, torch.int8, -top, top, scale_dtype=torch.float16
        )
        scale = scale.float()
        codes = affine.quantize_affine(tensor, block, scale, zero, torch.int8, -top, top)
        rounded = affine.dequantize_affine(codes, block, scale, zero, torch.int8, -top, top)
        encoded = find_quantizer(f"INT{bits}{suffix}").encode(WEIGHTS)
        np.testing.assert_array_equal(load_scales(encoded.scales), scale.numpy().reshape(-1))
        np.testing.assert_array_equal(codes_of(encoded, bits).astype(int) - top, codes.numpy())
        np.testing.assert_array_equal(find_quantizer(f"INT{bits}{suffix}").decode(encoded), rounded.numpy())

    def test_asymmetric_integers(self, bits, suffix):
        torch = pytest.importorskip("torch")
        affine = pytest.importorskip("torchao.quantization.quant_primitives")
        name, top = f"INT{bits}_ASYM{suffix}", 2**bits - 1
        block = block_of(suffix)
        tensor = torch.from_numpy(WEIGHTS)
        scale, zero = affine.choose_qparams_affine(
            tensor, affine.MappingType.ASYMMETRIC, block, torch.uint8, 0, top, scale_dtype=torch.float16
        )
        encoded = find_quantizer(name).encode(WEIGHTS)
        np.testing.assert_array_equal(load_scales(encoded.scales), scale.float().numpy().reshape(-1))
        # torchao takes the zero point from the scale before it is rounded to 16 bits.
        zeros = zero_points_of(encoded, bits).astype(int)
        assert np.abs(zeros - zero.numpy().reshape(-1)).max() <= 1
        ours = torch.from_numpy(zeros).reshape(zero.shape).to(zero.dtype)
        codes = affine.quantize_affine(tensor, block, scale.float(), ours, torch.uint8, 0, top)
        rounded = affine.dequantize_affine(codes, block, scale.float(), ours, torch.uint8, 0, top)
        np.testing.assert_array_equal(codes_of(encoded, bits), codes.numpy())
        np.testing.assert_array_equal(find_quantizer(name).decode(encoded), rounded.numpy())


class TestTorchaoBlocks:
    def test_nf4_codes(self):
        torch = pytest.importorskip("torch")
        nf4 = pytest.importorskip("torchao.quantization.quantize_.workflows.nf4.nf4_tensor")
        weights = _with_exact_maxima()
        # It has the levels to four digits only.
        blocks = torch.from_numpy(weights.reshape(-1, 64) / np.abs(weights.reshape(-1, 64)).max(1)[:, None])
        tensor = nf4.to_nf4(torch.from_numpy(weights.reshape(-1, 64)), 64, 2)
        np.testing.assert_allclose(tensor.nf4.numpy(), NF4_LEVELS, atol=6e-5)
        expected = tensor.quantize_tensor_nearest(blocks.flatten(), torch.from_numpy(NF4_LEVELS))
        codes = codes_of(find_quantizer("NF4").encode(weights), 4)
        np.testing.assert_array_equal(codes.reshape(-1), expected.numpy())

    def test_microscaling_fp4(self):
        torch = pytest.importorskip("torch")
        mx = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor")
        weights = gaussian(16, 128)
        weights[3, 32:64] = 0
        scales, packed = mx.to_mx(torch.from_numpy(weights), torch.float4_e2m1fn_x2, 32)
        encoded = find_quantizer("MXFP4").encode(weights)
        used = np.abs(weights).reshape(-1, 32).max(axis=1) > 0
        expected = scales.view(torch.uint8).numpy().reshape(-1)
        np.testing.assert_array_equal(encoded.scales[used], expected[used])
        np.testing.assert_array_equal(encoded.codes, packed.view(torch.uint8).numpy().reshape(-1))

    def test_nvidia_fp4(self):
        torch = pytest.importorskip("torch")
        nv = pytest.importorskip("torchao.prototype.mx_formats.nvfp4_tensor")
        weights = _with_largest(2688 / 1024)  # its tensor scale is a power of two
        scale = nv.per_tensor_amax_to_scale(torch.tensor(np.abs(weights).max()))
        scales, packed = nv.nvfp4_quantize(torch.from_numpy(weights), 16, scale)
        encoded = find_quantizer("NVFP4").encode(weights)
        assert encoded.tensor_scale[0] == scale.item()
        np.testing.assert_array_equal(encoded.scales, scales.view(torch.uint8).numpy().reshape(-1))
        np.testing.assert_array_equal(encoded.codes, packed.view(torch.uint8).numpy().reshape(-1))


class TestOnnxRuntime:
    @pytest.mark.parametrize(("name", "bits"), [("INT8", 8), ("INT8_ASYM", 8), ("INT8_TENSOR", 8)])
    def test_quantize_linear(self, name, bits):
        onnx = pytest.importorskip("onnx")
        runtime = pytest.importorskip("onnxruntime")
        encoded = find_quantizer(name).encode(WEIGHTS)
        asymmetric = "ASYM" in name
        kind = np.uint8 if asymmetric else np.int8
        scale = load_scales(encoded.scales)
        zero = zero_points_of(encoded, bits) if asymmetric else np.zeros(len(scale))
        zero = zero.astype(kind)
        if name.endswith("TENSOR"):
            scale, zero = scale.reshape(()), zero.reshape(())
        helper, types = onnx.helper, onnx.TensorProto
        stored = types.UINT8 if asymmetric else types.INT8
        graph = helper.make_graph(
            [
                helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"], axis=0),
                helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], axis=0),
            ],
            "quantize",
            [helper.make_tensor_value_info("w", types.FLOAT, SHAPE)],
            [
                helper.make_tensor_value_info("q", stored, SHAPE),
                helper.make_tensor_value_info("d", types.FLOAT, SHAPE),
            ],
            [onnx.numpy_helper.from_array(scale, "s"), onnx.numpy_helper.from_array(zero, "z")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        codes, rounded = session.run(None, {"w": WEIGHTS})
        offset = 0 if asymmetric else 127
        np.testing.assert_array_equal(codes_of(encoded, bits).astype(int) - offset, codes)
        np.testing.assert_array_equal(find_quantizer(name).decode(encoded), rounded)

    @pytest.mark.parametrize("symmetric", [True, False])
    @pytest.mark.parametrize("bits", [8, 4])
    def test_scales_and_zero_points(self, bits, symmetric):
        utilities = pytest.importorskip("onnxruntime.quantization.quant_utils")
        name = f"INT{bits}" if symmetric else f"INT{bits}_ASYM"
        encoded = find_quantizer(name).encode(WEIGHTS)
        top = 2 ** (bits - 1) - 1 if symmetric else 2**bits - 1
        for row, scale in enumerate(load_scales(encoded.scales)):
            low, high = WEIGHTS[row].min(), WEIGHTS[row].max()
            ends = np.array([-top if symmetric else 0, top])
            zero, expected = utilities.compute_scale_zp(low, high, *ends, symmetric=symmetric)
            assert scale == np.float32(np.float16(expected))
            if not symmetric:
                assert abs(int(zero_points_of(encoded, bits)[row]) - int(zero)) <= 1

    def test_nf4(self):
        native = pytest.importorskip("onnxruntime.capi._pybind_state")
        weights = _with_exact_maxima()
        packed = np.zeros(weights.size // 2, np.uint8)
        largest = np.zeros(weights.size // 64, np.float32)
        native.quantize_matmul_bnb4(packed, weights, largest, 64, 1, weights.shape[1], weights.shape[0])
        encoded = find_quantizer("NF4").encode(weights)
        np.testing.assert_array_equal(load_scales(encoded.scales), largest)
        codes = np.stack([packed >> 4, packed & 15], axis=1).reshape(weights.shape)
        np.testing.assert_array_equal(codes_of(encoded, 4), codes)


class TestCompressedTensors:
    def test_nvidia_fp4(self):
        torch = pytest.importorskip("torch")
        helpers = pytest.importorskip("compressed_tensors.compressors.nvfp4.helpers")
        weights = _with_largest(2688 / 1024)
        encoded = find_quantizer("NVFP4").encode(weights)
        codes = torch.from_numpy(encoded.codes.reshape(len(weights), -1))
        unpacked = helpers.unpack_fp4_from_uint8(codes, *weights.shape, dtype=torch.float32).numpy()
        scales = FP8_E4M3.decode(encoded.scales) * encoded.tensor_scale
        rounded = unpacked.reshape(-1, 16) * scales[:, None]
        np.testing.assert_array_equal(rounded.reshape(weights.shape), find_quantizer("NVFP4").decode(encoded))
        np.testing.assert_array_equal(helpers.pack_fp4_to_uint8(torch.from_numpy(unpacked)), codes)

    def test_microscaling_scales(self):
        torch = pytest.importorskip("torch")
        mx = pytest.importorskip("compressed_tensors.compressors.mx_utils")
        encoded = find_quantizer("MXFP4").encode(gaussian(16, 128))
        scales = mx.decompress_mx_scale(torch.from_numpy(encoded.scales)).float()
        np.testing.assert_array_equal(scales.numpy(), 2.0 ** (encoded.scales.astype(float) - 127))
        stored = mx.compress_mx_scale(scales, torch.uint8).numpy()
        np.testing.assert_array_equal(stored, encoded.scales)

    def test_table_of_fp4(self):
        helpers = pytest.importorskip("compressed_tensors.compressors.nvfp4.helpers")
        np.testing.assert_array_equal(FP4_E2M1.table()[:8], helpers.kE2M1ToFloat.numpy())

    @pytest.mark.parametrize("bits", [8, 4])
    def test_integers_in_groups(self, bits):
        torch = pytest.importorskip("torch")
        forward = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")
        arguments = pytest.importorskip("compressed_tensors.quantization.quant_args")
        name = f"INT{bits}_G64"
        encoded = find_quantizer(name).encode(WEIGHTS)
        scales = torch.from_numpy(load_scales(encoded.scales).reshape(len(WEIGHTS), -1))
        settings = arguments.QuantizationArgs(
            num_bits=bits, type="int", symmetric=True, strategy="group", group_size=64, dynamic=False
        )
        rounded = forward.fake_quantize(
            torch.from_numpy(WEIGHTS), scales, torch.zeros_like(scales, dtype=torch.int8), settings
        )
        # It has a level more below zero, which no weight reaches.
        np.testing.assert_allclose(rounded.numpy(), find_quantizer(name).decode(encoded), rtol=1e-6)


def _with_exact_maxima():
    """Weights whose largest magnitude in each block of 64 is exact in FP16."""
    blocks = gaussian(64, 64)
    largest = np.abs(blocks).argmax(axis=1)
    rows = np.arange(len(blocks))
    blocks[rows, largest] = blocks[rows, largest].astype(np.float16)
    blocks[rows, largest] += np.sign(blocks[rows, largest]) * np.float32(2**-9)
    blocks[rows, largest] = blocks[rows, largest].astype(np.float16)
    return blocks.reshape(16, 256)


def _with_largest(largest):
    """Weights of which the largest has that magnitude."""
    weights = gaussian(16, 128, scale=0.3)
    weights = np.clip(weights, -2, 2)
    weights[5, 7] = largest
    return weights
