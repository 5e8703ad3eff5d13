"""onnxruntime's quantizers take the export, and what they do to a real network is what we measure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_cases import document, layer

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("sklearn")

import onnx
import onnxruntime
from digits_networks import digits, trained_mlp
from onnx import TensorProto, helper, numpy_helper

from evolve.allocations import Allocation
from evolve.errors import InputError
from evolve.exporters import TARGETS, Export, Options
from evolve.exporters.storage import PLAIN
from evolve.quantizers import find_quantizer

TARGET = TARGETS["onnxruntime"]
#: Layer: its initializer, whose layout is (in, out) but for the last, the node, type and shape.
PLACES = {
    "fc1": ("fc1.weight", "first", "Linear", (96, 64)),
    "fc2": ("fc2.weight", "second", "Linear", (64, 96)),
    "head": ("head.weight", "last", "Classifier", (10, 64)),
}


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """The digits' network as two products and a Gemm."""
    state = {name: value.numpy() for name, value in trained_mlp().state_dict().items()}
    node = helper.make_node
    nodes = [
        node("MatMul", ["images", "fc1.weight"], ["a"], name="first"),
        node("Add", ["a", "b1"], ["b"], name="bias1"),
        node("Relu", ["b"], ["c"], name="relu1"),
        node("MatMul", ["c", "fc2.weight"], ["d"], name="second"),
        node("Add", ["d", "b2"], ["e"], name="bias2"),
        node("Relu", ["e"], ["f"], name="relu2"),
        node("LayerNormalization", ["f", "norm.weight", "norm.bias"], ["g"], name="norm", axis=-1),
        node("Gemm", ["g", "head.weight", "b3"], ["logits"], name="last", transB=1),
    ]
    tensors = {
        "fc1.weight": state["0.weight"].T,
        "b1": state["0.bias"],
        "fc2.weight": state["2.weight"].T,
        "b2": state["2.bias"],
        "norm.weight": state["4.weight"],
        "norm.bias": state["4.bias"],
        "head.weight": state["5.weight"],
        "b3": state["5.bias"],
    }
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(np.ascontiguousarray(each), name) for name, each in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    path = tmp_path / "digits.onnx"
    onnx.save(model, path)
    return path


def allocation(*formats: str) -> Allocation:
    rows = zip(PLACES.items(), formats, strict=True)
    layers = [layer(name, kind, shape, each) for (name, (_, _, kind, shape)), each in rows]
    return Allocation("digits", (*layers[:2], layer("norm", "LayerNorm", (64,), "FP32"), layers[2]))


def images() -> np.ndarray:
    return digits()[0][1400:].numpy()


def loss(model: onnx.ModelProto | Path) -> float:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    logits = session.run(None, {"images": images()})[0].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    log_odds = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return float(-log_odds[np.arange(len(logits)), digits()[1][1400:].numpy()].mean())


def our_loss(network: Path, export: Export) -> float:
    model = onnx.load(network)
    tensors = {each.name: each for each in model.graph.initializer}
    for each in export.layers:
        if each.format not in PLAIN:
            tensor = tensors[each.target_name]
            array = numpy_helper.to_array(tensor)
            by_channel = array if each.layer == "head" else array.T
            left = find_quantizer(each.format).dequantized(by_channel)
            left = left if each.layer == "head" else np.ascontiguousarray(left.T)
            tensor.CopyFrom(numpy_helper.from_array(left, tensor.name))
    return loss(model)


