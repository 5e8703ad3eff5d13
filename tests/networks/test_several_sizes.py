"""Images of several sizes: what can be compared is, and the rest is refused with nothing written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from evolve.errors import NetworkError
from evolve.networks import TorchNetwork, profile_network, reference_of
from evolve.networks.applying import make_allocation, uniform
from evolve.networks.handing_out import judge
from evolve.networks.sources import Networks
from evolve.quantizers import find_quantizer


def filters() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))


def images(labelled: bool = True) -> list[object]:
    generator = torch.Generator().manual_seed(1)
    made = [torch.randn(2, 3, *size, generator=generator) for size in ((8, 8), (8, 12), (6, 4))]
    return [(each, each.mean(1, keepdim=True)) for each in made] if labelled else made


@pytest.mark.parametrize("labelled", [True, False])
def test_a_regression_of_several_sizes_has_one_variance(labelled, tmp_path):
    model = filters()
    network = TorchNetwork(model, images(labelled), None if labelled else "regression")
    assert network.task == "regression"
    profile = profile_network(network, ["INT4", "FP32"], hessian_probes=2, journal=tmp_path / "journal")
    assert ("hessian_trace" in profile.measurements) is labelled
    before = [network.outputs(batch).reshape(2, -1) for batch in range(3)]
    variance = np.concatenate([each.ravel() for each in before]).astype(np.float64).var()
    for at, layer in enumerate(network.layers):
        rounded = find_quantizer("INT4").dequantized(network.weights(layer.name))
        after = [network.outputs(batch, {layer.name: rounded}).reshape(2, -1) for batch in range(3)]
        rows = [((new - old) ** 2).sum(1) / variance / 2 for new, old in zip(after, before, strict=True)]
        assert profile.loss[at, 0] == pytest.approx(np.concatenate(rows).mean(), rel=1e-5)


def test_one_answer_for_all_sizes_is_their_mean():
    reference = reference_of(TorchNetwork(filters(), images()))
    pooled = np.concatenate([each.ravel() for each in reference.outputs]).astype(np.float64)
    expected = ((pooled - pooled.mean()) ** 2).sum() / pooled.var() / 2 / 6
    assert reference.divergence_of_one_answer() == pytest.approx(expected, rel=1e-5)


def test_an_allocation_is_judged_on_several_sizes():
    network = TorchNetwork(filters(), images())
    allocation = make_allocation(network, uniform(network, "INT8"), "a test")
    verdict = judge(Networks(network, None), allocation, None, evaluations=0)
    assert verdict.handed_out.divergence.estimate > 0
    assert not verdict.handed_out.broken


@pytest.mark.parametrize("task", [None, "classification"])
def test_outputs_of_several_widths_are_refused_and_leave_nothing(task, tmp_path):
    network = TorchNetwork(filters(), images(labelled=False), task)
    with pytest.raises(NetworkError, match=r"batch 1: outputs of several widths.*8.*found 12.*regression"):
        profile_network(network, ["INT4"], journal=tmp_path / "journal")
    assert list(tmp_path.iterdir()) == []


def test_what_fails_before_the_first_measurement_leaves_nothing(tmp_path):
    network = TorchNetwork(nn.Linear(3, 2), [torch.randn(4, 3)])
    with pytest.raises(ValueError, match="negative"):
        profile_network(network, ["INT4"], seed=-1, journal=tmp_path / "journal")
    assert list(tmp_path.iterdir()) == []
