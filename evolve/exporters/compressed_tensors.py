"""The `compressed-tensors` library: `quantization_config` of a checkpoint's `config.json`.

Source of the format: `QuantizationConfig` and `QuantizationScheme` of compressed-tensors 0.19 and 0.20, whose
pydantic models refuse unknown keys; how each group is stored is what `infer_module_format` finds for it.
"""

from __future__ import annotations

from typing import Any

from evolve.allocations import Allocation, LayerChoice
from evolve.exporters.experts import find_routers, is_stack, modules_pattern
from evolve.exporters.export import Export, Options, Target
from evolve.exporters.notes import kept_apart, saved_types
from evolve.exporters.rounding import Settled, settle
from evolve.exporters.storage import (
    PLAIN,
    Storage,
    divides,
    group_size,
    has_axes,
    is_clipped,
    is_module,
    known_storage,
    plain_storages,
)
from evolve.exporters.texts import to_json

KINDS = ("Linear", "Attention", "Classifier", "Embedding")
INTEGERS = tuple(
    f"INT{bits}{zero}{groups}"
    for bits in (8, 6, 5, 4, 3, 2)
    for zero in ("", "_ASYM")
    for groups in ("", "_G128", "_G64", "_G32")
)
FORMATS = (*INTEGERS, "FP8_E4M3_CHANNEL", "FP8_E4M3_TENSOR", "MXFP4", "NVFP4", *PLAIN)

_BITS_AT = len("INT")


def export(allocation: Allocation, options: Options) -> Export:
    """Return the `quantization_config`: a group of targets a format, and the layers left alone as ``ignore``.

    Raises:
        InputError: The options name a layer that is not there.
    """
    settled = settle(allocation, options, TARGET, storages, alone=find_routers(allocation))
    groups = config_groups(settled)
    used = {each["format"] for each in groups.values()}
    config = {
        "quant_method": "compressed-tensors",
        "format": used.pop() if len(used) == 1 else "mixed-precision" if used else "dense",
        "ignore": ignored(settled),
        "config_groups": groups,
    }
    return settled.export(TARGET, to_json(config), [*saved_types(settled), *kept_apart(settled, TARGET.name)])


def storages(layer: LayerChoice) -> list[Storage]:
    """Return how compressed-tensors can store a layer: matrices of torch's own modules only."""
    plain = plain_storages(layer)
    # The linear layer of GPT-2, whose weight is (in, out), it passes over without a word.
    foreign = layer.channel_axis != 0 and not is_stack(layer)
    if layer.kind not in KINDS or not is_module(layer) or not has_axes(layer, 2) or foreign:
        return plain
    quantized = [
        known_storage(name, layer, _scheme(name))
        for name in FORMATS
        if name not in PLAIN and divides(group_size(name), layer)
    ]
    return [*quantized, *plain]


def config_groups(settled: Settled, mse_observer: str = "") -> dict[str, dict[str, Any]]:
    """Return the groups of layers of one format, by name.

    Args:
        settled: What each layer gets.
        mse_observer: What llm-compressor calls clipping by squared error, for layers that ask for it.
    """
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for at in settled.quantized:
        storage = settled.storages[at]
        clipped = bool(mse_observer) and is_clipped(settled.allocation.layers[settled.leads[at]].format)
        if (storage.name, clipped) not in groups:
            weights = dict(storage.settings["weights"])
            if clipped:
                weights["observer"] = mse_observer
            groups[storage.name, clipped] = {
                "targets": [],
                "weights": weights,
                "format": storage.settings["format"],
            }
        groups[storage.name, clipped]["targets"] += _targets(settled, at)
    return {f"group_{number}": group for number, group in enumerate(groups.values())}


def ignored(settled: Settled) -> list[str]:
    """Return the target's names of the layers left alone."""
    return [name for at in settled.left_alone for name in _targets(settled, at)]


def _targets(settled: Settled, at: int) -> list[str]:
    names = settled.every_name(at)
    layer = settled.allocation.layers[at]
    if is_stack(layer) and is_module(layer):
        return [f"re:{modules_pattern(name)}$" for name in names]
    return list(names)


def _scheme(name: str) -> dict[str, Any]:
    """Return the arguments of a format's weights, and how they are stored."""
    size = group_size(name)
    if name.startswith("INT"):
        weights = _weights(int(name[_BITS_AT]), "int", "channel" if size is None else "group", size)
        return {"weights": weights | {"symmetric": "_ASYM" not in name}, "format": "pack-quantized"}
    if name == "MXFP4":
        scales = {"scale_dtype": "torch.uint8", "zp_dtype": "torch.uint8"}
        return {"weights": _weights(4, "float", "group", 32) | scales, "format": "mxfp4-pack-quantized"}
    if name == "NVFP4":
        scales = {"scale_dtype": "torch.float8_e4m3fn", "zp_dtype": "torch.float8_e4m3fn"}
        weights = _weights(4, "float", "tensor_group", 16) | scales
        return {"weights": weights, "format": "nvfp4-pack-quantized"}
    strategy = name.rpartition("_")[2].lower()
    return {"weights": _weights(8, "float", strategy, None), "format": "naive-quantized"}


def _weights(bits: int, kind: str, strategy: str, size: int | None) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": kind, "symmetric": True, "strategy": strategy}
    return weights | ({} if size is None else {"group_size": size}) | {"dynamic": False}


TARGET = Target(
    name="compressed-tensors",
    export=export,
    formats=FORMATS,
    kinds=KINDS,
    file="quantization_config.json",
    extra="",
    usage="Put it as quantization_config into the checkpoint's config.json, or apply it to a model with "
    "compressed_tensors.quantization.apply_quantization_config.",
)
