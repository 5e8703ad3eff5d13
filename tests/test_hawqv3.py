"""The published ResNet-18: its shipped profile leads to the three proven allocations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evolve.datasets import find_dataset
from evolve.optimum import minimise_loss

PUBLISHED = json.loads((Path(__file__).parent / "data" / "hawqv3_resnet18.json").read_text())
#: What the publication calls a budget, its unit in ours, and our cost.
BUDGETS = {"model_size": (8e6, "size"), "bops": (1, "bit_operations"), "latency": (1, "latency_ms")}


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_proven_allocations_are_found(budget):
    profile = find_dataset("hawqv3").train[0]
    unit, cost = BUDGETS[budget]
    proven = PUBLISHED["optimal"][budget]
    found = minimise_loss(
        profile.cost_table(cost) / unit, profile.loss, proven["limit"], tied_layers=profile.tied_layers
    )
    assert [int(profile.bits[choice]) for choice in found.allocation] == proven["bits"]
    assert found.bound == found.loss == pytest.approx(proven["loss"], rel=1e-9)
    assert found.cost == pytest.approx(proven["cost"], rel=1e-9)
    assert profile.provenance["optimal"][budget]["formats"] == [f"INT{bits}" for bits in proven["bits"]]


def test_it_serves_a_search():
    dataset = find_dataset("hawqv3")
    assert dataset.single_file
    assert dataset.train[0].tied_layers == ((4, 6), (9, 11), (14, 16))
