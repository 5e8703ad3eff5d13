"""torchao: an `FqnToConfig` as JSON, as `config_to_dict` writes it and `config_from_dict` reads it.

Source of the format: `torchao.core.config` and `torchao.quantization.quant_api` of torchao 0.18. Keys are
the paths of modules; torchao quantizes what is named and leaves the rest alone. It fails where several
parameters of one module are named to be left alone, so what is left alone is not named at all.
"""

from __future__ import annotations

from typing import Any

from evolve.allocations import Allocation, LayerChoice
from evolve.exporters.compressed_tensors import INTEGERS
from evolve.exporters.experts import is_stack
from evolve.exporters.export import Export, Options, Target
from evolve.exporters.notes import kept_apart, runs_eagerly, saved_types
from evolve.exporters.rounding import settle
from evolve.exporters.storage import (
    PLAIN,
    Storage,
    divides,
    group_size,
    has_axes,
    is_module,
    known_storage,
    plain_storages,
)
from evolve.exporters.texts import to_json

KINDS = ("Linear", "Attention", "Classifier", "Embedding", "Conv")
FLOATS = tuple(f"FP8_{kind}{scale}" for kind in ("E4M3", "E5M2") for scale in ("_CHANNEL", "_TENSOR"))
#: One scale for every output channel and place in the kernel: all that torchao does for convolutions.
TAPS = tuple(f"INT{bits}{zero}_PER_PLACE" for bits in (8, 6, 5, 4, 3, 2) for zero in ("", "_ASYM"))
FORMATS = (*INTEGERS, *FLOATS, "NVFP4", *TAPS, *PLAIN)
#: What it has for experts that are stacked in one parameter, which it finds by the parameter's name.
STACKS = ("INT8", "FP8_E4M3_CHANNEL", "FP8_E5M2_CHANNEL")

_WIDEST = 16


def export(allocation: Allocation, options: Options) -> Export:
    """Return the `FqnToConfig`.

    Raises:
        InputError: The options name a layer that is not there.
    """
    settled = settle(allocation, options, TARGET, storages)
    configs = {
        name: dict(settled.storages[at].settings)
        for at in settled.quantized
        for name in settled.every_name(at)
    }
    document = _object("FqnToConfig", 1, {"fqn_to_config": configs})
    return settled.export(
        TARGET,
        to_json(document),
        [*saved_types(settled), *kept_apart(settled, TARGET.name), *runs_eagerly(settled)],
    )


def storages(layer: LayerChoice) -> list[Storage]:
    """Return how torchao can store a layer: matrices, and the kernels of convolutions in two dimensions."""
    plain = plain_storages(layer)
    # It quantizes the other way round modules that have their output channels elsewhere, and cannot run them.
    stacked = is_stack(layer) and layer.channel_axis == 1
    if layer.kind not in KINDS or not is_module(layer) or (layer.channel_axis and not stacked):
        return plain
    if stacked:
        return [*(known_storage(name, layer, _config(name, False)) for name in STACKS), *plain]
    if layer.kind == "Conv":
        return [*_convolutions(layer), *plain]
    if not has_axes(layer, 2):
        return plain
    names = [name for name in (*INTEGERS, *FLOATS) if divides(group_size(name), layer)]
    # What shares a weight with another module may be an embedding as well, whatever the first of them is.
    embedding = layer.kind == "Embedding" or bool(layer.aliases)
    if not embedding and (layer.shape is None or all(each % 16 == 0 for each in layer.shape)):
        names.append("NVFP4")
    return [*(known_storage(name, layer, _config(name, embedding)) for name in names), *plain]


def _convolutions(layer: LayerChoice) -> list[Storage]:
    """Return the ways to store a kernel, (out, in, height, width), whose shape has to be known."""
    if layer.shape is None or len(layer.shape) != 4:
        return []
    found = []
    for name in TAPS:
        bits = int(name[3])
        zero = bits if "_ASYM" in name else 0
        total = bits + (_WIDEST + zero) / layer.shape[1]
        # With few input channels the scales would take more than the weights as they are.
        if total < _WIDEST:
            settings = _intx(name.removesuffix("_PER_PLACE"), None)
            # One place in the kernel is all that shares a scale: as many weights as there are input channels.
            found.append(
                Storage(name, "integer", bits, total, not zero, settings, granularity=layer.shape[1])
            )
    return found


def _config(name: str, embedding: bool) -> dict[str, Any]:
    size = group_size(name)
    if name == "NVFP4":
        return _object("NVFP4WeightOnlyConfig", 1, {"use_dynamic_per_tensor_scale": True})
    if name.startswith("FP8"):
        by_row = name.endswith("CHANNEL")
        granularity = _object("PerRow", 1, {"dim": -1}) if by_row else _object("PerTensor", 1, {})
        dtype = "float8_e4m3fn" if "E4M3" in name else "float8_e5m2"
        return _object(
            "Float8WeightOnlyConfig", 2, {"weight_dtype": _dtype(dtype), "granularity": granularity}
        )
    if name.startswith("INT8") and "_ASYM" not in name and not embedding:
        rows = _object("PerRow", 1, {"dim": -1}) if size is None else _group(size)
        return _object("Int8WeightOnlyConfig", 2, {"granularity": rows})
    return _intx(name, size)


def _intx(name: str, size: int | None) -> dict[str, Any]:
    granularity = _object("PerAxis", 1, {"axis": 0}) if size is None else _group(size)
    # Symmetric without clipping: no weight is off by more than half a step, as in ours.
    mapping = "ASYMMETRIC" if "_ASYM" in name else "SYMMETRIC_NO_CLIPPING_ERR"
    fields = {
        "weight_dtype": _dtype(f"int{name[3]}"),
        "granularity": granularity,
        "mapping_type": {"_type": "MappingType", "_data": mapping},
    }
    return _object("IntxWeightOnlyConfig", 2, fields)


def _group(size: int) -> dict[str, Any]:
    return _object("PerGroup", 1, {"group_size": size})


def _dtype(name: str) -> dict[str, Any]:
    return {"_type": "torch.dtype", "_data": name}


def _object(kind: str, version: int, fields: dict[str, Any]) -> dict[str, Any]:
    return {"_type": kind, "_version": version, "_data": fields}


TARGET = Target(
    name="torchao",
    export=export,
    formats=FORMATS,
    kinds=KINDS,
    file="torchao.json",
    extra="",
    usage="quantize_(model, config_from_dict(json.load(open('torchao.json'))), filter_fn=None).",
)
