"""GPTQModel: the arguments of `QuantizeConfig`, with one rule a layer under ``dynamic``.

Source of the format: `gptqmodel.quantization.config` 7.7: patterns that start with ``-:`` skip a module,
others override the base; the first that matches from the start of the module's path wins. vLLM asks with the
path of the fused module (``qkv_proj``), so a fused layer's rule matches that too.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from evolve.allocations import Allocation, LayerChoice
from evolve.exporters.compressed_tensors import INTEGERS
from evolve.exporters.experts import find_routers, is_stack, modules_pattern
from evolve.exporters.export import Export, Options, Target
from evolve.exporters.groups import fused_into
from evolve.exporters.notes import saved_types
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

KINDS = ("Linear", "Attention", "Classifier")
FORMATS = (*INTEGERS, *PLAIN)


def export(allocation: Allocation, options: Options) -> Export:
    """Return the arguments of `QuantizeConfig`; its base is the format that most layers have.

    Raises:
        InputError: The options name a layer that is not there.
    """
    settled = settle(allocation, options, TARGET, storages, alone=find_routers(allocation))
    counts = Counter(settled.storages[at].name for at in settled.quantized)
    common = max(counts, key=lambda name: counts[name]) if counts else "INT8_G128"
    heads = [at for at in settled.quantized if allocation.layers[at].kind == "Classifier"]
    dynamic: dict[str, dict[str, Any]] = {}
    for at, storage in enumerate(settled.storages):
        skipped = storage.name in PLAIN
        for name in settled.every_name(at):
            rule = f"{'-' if skipped else '+'}:{_pattern(name, allocation.layers[at])}"
            dynamic[rule] = {} if skipped else dict(storage.settings)
    config = {
        **_settings(common),
        "desc_act": False,
        "lm_head": bool(heads),
        "quant_method": "gptq",
        "dynamic": dynamic,
    }
    return settled.export(TARGET, to_json(config), saved_types(settled))


def storages(layer: LayerChoice) -> list[Storage]:
    """Return how GPTQModel can store a layer: linear ones of the model's blocks, and its head."""
    plain = plain_storages(layer)
    # It corrects the weights of each module for its own inputs, and refuses a head that shares its weight.
    shared = bool(layer.aliases)
    if layer.kind not in KINDS or not is_module(layer) or not has_axes(layer, 2) or shared:
        return plain
    names = [name for name in INTEGERS if divides(group_size(name), layer)]
    return [*(known_storage(name, layer, _settings(name)) for name in names), *plain]


def _pattern(name: str, layer: LayerChoice) -> str:
    """Return a regular expression for a module's whole path, and that of what it is fused into."""
    stacked = is_stack(layer) and is_module(layer)
    own = modules_pattern(name) if stacked else re.escape(name)
    return f"^(?:{'|'.join([own, *map(re.escape, fused_into(name, stacked))])})$"


def _settings(name: str) -> dict[str, Any]:
    return {"bits": int(name[3]), "group_size": group_size(name) or -1, "sym": "_ASYM" not in name}


TARGET = Target(
    name="gptqmodel",
    export=export,
    formats=FORMATS,
    kinds=KINDS,
    file="gptqmodel.json",
    extra="",
    usage="GPTQModel.load(model, QuantizeConfig(**json.load(open('gptqmodel.json')))).quantize(data).",
)
