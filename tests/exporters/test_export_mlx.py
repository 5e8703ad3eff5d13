from __future__ import annotations

import json

import pytest
from export_cases import document, layer, llama

from evolve.allocations import Allocation
from evolve.exporters import TARGETS, Options

TARGET = TARGETS["mlx"]


def test_quantization_of_a_language_model() -> None:
    export = TARGET.export(llama(["INT4_ASYM_G64", "INT8_ASYM_G32", "MXFP4", "NVFP4", "FP16"]), Options())
    quantization = json.loads(document(export))["quantization"]
    assert list(quantization)[:3] == ["group_size", "bits", "mode"]
    assert quantization["model.embed_tokens"] == {"group_size": 64, "bits": 4, "mode": "affine"}
    assert quantization["model.layers.0.self_attn.k_proj"] == {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    assert quantization["model.norm"] is False
    assert set(quantization) == {"group_size", "bits", "mode", *(each.layer for each in export.layers)}


def test_offsets_are_counted() -> None:
    one = Allocation("m", (layer("a", "Linear", (64, 128), "INT4_ASYM_G64"),))
    export = TARGET.export(one, Options())
    # 16 bits for the scale of 64 weights and 16 for their offset.
    assert export.avg_bits == 4.5
    assert not export.roundings


def test_rows_that_are_no_groups() -> None:
    one = Allocation("m", (layer("a", "Linear", (64, 40), "INT4_G32"),))
    rounding = TARGET.export(one, Options()).roundings[0]
    assert (rounding.written, rounding.why) == ("FP16", "mlx cannot quantize this weight of shape 64×40")


@pytest.mark.parametrize(
    ("formats", "tolerance"),
    [
        (("INT8_ASYM_G64", "INT8_ASYM_G32", "INT8_ASYM_G64"), 5e-3),
        (("INT4_ASYM_G32", "INT5_ASYM_G32", "INT6_ASYM_G32"), 0.15),
        (("MXFP4", "INT8_ASYM_G32", "INT8_ASYM_G64"), 0.15),
    ],
)
def test_a_network_loses_what_we_say(formats: tuple[str, ...], tolerance: float) -> None:
    mx = pytest.importorskip("mlx.core", exc_type=ImportError)
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    import numpy as np
    import torch
    from digits_networks import loss, mlp_allocation, our_loss, trained_mlp
    from mlx import nn

    export = TARGET.export(mlp_allocation(*formats), Options())
    assert tuple(each.format for each in export.layers if each.layer != "4") == formats
    quantization = json.loads(document(export))["quantization"]
    model = trained_mlp()
    # The same modules by the same paths, as mlx_lm quantizes them when it loads a model.
    layers = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU(), nn.LayerNorm(64))
    layers.layers.append(nn.Linear(64, 10))
    for path in ("0", "2", "5"):
        layers.layers[int(path)].weight = mx.array(model[int(path)].weight.numpy())
    nn.quantize(
        layers, 64, 4, class_predicate=lambda path, _: quantization.get(path.removeprefix("layers."), False)
    )
    for path in ("0", "2", "5"):
        each, settings = layers.layers[int(path)], quantization[path]
        biases = each.get("biases")
        back = mx.dequantize(each.weight, each.scales, biases, **settings)
        model[int(path)].weight.data = torch.from_numpy(np.array(back.astype(mx.float32)))
    expected = our_loss(trained_mlp(), export)
    assert loss(model) == pytest.approx(expected, abs=tolerance * loss(trained_mlp()))
