"""ONNX Runtime: what its two quantizers are to do with which tensors and nodes.

Source of the format: `onnxruntime.quantization` 1.31. Static quantization takes ``TensorQuantOverrides`` by
initializer; weights in groups are `MatMulNBitsQuantizer`'s, one pass a width, with the nodes it must not
touch. The static pass comes first, and needs opset 21 for 4-bit weights and 16-bit activations.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from evolve.allocations import Allocation, LayerChoice
from evolve.exporters.export import Export, Options, Target
from evolve.exporters.notes import saved_types
from evolve.exporters.onnx_places import Place, Places, Read, assumed_places
from evolve.exporters.rounding import Settled, settle
from evolve.exporters.storage import PLAIN, Storage, divides, group_size, known_storage, plain_storages
from evolve.exporters.texts import to_json
from evolve.networks.extras import require_onnx

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
    if network is None:
        places = assumed_places(allocation, options)
    else:
        require_onnx()
        from evolve.exporters.onnx_lookup import find_places

        places = find_places(allocation, options, network)
    place_of = dict(zip(allocation.names, places.layers, strict=True))
    settled = settle(
        allocation,
        options,
        TARGET,
        lambda layer: storages(layer, place_of[layer.name]),
        names=[each.initializer for each in places.layers],
        fused=False,
        obstacles={name: each.obstacle for name, each in place_of.items() if each.obstacle},
    )
    document = {"static": _static(settled, places), "matmul_nbits": _passes(settled, places)}
    notes = [*saved_types(settled), *_notes(settled, places, network is not None)]
    return settled.export(TARGET, to_json(document), notes)


def storages(layer: LayerChoice, place: Place) -> list[Storage]:
    """Return how onnxruntime can store a layer, which depends on the operator that reads it."""
    names = [name for name in (*STATIC, *GROUPED) if all(_fits(name, layer, each) for each in place.reads)]
    names = names if place.reads else []
    return [*(known_storage(name, layer, _arguments(name)) for name in names), *plain_storages(layer)]


def _fits(name: str, layer: LayerChoice, read: Read) -> bool:
    if not read.along and not name.endswith("_TENSOR"):
        return False
    if name in STATIC:
        return read.operator in ("MatMul", "Gemm", "Conv")
    if read.operator == "MatMul":
        return layer.shape is None or len(layer.shape) == 2
    return read.operator == "Gather" and name[3] == "4" and divides(group_size(name), layer)


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
            for read in place.reads:
                axis = {} if storage.name.endswith("_TENSOR") else {"axis": read.channel_axis}
                overrides[read.initializer] = [dict(storage.settings) | axis]
                nodes += read.nodes
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
            for operator in dict.fromkeys(read.operator for read in places.layers[at].reads):
                chosen.setdefault((operator, settled.storages[at].name), []).append(at)
    passes = []
    for (operator, _), members in chosen.items():
        wanted = set(_nodes(places, members, operator))
        others = dict.fromkeys(
            [*_nodes(places, range(len(places.layers)), operator), *places.others.get(operator, ())]
        )
        passes.append(
            dict(settled.storages[members[0]].settings)
            | {
                "op_types_to_quantize": [operator],
                "nodes_to_exclude": [node for node in others if node not in wanted],
            }
        )
    return passes


def _nodes(places: Places, members: Iterable[int], operator: str) -> list[str]:
    """Return the nodes of an operator that read some layers."""
    reads = (read for at in members for read in places.layers[at].reads)
    return [node for read in reads if read.operator == operator for node in read.nodes]


def _notes(settled: Settled, places: Places, looked_up: bool) -> list[str]:
    if not looked_up:
        return ["Nodes are taken to have the layers' names; --network MODEL.onnx looks them up."]
    notes = []
    if not places.as_written:
        notes.append(
            "Some names are those of evolve.exporters.onnx_lookup.prepared(MODEL.onnx), which names nodes "
            "and makes initializers of copies: quantize what it returns, as docs/export.md does."
        )
    for at in settled.quantized:
        if len({read.initializer for read in places.layers[at].reads}) > 1:
            name = settled.allocation.names[at]
            notes.append(f"{name} is read in several ways, and onnxruntime stores it once for each.")
    return notes


TARGET = Target(
    name="onnxruntime",
    export=export,
    formats=FORMATS,
    kinds=KINDS,
    file="onnxruntime.json",
    extra="onnx (only with --network)",
    usage="docs/export.md has the dozen lines that pass it to quantize_static and MatMulNBitsQuantizer.",
)
