"""llama.cpp: one line a tensor for ``llama-quantize --tensor-type-file``.

Source of the format: the types of `gguf.GGMLQuantizationType` and their sizes, `gguf.GGML_QUANT_SIZES`; names
by `gguf.get_tensor_name_map`. Builds differ in which of several matching lines wins, so each line matches
just one tensor. Vectors stay in F32, whatever a line says, and need none; so do the tensors that
`tensor_allows_quantization` of llama.cpp's `llama-quant.cpp` names, which stay as they come in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from evolve.allocations import Allocation, LayerChoice
from evolve.errors import InputError
from evolve.exporters.experts import is_stack, split_stack
from evolve.exporters.export import Export, Options, Target
from evolve.exporters.rounding import settle
from evolve.exporters.storage import PLAIN, Storage, divides, has_axes, plain_storages
from evolve.fields import near_match

KINDS = ("Linear", "Attention", "Classifier", "Embedding")
#: Our name, or llama.cpp's; its type; family; bits a code; bits in all; symmetric; weights a block; weights
#: a scale; the same.
_TYPES: tuple[tuple[str, str, str, float, float, bool, int, int, tuple[str, ...]], ...] = (
    ("Q8_0", "q8_0", "integer", 8, 8.5, True, 32, 32, ("INT8_G32",)),
    ("Q6_K", "q6_k", "integer", 6, 6.5625, True, 256, 16, ()),
    ("Q5_0", "q5_0", "integer", 5, 5.5, True, 32, 32, ("INT5_G32",)),
    ("Q5_K", "q5_k", "integer", 5, 5.5, False, 256, 32, ()),
    ("Q5_1", "q5_1", "integer", 5, 6.0, False, 32, 32, ("INT5_ASYM_G32",)),
    ("Q4_0", "q4_0", "integer", 4, 4.5, True, 32, 32, ("INT4_G32",)),
    ("Q4_K", "q4_k", "integer", 4, 4.5, False, 256, 32, ()),
    ("Q4_1", "q4_1", "integer", 4, 5.0, False, 32, 32, ("INT4_ASYM_G32",)),
    ("IQ4_XS", "iq4_xs", "codebook", 4, 4.25, True, 256, 32, ()),
    ("IQ4_NL", "iq4_nl", "codebook", 4, 4.5, True, 32, 32, ()),
    ("MXFP4", "mxfp4", "float", 4, 4.25, True, 32, 32, ()),
    ("NVFP4", "nvfp4", "float", 4, 4.5, True, 64, 16, ()),
    ("Q3_K", "q3_k", "integer", 3, 3.4375, True, 256, 16, ()),
    ("Q2_K", "q2_k", "integer", 2, 2.625, False, 256, 16, ()),
    ("TQ1_0", "tq1_0", "codebook", 1.6, 1.6875, True, 256, 256, ()),
    ("Q1_0", "q1_0", "codebook", 1, 1.125, True, 128, 128, ()),
)
_PLAIN_TYPES = {"FP32": "f32", "BF16": "bf16", "FP16": "f16"}
FORMATS = (*(each[0] for each in _TYPES), *PLAIN)

#: Names that are GGUF's already.
_GGUF = re.compile(r"^(blk\.\d+\.[a-z0-9_.]+|token_\w+|position_embd|output\w*|cls\w*)$")
_BLOCK = re.compile(r"\.(\d+)(?=\.|$)")
_EXPERT = re.compile(r"(\.experts)\.\d+(?=\.)")

#: What ``llama-quantize`` never quantizes: parts of names, and whole names.
_KEPT = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|altup|laurel|per_layer_model_proj|ssm_conv1d|shortconv\.conv\.weight"
    r"|time_mix_(first|[wva][012]|g[12]|decay_w[12]|lerp_fused)\.weight|attn_rel_b\.weight"
    r"|\.position_embd|sam\.pos_embd|sam\.neck\.|sam\.net_|\.rel_pos|\.patch_embd|\.patch_merger"
    r"|^(position_embd|token_types)\.weight$|(?<!weight)$"
)

_Mapped = Callable[[str], str | None]
#: Architectures that are named first where several fit.
_COMMON = ("llama", "qwen2", "bert", "gpt2")
_SHOWN = 2


def export(allocation: Allocation, options: Options) -> Export:
    """Return the lines ``^name$=type``; the experts of a block are one tensor and one line.

    Raises:
        InputError: A layer has no name in GGUF, the architecture is unknown, or gguf is not installed.
    """
    mapped = _name_map(allocation, options.architecture) if options.architecture else None
    tensors = [_gguf_names(each, allocation, options, mapped) for each in allocation.layers]
    names = [each[0] for each in tensors]
    kept = {
        layer.name: f"llama-quantize never quantizes {own[0]}, which stays f32 as it comes in"
        for layer, own in zip(allocation.layers, tensors, strict=True)
        if any(map(_KEPT.search, own))
    }
    settled = settle(
        allocation,
        options,
        TARGET,
        lambda layer: plain_storages(layer, ("FP32",)) if layer.name in kept else storages(layer),
        names=names,
        fused=False,
        merged=True,
        alone=kept,
    )
    lines = {
        f"^{re.escape(name)}$={_PLAIN_TYPES.get(storage.name) or storage.settings['type']}": None
        for own, storage, layer in zip(tensors, settled.storages, allocation.layers, strict=True)
        if not _is_vector(layer)
        # A file has a shared weight once, or once more under a name that it knows.
        for name in (*own, *filter(None, (_found(each, options, mapped) for each in layer.aliases)))
        if not _KEPT.search(name)
    }
    return settled.export(TARGET, "".join(f"{each}\n" for each in lines))


def storages(layer: LayerChoice) -> list[Storage]:
    """Return how llama.cpp can store a layer: matrices whose rows are whole blocks; vectors in F32."""
    if _is_vector(layer):
        return plain_storages(layer, ("FP32",))
    plain = plain_storages(layer)
    if layer.kind not in KINDS or not has_axes(layer, 2):
        return plain
    quantized = [
        Storage(name, family, code, bits, symmetric, {"type": kind}, same, shared)
        for name, kind, family, code, bits, symmetric, block, shared, same in _TYPES
        if divides(block, layer)
    ]
    return [*quantized, *plain]


def _is_vector(layer: LayerChoice) -> bool:
    return layer.kind == "LayerNorm" if layer.shape is None else len(layer.shape) == 1


def _gguf_names(
    layer: LayerChoice, allocation: Allocation, options: Options, mapped: _Mapped | None
) -> tuple[str, ...]:
    """Return the tensors that a layer is in: of stacked experts, gate and up may be one or apart."""
    name = layer.name
    stack = split_stack(name) if is_stack(layer) and name not in options.names else None
    parts = [f"{stack[0]}.{part}" for part in stack[1]] if stack else []
    found = dict.fromkeys(filter(None, (_found(each, options, mapped) for each in (name, *parts))))
    if found:
        return tuple(found)
    cure = "Give its name in --network-names." if mapped else _cure(allocation, options)
    raise InputError("no name in GGUF for this layer", field="llama.cpp", found=name, cure=cure)


def _found(name: str, options: Options, mapped: _Mapped | None) -> str | None:
    """Return the name of a layer's tensor in GGUF; None where it has none."""
    if name in options.names:
        return options.names[name]
    found = mapped and (mapped(name) or mapped(_EXPERT.sub(r"\1", name)))
    found = found or (name if _GGUF.match(name) else None)
    return found if not found or found.endswith(".weight") else f"{found}.weight"


