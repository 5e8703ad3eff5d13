from __future__ import annotations

import re
import sys

import pytest
from export_cases import FORMATS as OURS
from export_cases import document, layer, llama

from evolve.allocations import Allocation
from evolve.errors import InputError
from evolve.exporters import TARGETS, Options
from evolve.exporters.llama_cpp import storages

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


def test_experts_are_one_tensor() -> None:
    pytest.importorskip("gguf")
    layers = tuple(
        layer(f"model.layers.0.block_sparse_moe.experts.{at}.w1", "Linear", (64, 256), name)
        for at, name in enumerate(["INT4_G32", "INT6"])
    )
    export = TARGET.export(Allocation("m", layers), LLAMA)
    assert document(export) == "^blk\\.0\\.ffn_gate_exps\\.weight$=q6_k\n"


def test_names_given() -> None:
    one = Allocation("m", (layer("fc", "Linear", (8, 32), "INT8_G32"),))
    export = TARGET.export(one, Options(names={"fc": "v.patch.weight"}))
    assert document(export) == "^v\\.patch\\.weight$=q8_0\n"
    gguf_named = Allocation("m", (layer("blk.3.ffn_up", "Linear", (8, 32), "INT8_G32"),))
    assert document(TARGET.export(gguf_named, Options())) == "^blk\\.3\\.ffn_up\\.weight$=q8_0\n"


def test_a_name_that_is_none() -> None:
    one = Allocation("m", (layer("fc", "Linear", (8, 32), "INT8_G32"),))
    with pytest.raises(InputError, match=r"no name in GGUF.*'fc'. Give --architecture"):
        TARGET.export(one, Options())
    pytest.importorskip("gguf")
    with pytest.raises(InputError, match=r"no name in GGUF.*'fc'. Give its name in --network-names"):
        TARGET.export(one, LLAMA)
    with pytest.raises(InputError, match=r"unknown architecture, found 'lama'. Did you mean 'llama'"):
        TARGET.export(one, Options(architecture="lama"))


def test_without_gguf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError, match=r"extra 'gguf'.*pip install 'evolve-precision\[gguf\]'"):
        TARGET.export(llama(), LLAMA)
