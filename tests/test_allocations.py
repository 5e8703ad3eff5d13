"""Allocations as data: what one offers, its file, and what is said about an invalid one."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import constrained_profiles

from evolve.allocations import (
    Allocation,
    LayerChoice,
    allocation_of,
    allocation_to_json,
    load_allocation,
    names_of,
    parse_allocation,
    predict,
    save_allocation,
)
from evolve.errors import ProfileError
from evolve.profiles import ModelProfile


def chosen(profile: ModelProfile, seed: int) -> np.ndarray:
    """Any allocation that keeps the ties, (L,)."""
    rng = np.random.default_rng(seed)
    choices = rng.integers(0, len(profile.formats), profile.num_layers)
    for group in profile.tied_layers:
        choices[list(group)] = choices[group[0]]
    return choices


def tied() -> Allocation:
    layers = tuple(
        LayerChoice(name, "Linear", 64, (8, 8), "INT4", 4.5) for name in ("query", "key", "output")
    )
    return Allocation("small", layers, ((0, 1),), "by hand", {"loss": 0.5})


@given(constrained_profiles(), st.integers(0, 2**32))
def test_the_file_gives_the_same_allocation(tmp_path_factory, profile, seed):
    file = tmp_path_factory.mktemp("allocation") / "allocation.json"
    allocation = allocation_of(profile, chosen(profile, seed), "a test")
    save_allocation(allocation, file)
    assert load_allocation(file) == allocation
    assert parse_allocation(json.loads(json.dumps(allocation_to_json(allocation)))) == allocation
    assert [each.name for each in file.parent.iterdir()] == ["allocation.json"]


@given(constrained_profiles(), st.integers(0, 2**32))
def test_predictions_are_the_plain_sums(profile, seed):
    choices = chosen(profile, seed)
    loss = size = latency = 0.0
    for layer, choice in enumerate(choices):
        loss -= math.log1p(-profile.sensitivity[layer, choice])
        bits = profile.bits[choice] if profile.layer_bits is None else profile.layer_bits[layer, choice]
        size += profile.num_params[layer] * bits
        latency += profile.costs["latency_ms"][layer, choice]
    found = predict(profile, choices)
    assert found["loss"] == pytest.approx(loss)
    assert found["retention"] == pytest.approx(math.exp(-loss))
    assert found["size_bytes"] == pytest.approx(size / 8)
    assert found["avg_bits"] == pytest.approx(size / profile.total_params)
    assert found["latency_ms"] == pytest.approx(latency)
    assert found["operations"] == pytest.approx(profile.costs["operations"].sum())
    allocation = allocation_of(profile, choices)
    assert allocation.predicted == found
    assert allocation.avg_bits == pytest.approx(found["avg_bits"])
    assert allocation.size_bytes == pytest.approx(found["size_bytes"])
    assert allocation.names == names_of(profile)
    assert allocation.formats == tuple(profile.format_names[index] for index in choices)


def test_a_pickled_copy_is_equal_and_read_only():
    copy = pickle.loads(pickle.dumps(tied()))
    assert copy == tied()
    assert hash(copy) == hash(tied())
    with pytest.raises(TypeError):
        copy.predicted["loss"] = 1.0


@given(constrained_profiles(min_layers=2))
def test_shapes_are_kept(profile):
    names = names_of(profile)
    shapes = {names[0]: (int(profile.num_params[0]), 1)}
    choices = np.zeros(profile.num_layers, dtype=int)
    allocation = allocation_of(profile, choices, shapes=shapes)
    known = profile.layer_shapes or (None,) * profile.num_layers
    assert [each.shape for each in allocation.layers] == [shapes[names[0]], *known[1:]]
    assert [each.shape for each in allocation_of(profile, choices).layers] == list(known)
    assert parse_allocation(allocation_to_json(allocation)) == allocation


def test_other_names_axes_and_stacks_are_kept():
    first = dataclasses.replace(
        tied().layers[0], aliases=("head", "decoder.head"), channel_axis=1, num_experts=2
    )
    allocation = dataclasses.replace(tied(), layers=(first, *tied().layers[1:]))
    data = json.loads(json.dumps(allocation_to_json(allocation)))
    assert parse_allocation(data) == allocation
    # A layer that has neither is written as it always was.
    assert list(data["layers"][1]) == ["name", "kind", "num_params", "shape", "format", "bits"]


def layer_with(field: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda data: data["layers"][1].update({field: value})


WRONG = {
    "no model": (lambda data: data.pop("model"), ["model", "missing field"]),
    "no layers": (lambda data: data.update(layers=[]), ["layers", "at least one layer"]),
    "unknown field": (lambda data: data.update(colour=1), ["colour", "unknown field"]),
    "unknown field of a layer": (layer_with("colour", 1), ["layer 1", "colour"]),
    "missing format": (lambda data: data["layers"][1].pop("format"), ["layer 1", "format", "nothing"]),
    "empty format": (layer_with("format", " "), ["layer 1", "format"]),
    "tie broken": (
        layer_with("format", "INT8"),
        ["layer 1 (key)", "tie broken", "INT4, as in layer 0 (query)", "found 'INT8'"],
    ),
    "tie out of bounds": (lambda data: data.update(tied_layers=[[0, 3]]), ["tied_layers", "0 to 2", "3"]),
    "tie of text": (lambda data: data.update(tied_layers=["01"]), ["tied_layers"]),
    "name twice": (layer_with("name", "query"), ["layer 1", "name given twice", "query"]),
    "unknown kind": (layer_with("kind", "Liner"), ["layer 1", "kind", "Did you mean 'Linear'"]),
    "no weights": (layer_with("num_params", 0), ["layer 1", "num_params", "found 0"]),
    "no bits": (layer_with("bits", 0), ["layer 1", "bits", "0.01 to 64"]),
    "bits of text": (layer_with("bits", "4"), ["layer 1", "bits", "'4'"]),
    "shape of another size": (layer_with("shape", [8, 9]), ["layer 1", "shape", "a product of 64"]),
    "shape of text": (layer_with("shape", ["8", 8]), ["layer 1", "shape"]),
    "alias that is a layer": (layer_with("aliases", ["output"]), ["layer 1", "aliases", "found 'output'"]),
    "alias of a number": (layer_with("aliases", [1]), ["layer 1", "aliases", "found 1"]),
    "no experts": (layer_with("num_experts", 0), ["layer 1", "num_experts", "found 0"]),
    "experts that do not divide it": (layer_with("num_experts", 7), ["layer 1", "num_experts", "found 7"]),
    "negative axis": (layer_with("channel_axis", -1), ["layer 1", "channel_axis", "found -1"]),
    "prediction of text": (lambda data: data.update(predicted={"loss": "low"}), ["predicted.loss", "'low'"]),
    "prediction that is no number": (
        lambda data: data.update(predicted={"loss": math.nan}),
        ["predicted.loss"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(tmp_path: Path, name: str) -> None:
    change, words = WRONG[name]
    data = allocation_to_json(tied())
    change(data)
    file = tmp_path / "allocation.json"
    file.write_text(json.dumps(data))
    with pytest.raises(ProfileError) as caught:
        load_allocation(file)
    for word in [str(file), *words]:
        assert word in str(caught.value)


def test_no_file_and_no_place_to_write(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no such file"):
        load_allocation(tmp_path / "nowhere.json")
    with pytest.raises(ProfileError, match="cannot be written"):
        save_allocation(tied(), tmp_path / "nowhere" / "allocation.json")
    assert list(tmp_path.iterdir()) == []


@given(constrained_profiles(min_layers=2, min_formats=2))
def test_choices_must_fit_the_profile(profile):
    L, K = profile.sensitivity.shape
    for wrong in (np.zeros(L + 1, dtype=int), np.zeros(L), np.full(L, K), np.full(L, -1)):
        with pytest.raises(ProfileError, match="choices"):
            allocation_of(profile, wrong)
    both = dataclasses.replace(profile, tied_layers=((0, 1),))
    with pytest.raises(ProfileError, match="tie broken"):
        allocation_of(both, np.arange(L) % 2)
