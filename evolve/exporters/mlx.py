"""MLX: the ``quantization`` of a model's `config.json`, by the paths of its modules.

Source of the format: `mlx_lm.utils.load_model` and `quantize_model` of mlx-lm 0.32, `mlx.core.quantize` of
MLX 0.32. Affine groups have a scale and an offset in 16 bits each; their last axis must be whole groups.
"""

from __future__ import annotations

from typing import Any

from evolve.allocations import Allocation, LayerChoice
from evolve.exporters.experts import split_stack, unnumbered
from evolve.exporters.export import Export, Options, Target
from evolve.exporters.notes import saved_types
from evolve.exporters.rounding import settle
from evolve.exporters.storage import PLAIN, Storage, divides, has_axes, is_module, plain_storages
from evolve.exporters.texts import to_json

KINDS = ("Linear", "Attention", "Classifier", "Embedding")
AFFINE = {f"INT{bits}_ASYM_G{size}": (bits, size) for bits in (8, 6, 5, 4, 3, 2) for size in (128, 64, 32)}
FORMATS = (*AFFINE, "MXFP8", "MXFP4", "NVFP4", *PLAIN)

_FLOATS = (
    # name, mode, bits, weights a group; their scales have 8 bits
    ("MXFP8", "mxfp8", 8, 32),
    ("MXFP4", "mxfp4", 4, 32),
    ("NVFP4", "nvfp4", 4, 16),
)
_DEFAULT = {"group_size": 64, "bits": 4, "mode": "affine"}


def export(allocation: Allocation, options: Options) -> Export:
    """Return the ``quantization``; ``false`` leaves a module alone.

    Raises:
        InputError: The options name a layer that is not there.
    """
    # MLX keeps all experts of a block in one module.
    names = [unnumbered(options.names.get(each.name, each.name)) for each in allocation.layers]
    settled = settle(allocation, options, TARGET, storages, names=names, fused=False)
    quantization: dict[str, Any] = dict(_DEFAULT)
    for at, storage in enumerate(settled.storages):
        for name in settled.every_name(at):
            for path in _paths(name):
                quantization[path] = False if storage.name in PLAIN else dict(storage.settings)
    return settled.export(TARGET, to_json({"quantization": quantization}), saved_types(settled))


def _paths(name: str) -> list[str]:
    """Return the paths of a layer's modules: experts stand under one of two names in MLX's models."""
    found = split_stack(name)
    if found is None:
        return [name]
    path, parts = found
    places = path.removesuffix("experts") + "switch_mlp", path
    return [f"{place}.{part}" for place in places for part in parts]


def storages(layer: LayerChoice) -> list[Storage]:
    """Return how MLX can store a layer: matrices whose rows are whole groups."""
    plain = plain_storages(layer)
    if layer.kind not in KINDS or not is_module(layer) or not has_axes(layer, 2):
        return plain
    affine = [
        Storage(name, "integer", bits, bits + 32 / size, False, _settings("affine", bits, size), (), size)
        for name, (bits, size) in AFFINE.items()
        if divides(size, layer)
    ]
    floats = [
        Storage(name, "float", bits, bits + 8 / size, True, _settings(mode, bits, size), (), size)
        for name, mode, bits, size in _FLOATS
        if divides(size, layer)
    ]
    return [*affine, *floats, *plain]


def _settings(mode: str, bits: int, size: int) -> dict[str, Any]:
    return {"group_size": size, "bits": bits, "mode": mode}


TARGET = Target(
    name="mlx",
    export=export,
    formats=FORMATS,
    kinds=KINDS,
    file="mlx.json",
    extra="",
    usage="mlx_lm.utils.quantize_model(model, config, 64, 4, quant_predicate=lambda path, module: "
    "quantization.get(path, False)) writes it into the model's config.json.",
)
