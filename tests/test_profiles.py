"""Profiles: what a valid one offers, and how it is written."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from profile_texts import SMALL, small, with_layer, without
from strategies import constrained_profiles, profiles

from evolve.errors import ProfileError
from evolve.profile_files import load_profile, parse_profile, profile_to_json, save_profile
from evolve.profiles import ModelProfile

REFERENCE = Path(__file__).parents[1] / "datasets" / "reference"


# What a valid profile offers


@pytest.mark.parametrize(
    ("name", "layers", "total", "description"),
    [
        ("train", 131, 5295841280, "LLaMA-7B-like"),
        ("valid", 99, 4037419008, "GPT-2-Medium-like"),
        ("test", 27, 19323048, "ResNet-50-like CNN"),
    ],
)
def test_published_models_load(name, layers, total, description):
    profile = load_profile(REFERENCE / f"{name}.json")
    assert (profile.name, profile.num_layers, profile.total_params) == (name, layers, total)
    assert profile.description == description
    assert profile.format_names == ("INT2", "INT4", "INT8", "FP16", "FP32")
    assert profile.bits.tolist() == [2, 4, 8, 16, 32]
    assert profile.sensitivity.shape == (layers, 5)


@pytest.mark.parametrize("name", ["train", "valid", "test"])
def test_published_models_are_written_byte_for_byte(name, tmp_path):
    save_profile(load_profile(REFERENCE / f"{name}.json"), tmp_path / "copy.json")
    assert (tmp_path / "copy.json").read_text().rstrip() == (REFERENCE / f"{name}.json").read_text().rstrip()


@given(profiles())
def test_round_trip_is_exact(profile):
    text = json.dumps(profile_to_json(profile), allow_nan=False)
    again = parse_profile(json.loads(text))
    assert again == profile
    for field in dataclasses.fields(ModelProfile):
        assert np.array_equal(getattr(again, field.name), getattr(profile, field.name)), field.name


@given(profiles())
def test_derived_signals(profile):
    assert profile.num_layers == len(profile.layer_type)
    assert profile.total_params == sum(profile.num_params.tolist())
    assert profile.param_fraction.sum() == pytest.approx(1)
    assert np.exp(-profile.loss) == pytest.approx(1 - profile.sensitivity)
    assert not np.signbit(profile.loss).any()
    positions = sorted(profile.relative_position)
    assert positions == pytest.approx(
        np.linspace(0, 1, profile.num_layers) if profile.num_layers > 1 else [0]
    )


def test_position_follows_the_index_and_not_the_order_listed():
    data = small()
    data["layers"].reverse()
    profile = parse_profile(data)
    assert profile.layer_index.tolist() == [2, 1, 0]
    assert profile.relative_position.tolist() == [1, 0.5, 0]
    assert profile.num_params.tolist() == [300, 200, 100]


def test_formats_out_of_order_take_their_columns_along():
    data = small(formats=["FP32", {"name": "INT4", "bits": 4.5, "kind": "integer"}, "INT8"])
    profile = parse_profile(data)
    assert profile.format_names == ("INT4", "INT8", "FP32")
    assert profile.bits.tolist() == [4.5, 8, 32]
    assert profile.sensitivity[0].tolist() == [0.01, 0.0, 0.2]
    assert profile_to_json(profile)["formats"][0] == {"name": "INT4", "bits": 4.5, "kind": "integer"}


def test_formats_of_equal_bits_keep_their_order():
    assert parse_profile(small(formats=["FP8_E5M2", "INT8", "FP8_E4M3"])).format_names == (
        "FP8_E5M2",
        "INT8",
        "FP8_E4M3",
    )


def test_what_may_be_left_out():
    profile = parse_profile(without(without(small(), "description"), "seed"))
    assert (profile.description, profile.seed, profile.source) == ("", None, "")


@pytest.mark.parametrize(
    "text", [b"\xef\xbb\xbf" + json.dumps(SMALL).encode(), json.dumps(SMALL, indent=4).encode()]
)
def test_harmless_ways_to_write_a_file(tmp_path, text):
    (tmp_path / "model.json").write_bytes(text)
    assert load_profile(tmp_path / "model.json") == parse_profile(SMALL)


def test_arrays_are_read_only_and_not_shared():
    mine = np.array([0.1, 0.2, 0.3])
    profile = dataclasses.replace(parse_profile(SMALL), weight_std=mine)
    mine[0] = 9
    assert profile.weight_std[0] == 0.1
    for array in (
        profile.weight_std,
        profile.sensitivity,
        profile.loss,
        profile.bits,
        profile.param_fraction,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_pickle_keeps_everything():
    profile = load_profile(REFERENCE / "test.json")
    profile.loss.sum()
    again = pickle.loads(pickle.dumps(profile))
    assert again == profile
    assert again.description == profile.description
    assert not again.sensitivity.flags.writeable


@given(constrained_profiles())
def test_shapes_travel_and_change_no_hash(profile):
    again = parse_profile(json.loads(json.dumps(profile_to_json(profile))))
    assert again.layer_shapes == profile.layer_shapes
    assert pickle.loads(pickle.dumps(profile)).layer_shapes == profile.layer_shapes
    bare = dataclasses.replace(profile, layer_shapes=())
    assert bare.content_hash == profile.content_hash
    assert all("shape" not in row for row in profile_to_json(bare)["layers"])


def test_other_names_and_axes_travel_and_change_no_hash():
    bare = parse_profile(SMALL)
    L = bare.num_layers
    aliases, axes = (("head",), *((),) * (L - 1)), (1, *(0,) * (L - 1))
    profile = dataclasses.replace(bare, layer_aliases=aliases, channel_axes=axes)
    assert profile.content_hash == bare.content_hash
    for again in (parse_profile(profile_to_json(profile)), pickle.loads(pickle.dumps(profile))):
        assert (again.layer_aliases, again.channel_axes) == (aliases, axes)
    assert profile_to_json(bare) == profile_to_json(parse_profile(profile_to_json(bare)))
    assert not bare.layer_aliases
    assert not bare.channel_axes
    with pytest.raises(ProfileError, match="layer_aliases"):
        dataclasses.replace(bare, layer_aliases=(("head",),) * (L + 1))
    with pytest.raises(ProfileError, match=r"layer 0, channel_axis"):
        dataclasses.replace(bare, channel_axes=(9, *(0,) * (L - 1)))
    with pytest.raises(ProfileError, match=r"layer 0, num_experts"):
        dataclasses.replace(bare, num_experts=(10**9 + 7, *(1,) * (L - 1)))
    with pytest.raises(ProfileError, match="num_experts"):
        dataclasses.replace(bare, num_experts=(2,) * (L + 1))


def test_shapes_made_in_code_are_one_a_layer():
    profile = parse_profile(SMALL)
    with pytest.raises(ProfileError, match="layer_shapes"):
        dataclasses.replace(profile, layer_shapes=((10, 10),))


def test_content_hash_is_stable_across_sessions():
    # Candidates' scores are filed under these: a change makes old runs unreadable.
    assert load_profile(REFERENCE / "test.json").content_hash == (
        "7680370d72104f64b2a6edd6b7ef1de86d738bbe3a98d07fdab18a07d7cd24ff"
    )


def test_content_hash_sees_what_rules_see_and_nothing_else():
    profile = parse_profile(SMALL)
    same = dataclasses.replace(profile, description="other", seed=None, source="elsewhere")
    assert same == profile
    assert hash(same) == hash(profile)
    seen = [
        with_layer(1, weight_mean=1e-300),
        with_layer(1, sensitivity=[0.2, 0.02, 0.0]),
        with_layer(1, layer_type="Conv"),
        small(name="other"),
        small(formats=["INT4", "FP8_E4M3", "FP32"]),
    ]
    assert len({profile.content_hash, *(parse_profile(data).content_hash for data in seen)}) == 6


# Writing


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "model.json"
    save_profile(parse_profile(SMALL), path)
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("evolve.profile_files.os.fsync", full)
    with pytest.raises(ProfileError, match="No space left"):
        save_profile(parse_profile(small(name="other")), path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["model.json"]


def test_writing_into_a_missing_folder_is_explained(tmp_path):
    with pytest.raises(ProfileError, match="cannot be written"):
        save_profile(parse_profile(SMALL), tmp_path / "none" / "model.json")
