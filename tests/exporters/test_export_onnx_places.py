"""Where an ONNX model has the weights of an allocation, what of them onnxruntime cannot quantize, and why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from export_cases import document, layer

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("sklearn")

import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx_cases import allocation, digits_network, small_network

from evolve.allocations import Allocation
from evolve.errors import InputError
from evolve.exporters import TARGETS, Options

TARGET = TARGETS["onnxruntime"]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return digits_network(tmp_path / "digits.onnx")


def test_what_onnxruntime_cannot_quantize_is_explained(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["f", "inner.weight"], ["chosen"])],
        "b",
        [],
        [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Gemm", ["x", "both.weight"], ["a"], name="gemm", transB=1),
        helper.make_node("MatMul", ["a", "both.weight"], ["b"], name="product"),
        helper.make_node("Transpose", ["b"], ["c"]),
        helper.make_node("MatMul", ["left.weight", "c"], ["d"], name="turned"),
        helper.make_node("Transpose", ["d"], ["e"]),
        helper.make_node("MatMul", ["e", "inner.weight"], ["f"], name="outside"),
        helper.make_node("If", ["yes"], ["g"], name="choice", then_branch=branch, else_branch=branch),
        helper.make_node("Unsqueeze", ["g", "two"], ["h"]),
        helper.make_node("ConvTranspose", ["h", "up.weight"], ["out"], name="wider"),
    ]
    square = np.eye(64, dtype=np.float32)
    tensors = {f"{name}.weight": square for name in ("both", "left", "inner")}
    tensors |= {"up.weight": np.ones((64, 64, 2), np.float32), "yes": np.array(True), "two": np.array([2])}
    network = small_network(tmp_path / "odd.onnx", nodes, tensors)
    layers = (
        *(layer(name, "Linear", (64, 64), "INT8") for name in ("both", "left", "inner")),
        layer("up", "Conv", (64, 64, 2), "INT8"),
    )
    export = TARGET.export(Allocation("odd", layers), Options(network=network))
    said = {each.layer: (each.written, each.why) for each in export.roundings}
    assert said["both"][0] == "INT8_TENSOR"
    assert "Gemm (gemm) and MatMul (product) read this weight" in said["both"][1]
    assert "left factor of MatMul (node turned)" in said["left"][1]
    assert "a branch or loop inside node choice" in said["inner"][1]
    assert "the weights of ConvTranspose (node wider)" in said["up"][1]
    assert {written for written, _ in said.values()} == {"INT8_TENSOR", "FP16"}
    # One that shares its format is told so too.
    tied = TARGET.export(Allocation("odd", layers, ((0, 1),)), Options(network=network)).roundings
    assert tied[0].why.startswith("shares its format with left: it is the left factor")
    assert tied[0].written == "FP16"


def test_nodes_in_branches_are_left_alone(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["a", "inside"], ["chosen"])],
        "b",
        [],
        [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "inside")],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "fc.weight"], ["a"]),
        helper.make_node("If", ["yes"], ["out"], then_branch=branch, else_branch=branch),
    ]
    network = small_network(tmp_path / "branches.onnx", nodes, {"fc.weight": weight, "yes": np.array(True)})
    given = Allocation("branches", (layer("fc", "Linear", (64, 64), "INT4_ASYM_G32"),))
    export = TARGET.export(given, Options(network=network))
    (arguments,) = json.loads(document(export))["matmul_nbits"]
    assert arguments["nodes_to_exclude"] == ["chosen"]


def test_places_are_found_by_name(network: Path) -> None:
    export = TARGET.export(allocation("INT4_G32", "INT8_G32", "INT4_G32"), Options(network=network))
    config = json.loads(document(export))
    assert [each.target_name for each in export.layers] == [
        "fc1.weight",
        "fc2.weight",
        "norm.weight",
        "head.weight",
    ]
    # A Gemm has no groups: the next is a scale a channel.
    assert export.layers[3].format == "INT4"
    assert config["static"]["nodes_to_quantize"] == ["last"]
    override = {"head.weight": [{"quant_type": "QInt4", "symmetric": True, "axis": 0}]}
    assert config["static"]["extra_options"]["TensorQuantOverrides"] == override
    assert [each["nodes_to_exclude"] for each in config["matmul_nbits"]] == [["second"], ["first"]]


def test_overrides_are_valid(network: Path) -> None:
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.tensor_quant_overrides import TensorQuantOverridesHelper

    export = TARGET.export(allocation("INT8", "INT4_TENSOR", "INT4"), Options(network=network))
    overrides = json.loads(document(export))["static"]["extra_options"]["TensorQuantOverrides"]
    for entries in overrides.values():
        for each in entries:
            each["quant_type"] = QuantType.from_string(each["quant_type"])
    initializers = {each.name: each for each in onnx.load(network).graph.initializer}
    assert {each[0]["quant_type"] for each in overrides.values()} == {QuantType.QInt8, QuantType.QInt4}
    # Only the first of several is looked at.
    for name, entries in overrides.items():
        one = TensorQuantOverridesHelper({name: entries})
        assert one.is_valid(initializers, set(), QuantType.QInt16) == (True, None)


def test_a_layer_that_is_not_in_the_model(network: Path) -> None:
    given = Allocation("m", (layer("fc9", "Linear", (8, 8), "INT8"),))
    with pytest.raises(InputError, match=r"no such layer in the model; expected one like fc1, fc2"):
        TARGET.export(given, Options(network=network))
    named = TARGET.export(given, Options(network=network, names={"fc9": "fc1.weight"}))
    assert named.layers[0].target_name == "fc1.weight"


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(InputError, match=r"--network: cannot be read"):
        TARGET.export(allocation("INT8", "INT8", "INT8"), Options(network=broken))


def test_without_a_model_names_are_taken_as_they_are() -> None:
    layers = (
        layer("w1", "Linear", (8, 64), "INT4_G32"),
        layer("k", "Conv", (8, 4, 3, 3), "INT4_G32"),
        layer("e", "Embedding", (50, 64), "INT8"),
    )
    export = TARGET.export(Allocation("m", layers), Options())
    assert [each.format for each in export.layers] == ["INT4_G32", "INT4", "FP16"]
    assert "--network" in export.notes[1]


def test_without_a_model_no_node_is_made_up() -> None:
    layers = (
        replace(layer("e", "Embedding", (50, 64), "INT4_G32"), aliases=("head",)),
        replace(layer("up", "Conv", (8, 4, 3, 3), "INT8"), channel_axis=1),
    )
    export = TARGET.export(Allocation("m", layers), Options())
    assert [each.format for each in export.layers] == ["FP16", "FP16"]
    assert "shared with head" in export.roundings[0].why
