from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from export_cases import FORMATS as OURS
from export_cases import document, layer, llama

from evolve.allocations import Allocation
from evolve.errors import InputError
from evolve.exporters import TARGETS, Options
from evolve.exporters.llama_cpp import storages
from evolve.quantizers import find_quantizer

TARGET = TARGETS["llama.cpp"]
LLAMA = Options(architecture="llama")


def test_types_and_sizes_are_ggufs() -> None:
    gguf = pytest.importorskip("gguf")
    wide = layer("blk.0.a", "Linear", (256, 256), "INT8")
    named = {each.name: each for each in storages(wide) if "type" in each.settings}
    assert len(named) == 16
    for storage in named.values():
        kind = gguf.GGMLQuantizationType[storage.settings["type"].upper()]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        assert storage.bits == 8 * size / block
        if storage.same:
            assert storage.same[0].endswith(f"_G{block}")
        # Rows that are no whole blocks get another type.
        narrow = layer("blk.0.a", "Linear", (256, block // 2), "INT8")
        assert storage.name not in {each.name for each in storages(narrow)}


def test_names_and_lines_of_a_language_model() -> None:
    gguf = pytest.importorskip("gguf")
    export = TARGET.export(llama(["INT4_G32", "INT8_G32", "INT6", "NF4", "FP16"], blocks=12), LLAMA)
    names = [each.target_name for each in export.layers]
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 12)
    assert all(known.get_name(name, (".weight",)) == name for name in names)
    lines = [line.rsplit("=", 1) for line in document(export).splitlines()]
    assert lines[:3] == [
        [r"^token_embd\.weight$", "q4_0"],
        [r"^blk\.0\.attn_q\.weight$", "q8_0"],
        [r"^blk\.0\.attn_k\.weight$", "q6_k"],
    ]
    matrices = [name for name in names if "norm" not in name]
    for name in matrices:
        assert len([kind for pattern, kind in lines if re.search(pattern, name)]) == 1
    assert len(lines) == len(matrices)
    assert all(gguf.GGMLQuantizationType[kind.upper()] is not None for _, kind in lines)


def test_formats_without_a_type_are_rounded() -> None:
    layers = tuple(layer(f"blk.{at}.ffn_up", "Linear", (64, 256), name) for at, name in enumerate(OURS))
    export = TARGET.export(Allocation("m", layers), Options())
    written = {each.asked: each.written for each in export.roundings}
    assert written["INT4_G128"] == "Q4_0"
    assert written["INT4_ASYM_G64"] == "Q4_K"
    assert written["NF4"] == "IQ4_XS"
    assert written["INT3_G32"] == "Q3_K"
    assert written["INT2_ASYM"] == "Q2_K"
    assert written["TERNARY"] == "TQ1_0"
    assert written["FP8_E4M3"] == "Q8_0"
    assert not {"INT8_G32", "INT4_G32", "MXFP4", "NVFP4", "FP16", "BF16", "FP32"} & set(written)


# gguf writes the types that need no search; those of 256 weights a block do not fit these rows.
@pytest.mark.parametrize(
    ("formats", "types", "tolerance"),
    [
        (("INT8_G32", "INT8_G32", "INT8_G32"), ("Q8_0", "Q8_0", "Q8_0"), 5e-3),
        (("INT4_ASYM_G32", "INT5_ASYM_G32", "INT8_G32"), ("Q4_1", "Q5_1", "Q8_0"), 0.15),
        (("MXFP4", "INT5_G32", "BF16"), ("MXFP4", "Q5_0", "BF16"), 0.05),
        (("INT4_G32", "INT8_G32", "FP16"), ("Q4_0", "Q8_0", "F16"), 0.25),
    ],
)
def test_a_network_loses_what_we_say(
    formats: tuple[str, ...], types: tuple[str, ...], tolerance: float, tmp_path: Path
) -> None:
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    import numpy as np
    import torch
    from digits_networks import LAYERS, loss, mlp_allocation, trained_mlp

    kinds = ("ffn_up", "ffn_down", "ffn_norm", "attn_output")
    names = {path: f"blk.0.{kind}.weight" for path, kind in zip(LAYERS, kinds, strict=True)}
    export = TARGET.export(mlp_allocation(*formats), Options(names=names))
    model = trained_mlp()
    # As llama-quantize does: the first line that matches a tensor's name says its type.
    lines = [line.rsplit("=", 1) for line in document(export).splitlines()]
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    for path, name in names.items():
        kind = next((each.upper() for pattern, each in lines if re.search(pattern, name)), "F32")
        weight = model.get_submodule(path).weight.numpy()
        chosen = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quants.quantize(weight, chosen), raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    stored = {each.name: each for each in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert [stored[names[path]].tensor_type.name for path in ("0", "2", "5")] == list(types)
    # The sizes that the export counts are those of the file.
    for each in export.layers:
        if each.layer != "4":
            tensor = stored[names[each.layer]]
            assert 8 * tensor.n_bytes / tensor.n_elements == each.bits
    for path, name in names.items():
        back = gguf.quants.dequantize(stored[name].data, stored[name].tensor_type)
        module = model.get_submodule(path)
        module.weight.data = torch.from_numpy(np.array(back, np.float32)).reshape(module.weight.shape)
    ours = trained_mlp()
    for path, name in zip(("0", "2", "5"), formats, strict=True):
        weight = ours.get_submodule(path).weight
        weight.data = torch.from_numpy(find_quantizer(name).dequantized(weight.numpy()))
    assert loss(model) == pytest.approx(loss(ours), abs=tolerance * loss(trained_mlp()))


def test_experts_are_one_tensor() -> None:
    pytest.importorskip("gguf")
    layers = tuple(
        layer(f"model.layers.0.block_sparse_moe.experts.{at}.w1", "Linear", (64, 256), name)
        for at, name in enumerate(["INT4_G32", "INT6"])
    )
    export = TARGET.export(Allocation("m", layers), LLAMA)
    assert document(export) == "^blk\\.0\\.ffn_gate_exps\\.weight$=q6_k\n"


def test_a_model_inside_another_module() -> None:
    pytest.importorskip("gguf")
    layers = (
        layer("encoder.embeddings.word_embeddings", "Embedding", (64, 256), "INT8_G32"),
        layer("encoder.encoder.layer.0.attention.self.query", "Attention", (64, 256), "INT4_G32"),
    )
    export = TARGET.export(Allocation("m", layers), Options(architecture="bert"))
    assert document(export) == "^token_embd\\.weight$=q8_0\n^blk\\.0\\.attn_q\\.weight$=q4_0\n"


def test_names_given() -> None:
    one = Allocation("m", (layer("fc", "Linear", (8, 32), "INT8_G32"),))
    export = TARGET.export(one, Options(names={"fc": "v.patch.weight"}))
    assert document(export) == "^v\\.patch\\.weight$=q8_0\n"
    gguf_named = Allocation("m", (layer("blk.3.ffn_up", "Linear", (8, 32), "INT8_G32"),))
    assert document(TARGET.export(gguf_named, Options())) == "^blk\\.3\\.ffn_up\\.weight$=q8_0\n"


def test_a_name_that_is_none() -> None:
    one = Allocation("m", (layer("fc", "Linear", (8, 32), "INT8_G32"),))
    pytest.importorskip("gguf")
    # No architecture helps a network whose layers none has.
    with pytest.raises(InputError, match=r"no name in GGUF.*'fc'. No architecture of GGUF has such layers"):
        TARGET.export(one, Options())
    with pytest.raises(
        InputError, match=r"no name in GGUF.*'model.embed_tokens'. Give --architecture, as llama"
    ):
        TARGET.export(llama(blocks=12), Options())
    with pytest.raises(InputError, match=r"no name in GGUF.*'fc'. Give its name in --network-names"):
        TARGET.export(one, LLAMA)
    with pytest.raises(InputError, match=r"unknown architecture, found 'lama'. Did you mean 'llama'"):
        TARGET.export(one, Options(architecture="lama"))


def test_without_gguf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError, match=r"no name in GGUF.* Give --architecture, if llama.cpp runs such"):
        TARGET.export(llama(), Options())
    with pytest.raises(InputError, match=r"extra 'gguf'.*pip install 'evolve-precision\[gguf\]'"):
        TARGET.export(llama(), LLAMA)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("blk.0.ffn_gate_inp.weight", True),
        ("blk.0.ffn_gate_inp_shexp.weight", False),
        ("blk.0.ffn_gate.weight", False),
        ("blk.0.attn_q_norm.weight", True),
        ("position_embd.weight", True),
        ("v.position_embd.weight", True),
        ("token_types.weight", True),
        ("token_embd.weight", False),
        ("per_layer_model_proj.weight", True),
        ("blk.0.laurel_l.weight", True),
        ("blk.0.ssm_conv1d.weight", True),
        ("blk.0.ssm_in.weight", False),
        ("blk.0.shortconv.conv.weight", True),
        ("blk.0.shortconv.in_proj.weight", False),
        ("blk.0.time_mix_w1.weight", True),
        ("blk.0.time_mix_decay_w2.weight", True),
        ("blk.0.time_mix_key.weight", False),
        ("enc.blk.0.attn_rel_b.weight", True),
        ("blk.0.ssm_a", True),
    ],
)
@pytest.mark.parametrize("asked", ["INT4_G32", "FP16", "FP32"])
def test_what_llama_quantize_never_quantizes_counts_as_it_comes_in(name: str, kept: bool, asked: str) -> None:
    given = Allocation(
        "m", (layer("x", "Linear", (64, 32), asked), layer("y", "Linear", (64, 32), "INT8_G32"))
    )
    export = TARGET.export(given, Options(names={"x": name, "y": "blk.0.ffn_up.weight"}))
    kind = {"INT4_G32": "q4_0", "FP16": "f16", "FP32": "f32"}[asked]
    lines = [] if kept else [f"^{re.escape(name)}$={kind}"]
    assert document(export).splitlines() == [*lines, r"^blk\.0\.ffn_up\.weight$=q8_0"]
    assert export.avg_bits == (8.5 + (32 if kept else export.layers[0].bits)) / 2
    words = f"llama-quantize never quantizes {name}, which stays f32 as it comes in"
    assert [each.why for each in export.roundings] == [words] * (kept and asked != "FP32")


def test_the_router_and_positions_of_real_architectures() -> None:
    pytest.importorskip("gguf")
    for architecture, names in (
        ("qwen3moe", ("model.layers.0.mlp.gate",)),
        ("bert", ("embeddings.position_embeddings", "embeddings.token_type_embeddings")),
        ("gpt2", ("transformer.wpe",)),
    ):
        layers = tuple(layer(name, "Embedding", (64, 256), "INT4_G32") for name in names)
        # Even where the user allows but one type.
        options = Options(architecture=architecture, formats=("Q8_0",))
        export = TARGET.export(Allocation("m", layers), options)
        assert document(export) == ""
        assert [each.format for each in export.layers] == ["FP32"] * len(names)
        assert all("never quantizes" in each.why for each in export.roundings)
