"""What is said about an invalid profile."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from profile_texts import SMALL, message_of, small, with_layer, with_shapes, without

from evolve.errors import ProfileError
from evolve.profile_files import load_profile, parse_profile

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
