"""NVIDIA ModelOpt: a recipe with an ordered ``quant_cfg``, of which later entries win.

Source of the format: `modelopt.torch.quantization.config` and `modelopt.recipe` 0.47. The first entry turns
every quantizer off, then each quantized layer turns its weights' on; activations stay as they are.
"""

from __future__ import annotations

from typing import Any

from evolve.allocations import Allocation, LayerChoice
from evolve.exporters.experts import find_routers, is_stack
from evolve.exporters.export import Export, Options, Target
from evolve.exporters.notes import runs_eagerly, saved_types
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
from evolve.exporters.texts import to_yaml

KINDS = ("Linear", "Attention", "Classifier", "Embedding", "Conv")
ROWS = tuple(f"INT{bits}{scale}" for bits in (8, 6, 5, 4, 3, 2) for scale in ("", "_TENSOR"))
FLOATS = ("FP8_E4M3_CHANNEL", "FP8_E4M3_TENSOR")
GROUPS = tuple(f"INT{bits}_G{size}" for bits in (8, 6, 5, 4, 3, 2) for size in (128, 64, 32))
FORMATS = (*ROWS, *GROUPS, *FLOATS, "MXFP4", "NVFP4", *PLAIN)


def export(allocation: Allocation, options: Options) -> Export:
    """Return the recipe.

    Raises:
        InputError: The options name a layer that is not there.
    """
    settled = settle(allocation, options, TARGET, storages, alone=find_routers(allocation))
    entries: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    for at in settled.quantized:
        for name in settled.every_name(at):
            # Stacked experts have a quantizer each, in a list beside their weight.
            own = "_weight_quantizers.*" if is_stack(allocation.layers[at]) else ".weight_quantizer"
            quantizer = f"{_literal(name)}{own}"
            entries.append({"quantizer_name": quantizer, "cfg": dict(settled.storages[at].settings)})
    recipe = {
        "metadata": {"recipe_type": "ptq", "description": f"Weights of {allocation.model}, layer by layer."},
        "quantize": {"algorithm": "max", "quant_cfg": entries},
    }
    return settled.export(TARGET, to_yaml(recipe), [*saved_types(settled), *runs_eagerly(settled)])


def storages(layer: LayerChoice) -> list[Storage]:
    """Return how ModelOpt can store a layer: convolutions by channel or tensor only."""
    plain = plain_storages(layer)
    if layer.kind not in KINDS or not is_module(layer):
        return plain
    # Of experts that are (in, out) it has one quantizer for all, which sees them in another order of axes.
    if is_stack(layer) and layer.channel_axis != 1:
        return plain
    if layer.kind == "Conv":
        names = (*ROWS, *FLOATS) if has_axes(layer, 3, 4, 5) else ()
    elif has_axes(layer, 2):
        names = tuple(name for name in FORMATS if name not in PLAIN and divides(group_size(name), layer))
    else:
        names = ()
    # A matrix it turns first to (out, in), a kernel it takes as it is.
    axis = layer.channel_axis if layer.kind == "Conv" else 0
    return [*(known_storage(name, layer, _attributes(name, axis)) for name in names), *plain]


def _attributes(name: str, axis: int) -> dict[str, Any]:
    """Return the attributes of a weight quantizer, with a scale for each place on an axis."""
    size = group_size(name)
    if name in ("MXFP4", "NVFP4"):
        scale = [8, 0] if name == "MXFP4" else [4, 3]
        return {"num_bits": [2, 1], "block_sizes": {-1: size, "type": "dynamic", "scale_bits": scale}}
    if name.startswith("FP8"):
        return {"num_bits": [4, 3], "axis": axis if name.endswith("CHANNEL") else None}
    # Without the least integer, which no weight needs: the range is that of the largest magnitude.
    integer: dict[str, Any] = {"num_bits": int(name[3]), "narrow_range": True}
    if size is not None:
        return integer | {"block_sizes": {-1: size}}
    return integer | {"axis": None if name.endswith("_TENSOR") else axis}


def _literal(name: str) -> str:
    """Return a pattern of `fnmatch` that matches just this name."""
    return "".join(f"[{each}]" if each in "*?[" else each for each in name)


TARGET = Target(
    name="modelopt",
    export=export,
    formats=FORMATS,
    kinds=KINDS,
    file="modelopt.yaml",
    extra="",
    usage="modelopt.torch.quantization.quantize(model, load_recipe('modelopt.yaml').quantize, "
    "forward_loop=lambda model: None).",
)