def _cure(allocation: Allocation, options: Options) -> str:
    """Return what helps a network whose architecture was not given: one of gguf's, where one fits."""
    names = "names in --network-names"
    try:
        import gguf
    except ImportError:
        return f"Give --architecture, if llama.cpp runs such networks, or {names}."
    # One block tells as much as many.
    layers = dict.fromkeys(_BLOCK.sub(".0", each) for each in allocation.names)
    fitting = []
    for number, name in gguf.MODEL_ARCH_NAMES.items():
        mapped = _mapping(_table(number, 1), tuple(layers))
        if all(_found(each, options, mapped) for each in layers):
            fitting.append(name)
    if not fitting:
        return f"No architecture of GGUF has such layers: give {names}."
    first = sorted(fitting, key=lambda name: name not in _COMMON)[:_SHOWN]
    return f"Give --architecture, as {' or '.join(first)}."


def _name_map(allocation: Allocation, architecture: str) -> _Mapped:
    """Return gguf's own translation of names for an architecture."""
    try:
        import gguf
    except ImportError as fault:
        raise InputError(
            f"names of tensors need the extra 'gguf', which is not installed ({fault})",
            cure="Install it: pip install 'evolve-precision[gguf]', or give names in --network-names",
        ) from None
    known = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    if architecture not in known:
        cure = near_match(architecture, known)
        raise InputError("unknown architecture", field="--architecture", found=architecture, cure=cure)
    blocks = [int(number) for name in allocation.names for number in _BLOCK.findall(name)]
    return _mapping(_table(known[architecture], max(blocks, default=0) + 1), allocation.names)


def _table(architecture: Any, blocks: int) -> Any:
    import gguf

    # Left alone, it takes the names of one architecture over into all that are asked for after it.
    common = gguf.TensorNameMap.block_mappings_cfg
    before = dict(common)
    try:
        return gguf.get_tensor_name_map(architecture, blocks)
    finally:
        common.clear()
        common.update(before)


def _mapping(table: Any, names: Sequence[str]) -> _Mapped:
    wrapper = _wrapper(names)

    def mapped(name: str) -> str | None:
        found: str | None = table.get_name(name, (".weight",))
        return found or table.get_name(name.removeprefix(wrapper), (".weight",))

    return mapped


def _wrapper(names: Sequence[str]) -> str:
    """Return what all names begin with, dot included, where the network is one module of another."""
    first = {name.partition(".")[0] for name in names if "." in name}
    return f"{first.pop()}." if len(first) == 1 and all("." in name for name in names) else ""


TARGET = Target(
    name="llama.cpp",
    export=export,
    formats=FORMATS,
    kinds=KINDS,
    file="tensor-types.txt",
    extra="gguf (only with --architecture)",
    usage="llama-quantize --tensor-type-file tensor-types.txt model-f32.gguf model.gguf Q8_0.",
)