def quantized(network: Path, export: Export, batches: list[dict[str, Any]]) -> onnx.ModelProto:
    """Do as the page on exporting says."""
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    code = page.split("```python\nimport json\n\nimport onnx\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec("import json\nimport onnx\n" + code, names)
    plan = network.with_name("onnxruntime.json")
    plan.write_text(document(export), encoding="utf-8")
    output = network.with_name("quantized.onnx")
    names["quantize"](network, plan, output, batches)
    return onnx.load(output)


@pytest.mark.parametrize(
    ("formats", "tolerance"),
    [
        (("INT8", "INT8_TENSOR", "INT8"), 5e-3),
        (("INT8_G32", "INT8_ASYM_G64", "FP32"), 5e-3),
        (("INT4_ASYM_G32", "INT4_ASYM_G32", "FP32"), 2e-2),
        (("INT4_ASYM_G32", "INT8", "INT8"), 2e-2),
        # Symmetric ones of 4 bits have a level more than ours: 16, not 15.
        (("INT4", "INT8_G32", "INT4"), 0.25),
        (("INT4_G32", "INT4_G32", "INT8"), 0.25),
    ],
)
def test_a_network_loses_what_we_say(network: Path, formats: tuple[str, ...], tolerance: float) -> None:
    pytest.importorskip("onnx_ir")
    export = TARGET.export(allocation(*formats), Options(network=network))
    assert tuple(each.format for each in export.layers if each.layer != "norm") == formats
    theirs = quantized(network, export, [{"images": digits()[0][:200].numpy()}])
    assert loss(theirs) == pytest.approx(our_loss(network, export), abs=tolerance * loss(network))
    widths = {
        each.i
        for node in theirs.graph.node
        if node.op_type == "MatMulNBits"
        for each in node.attribute
        if each.name == "bits"
    }
    assert widths == {int(each[3]) for each in formats[:2] if "_G" in each}


@pytest.mark.parametrize(
    ("asked", "product", "gemm"),
    [("INT3_G32", "INT4_G32", "INT4"), ("INT6", "INT8", "INT8"), ("FP8_E4M3", "INT8", "INT8")],
)
def test_rounding_loses_no_more_than_was_asked_for(
    network: Path, asked: str, product: str, gemm: str
) -> None:
    export = TARGET.export(allocation(asked, asked, asked), Options(network=network))
    assert [each.format for each in export.layers] == [product, product, "FP32", gemm]


def test_convolutions_and_embeddings(tmp_path: Path) -> None:
    pytest.importorskip("onnx_ir")
    random = np.random.default_rng(0)
    tensors = {
        "table.weight": random.standard_normal((40, 64)).astype(np.float32),
        "conv.weight": random.standard_normal((8, 4, 3, 3)).astype(np.float32),
        "shape": np.array([-1, 4, 4, 4]),
    }
    nodes = [
        helper.make_node("Gather", ["table.weight", "ids"], ["rows"], name="look"),
        helper.make_node("Reshape", ["rows", "shape"], ["image"], name="shaped"),
        helper.make_node("Conv", ["image", "conv.weight"], ["out"], name="convolved"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 8, 2, 2])],
        [numpy_helper.from_array(each, name) for name, each in tensors.items()],
    )
    network = tmp_path / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), network)
    layers = (
        layer("table", "Embedding", (40, 64), "INT4_ASYM_G32"),
        layer("conv", "Conv", (8, 4, 3, 3), "INT8"),
    )
    export = TARGET.export(Allocation("small", layers), Options(network=network))
    assert not export.roundings
    ids = np.arange(40)
    theirs = quantized(network, export, [{"ids": ids}])
    assert "GatherBlockQuantized" in {node.op_type for node in theirs.graph.node}
    ours = onnx.load(network)
    for tensor in ours.graph.initializer:
        for each in export.layers:
            if each.target_name == tensor.name:
                left = find_quantizer(each.format).dequantized(numpy_helper.to_array(tensor))
                tensor.CopyFrom(numpy_helper.from_array(left, tensor.name))
    outputs = [
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, {"ids": ids})[0]
        for each in (onnx.load(network), ours, theirs)
    ]
    plain, mine, other = outputs
    noise = np.square(mine - plain).mean()
    assert np.square(other - plain).mean() == pytest.approx(noise, rel=0.1)
    assert np.square(other - mine).mean() < 0.1 * noise


def small_network(
    path: Path, nodes: list[Any], tensors: dict[str, np.ndarray], ids: bool = False, width: int = 64
) -> Path:
    data = ("ids", TensorProto.INT64, ["N"]) if ids else ("x", TensorProto.FLOAT, ["N", width])
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*data)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(each, name) for name, each in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def test_nodes_without_names_and_copied_weights_are_quantized(network: Path) -> None:
    pytest.importorskip("onnx_ir")
    formats = ("INT8_G32", "INT8", "INT8")
    named = TARGET.export(allocation(*formats), Options(network=network))
    expected = loss(quantized(network, named, [{"images": digits()[0][:200].numpy()}]))
    model = onnx.load(network)
    for node in model.graph.node:
        node.name = ""
    for weight in ("fc1.weight", "fc2.weight"):
        (product,) = (node for node in model.graph.node if weight in node.input)
        product.input[1] = f"copy of {weight}"
        model.graph.node.insert(0, helper.make_node("Identity", [weight], [f"copy of {weight}"]))
    head = next(each for each in model.graph.initializer if each.name == "head.weight")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["head.weight"], value=head))
    model.graph.initializer.remove(head)
    onnx.save(model, network)
    export = TARGET.export(allocation(*formats), Options(network=network))
    assert tuple(each.format for each in export.layers if each.layer != "norm") == formats
    assert not export.roundings
    assert any("prepared" in each for each in export.notes)
    assert "prepared" not in named.notes[0]
    theirs = quantized(network, export, [{"images": digits()[0][:200].numpy()}])
    assert loss(theirs) == pytest.approx(expected, rel=1e-6)
    assert loss(theirs) != pytest.approx(loss(network), rel=1e-6)


def test_an_embedding_that_is_the_last_layer_too_is_quantized_in_both(tmp_path: Path) -> None:
    pytest.importorskip("onnx_ir")
    table = np.random.default_rng(0).standard_normal((40, 64)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["table.weight"], ["turned"]),
        helper.make_node("Gather", ["table.weight", "ids"], ["rows"], name="look"),
        helper.make_node("MatMul", ["rows", "turned"], ["out"], name="last"),
    ]
    network = small_network(tmp_path / "tied.onnx", nodes, {"table.weight": table}, ids=True)
    layers = (layer("table", "Embedding", (40, 64), "INT4_ASYM_G32"),)
    export = TARGET.export(Allocation("tied", layers), Options(network=network))
    assert not export.roundings
    assert any("stores it once for each" in note for note in export.notes)
    ids = np.arange(40)
    theirs = quantized(network, export, [{"ids": ids}])
    assert {"GatherBlockQuantized", "MatMulNBits"} <= {node.op_type for node in theirs.graph.node}
    left = find_quantizer("INT4_ASYM_G32").dequantized(table)
    made = onnxruntime.InferenceSession(theirs.SerializeToString()).run(None, {"ids": ids})[0]
    noise = np.square(left @ left.T - table @ table.T).mean()
    assert np.square(made - left @ left.T).mean() < 0.1 * noise
    # No format of a scale a channel is there for both.
    layers = (layer("table", "Embedding", (40, 64), "INT8"),)
    (rounded,) = TARGET.export(Allocation("tied", layers), Options(network=network)).roundings
    assert rounded.written == "FP16"
    assert rounded.why.startswith("Gather (look) and MatMul (last) read this weight")


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
