"""ONNX models whose weights are quantized already, or go through other nodes: named, not passed over."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

from evolve.errors import NetworkError
from evolve.networks import OnnxNetwork

X = np.random.default_rng(0).normal(size=(6, 8)).astype("f")


def node(kind, inputs, output="out", **attributes):
    return helper.make_node(kind, inputs.split(), [output], name=output, **attributes)


def write(path, nodes, weights, opset=17):
    rng = np.random.default_rng(1)
    arrays = {
        name: rng.normal(size=each).astype("f") if isinstance(each, tuple) else np.asarray(each)
        for name, each in weights.items()
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, None])],
        [numpy_helper.from_array(each, name) for name, each in arrays.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.fixture
def two_products(tmp_path):
    nodes = [node("MatMul", "x first", "a"), node("Relu", "a", "b"), node("MatMul", "b second")]
    return write(tmp_path / "float.onnx", nodes, {"first": (8, 6), "second": (6, 3)})


class Samples(CalibrationDataReader):
    def __init__(self) -> None:
        self.rest = iter([{"x": X}])

    def get_next(self):
        return next(self.rest, None)


def quantize(way, source, target, but=()):
    if way == "dynamic":
        quantize_dynamic(source, target, nodes_to_exclude=but)
    else:
        form = QuantFormat.QDQ if way == "qdq" else QuantFormat.QOperator
        quantize_static(source, target, Samples(), quant_format=form, nodes_to_exclude=but, per_channel=True)
    return target


@pytest.mark.parametrize("way", ["dynamic", "qdq", "operators"])
def test_a_quantized_weight_beside_a_float_one_is_listed(way, two_products, tmp_path):
    path = quantize(way, two_products, tmp_path / "some.onnx", but=["out"])
    network = OnnxNetwork(path, {"x": X}, threads=1)
    assert [each.name for each in network.layers] == ["second"]
    assert network.left_out == {"first_quantized": 48}


@pytest.mark.parametrize("way", ["dynamic", "qdq", "operators"])
def test_of_quantized_weights_alone_the_float_model_is_asked_for(way, two_products, tmp_path):
    path = quantize(way, two_products, tmp_path / "all.onnx")
    words = r"quantized already \(66 in first_quantized, second_quantized\)\. Give the float model"
    with pytest.raises(NetworkError, match=words):
        OnnxNetwork(path, {"x": X})


def test_packed_weights_are_counted_as_what_they_are(tmp_path):
    given = {"K": 64, "N": 10, "bits": 4, "block_size": 32}
    weights = {"packed": np.ones((10, 2, 16), "u1"), "scales": np.ones((10, 2), "f")}
    made = [node("MatMulNBits", "x packed scales", domain="com.microsoft", **given)]
    with pytest.raises(NetworkError, match=r"quantized already \(640 in packed\)"):
        OnnxNetwork(write(tmp_path / "m.onnx", made, weights), {"x": X})


def test_blocks_have_scales_that_are_no_weights(tmp_path):
    weights = {"whole": np.ones((8, 4), "i1"), "scales": np.ones((2, 4), "f"), "head": (4, 3)}
    nodes = [
        node("DequantizeLinear", "whole scales", "w", axis=0, block_size=4),
        node("MatMul", "x w", "h"),
        node("MatMul", "h head"),
    ]
    network = OnnxNetwork(write(tmp_path / "m.onnx", nodes, weights, opset=21), {"x": X}, threads=1)
    assert [each.name for each in network.layers] == ["head"]
    assert network.left_out == {"whole": 32}


@pytest.mark.parametrize(
    ("nodes", "weights", "said"),
    [
        (
            [node("Cast", "w", "w32", to=TensorProto.FLOAT), node("MatMul", "x w32")],
            {"w": np.ones((8, 4), "f2")},
            "w (32 weights, read by Cast)",
        ),
        (
            [node("Reshape", "flat shape", "w"), node("MatMul", "x w")],
            {"flat": (32,), "shape": [8, 4]},
            "flat (32 weights, read by Reshape)",
        ),
        (
            [node("Slice", "w from to", "part"), node("MatMul", "x part")],
            {"w": (9, 4), "from": [0], "to": [8]},
            "w (36 weights, read by Slice)",
        ),
        (
            [node("Concat", "v w", "both", axis=1), node("MatMul", "x both")],
            {"v": (8, 2), "w": (8, 3)},
            "w (24 weights, read by Concat), v (16 weights, read by Concat)",
        ),
        (
            [node("Einsum", "x w", equation="bi,io->bo")],
            {"w": (8, 4), "unread": (9, 9)},
            "w (32 weights, read by Einsum)",
        ),
    ],
)
def test_weights_that_no_layer_reads_are_named_where_there_is_nothing_else(nodes, weights, said, tmp_path):
    with pytest.raises(NetworkError) as caught:
        OnnxNetwork(write(tmp_path / "m.onnx", nodes, weights), {"x": X})
    assert f"no weight layers, only {said}; expected Conv" in str(caught.value)


def test_weights_inside_branches_are_named_by_the_node_around(tmp_path):
    def branch(name):
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4])
        tensor = numpy_helper.from_array(np.ones((8, 4), "f"), f"{name}_w")
        return helper.make_graph([node("MatMul", f"x {name}_w", name)], name, [], [output], [tensor])

    nodes = [node("If", "yes", then_branch=branch("b"), else_branch=branch("a"))]
    with pytest.raises(NetworkError, match=r"only a_w \(32 weights, read by MatMul inside If\), b_w"):
        OnnxNetwork(write(tmp_path / "m.onnx", nodes, {"yes": np.array(True)}), {"x": X})
