"""What an allocation measures, beside what was predicted and beside the best uniform format."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from small_networks import LanguageModel, digits, tokens, trained_mlp
from torch import nn

from evolve.allocations import allocation_of, names_of, predict
from evolve.errors import NetworkError, ProfileError
from evolve.networks import TorchNetwork, measure_weights, profile_network, reference_of
from evolve.networks.applying import QuantizedWeights, make_allocation, size_bits, uniform
from evolve.networks.checking import check_allocations
from evolve.networks.handing_out import GIVEN, REFINED, judge
from evolve.networks.joint_measuring import JointMeasurer
from evolve.networks.sources import Networks
from evolve.optimum import minimise_loss

FORMATS = ("INT2_G32", "INT3_G32", "INT4_G32", "INT4", "INT8", "FP16")


@cache
def convolutional() -> TorchNetwork:
    torch.manual_seed(0)
    images, labels = digits()
    images = images.reshape(-1, 1, 8, 8)
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(60):
        chosen = slice(step % 10 * 140, (step % 10 + 1) * 140)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    return TorchNetwork(model, [(images[1400:1600], labels[1400:1600])], name="convolutional")


@cache
def both(kind: str) -> Networks:
    """A trained network on calibration and on held-out digits."""
    if kind == "mlp":
        model, data = trained_mlp()
        network = TorchNetwork(model, data[:1], name="mlp")
        return Networks(network, network.on(data[1:]))
    network = convolutional()
    images, labels = digits()
    return Networks(network, network.on([(images[1600:].reshape(-1, 1, 8, 8), labels[1600:])]))


@cache
def profile_of(kind: str):
    return profile_network(both(kind).calibration, FORMATS, hessian_probes=0)


def best_within(profile, bits: float):
    size = profile.num_params[:, None] * profile.bits_table
    found = minimise_loss(size, profile.loss, bits * profile.total_params, profile.tied_layers)
    return allocation_of(profile, found.allocation, "a test")


@pytest.mark.parametrize("kind", ["mlp", "convolutional"])
def test_small_losses_add_up(kind):
    network, profile = both(kind).calibration, profile_of(kind)
    assert reference_of(network).unchanged.accuracy > 0.85
    measurer, rng, ratios = JointMeasurer(network), np.random.default_rng(0), []
    while len(ratios) < 80:
        choices = rng.integers(0, len(FORMATS), profile.num_layers)
        expected = predict(profile, choices)["loss"]
        if 1e-5 < expected < 0.1:
            formats = (profile.format_names[at] for at in choices)
            found = measurer.measure(dict(zip(names_of(profile), formats, strict=True)))
            ratios.append(found.divergence / expected)
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    assert 0.9 < middle < 1.1
    assert 0.75 < low < high < 1.3


@pytest.mark.parametrize("kind", ["mlp", "convolutional"])
def test_the_means_are_those_of_the_whole_network(kind):
    network = both(kind).held_out
    formats = uniform(network, "INT4")
    check = check_allocations(JointMeasurer(network), {"one": formats}, ["INT4"], {"one": 0.5})
    (found,) = check.allocations
    expected = measure_weights(network, reference_of(network), QuantizedWeights(network).all(formats))
    for name in ("divergence", "loss", "accuracy"):
        interval = getattr(found, name)
        assert interval.estimate == pytest.approx(getattr(expected, name))
        assert interval.low <= interval.estimate <= interval.high
    assert found.perplexity is None
    assert found.predicted == 0.5
    assert found.size_bytes == size_bits(network, formats) / 8
    assert (check.unit, check.num_units) == ("samples", network.provenance["samples"])
    assert check.unchanged.divergence.estimate == 0
    # The uniform format is the allocation itself.
    assert check.excesses[0].estimate == 0
    assert check.handed_out is found


@pytest.mark.parametrize("types", [("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "float64")])
def test_unchanged_weights_take_what_they_are_stored_in(types):
    class Mixed(nn.Sequential):
        def forward(self, x):
            for layer in self:
                x = layer(x.to(layer.weight.dtype))
            return x.float()

    layers = [
        nn.Linear(*shape).to(getattr(torch, each))
        for shape, each in zip(((4, 6), (6, 2)), types, strict=True)
    ]
    network = TorchNetwork(Mixed(*layers), [torch.randn(12, 4)])
    check = check_allocations(JointMeasurer(network), {"one": uniform(network, "INT8")}, [])
    sizes = [{"float64": 64, "float32": 32}.get(each, 16) for each in types]
    assert check.unchanged.avg_bits == (24 * sizes[0] + 12 * sizes[1]) / 36
    assert check.unchanged.size_bytes == (24 * sizes[0] + 12 * sizes[1]) / 8


def test_tokens_of_one_sequence_stay_together():
    torch.manual_seed(0)
    for sizes, unit, number in (((6, 6), "samples", 12), ((3,), "tokens", 30)):
        network = TorchNetwork(LanguageModel(), tokens(*sizes))
        check = check_allocations(JointMeasurer(network), {"one": uniform(network, "INT3")}, ["INT2"])
        assert (check.unit, check.num_units) == (unit, number)
        (found,) = check.allocations
        expected = JointMeasurer(network).measure(uniform(network, "INT3"))
        assert found.perplexity.estimate == pytest.approx(expected.perplexity)
        assert found.loss.estimate == pytest.approx(expected.loss)
        assert check.uniform.label == "INT2 everywhere"


def test_padding_does_not_count():
    torch.manual_seed(0)
    ids, mask = tokens(12)[0], torch.ones(12, 10, dtype=torch.long)
    mask[:, 7:] = 0

    class Masked(LanguageModel):
        def forward(self, input_ids, attention_mask):
            return super().forward(input_ids * attention_mask)

    network = TorchNetwork(Masked(), [{"input_ids": ids, "attention_mask": mask}])
    sums = JointMeasurer(network).sums(uniform(network, "INT4"))
    assert sums.divergence[:, 1].tolist() == [7] * 12
    assert sums.loss[:, 1].max() <= 7


def test_many_samples_have_an_interval_too():
    torch.manual_seed(0)
    network = TorchNetwork(
        nn.Sequential(nn.Linear(4, 3)), [(torch.randn(3000, 4), torch.randint(0, 3, (3000,)))]
    )
    check = check_allocations(JointMeasurer(network), {"one": uniform(network, "INT3")}, [])
    (found,) = check.allocations
    assert check.num_units == 3000
    rows = reference_of(network).rows(0, network.outputs(0, QuantizedWeights(network).all(found.formats)))
    error = rows.divergence.std() / np.sqrt(3000)
    width = found.divergence.high - found.divergence.low
    assert width == pytest.approx(2 * 1.96 * error, rel=0.15)


@pytest.mark.parametrize("kind", ["mlp", "convolutional"])
def test_a_bad_allocation_is_never_handed_out(kind):
    networks, profile = both(kind), profile_of(kind)
    network = networks.held_out
    worst = int(profile.loss[:, 0].argmax())
    formats = uniform(network, "FP16") | {names_of(profile)[worst]: "INT2_G32"}
    given = make_allocation(network, formats, "a mistake")
    verdict = judge(networks, given, profile)
    assert verdict.is_uniform
    best = verdict.check.uniform
    assert verdict.check.excesses[0].estimate > 0
    assert best.size_bytes <= given.size_bytes
    # It is the best of all uniform ones that are no larger.
    measurer = JointMeasurer(network)
    fitting = [each for each in FORMATS if size_bits(network, uniform(network, each)) <= given.size_bits]
    least = min(measurer.measure(uniform(network, each)).divergence for each in fitting)
    assert best.divergence.estimate == pytest.approx(least)
    assert set(verdict.allocation.formats) == {best.label.removesuffix(" everywhere")}
    assert verdict.allocation.layers[0].shape == network.layers[0].shape
    assert "is handed out" in verdict.notes[-1]
    assert f"{best.label}, in place of a mistake" in verdict.allocation.source


@pytest.mark.parametrize("kind", ["mlp", "convolutional"])
def test_what_is_handed_out_is_no_worse_than_uniform(kind):
    networks, profile = both(kind), profile_of(kind)
    for bits in (2.6, 3.6, 4.6):
        given = best_within(profile, bits)
        verdict = judge(networks, given, profile, evaluations=30)
        check = verdict.check
        labels = [each.label for each in check.allocations]
        assert labels == [GIVEN, REFINED][: 1 + (verdict.refinement.divergence < verdict.refinement.start)]
        assert verdict.on_calibration[labels[-1]] == pytest.approx(verdict.refinement.divergence)
        assert verdict.handed_out.divergence.estimate <= check.uniform.divergence.estimate
        assert verdict.allocation.size_bits <= given.size_bits * (1 + 1e-9)
        assert verdict.refinement.divergence <= verdict.refinement.start
        expected = predict(profile, [profile.format_names.index(each) for each in given.formats])["loss"]
        assert check.allocations[0].predicted == pytest.approx(expected)
        words = [each for each in verdict.notes if "add up" in each]
        range_end = {"mlp": 0.1, "convolutional": 0.01}[kind]
        assert bool(words) == (max(expected, verdict.refinement.start) > range_end)
        assert all(("in a convolutional network" in each) == (kind == "convolutional") for each in words)


def test_a_search_begins_by_itself_only_where_adding_up_fails():
    networks, profile = both("mlp"), profile_of("mlp")
    for bits, searched in ((2.6, True), (5, False)):
        verdict = judge(networks, best_within(profile, bits), profile, evaluations=None)
        assert (verdict.refinement is not None) == searched
    silent = judge(Networks(networks.calibration, None), best_within(profile, 2.6), profile, evaluations=None)
    assert silent.refinement is None
    assert any("--search" in each for each in silent.notes)
    assert any("no held-out data" in each for each in silent.notes)


def test_a_profile_of_something_else_is_noticed():
    networks, profile = both("mlp"), profile_of("mlp")
    given = best_within(profile, 4)
    other = replace(profile, provenance={**profile.provenance, "weights_sha256": "0"})
    assert any("other weights" in each for each in judge(networks, given, other).notes)
    same = Networks(None, networks.calibration)
    assert any("the very data" in each for each in judge(same, given, profile).notes)
    assert judge(networks, given, profile).notes == ()
    with pytest.raises(ProfileError, match="another network than the allocation"):
        judge(networks, given, profile_of("convolutional"))
    with pytest.raises(ProfileError, match="no such format"):
        judge(networks, given, profile_network(networks.calibration, ["INT2", "INT5"], hessian_probes=0))
    with pytest.raises(ProfileError, match="breaks a tie"):
        judge(networks, best_within(profile, 3.3), replace(profile, tied_layers=((0, 1, 2),)))


def test_a_search_without_what_it_needs_is_refused():
    networks, profile = both("mlp"), profile_of("mlp")
    given = best_within(profile, 4)
    with pytest.raises(NetworkError, match=r"--profile PROFILE\.json"):
        judge(networks, given, None, evaluations=5)
    for halves in (Networks(networks.calibration, None), Networks(None, networks.held_out)):
        with pytest.raises(NetworkError, match="held-out loader"):
            judge(halves, given, profile, evaluations=5)


def test_nothing_is_there_to_compare_with_below_the_smallest_format():
    networks = both("mlp")
    verdict = judge(networks, make_allocation(networks.held_out, uniform(networks.held_out, "BINARY"), ""))
    # Without a profile, uniform ones are of the usual formats and of the allocation's own.
    assert verdict.check.uniform.label == "BINARY everywhere"
    profile = profile_of("mlp")
    mixed = uniform(networks.held_out, "INT2_G32") | {"4": "INT8"}
    smaller = judge(networks, make_allocation(networks.held_out, mixed, ""), profile)
    assert smaller.check.uniform.label == "INT2_G32 everywhere"
    alone = check_allocations(JointMeasurer(networks.held_out), {"one": mixed}, ["FP16"])
    assert (alone.uniform, alone.excesses) == (None, None)
    assert alone.handed_out is alone.allocations[0]
