"""Profiles: what a valid one offers, and what is said about an invalid one."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from strategies import constrained_profiles, profiles

from evolve.errors import ProfileError
from evolve.profile_files import load_profile, parse_profile, profile_to_json, save_profile
from evolve.profiles import ModelProfile

REFERENCE = Path(__file__).parents[1] / "datasets" / "reference"
LAYER = {
    "layer_idx": 0,
    "num_layers": 3,
    "layer_type": "Linear",
    "num_params": 100,
    "total_params": 600,
    "weight_mean": 0.0,
    "weight_std": 0.02,
    "weight_range": 0.1,
    "activation_range": 3,
    "gradient_sensitivity": 0.5,
    "sensitivity": [0.2, 0.01, 0.0],
}
SMALL = {
    "name": "small",
    "description": "three layers",
    "seed": 7,
    "formats": ["INT4", "INT8", "FP32"],
    "layers": [
        LAYER,
        {**LAYER, "layer_idx": 1, "num_params": 200, "layer_type": "LayerNorm"},
        {**LAYER, "layer_idx": 2, "num_params": 300, "layer_type": "Classifier"},
    ],
}


def small(**changes):
    return {**copy.deepcopy(SMALL), **changes}


def with_layer(at, **changes):
    data = small()
    data["layers"][at] |= changes
    return data


def with_shapes(second):
    """Give each layer a shape, the second one that one."""
    data = small()
    for layer, shape in zip(data["layers"], ([100], second, [3, 100]), strict=True):
        layer["shape"] = shape
    return data


def without(data, field):
    return {name: value for name, value in data.items() if name != field}


def message_of(tmp_path, text):
    path = tmp_path / "model.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_status == 2
    return str(caught.value)


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


# What is said about an invalid one: data, then what the message must say


INVALID = {
    "top level": ([1, 2], ["object with name", "found a list of 2"]),
    "missing name": (without(SMALL, "name"), ["name", "missing"]),
    "missing layers": (without(SMALL, "layers"), ["layers", "missing"]),
    "unknown field": (small(format=["INT4"]), ["format", "unknown", "'formats'"]),
    "empty name": (small(name=""), ["name", "not empty", "''"]),
    "blank name": (small(name="  "), ["name", "not empty", "'  '"]),
    "unprintable name": (small(name="a\nb"), ["name", "printable", r"'a\nb'"]),
    "name is a number": (small(name=3), ["name", "text", "found 3"]),
    "seed is a fraction": (small(seed=1.5), ["seed", "whole number or null", "1.5"]),
    "seed is a bool": (small(seed=True), ["seed", "whole number or null", "True"]),
    "description is null": (small(description=None), ["description", "a text", "found null"]),
    "formats is a text": (small(formats="INT4"), ["formats", "list", "'INT4'"]),
    "no formats": (small(formats=[]), ["formats", "at least one format"]),
    "unknown format": (small(formats=["INT4", "INT8", "FP31"]), ["formats", "INT2", "'FP31'"]),
    "format twice": (small(formats=["INT4", "INT4", "FP32"]), ["formats", "twice", "INT4"]),
    "format is a number": (small(formats=[4, "INT8", "FP32"]), ["formats", "name, bits, kind", "found 4"]),
    "format without bits": (
        small(formats=[{"name": "X", "kind": "float"}, "INT8", "FP32"]),
        ["formats", "bits", "missing"],
    ),
    "format of 0 bits": (
        small(formats=[{"name": "X", "bits": 0, "kind": "float"}, "INT8", "FP32"]),
        ["formats", "bits", "from 0.01", "found 0"],
    ),
    "format of a bad kind": (
        small(formats=[{"name": "X", "bits": 1, "kind": "int"}, "INT8", "FP32"]),
        ["X", "kind", "codebook", "'int'"],
    ),
    "no layers": (small(layers=[]), ["layers", "at least one layer"]),
    "layers is an object": (small(layers={}), ["layers", "list", "found an object"]),
    "layer is a number": (small(layers=[1]), ["layer 0", "object with layer_idx", "found 1"]),
    "missing layer field": (
        small(layers=[SMALL["layers"][0], without(SMALL["layers"][1], "num_params")]),
        ["layer 1", "num_params", "missing", "whole number"],
    ),
    "unknown layer field": (
        with_layer(2, layer_typ="x"),
        ["layer 2", "layer_typ", "unknown", "'layer_type'"],
    ),
    "unknown layer type": (
        with_layer(2, layer_type="Layernorm"),
        ["layer 2", "layer_type", "one of Embedding", "'Layernorm'", "Did you mean 'LayerNorm'?"],
    ),
    "size 0": (with_layer(1, num_params=0), ["layer 1", "num_params", "from 1", "found 0"]),
    "size negative": (with_layer(1, num_params=-5), ["layer 1", "num_params", "from 1", "found -5"]),
    "size a fraction": (with_layer(1, num_params=5.0), ["layer 1", "num_params", "whole", "found 5.0"]),
    "size a bool": (with_layer(1, num_params=True), ["layer 1", "num_params", "whole", "found True"]),
    "size a text": (with_layer(1, num_params="5"), ["layer 1", "num_params", "whole", "found '5'"]),
    "size huge": (with_layer(1, num_params=10**30), ["layer 1", "num_params", str(2**53), "found 1000"]),
    "sizes huge together": (
        small(layers=[{**each, "num_params": 2**52} for each in SMALL["layers"]]),
        ["num_params", "too many", str(2**53), str(3 * 2**52)],
    ),
    "total wrong": (with_layer(1, total_params=601), ["layer 1", "total_params", "600", "sum", "found 601"]),
    "number of layers wrong": (with_layer(2, num_layers=4), ["layer 2", "num_layers", "3", "found 4"]),
    "std negative": (with_layer(1, weight_std=-0.1), ["layer 1", "weight_std", "at least 0", "-0.1"]),
    "range negative": (with_layer(1, weight_range=-1), ["layer 1", "weight_range", "at least 0", "-1"]),
    "activation negative": (
        with_layer(0, activation_range=-1e-9),
        ["layer 0", "activation_range", "at least 0", "-1e-09"],
    ),
    "gradient above 1": (
        with_layer(1, gradient_sensitivity=1.01),
        ["layer 1", "gradient_sensitivity", "[0, 1]", "1.01"],
    ),
    "gradient is null": (
        with_layer(1, gradient_sensitivity=None),
        ["layer 1", "gradient_sensitivity", "[0, 1]", "found null"],
    ),
    "mean too large for a float": (with_layer(1, weight_mean=10**400), ["layer 1", "weight_mean", "finite"]),
    "mean not a number": (
        with_layer(1, weight_mean=float("nan")),
        ["layer 1", "weight_mean", "finite", "nan"],
    ),
    "std infinite": (with_layer(1, weight_std=float("inf")), ["layer 1", "weight_std", "finite", "inf"]),
    "range infinite": (
        with_layer(1, weight_range=float("inf")),
        ["layer 1", "weight_range", "finite", "inf"],
    ),
    "sensitivity not a number": (
        with_layer(1, sensitivity=[0.1, float("nan"), 0]),
        ["layer 1", "sensitivity", "[0, 1)", "nan"],
    ),
    "sensitivity 1": (with_layer(1, sensitivity=[1, 0, 0]), ["layer 1", "sensitivity", "[0, 1)", "found 1"]),
    "sensitivity negative": (with_layer(1, sensitivity=[0, 0, -0.1]), ["layer 1", "sensitivity", "-0.1"]),
    "sensitivity too short": (
        with_layer(1, sensitivity=[0.1]),
        ["layer 1", "sensitivity", "3 numbers", "found 1"],
    ),
    "sensitivity one number": (
        with_layer(1, sensitivity=0.1),
        ["layer 1", "sensitivity", "list", "found 0.1"],
    ),
    "sensitivity of texts": (
        with_layer(1, sensitivity=["0"] * 3),
        ["layer 1", "sensitivity", "number", "'0'"],
    ),
    "shape of another size": (with_shapes([2, 49]), ["layer 1", "shape", "product is 200", "(2, 49)"]),
    "shape of fractions": (with_shapes([2.0, 100]), ["layer 1", "shape", "whole numbers"]),
    "shape of lists": (with_shapes([[2], [100]]), ["layer 1", "shape", "whole numbers"]),
    "shape with 0": (with_shapes([0, 200]), ["layer 1", "shape", "at least 1"]),
    "shape a number": (with_shapes(200), ["layer 1", "shape", "list", "200"]),
    "shape of some layers": (
        with_layer(0, shape=[10, 10]),
        ["layer 1", "shape", "a shape, as other layers have", "nothing"],
    ),
    "index twice": (with_layer(1, layer_idx=0), ["layer 1", "layer_idx", "twice", "from 0 to 2", "found 0"]),
    "index too large": (with_layer(2, layer_idx=3), ["layer 2", "layer_idx", "from 0 to 2", "found 3"]),
    "index negative": (with_layer(0, layer_idx=-1), ["layer 0", "layer_idx", "from 0", "found -1"]),
}


@pytest.mark.parametrize(("data", "said"), INVALID.values(), ids=INVALID)
def test_invalid_profiles_are_explained(tmp_path, data, said):
    message = message_of(tmp_path, json.dumps(data))
    assert all(words in message for words in said), message
    assert "\n" not in message


def test_parsed_objects_name_the_file_they_came_from():
    with pytest.raises(ProfileError, match=r"^here\.json, layer 1, num_params: .*whole number.*found 0$"):
        parse_profile(with_layer(1, num_params=0), "here.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["line 1, column 1", "not JSON"]),
        ('{"name": "x",\n "seed": }', ["line 2, column 10", "not JSON"]),
        (b'{"name": "\xff"}', ["not UTF-8", "byte 10"]),
        ('{"name": "x", "name": "y"}', ["name", "twice"]),
        (
            json.dumps(SMALL).replace('"num_params": 200', '"num_params": 1, "num_params": 200'),
            ["layer 1", "twice"],
        ),
        ("[" * 100_000, ["nested too deeply"]),
        ('{"name": ' + "9" * 5000 + "}", ["cannot be read", "4300"]),
    ],
)
def test_files_that_are_not_strict_json(tmp_path, text, said):
    message = message_of(tmp_path, text)
    assert all(words in message for words in said), message


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ProfileError, match="no such file"):
        load_profile(tmp_path / "none.json")
    with pytest.raises(ProfileError, match="is a folder"):
        load_profile(tmp_path)
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile("a\0b.json")
    (tmp_path / "file").touch()
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(tmp_path / "file" / "model.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weight_std": np.zeros(2)}, ["weight_std", "(L,) = (3,)", "(2,)"]),
        ({"sensitivity": np.zeros((3, 2))}, ["sensitivity", "(L, K) = (3, 3)", "(3, 2)"]),
        ({"sensitivity": np.full((3, 3), np.nan)}, ["layer 0", "sensitivity[INT4]", "[0, 1)", "nan"]),
        ({"layer_type": ()}, ["layers", "at least one"]),
        ({"formats": ()}, ["formats", "1 to 255"]),
        ({"formats": tuple(reversed(parse_profile(SMALL).formats))}, ["formats", "non-decreasing"]),
    ],
)
def test_profiles_made_in_code_are_checked_too(change, said):
    with pytest.raises(ProfileError) as caught:
        dataclasses.replace(parse_profile(SMALL), **change)
    assert all(words in str(caught.value) for words in said), caught.value


def test_sizes_made_in_code_are_never_rounded():
    with pytest.raises(TypeError):
        dataclasses.replace(parse_profile(SMALL), num_params=np.array([1.5, 2, 3]))


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
