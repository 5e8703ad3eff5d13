"""Allocations that several test files export, and how each target would read what was written."""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from evolve.allocations import Allocation, LayerChoice
from evolve.exporters import Export
from evolve.quantizers import QUANTIZERS

FORMATS = sorted(QUANTIZERS)


def layer(name: str, kind: str, shape: tuple[int, ...] | None, format: str, params: int = 0) -> LayerChoice:  # noqa: A002
    count = math.prod(shape) if shape else params
    # Scales of a tensor of one weight take more bits than an allocation may have.
    bits = min(64, QUANTIZERS[format].bits(shape or (1, params))) if format in QUANTIZERS else 4.5
    return LayerChoice(name, kind, count, shape, format, bits)


def llama(formats: Sequence[str] = ("INT4_G128",), blocks: int = 2, width: int = 256) -> Allocation:
    """A language model with the names of Hugging Face's Llama; formats repeat over its matrices."""
    shapes = {
        "self_attn.q_proj": ("Attention", (width, width)),
        "self_attn.k_proj": ("Attention", (width // 2, width)),
        "self_attn.v_proj": ("Attention", (width // 2, width)),
        "self_attn.o_proj": ("Attention", (width, width)),
        "mlp.gate_proj": ("Linear", (2 * width, width)),
        "mlp.up_proj": ("Linear", (2 * width, width)),
        "mlp.down_proj": ("Linear", (width, 2 * width)),
        "input_layernorm": ("LayerNorm", (width,)),
        "post_attention_layernorm": ("LayerNorm", (width,)),
    }
    rows = [("model.embed_tokens", "Embedding", (512, width))]
    rows += [
        (f"model.layers.{at}.{name}", kind, shape)
        for at in range(blocks)
        for name, (kind, shape) in shapes.items()
    ]
    rows += [("model.norm", "LayerNorm", (width,)), ("lm_head", "Classifier", (512, width))]
    chosen = [
        "FP32" if kind == "LayerNorm" else formats[at % len(formats)] for at, (_, kind, _) in enumerate(rows)
    ]
    return Allocation("llama", tuple(layer(*row, name) for row, name in zip(rows, chosen, strict=True)))


@st.composite
def allocations(draw: st.DrawFn) -> Allocation:
    """Layers of every type and shape, with fused names and ties."""
    names = draw(
        st.lists(
            st.sampled_from(
                [
                    *(f"blk{at}.attn.{part}" for at in range(2) for part in ("q_proj", "k_proj", "v_proj")),
                    *(f"blk{at}.mlp.{part}" for at in range(2) for part in ("gate_proj", "up_proj")),
                    *(f"moe.experts.{at}.{part}" for at in range(2) for part in ("w1", "w2")),
                    "attn.in_proj_weight",
                    "head",
                    "stem.conv",
                    "norm",
                    "emb[0]+x",
                ]
            ),
            min_size=1,
            unique=True,
        )
    )
    sizes = st.sampled_from([1, 3, 16, 48, 64, 128, 256])
    layers = []
    for name in names:
        kind = draw(st.sampled_from(["Embedding", "Conv", "Linear", "Attention", "LayerNorm", "Classifier"]))
        axes = {"Conv": st.sampled_from([3, 4]), "LayerNorm": st.just(1)}.get(kind, st.just(2))
        count = draw(axes)
        shape = draw(st.none() | st.tuples(*[sizes] * count))
        layers.append(layer(name, kind, shape, draw(st.sampled_from(FORMATS)), 256))
    order = draw(st.permutations(range(len(layers))))
    size = draw(st.integers(0, len(layers)))
    ties = (tuple(order[:size]),) if size > 1 else ()
    for at in ties[0][1:] if ties else ():
        first = layers[ties[0][0]]
        each = layers[at]
        layers[at] = layer(each.name, each.kind, each.shape, first.format, 256)
    for at, each in enumerate(layers):
        if draw(st.booleans()):
            layers[at] = replace(each, aliases=(f"again.{each.name}",))
    return Allocation("some", tuple(layers), ties)


def names_for(target: str, allocation: Allocation) -> dict[str, str]:
    """Names that llama.cpp takes; the other targets keep theirs."""
    if target != "llama.cpp":
        return {}
    return {name: f"blk.{at}.t.weight" for at, name in enumerate(allocation.names)}


def document(export: Export) -> str:
    return next(iter(export.documents.values()))


def _compressed_tensors(text: str, name: str, kind: str) -> list[Any]:
    return _scheme(json.loads(text), name)


def _llm_compressor(text: str, name: str, kind: str) -> list[Any]:
    import yaml

    recipe = yaml.safe_load(text)
    return _scheme(recipe["quant_stage"]["quant_modifiers"]["QuantizationModifier"], name)


def _scheme(config: dict[str, Any], name: str) -> list[Any]:
    found = [group["weights"] for group in config["config_groups"].values() if name in group["targets"]]
    return found + [None] * config["ignore"].count(name)


def _torchao(text: str, name: str, kind: str) -> list[Any]:
    configs = json.loads(text)["_data"]["fqn_to_config"]
    return [configs.get(name)]


def _gptqmodel(text: str, name: str, kind: str) -> list[Any]:
    # All that match, in order: the first wins, and none may disagree with it.
    found = []
    for rule, value in json.loads(text)["dynamic"].items():
        if re.match(rule[2:], name):
            found.append(None if rule.startswith("-:") else value)
    return found


def _llama_cpp(text: str, name: str, kind: str) -> list[Any]:
    lines = (line.rsplit("=", 1) for line in text.split())
    # Vectors have no line: they are F32 in any case.
    return [kind for pattern, kind in lines if re.search(pattern, name)] or ["f32"]


def _modelopt(text: str, name: str, kind: str) -> list[Any]:
    import yaml

    entries = yaml.safe_load(text)["quantize"]["quant_cfg"]
    quantizer = f"{name}.weight_quantizer"
    matching = [each for each in entries if fnmatch.fnmatch(quantizer, each["quantizer_name"])]
    return [matching[-1].get("cfg")]


def _onnxruntime(text: str, name: str, kind: str) -> list[Any]:
    config = json.loads(text)
    overrides = config["static"]["extra_options"]["TensorQuantOverrides"]
    found = [overrides[name]] if name in overrides else []
    operator = {"Conv": "Conv", "Embedding": "Gather", "LayerNorm": ""}.get(kind, "MatMul")
    found += [
        (each["bits"], each["block_size"], each["is_symmetric"])
        for each in config["matmul_nbits"]
        if operator in each["op_types_to_quantize"] and name not in each["nodes_to_exclude"]
    ]
    return found or [None]


def _mlx(text: str, name: str, kind: str) -> list[Any]:
    quantization = json.loads(text)["quantization"]
    return [quantization[name]] if name in quantization else []


READERS: dict[str, Callable[[str, str, str], list[Any]]] = {
    "compressed-tensors": _compressed_tensors,
    "llm-compressor": _llm_compressor,
    "torchao": _torchao,
    "gptqmodel": _gptqmodel,
    "llama.cpp": _llama_cpp,
    "modelopt": _modelopt,
    "onnxruntime": _onnxruntime,
    "mlx": _mlx,
}
"""What each target would find for a layer's name in a document: one setting, or an error of ours."""
