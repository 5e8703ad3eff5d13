"""onnxruntime's quantizers take the export, and what they do to a real network is what we measure."""

from __future__ import annotations

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
from digits_networks import digits
from onnx import TensorProto, helper, numpy_helper
from onnx_cases import allocation, digits_network, small_network

from evolve.allocations import Allocation
from evolve.exporters import TARGETS, Export, Options
from evolve.exporters.storage import PLAIN
from evolve.quantizers import find_quantizer

TARGET = TARGETS["onnxruntime"]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return digits_network(tmp_path / "digits.onnx")


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


def test_weights_in_types_that_onnxruntime_passes_over_are_left_alone(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "a.weight"], ["a"], name="single"),
        helper.make_node("Cast", ["a"], ["b"], name="widened", to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["b", "b.weight"], ["c"], name="double"),
        helper.make_node("Gemm", ["c", "c.weight"], ["d"], name="affine"),
        helper.make_node("Cast", ["d"], ["out"], name="narrowed", to=TensorProto.FLOAT),
    ]
    weights = np.random.default_rng(0).normal(size=(3, 64, 64))
    tensors = dict(zip(("a.weight", "b.weight", "c.weight"), weights, strict=True))
    tensors["a.weight"] = tensors["a.weight"].astype(np.float32)
    network = small_network(tmp_path / "double.onnx", nodes, tensors)
    layers = [
        layer(name, "Linear", (64, 64), asked)
        for name, asked in (("a", "INT8"), ("b", "INT8_G32"), ("c", "INT8"))
    ]
    export = TARGET.export(Allocation("m", tuple(layers)), Options(network=network))
    assert [each.format for each in export.layers] == ["INT8", "FP16", "FP16"]
    assert {each.why for each in export.roundings} == {"onnxruntime quantizes no weights in DOUBLE"}
    images = [{"x": weights[0, :4].astype(np.float32)}]
    stored = {each.name: each for each in quantized(network, export, images).graph.initializer}
    assert stored["a.weight_quantized"].data_type == TensorProto.INT8
    assert all(stored[name].data_type == TensorProto.DOUBLE for name in ("b.weight", "c.weight"))
