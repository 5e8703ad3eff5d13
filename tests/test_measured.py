"""The measured networks that ship: split by family, each with allocations that were measured jointly."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from evolve.cli import main
from evolve.datasets import find_dataset
from evolve.joint import additive_range, joint_of

DATASET = find_dataset("measured")
JOINT = joint_of(DATASET)
NETWORKS = [pytest.param(split, profile, id=profile.name) for split, profile in DATASET.splits()]


def family(profile):
    return profile.provenance["trained"]["family"]


def test_there_are_many_networks_of_many_families():
    families = Counter(family(profile) for _, profile in DATASET.splits())
    assert sum(families.values()) >= 30
    assert len(families) >= 9
    assert min(families.values()) >= 3


def test_no_family_is_in_two_splits():
    splits = {name: {family(each) for each in DATASET.split(name)} for name in ("train", "valid", "test")}
    assert all(splits.values())
    assert sum(map(len, splits.values())) == len(set().union(*splits.values()))


def test_all_were_measured_in_the_same_formats():
    assert len({frozenset(profile.format_names) for _, profile in DATASET.splits()}) == 1


def test_they_are_small_enough_to_ship():
    folder = Path(DATASET.source)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 3e6
    assert sum(path.stat().st_size for path in (folder.parent / "networks").rglob("*.*")) < 1.5e6


@pytest.mark.parametrize(("split", "profile"), NETWORKS)
def test_every_network_has_joint_measurements(split, profile):
    joint = JOINT[profile.name]
    assert joint.allocations.shape == (len(joint), profile.num_layers)
    assert len(joint) >= 100
    assert len(np.unique(joint.allocations, axis=0)) == len(joint)
    assert joint.provenance["data_sha256"] != profile.provenance["data_sha256"]
    assert joint.provenance["weights_sha256"] == profile.provenance["weights_sha256"]
    rows = np.arange(profile.num_layers)
    size = profile.cost_table("size")[rows, joint.allocations].sum(axis=1)
    assert joint.average_bits == pytest.approx(size / profile.total_params, rel=1e-12)
    assert len(profile.layer_shapes) == profile.num_layers
    for group in profile.tied_layers:
        assert (np.ptp(joint.allocations[:, group], axis=1) == 0).all()


@pytest.mark.parametrize(("split", "profile"), NETWORKS)
def test_uniform_random_and_searched_allocations_are_among_them(split, profile):
    joint = JOINT[profile.name]
    sources = [each for text in joint.sources for each in text.split("; ")]
    assert {f"uniform {name}" for name in profile.format_names} <= set(sources)
    words = Counter(each.split()[0] for each in sources)
    assert words["random"] >= 30
    assert min(words["kl"], words["fisher"]) >= 4
    at = joint.sources.index("uniform FP32")
    assert joint.divergence[at] == joint.calibration_divergence[at] == 0


def test_small_sums_predict_what_is_measured():
    ratios = [
        np.median(joint.calibration_divergence[small] / predicted[small])
        for profile in (each for _, each in DATASET.splits())
        for joint in [JOINT[profile.name]]
        for predicted in [joint.predicted(profile)]
        for small in [(predicted > 1e-3) & (predicted < 0.1)]
        if small.sum() > 5
    ]
    assert np.median(ratios) == pytest.approx(1.2, abs=0.3)


def test_the_range_in_which_sums_are_trusted_is_what_was_measured():
    ratios: dict[tuple[float, str], list[float]] = {}
    for _, profile in DATASET.splits():
        joint = JOINT[profile.name]
        predicted = joint.predicted(profile)
        end = additive_range(profile.layer_type)
        for place, low, high in (("within", end / 10, end), ("beyond", end, 10 * end)):
            there = (predicted >= low) & (predicted < high)
            found = (joint.calibration_divergence[there] / predicted[there]).tolist()
            ratios.setdefault((end, place), []).extend(found)
            if family(profile) == "resnet":
                ratios.setdefault((end, f"resnet {place}"), []).extend(found)
    assert {end for end, _ in ratios} == {0.01, 0.1}
    medians = {key: float(np.median(found)) for key, found in ratios.items()}
    assert medians[0.01, "within"] < 1.25
    assert medians[0.1, "within"] < 1.15
    assert 1.3 < medians[0.01, "resnet within"] < 1.8
    assert medians[0.01, "resnet beyond"] > 2.5
    high = {key: float(np.quantile(found, 0.9)) for key, found in ratios.items()}
    assert high[0.01, "within"] < 2.25 < 3 < high[0.01, "beyond"]


def test_only_networks_that_are_mostly_convolutions_leave_it_early():
    assert additive_range(["Conv", "LayerNorm", "Conv", "Classifier"]) == 0.01
    assert additive_range(["Conv"] * 3 + ["Classifier"]) == 0.01
    assert additive_range(["Conv", "LayerNorm", "Attention", "Linear"]) == 0.1
    assert additive_range(["Linear", "Classifier"]) == 0.1


def test_rules_are_scored_on_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["evolve", "evaluate", "uniform_fp16", "uniform_int4", "--datasets", "measured", "--json"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as leaving:
        main()
    assert not leaving.value.code
    results = json.loads(capsys.readouterr().out)
    scored = Counter(each["heuristic"] for each in results)
    assert scored == dict.fromkeys(("uniform_fp16", "uniform_int4"), len(NETWORKS))
