"""The search on joint measurements, and the cache that lets it go on after a kill."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from small_networks import pairs, residual_network, trained_mlp

from evolve.allocations import names_of, predict
from evolve.errors import NetworkError
from evolve.networks import TorchNetwork, profile_network
from evolve.networks.joint_measuring import JointMeasurer
from evolve.networks.joint_search import refine
from evolve.networks.measurement_cache import MeasurementCache
from evolve.optimum import minimise_loss

FORMATS = ("INT2_G32", "INT3_G32", "INT4_G32", "INT8", "FP32")


@pytest.fixture(scope="module")
def network() -> TorchNetwork:
    return TorchNetwork(*trained_mlp(), name="digits")


@pytest.fixture(scope="module")
def profile(network):
    return profile_network(network, FORMATS, hessian_probes=0)


@pytest.fixture(scope="module")
def deeper() -> TorchNetwork:
    torch.manual_seed(0)
    return TorchNetwork(residual_network(), pairs(32, 1, 8, 8))


@pytest.fixture(scope="module")
def deeper_profile(deeper):
    return profile_network(deeper, FORMATS, hessian_probes=0)


def best_within(profile, bits: float) -> np.ndarray:
    size = profile.num_params[:, None] * profile.bits_table
    return minimise_loss(size, profile.loss, bits * profile.total_params, profile.tied_layers).allocation


def bits_of(profile, choices) -> float:
    return predict(profile, choices)["avg_bits"]


@pytest.mark.parametrize("bits", [2.6, 3.0, 3.6, 5.0])
@pytest.mark.parametrize("evaluations", [1, 2, 12, 500])
def test_it_is_never_worse_than_its_start_nor_larger(network, profile, bits, evaluations):
    start = best_within(profile, bits)
    measurer = JointMeasurer(network)
    found = refine(profile, start, measurer, evaluations)
    assert found.divergence <= found.start
    assert bits_of(profile, found.choices) <= bits_of(profile, start) * (1 + 1e-9)
    assert found.evaluations <= evaluations
    assert found.evaluations == evaluations or found.exhausted
    assert measurer.measured == found.evaluations
    chosen = (profile.format_names[index] for index in found.choices)
    formats = dict(zip(names_of(profile), chosen, strict=True))
    assert measurer.measure(formats).divergence == found.divergence
    steps = [each.divergence for each in found.improvements]
    assert steps == sorted(steps, reverse=True)
    assert (steps[0], steps[-1]) == (found.start, found.divergence)


def test_it_finds_the_best_of_all_where_there_are_few(network, profile):
    start = np.array([0, 1, 2], dtype=np.uint8)
    measurer = JointMeasurer(network)
    budget = bits_of(profile, start) * (1 + 1e-9)
    every = [
        measurer.measure(dict(zip(names_of(profile), (profile.format_names[at] for at in each), strict=True)))
        for each in itertools.product(range(len(FORMATS)), repeat=3)
        if bits_of(profile, each) <= budget
    ]
    found = refine(profile, start, measurer, 10_000)
    assert found.exhausted
    assert found.divergence <= 1.05 * min(each.divergence for each in every)
    assert found.evaluations <= len(every)


def test_a_bad_start_is_left_at_once(network, profile):
    start = np.array([4, 0, 0], dtype=np.uint8)
    found = refine(profile, start, JointMeasurer(network), 3)
    assert found.divergence < 0.2 * found.start


def test_ties_are_kept(deeper, deeper_profile):
    assert deeper_profile.tied_layers
    found = refine(deeper_profile, best_within(deeper_profile, 3.4), JointMeasurer(deeper), 40)
    for group in deeper_profile.tied_layers:
        assert len(set(found.choices[list(group)])) == 1
    assert found.divergence < found.start


def test_one_format_leaves_nothing_to_search(network):
    profile = profile_network(network, ["INT4"], hessian_probes=0)
    found = refine(profile, np.zeros(3, dtype=np.uint8), JointMeasurer(network), 50)
    assert (found.evaluations, found.exhausted) == (1, True)


@pytest.mark.parametrize("killed_at", [0, 1, 7, 19])
def test_killed_anywhere_it_ends_the_same_and_measures_nothing_twice(
    deeper, deeper_profile, tmp_path, killed_at
):
    network, profile = deeper, deeper_profile
    start, path = best_within(profile, 4.0), tmp_path / "cache.jsonl"
    whole = refine(profile, start, JointMeasurer(network), 25)

    def kill(done: int, total: int, what: str) -> None:
        if done == killed_at:
            raise KeyboardInterrupt

    first = JointMeasurer(network, MeasurementCache(path))
    with pytest.raises(KeyboardInterrupt):
        refine(profile, start, first, 25, kill)
    if path.exists():
        # The kill cut a line off.
        with path.open("ab") as file:
            file.write(b'{"key": "0123')
    second = JointMeasurer(network, MeasurementCache(path))
    again = refine(profile, start, second, 25)
    assert (again.choices == whole.choices).all()
    assert again.improvements == whole.improvements
    assert (first.measured, second.found) == (killed_at, killed_at)
    assert second.measured == 25 - killed_at
    third = JointMeasurer(network, MeasurementCache(path))
    assert refine(profile, start, third, 25).improvements == whole.improvements
    assert (third.measured, third.found) == (0, 25)
    assert "reference" not in vars(third)  # not even the unchanged network was run


def test_the_cache_knows_weights_data_and_formats_apart(network, tmp_path):
    path = tmp_path / "cache.jsonl"
    formats = {layer.name: "INT4" for layer in network.layers}
    JointMeasurer(network, MeasurementCache(path)).measure(formats)
    model, data = trained_mlp()
    other_data = TorchNetwork(model, data[:1])
    with network.replaced({"0": 2 * network.weights("0")}):
        other_weights = JointMeasurer(TorchNetwork(model, data), MeasurementCache(path))
        other_weights.measure(formats)
    assert (other_weights.measured, other_weights.found) == (1, 0)
    for measured, changes in ((other_data, {}), (network, {"4": "INT8"})):
        each = JointMeasurer(measured, MeasurementCache(path))
        each.measure(formats | changes)
        assert (each.measured, each.found) == (1, 0)
    backwards = JointMeasurer(network, MeasurementCache(path))
    backwards.measure(dict(reversed(formats.items())))
    assert (backwards.measured, backwards.found) == (0, 1)
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    assert len(set(keys)) == len(keys) == 4


def test_a_cache_whose_first_line_was_cut_off_goes_on(network, tmp_path):
    path = tmp_path / "cache.jsonl"
    path.write_bytes(b'{"key": "0123')
    formats = {layer.name: "INT4" for layer in network.layers}
    for counts in ((1, 0), (0, 1)):
        measurer = JointMeasurer(network, MeasurementCache(path))
        measurer.measure(formats)
        assert (measurer.measured, measurer.found) == counts
    assert path.read_bytes().startswith(b'{"key": "0123\n{"key"')


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("my notes\nof today\n")
    with pytest.raises(NetworkError, match="--cache FILE"):
        MeasurementCache(tmp_path / "notes.txt")
    with pytest.raises(NetworkError, match="cannot be read"):
        MeasurementCache(tmp_path)
