from __future__ import annotations

import json
import re
from typing import Any

import pytest
from export_cases import document, layer, llama

from evolve.allocations import Allocation
from evolve.exporters import TARGETS, Options

TARGET = TARGETS["gptqmodel"]


def asked(config: dict[str, Any], path: str) -> dict[str, Any] | bool:
    """What GPTQModel and vLLM find for a module: the first rule that matches from its start."""
    for rule, override in config["dynamic"].items():
        if re.match(rule.removeprefix("-:").removeprefix("+:"), path):
            return False if rule.startswith("-:") else {**config, **override}
    return config


def test_rules_of_a_language_model() -> None:
    given = llama(["INT4_G128", "INT8_G32", "INT3_G64", "INT4_ASYM_G128", "FP16"], blocks=12)
    export = TARGET.export(given, Options())
    config = json.loads(document(export))
    for each in export.layers:
        found = asked(config, each.target_name)
        if each.format in ("FP16", "FP32"):
            assert found is False
        else:
            size = int(each.format.partition("_G")[2])
            assert (found["bits"], found["group_size"]) == (int(each.format[3]), size)
            assert found["sym"] == ("ASYM" not in each.format)
    # Layer 1 is not layer 11, and what vLLM fuses is found as well.
    for block in range(12):
        path = f"model.layers.{block}.self_attn"
        assert asked(config, f"{path}.qkv_proj") == asked(config, f"{path}.q_proj")
        path = f"model.layers.{block}.mlp"
        assert asked(config, f"{path}.gate_up_proj") == asked(config, f"{path}.up_proj")


def test_the_base_is_what_most_layers_have() -> None:
    layers = tuple(
        layer(name, "Linear", (64, 128), each)
        for name, each in (("a", "INT4_G64"), ("b", "INT3"), ("c", "INT4_G64"))
    )
    config = json.loads(document(TARGET.export(Allocation("m", layers), Options())))
    assert {name: config[name] for name in ("bits", "group_size", "sym", "desc_act", "lm_head")} == {
        "bits": 4,
        "group_size": 64,
        "sym": True,
        "desc_act": False,
        "lm_head": False,
    }


def test_a_quantized_head_is_said() -> None:
    head = Allocation("m", (layer("lm_head", "Classifier", (64, 128), "INT8_G64"),))
    assert json.loads(document(TARGET.export(head, Options())))["lm_head"] is True


def test_embeddings_and_bare_parameters_are_skipped() -> None:
    layers = (
        layer("emb", "Embedding", (64, 128), "INT8"),
        layer("attn.in_proj_weight", "Attention", (64, 128), "INT8"),
    )
    export = TARGET.export(Allocation("m", layers), Options())
    assert [each.why for each in export.roundings] == [
        "gptqmodel does not quantize layers of type Embedding",
        "gptqmodel cannot quantize this weight of shape 64×128",
    ]
    assert list(json.loads(document(export))["dynamic"].values()) == [{}, {}]


def test_gptqmodel_finds_the_same() -> None:
    pytest.importorskip("gptqmodel", exc_type=ImportError)
    from gptqmodel import QuantizeConfig

    given = llama(["INT4_G128", "INT8_G32", "INT3_G64", "INT5_ASYM_G128", "FP16"], blocks=12)
    export = TARGET.export(given, Options())
    config = QuantizeConfig(**json.loads(document(export)))
    for each in export.layers:
        skipped = each.format in ("FP16", "FP32")
        found = config.dynamic_get(each.target_name)
        assert found is False if skipped else found["bits"] == int(each.format[3])
