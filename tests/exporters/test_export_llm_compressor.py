from __future__ import annotations

import warnings

import pytest
from export_cases import FORMATS as OURS
from export_cases import document, layer, llama

from evolve.allocations import Allocation
from evolve.exporters import TARGETS, Options

yaml = pytest.importorskip("yaml")

TARGET = TARGETS["llm-compressor"]


def modifier(text: str) -> dict:
    return yaml.safe_load(text)["quant_stage"]["quant_modifiers"]["QuantizationModifier"]


def test_the_recipe() -> None:
    layers = (
        layer("a", "Linear", (64, 128), "INT4_G64"),
        layer("b", "Linear", (64, 128), "INT4_G64_MSE"),
        layer("c", "Linear", (64, 128), "FP16"),
    )
    export = TARGET.export(Allocation("m", layers), Options())
    weights = {
        "num_bits": 4,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": 64,
        "dynamic": False,
    }
    assert modifier(document(export)) == {
        "ignore": ["c"],
        "config_groups": {
            "group_0": {"targets": ["a"], "weights": weights, "format": "pack-quantized"},
            "group_1": {
                "targets": ["b"],
                "weights": weights | {"observer": "memoryless_mse"},
                "format": "pack-quantized",
            },
        },
    }
    # It clips as it was asked to.
    assert not export.roundings
    other = TARGETS["compressed-tensors"].export(Allocation("m", layers), Options())
    assert other.roundings[0].why == "compressed-tensors chooses itself how to clip"


def test_groups_are_valid_by_compressed_tensors() -> None:
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.quantization import QuantizationScheme

    for group in modifier(document(TARGET.export(llama(OURS, blocks=40), Options())))[
        "config_groups"
    ].values():
        QuantizationScheme.model_validate(group)


def test_llm_compressor_reads_and_applies_it() -> None:
    warnings.simplefilter("ignore")
    pytest.importorskip("llmcompressor", exc_type=ImportError)
    pytest.importorskip("sklearn")
    from digits_networks import loss, mlp_allocation, our_loss, trained_mlp
    from llm_compressor import quantized
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.recipe import Recipe

    export = TARGET.export(mlp_allocation("INT8_ASYM", "INT4_ASYM_G32", "INT8_ASYM_MSE"), Options())
    found = Recipe.create_instance(document(export)).modifiers
    assert [type(each) for each in found] == [QuantizationModifier]
    before, ours = loss(trained_mlp()), our_loss(trained_mlp(), export)
    theirs = loss(quantized(trained_mlp(), document(export)))
    # What the formats do can be seen, and is the same but for the bits of scales.
    assert abs(ours - before) > 2e-4
    assert theirs == pytest.approx(ours, abs=0.5 * abs(ours - before))
