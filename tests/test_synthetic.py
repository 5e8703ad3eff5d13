"""Synthetic models: the published sizes and draws, and families that vary them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import formats as some_formats

from evolve.errors import ProfileError
from evolve.formats import PrecisionFormat, get_formats, known_formats
from evolve.profile_files import load_profile
from evolve.profiles import LAYER_TYPES
from evolve.synthetic import (
    FAMILIES,
    KINDS,
    PUBLISHED_FORMATS,
    base_curves,
    cnn,
    draw_model,
    generate,
    transformer,
)

REFERENCE = Path(__file__).parents[1] / "datasets" / "reference"


def published(name):
    draws = {
        "train": lambda generator: transformer(generator, 32),
        "valid": lambda generator: transformer(generator, 24),
        "test": cnn,
    }
    return draws[name](np.random.default_rng(0)), load_profile(REFERENCE / f"{name}.json")


@pytest.fixture(scope="module")
def models():
    return generate(90, seed=5)


# Against the published models


@pytest.mark.parametrize("name", ["train", "valid", "test"])
def test_published_sizes(name):
    made, reference = published(name)
    assert made.layer_type == reference.layer_type
    assert made.num_params.tolist() == reference.num_params.tolist()
    assert made.layer_index.tolist() == reference.layer_index.tolist()
    assert made.weight_mean.tolist() == reference.weight_mean.tolist()
    assert made.format_names == reference.format_names


def gradient_bounds(name, early, late):
    """The interval of each layer's gradient sensitivity, from the facts of the published draws."""
    reference = load_profile(REFERENCE / f"{name}.json")
    within = {
        "LayerNorm": (0.80, 0.95),
        "Embedding": (0.60, 0.80),
        "Classifier": (0.70, 0.90),
        "Attention": (0.40, 0.70),
        "Linear": (0.20, 0.50),
        "Conv": (0.20, 0.45),
    }
    bounds = np.array([within[kind] for kind in reference.layer_type])
    layers = np.arange(reference.num_layers)
    factor = np.where(layers < early, 1.2, np.where(layers >= late, 1.15, 1.0))
    return np.minimum(bounds * factor[:, None], 0.99)


# The first layer that is not early, and the first that is late.
@pytest.mark.parametrize(("name", "early", "late"), [("train", 33, 101), ("valid", 25, 77), ("test", 7, 25)])
def test_early_and_late_layers_are_the_published_ones(name, early, late):
    made, reference = published(name)
    low, high = gradient_bounds(name, early, late).T
    for profile in (reference, made):
        gradient = profile.gradient_sensitivity
        assert np.all(gradient >= low - 1e-12)
        assert np.all(gradient <= high + 1e-12)


@pytest.mark.parametrize("name", ["train", "valid", "test"])
def test_published_curves_lie_in_the_same_band_as_ours(name):
    for profile in published(name):
        base = base_curves(profile.formats)[[LAYER_TYPES.index(kind) for kind in profile.layer_type]]
        middle = base * (0.5 + 0.5 * profile.gradient_sensitivity[:, None])
        assert np.all(np.abs(profile.sensitivity - middle) <= 0.1 * base + 1e-12)


@pytest.mark.parametrize("name", ["train", "valid", "test"])
def test_published_statistics_lie_in_the_same_bounds_as_ours(name):
    for profile in published(name):
        kinds = [KINDS[kind] for kind in profile.layer_type]
        for values, field in (
            (profile.weight_std, "std"),
            (profile.weight_range, "extent"),
            (profile.activation_range, "activation"),
        ):
            low, high = np.array([getattr(kind, field) for kind in kinds]).T
            assert np.all((values >= low) & (values <= high)), field


def test_draws_fill_their_bounds():
    profile = transformer(np.random.default_rng(1), 4000)
    linear = np.array(profile.layer_type) == "Linear"
    middle = linear & (profile.relative_position > 0.3) & (profile.relative_position < 0.7)
    for values, low, high in (
        (profile.weight_std[linear], 0.02, 0.03),
        (profile.weight_range[linear], 0.10, 0.15),
        (profile.activation_range[linear], 2, 5),
        (profile.gradient_sensitivity[middle], 0.20, 0.50),
    ):
        assert values.mean() == pytest.approx((low + high) / 2, rel=0.02)
        assert values.min() < low + 0.05 * (high - low)
        assert values.max() > high - 0.05 * (high - low)
    assert np.corrcoef(profile.weight_std[linear], profile.weight_range[linear])[0, 1] < 0.2


# Base curves


def test_published_formats_have_exactly_the_published_bases():
    curves = base_curves(PUBLISHED_FORMATS)
    for row, name in enumerate(LAYER_TYPES):
        assert curves[row].tolist() == [*KINDS[name].base, 0.0]


@given(some_formats())
def test_base_curves_fall_with_bits(chosen):
    curves = base_curves(chosen)
    assert curves.shape == (6, len(chosen))
    assert np.all(curves >= 0)
    assert np.all(np.diff(curves, axis=1) <= 0)


