"""What a profile may hold beside the published form: names, ties, bits by layer, costs, measurements."""

from __future__ import annotations

import dataclasses
import gzip
import json
import pickle

import numpy as np
import pytest
from profile_texts import SMALL, message_of, small, with_layer

from evolve.datasets import find_dataset
from evolve.errors import ProfileError
from evolve.profile_files import load_profile, parse_profile, profile_to_json, save_profile


def rich(**changes):
    """Return the small profile with everything that is optional; its formats are out of order."""
    data = small(formats=["FP32", "INT4", "INT8"], tied_layers=[[0, 2]], provenance={"versions": {"a": "1"}})
    for at, layer in enumerate(data["layers"]):
        layer |= {
            "name": f"block.{at}",
            "bits": [32, 4 + at, 8.5],
            "costs": {"latency_ms": [3, 1, 2 + at], "operations": 10 * at},
            "measurements": {"fisher": 0.5 * at, "change_of_loss": [0, -0.1, 0.2]},
        }
    return {**data, **changes}


def rich_layer(at, **changes):
    data = rich()
    data["layers"][at] |= changes
    return data


def test_everything_is_read_in_order_of_bits():
    profile = parse_profile(rich())
    assert profile.layer_names == ("block.0", "block.1", "block.2")
    assert profile.tied_layers == ((0, 2),)
    assert profile.bits_table.tolist() == [[4, 8.5, 32], [5, 8.5, 32], [6, 8.5, 32]]
    assert profile.cost_table("latency_ms").tolist() == [[1, 2, 3], [1, 3, 3], [1, 4, 3]]
    assert profile.cost_table("operations")[2].tolist() == [20, 20, 20]
    assert profile.cost_table("size")[1].tolist() == [1000, 1700, 6400]
    assert profile.measurements["fisher"].tolist() == [0, 0.5, 1]
    assert profile.measurements["change_of_loss"][0].tolist() == [-0.1, 0.2, 0]
    assert profile.provenance == {"versions": {"a": "1"}}


@pytest.mark.parametrize("name", ["model.json", "model.json.gz"])
def test_everything_is_written_and_read_back(name, tmp_path):
    profile = parse_profile(rich())
    save_profile(profile, tmp_path / name)
    again = load_profile(tmp_path / name)
    assert again == profile
    assert profile_to_json(again) == profile_to_json(profile)
    assert parse_profile(profile_to_json(profile)) == profile
    before = (tmp_path / name).read_bytes()
    save_profile(again, tmp_path / name)
    assert (tmp_path / name).read_bytes() == before


def test_nothing_optional_leaves_the_published_form():
    written = profile_to_json(parse_profile(SMALL))
    assert set(written) == set(SMALL)
    assert set(written["layers"][0]) == set(SMALL["layers"][0])
    assert parse_profile(SMALL).bits_table[0].tolist() == [4, 8, 32]


def test_the_hash_sees_what_scores_depend_on():
    plain, full = parse_profile(small(formats=["FP32", "INT4", "INT8"])), parse_profile(rich())
    changes = [
        rich(tied_layers=[[0, 1]]),
        rich(tied_layers=[]),
        rich_layer(1, bits=[32, 4, 8.5]),
        rich_layer(1, costs={"latency_ms": [3, 1, 9], "operations": 10}),
        rich_layer(1, measurements={"fisher": 9, "change_of_loss": [0, -0.1, 0.2]}),
    ]
    hashes = [plain.content_hash, full.content_hash, *(parse_profile(each).content_hash for each in changes)]
    assert len(set(hashes)) == 7
    same = [rich(provenance={"seed": 3}), rich_layer(0, name="first")]
    assert {parse_profile(each).content_hash for each in same} == {full.content_hash}


def test_extras_are_frozen_and_pickled():
    profile = parse_profile(rich())
    with pytest.raises(TypeError):
        profile.costs["latency_ms"] = np.zeros(3)
    with pytest.raises(TypeError):
        profile.provenance["seed"] = 1
    with pytest.raises(ValueError, match="read-only"):
        profile.costs["latency_ms"][0] = 0
    with pytest.raises(ValueError, match="read-only"):
        profile.bits_table[0] = 0
    again = pickle.loads(pickle.dumps(profile))
    assert profile_to_json(again) == profile_to_json(profile)
    assert (
        profile_to_json(dataclasses.replace(profile, seed=3))["layers"] == profile_to_json(profile)["layers"]
    )


