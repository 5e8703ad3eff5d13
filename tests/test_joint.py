"""Jointly measured allocations: read strictly, tied to their profile, found beside a data set."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from evolve.datasets import Dataset, find_dataset
from evolve.errors import ProfileError
from evolve.joint import (
    FOLDER,
    JointMeasurements,
    joint_of,
    joint_to_json,
    load_joint,
    parse_joint,
    save_joint,
)
from evolve.profile_files import save_profile
from evolve.synthetic import generate

PROFILE, OTHER = generate(2, seed=3, families=["mobilenet"])


def measurements(**changes):
    """Three allocations of the profile with made-up results."""
    L = PROFILE.num_layers
    allocations = np.array([[0] * L, [1] * L, [2] + [1] * (L - 1)])
    size = PROFILE.cost_table("size")[np.arange(L), allocations].sum(axis=1)
    given = {
        "model": PROFILE.name,
        "profile_sha256": PROFILE.content_hash,
        "formats": PROFILE.format_names,
        "allocations": allocations,
        "sources": ("uniform", "uniform", "random 3.5"),
        "average_bits": size / PROFILE.total_params,
        "divergence": [0.5, 0.25, 1 / 3],
        "calibration_divergence": [0.4, 0.2, 0.0],
        "loss": [2.0, 1.5, 1.25],
        "accuracy": [0.0, 0.5, 1.0],
        "provenance": {"samples": 10},
    }
    return JointMeasurements(**(given | changes))


def equal(first, second):
    return joint_to_json(first) == joint_to_json(second)


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_written_and_read_again_they_are_the_same_bit_by_bit(tmp_path, name):
    save_joint(measurements(), tmp_path / name)
    before = (tmp_path / name).read_bytes()
    found = load_joint(tmp_path / name)
    assert equal(found, measurements())
    assert (found.allocations.dtype, found.allocations.shape) == (np.uint8, (3, PROFILE.num_layers))
    save_joint(found, tmp_path / name)
    assert (tmp_path / name).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(ProfileError, match="cannot be written"):
        save_joint(measurements(), tmp_path / "none" / "a.json")
    assert not list(tmp_path.iterdir())


def test_nothing_in_them_can_be_changed():
    found = measurements()
    with pytest.raises(ValueError, match="read-only"):
        found.allocations[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        found.divergence[0] = 1


def test_the_prediction_is_the_sum_of_what_each_layer_does_alone():
    found = measurements()
    expected = [
        sum(PROFILE.loss[layer, choice] for layer, choice in enumerate(row)) for row in found.allocations
    ]
    assert found.predicted(PROFILE) == pytest.approx(expected, rel=1e-12)
    assert len(found) == 3


def test_another_profile_is_refused():
    with pytest.raises(ProfileError, match=r"profile_sha256: measurements of another profile"):
        measurements().predicted(OTHER)
    fewer = measurements(allocations=np.zeros((3, 2), int))
    with pytest.raises(ProfileError, match=r"allocations: wrong shape; expected \(L, K\) ="):
        fewer.predicted(PROFILE)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"allocations": np.zeros((0, 3), int)}, r"allocations: wrong shape; expected .*\(J, L\)"),
        ({"allocations": np.zeros((3, 4))}, r"allocations: wrong shape.*float64"),
        ({"allocations": np.full((3, 4), 9)}, r"allocation 0, allocations: out of bounds.*found 9"),
        ({"allocations": np.full((3, 4), -1)}, r"allocations: out of bounds.*found -1"),
        ({"sources": ("a",)}, r"sources: wrong shape; expected \(J,\) = \(3,\), found \(1,\)"),
        ({"divergence": [0.5]}, r"divergence: wrong shape; expected \(J,\) = \(3,\), found \(1,\)"),
        ({"divergence": [0.5, -1, 0]}, r"allocation 1, divergence: out of bounds.*found -1"),
        ({"divergence": [0.5, np.nan, 0]}, r"allocation 1, divergence: out of bounds.*found nan"),
        ({"loss": [0.5, 0, np.inf]}, r"allocation 2, loss: out of bounds.*found inf"),
        ({"accuracy": [0.5, 0, 1.5]}, r"allocation 2, accuracy: out of bounds.*found 1.5"),
        ({"average_bits": [0.5, 0, 4]}, r"allocation 1, average_bits: out of bounds.*found 0"),
    ],
)
def test_what_is_wrong_is_named(changes, said):
    with pytest.raises(ProfileError, match=said):
        measurements(**changes)


def without(name):
    return {key: value for key, value in joint_to_json(measurements()).items() if key != name}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "not an object"),
        (without("divergence"), "divergence: missing field"),
        (without("model") | {"modell": "x"}, r"modell: unknown field\. Did you mean 'model'"),
        (without("divergence") | {"divergence": [0.5, "a", 0]}, r"allocation 1, divergence: wrong type"),
        (without("divergence") | {"divergence": [0.5, True, 0]}, r"allocation 1, divergence: wrong type"),
        (without("allocations") | {"allocations": []}, "allocations: wrong shape"),
        (without("allocations") | {"allocations": [[0, 1], [0]]}, r"allocation 1, allocations: wrong shape"),
        (without("allocations") | {"allocations": [[0, 1], 3]}, r"allocation 1, allocations: wrong shape"),
        (without("allocations") | {"allocations": [[0, 1.5]]}, r"allocation 0, allocations: wrong type"),
        (without("allocations") | {"allocations": [[0, 256]]}, r"allocation 0, allocations: out of bounds"),
        (without("sources") | {"sources": [1, 2, 3]}, r"sources\[0\]: wrong type"),
        (without("formats") | {"formats": "INT4"}, "formats: wrong type"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_the_file(tmp_path, data, said):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ProfileError, match=said) as caught:
        load_joint(path)
    assert str(path) in str(caught.value)


def test_provenance_may_be_left_out():
    assert parse_joint(without("provenance")).provenance == {}


def test_they_are_found_beside_the_profiles(tmp_path):
    (tmp_path / "train").mkdir()
    save_profile(PROFILE, tmp_path / "train" / "a.json")
    with pytest.raises(ProfileError, match="no joint measurements; expected a folder 'joint'"):
        joint_of(find_dataset(tmp_path))
    with pytest.raises(ProfileError, match="mine: no joint measurements"):
        joint_of(Dataset("mine", (PROFILE,), (), ()))
    (tmp_path / FOLDER).mkdir()
    save_joint(measurements(), tmp_path / FOLDER / "a.json.gz")
    found = joint_of(find_dataset(tmp_path))
    assert list(found) == [PROFILE.name]
    assert equal(found[PROFILE.name], measurements())


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"model": "stranger"}, "model: unknown model"), ({"profile_sha256": "0"}, "of another profile")],
)
def test_those_of_no_profile_are_refused(tmp_path, changes, said):
    (tmp_path / "train").mkdir()
    (tmp_path / FOLDER).mkdir()
    save_profile(PROFILE, tmp_path / "train" / "a.json")
    save_joint(replace(measurements(), **changes), tmp_path / FOLDER / "a.json")
    with pytest.raises(ProfileError, match=said) as caught:
        joint_of(find_dataset(tmp_path))
    assert "a.json" in str(caught.value)