def test_bases_between_published_formats_are_geometric_means():
    three, six, twelve = base_curves(
        [
            PrecisionFormat("A", 3, "integer"),
            PrecisionFormat("B", 6, "integer"),
            PrecisionFormat("C", 12, "float"),
        ]
    ).T
    columns = base_curves(PUBLISHED_FORMATS).T
    assert three == pytest.approx(np.sqrt(columns[0] * columns[1]))
    assert six == pytest.approx(np.sqrt(columns[1] * columns[2]))
    assert twelve == pytest.approx(np.sqrt(columns[2] * columns[3]))


# Families


@given(st.sampled_from(sorted(FAMILIES)), st.integers(0, 2**32), some_formats())
@settings(max_examples=60)
def test_any_draw_of_any_family_is_a_valid_profile(family, seed, chosen):
    profile = draw_model(family, np.random.default_rng(seed), "model", chosen)
    assert profile.formats == chosen
    assert profile.num_layers >= 10
    assert np.all(np.diff(profile.sensitivity, axis=1) <= 0)
    assert profile.sensitivity.max() <= 0.99
    assert profile.gradient_sensitivity.max() <= 0.99


@pytest.mark.parametrize("family", FAMILIES)
def test_families_vary_their_sizes(family):
    made = [FAMILIES[family](np.random.default_rng(seed), "model") for seed in range(12)]
    assert len({profile.num_layers for profile in made}) > 2
    assert len({profile.total_params for profile in made}) > 6


@pytest.mark.parametrize(
    ("family", "period", "rest", "fewest", "most"),
    [
        ("decoder", 4, 3, 27, 387),
        ("encoder", 4, 1, 29, 389),
        ("vit", 4, 0, 28, 196),
        ("grouped-query", 6, 3, 39, 483),
        ("mixture-of-experts", 5, 3, 43, 243),
    ],
)
def test_layers_of_families_made_of_blocks(models, family, period, rest, fewest, most):
    counts = [profile.num_layers for profile in models if profile.name.startswith(family)]
    assert all(count % period == rest and fewest <= count <= most for count in counts)


def test_families_differ_in_what_they_are_made_of(models):
    made = {profile.name.rpartition("-")[0]: set(profile.layer_type) for profile in models}
    assert made["decoder"] == {"Embedding", "Attention", "LayerNorm", "Linear", "Classifier"}
    assert made["resnet"] == made["mobilenet"] == {"Conv", "Classifier"}
    assert {"Conv", "Attention", "Linear", "LayerNorm"} <= made["vit"]
    assert {"Conv", "Linear", "LayerNorm"} <= made["convnext"]
    assert {"Conv", "Attention"} <= made["unet"]
    assert "Classifier" not in made["unet"]


def test_the_filters_of_a_channel_are_tiny(models):
    for profile in models:
        if profile.name.startswith("mobilenet"):
            middles = profile.num_params[2:-2:3]
            assert np.all(middles * 4 < profile.num_params[3:-2:3] * 25)


def test_an_unknown_family_lists_the_known_ones():
    with pytest.raises(ProfileError, match=r"one of transformer, .*'rnn'"):
        generate(1, 0, families=["rnn"])
    with pytest.raises(ProfileError, match="no family"):
        generate(1, 0, families=[])


def test_a_size_of_zero_is_refused():
    with pytest.raises(ProfileError, match="num_params"):
        transformer(np.random.default_rng(0), 2, hidden=0)


# Generation


def test_the_same_seed_gives_the_same_models(models):
    assert generate(90, seed=5) == models
    assert not set(generate(90, seed=6)) & set(models)


@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_a_model_does_not_depend_on_how_many_there_are(models, count):
    assert generate(count, seed=5) == models[:count]


def test_generation_can_start_anywhere(models):
    assert generate(10, seed=5, start=30) == models[30:40]


def test_models_are_drawn_as_from_spawned_seeds(models):
    child = np.random.SeedSequence(5).spawn(2)[1]
    assert FAMILIES["encoder"](np.random.default_rng(child), "encoder-0001") == models[1]


def test_names_are_unique_and_say_the_family(models):
    assert len({profile.name for profile in models}) == len(models)
    assert models[0].name == "decoder-0000"
    assert {profile.name.rpartition("-")[0] for profile in models} == set(FAMILIES)


def test_other_formats_leave_the_other_signals_as_they_are(models):
    for few, many in zip(models[:20], generate(20, 5, formats=known_formats()), strict=True):
        assert few.num_params.tolist() == many.num_params.tolist()
        assert few.gradient_sensitivity.tolist() == many.gradient_sensitivity.tolist()
        assert many.sensitivity.shape == (few.num_layers, len(known_formats()))


def test_one_format_is_enough():
    (model,) = generate(1, 0, formats=get_formats(["FP32"]))
    assert np.all(model.sensitivity == 0)