def test_unknown_costs_are_explained():
    with pytest.raises(ProfileError, match=r"one of latency_ms, operations, found 'latency'.*'latency_ms'"):
        parse_profile(rich()).cost_table("latency")
    with pytest.raises(ProfileError, match="none at all"):
        parse_profile(SMALL).cost_table("latency")


INVALID = {
    "a name missing": (with_layer(1, name="a"), ["layer 0", "name", "as other layers have"]),
    "a name twice": (rich_layer(2, name="block.0"), ["layer 2", "name", "layer 0", "'block.0'"]),
    "a blank name": (rich_layer(2, name=" "), ["layer 2", "name", "not empty"]),
    "bits missing": (with_layer(1, bits=[1, 2, 3]), ["layer 0", "bits", "3 numbers"]),
    "too few bits": (rich_layer(1, bits=[1, 2]), ["layer 1", "bits", "3 numbers", "found 2"]),
    "no bits": (rich_layer(1, bits=[32, 0, 8]), ["layer 1", "bits[INT4]", "from 0.01", "found 0"]),
    "ties out of bounds": (rich(tied_layers=[[0, 3]]), ["tied_layers", "from 0 to 2", "found 3"]),
    "ties twice": (rich(tied_layers=[[0, 1], [1, 2]]), ["tied_layers", "at most once", "found 1"]),
    "ties of texts": (rich(tied_layers=[["block.0"]]), ["tied_layers", "positions"]),
    "ties of numbers": (rich(tied_layers=[0, 1]), ["tied_layers", "positions"]),
    "a cost missing": (rich_layer(1, costs={"operations": 1}), ["layer 1", "costs.latency_ms", "missing"]),
    "a cost too short": (
        rich_layer(1, costs={"latency_ms": [1, 2], "operations": 1}),
        ["layer 1", "costs.latency_ms", "3 numbers", "found 2"],
    ),
    "a cost of two shapes": (
        rich_layer(1, costs={"latency_ms": 3, "operations": 1}),
        ["layer 1", "costs.latency_ms", "as in layer 0"],
    ),
    "a cost that is no number": (
        rich_layer(1, costs={"latency_ms": ["1", 2, 3], "operations": 1}),
        ["layer 1", "costs.latency_ms", "finite number", "'1'"],
    ),
    "a bad name of a cost": (
        rich(layers=[{**layer, "costs": {"latency ms": 1}} for layer in rich()["layers"]]),
        ["costs", "letters", "'latency ms'"],
    ),
    "costs that are a list": (rich_layer(1, costs=[1]), ["layer 1", "costs", "object"]),
    "an infinite measurement": (
        rich_layer(1, measurements={"fisher": float("inf"), "change_of_loss": [0, 0, 0]}),
        ["layer 1", "measurements.fisher", "finite"],
    ),
    "a provenance that is a text": (rich(provenance="me"), ["provenance", "object"]),
}


@pytest.mark.parametrize(("data", "said"), INVALID.values(), ids=INVALID)
def test_invalid_extras_are_explained(tmp_path, data, said):
    message = message_of(tmp_path, json.dumps(data))
    assert all(words in message for words in said), message


def test_damaged_compression_is_explained(tmp_path):
    path = tmp_path / "model.json.gz"
    whole = gzip.compress(json.dumps(SMALL).encode())
    for data in (whole[:-9], whole[:20] + b"x" * 30, whole[:2] + b"x"):
        path.write_bytes(data)
        with pytest.raises(ProfileError, match=r"model\.json\.gz: damaged"):
            load_profile(path)


def test_data_sets_may_be_compressed(tmp_path):
    (tmp_path / "set" / "train").mkdir(parents=True)
    save_profile(parse_profile(rich()), tmp_path / "set" / "train" / "one.json.gz")
    assert find_dataset(tmp_path / "set").train == (parse_profile(rich()),)
    single = find_dataset(tmp_path / "set" / "train" / "one.json.gz")
    assert (single.name, single.single_file) == ("one", True)
