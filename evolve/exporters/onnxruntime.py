"""ONNX Runtime: what its two quantizers are to do with which tensors and nodes.

Source of the format: `onnxruntime.quantization` 1.31. Static quantization takes ``TensorQuantOverrides`` by
initializer; weights in groups are `MatMulNBitsQuantizer`'s, one pass a width, with the nodes it must not
touch. The static pass comes first, and needs opset 21 for 4-bit weights and 16-bit activations.
"""

from __future__ import annotations

from typing import Any

from evolve.allocations import Allocation, LayerChoice
from evolve.exporters.export import Export, Options, Target
from evolve.exporters.onnx_places import Place, Places, assumed_places, find_places
from evolve.exporters.rounding import Settled, settle
from evolve.exporters.storage import PLAIN, Storage, divides, group_size, known_storage, plain_storages
from evolve.exporters.texts import to_json

KINDS = ("Linear", "Attention", "Classifier", "Embedding", "Conv")
STATIC = ("INT8", "INT8_TENSOR", "INT4", "INT4_TENSOR")
GROUPED = tuple(
    f"INT{bits}{zero}_G{size}" for bits in (8, 4, 2) for zero in ("", "_ASYM") for size in (128, 64, 32)
)
FORMATS = (*STATIC, *GROUPED, *PLAIN)


def export(allocation: Allocation, options: Options) -> Export:
    """Return the arguments of each pass.

    Without a model, initializers and nodes are taken to have the layers' names.

    Raises:
        InputError: The model cannot be read or lacks a layer, or the options name a layer that is not there.
        NetworkError: A model is given and the extra ``onnx`` is not installed.
    """
    network = options.network
    places = (
        assumed_places(allocation, options) if network is None else find_places(allocation, options, network)
    )
    place_of = dict(zip(allocation.names, places.layers, strict=True))
    settled = settle(
        allocation,
        options,
        TARGET,
        lambda layer: storages(layer, place_of[layer.name]),
        names=[each.initializer for each in places.layers],
        fused=False,
    )
    document = {"static": _static(settled, places), "matmul_nbits": _passes(settled, places)}
    notes = (
        [] if network else ["Nodes are taken to have the layers' names; --network MODEL.onnx looks them up."]
    )
    return settled.export(TARGET, to_json(document), notes)


def storages(layer: LayerChoice, place: Place) -> list[Storage]:
    """Return how onnxruntime can store a layer, which depends on the operator that reads it."""
    plain = plain_storages(layer)
    static: tuple[str, ...] = ()
    grouped: tuple[str, ...] = ()
    if place.operator in ("MatMul", "Gemm", "Conv"):
        static = STATIC
    if place.operator == "MatMul" and (layer.shape is None or len(layer.shape) == 2):
        grouped = GROUPED
    if place.operator == "Gather":
        grouped = tuple(each for each in GROUPED if each[3] == "4" and divides(group_size(each), layer))
    return [*(known_storage(name, layer, _arguments(name)) for name in (*static, *grouped)), *plain]


def _arguments(name: str) -> dict[str, Any]:
    size = group_size(name)
    if size is None:
        return {"quant_type": f"QInt{name[3]}", "symmetric": True}
    return {"bits": int(name[3]), "block_size": size, "is_symmetric": "_ASYM" not in name}


def _static(settled: Settled, places: Places) -> dict[str, Any]:
    """Return the arguments of ``quantize_static``."""
    overrides: dict[str, list[dict[str, Any]]] = {}
    nodes: list[str] = []
    for at in settled.quantized:
        storage, place = settled.storages[at], places.layers[at]
        if storage.name in STATIC:
            axis = {} if storage.name.endswith("_TENSOR") else {"axis": place.channel_axis}
            overrides[place.initializer] = [dict(storage.settings) | axis]
            nodes += place.nodes
    return {
        # As good as no quantization: what is decided here are the weights.
        "activation_type": "QInt16",
        "weight_type": "QInt8",
        "nodes_to_quantize": list(dict.fromkeys(nodes)),
        "extra_options": {"TensorQuantOverrides": overrides},
    }


def _passes(settled: Settled, places: Places) -> list[dict[str, Any]]:
    """Return the arguments of `MatMulNBitsQuantizer`, one pass an operator and a format."""
    chosen: dict[tuple[str, str], list[int]] = {}
    for at in settled.quantized:
        if settled.storages[at].name in GROUPED:
            key = (places.layers[at].operator, settled.storages[at].name)
            chosen.setdefault(key, []).append(at)
    passes = []
    for (operator, _), members in chosen.items():
        wanted = {node for at in members for node in places.layers[at].nodes}
        same = (node for each in places.layers if each.operator == operator for node in each.nodes)
        others = dict.fromkeys([*same, *places.others.get(operator, ())])
        passes.append(
            dict(settled.storages[members[0]].settings)
            | {
                "op_types_to_quantize": [operator],
                "nodes_to_exclude": [node for node in others if node not in wanted],
            }
        )
    return passes


TARGET = Target(
    name="onnxruntime",
    export=export,
    formats=FORMATS,
    kinds=KINDS,
    file="onnxruntime.json",
    extra="onnx (only with --network)",
    usage="docs/export.md has the dozen lines that pass it to quantize_static and MatMulNBitsQuantizer.",
)
