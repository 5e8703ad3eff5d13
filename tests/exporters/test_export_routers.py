"""Which layers are taken for the routers of a mixture, and which targets leave them alone."""

from __future__ import annotations

import pytest
from export_cases import READERS, document, layer, names_for

from evolve.allocations import Allocation
from evolve.exporters import TARGETS, Options
from evolve.exporters.experts import find_routers
from evolve.exporters.storage import PLAIN


def allocation(*names: str) -> Allocation:
    return Allocation("m", tuple(layer(name, "Linear", (64, 128), "INT8") for name in names))


@pytest.mark.parametrize(
    ("router", "expert"),
    [
        ("model.layers.0.mlp.gate", "model.layers.0.mlp.experts.gate_up_proj"),
        ("model.layers.3.block_sparse_moe.gate", "model.layers.3.block_sparse_moe.experts.0.w1"),
        ("gate", "experts.5"),
        ("model.layers.0.mlp.gate.wg", "model.layers.0.mlp.experts.0.up_proj"),
        ("model.layers.0.feed_forward.router", "model.layers.0.feed_forward.shared_expert.up_proj"),
        ("encoder.block.1.layer.1.mlp.router.classifier", "encoder.block.1.layer.1.mlp.experts.expert_0.wi"),
        ("model.layers.0.mlp.shared_expert_gate", "model.layers.0.mlp.shared_expert.up_proj"),
    ],
)
def test_routers_by_their_names(router: str, expert: str) -> None:
    assert list(find_routers(allocation(expert, router))) == [router]


@pytest.mark.parametrize(
    "names",
    [
        ("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.experts.0.gate_proj"),
        ("blocks.0.gate", "blocks.0.up"),  # of a gated layer
        ("model.layers.0.attn.gate", "model.layers.0.mlp.experts.0.up_proj"),
        ("model.layers.0.mlp.gate", "model.layers.1.mlp.experts.0.up_proj"),  # of another block
        ("router.layers.0.mlp", "router.head.up.a"),  # a whole network of that name
    ],
)
def test_others(names: tuple[str, ...]) -> None:
    assert not find_routers(allocation(*names))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("formats", [(), ("INT8", "INT8_ASYM_G64", "Q8_0")])
def test_who_leaves_them_alone(target: str, formats: tuple[str, ...]) -> None:
    given = allocation("mlp.experts.0.up_proj", "mlp.gate")
    export = TARGETS[target].export(given, Options(names=names_for(target, given), formats=formats))
    expert, router = export.layers
    assert expert.format not in PLAIN
    alone = target in ("compressed-tensors", "llm-compressor", "modelopt", "gptqmodel")
    assert (router.format in PLAIN) == alone
    found = READERS[target](document(export), router.target_name, "Linear")
    assert (found == [None]) == alone
    reasons = [each.why for each in export.roundings if each.layer == "mlp.gate"]
    assert reasons == ["engines keep the routers of a mixture unquantized"] or not alone
