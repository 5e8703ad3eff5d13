"""The heuristics that ship: complete, and scoring what was published."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evolve.datasets import SPLITS, find_dataset
from evolve.heuristics import ROLES, ParameterValues
from evolve.plugins import load_catalogue
from evolve.profiles import ModelProfile
from evolve.python_source import compile_rule
from evolve.scoring import score
from evolve.views import ModelView

ROOT = Path(__file__).parents[1]
CATALOGUE = load_catalogue([ROOT / "heuristics"])
REFERENCE = find_dataset(ROOT / "datasets" / "reference")
EXPECTED = json.loads((ROOT / "tests" / "data" / "expected.json").read_text())
SHIPPED = sorted({each.name.split(".")[0] for each in (ROOT / "heuristics").glob("*.py*")})
PUBLISHED = {"fp32_edges_push_95", "sensitivity_fp16_001", "wider_fp16_zone", "layernorm_fp32_else_fp16"}


def allocate(name: str, profile: ModelProfile, level: str = "curves") -> np.ndarray:
    heuristic = CATALOGUE.get(name)
    rule = compile_rule(heuristic.template.source(heuristic.candidate))
    parameters = {key: np.array([[value]]) for key, value in heuristic.candidate.parameters}
    choices = rule(ModelView([profile], level), ParameterValues(parameters))
    return np.broadcast_to(choices, (1, profile.num_layers))[0]


def formats(name: str, profile: ModelProfile) -> list[str]:
    return [profile.format_names[choice] for choice in allocate(name, profile)]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", EXPECTED)
def test_scores_are_the_published_ones(name, split):
    (profile,) = REFERENCE.split(split)
    found = score(allocate(name, profile), profile.num_params, profile.bits, profile.sensitivity)
    expected = EXPECTED[name][split]
    assert found.compression_ratio[0] == pytest.approx(expected["compression"], rel=1e-9)
    assert found.accuracy_retention[0] == pytest.approx(expected["accuracy"], rel=1e-9)
    assert found.fitness[0] == pytest.approx(expected["fitness"], rel=1e-9)


def test_every_expected_score_has_its_heuristic():
    assert set(EXPECTED) <= set(CATALOGUE.heuristics)


def test_every_shipped_file_loads():
    assert CATALOGUE.broken == ()
    assert list(CATALOGUE.heuristics) == SHIPPED
    assert {each.template.kind for each in CATALOGUE.heuristics.values()} == {"code", "function"}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_heuristic_says_what_it_is(name):
    found = CATALOGUE.get(name)
    assert found.role in ROLES
    assert found.role != "user"
    assert found.source
    assert found.summary.endswith(".")
    assert found.summary[0].isupper()
    assert "\n" not in found.summary
    parameters = found.template.parameters_of(found.candidate)
    assert tuple((each.name, each.default) for each in parameters) == found.candidate.parameters


def test_baselines_contain_nothing_published():
    assert {each.name for each in CATALOGUE.select(["published"])} == PUBLISHED
    baselines = CATALOGUE.select(["baseline"])
    discovered = {each.name for each in CATALOGUE.select(["discovered"])}
    assert discovered == {f"discovered_{level}" for level in ("metadata", "gradient", "curves")}
    assert {each.name for each in baselines} == set(SHIPPED) - PUBLISHED - discovered
    assert PUBLISHED.isdisjoint(each.name for each in baselines)
    # Nor a published rule under another name.
    published = {CATALOGUE.get(name).candidate.id for name in PUBLISHED}
    assert published.isdisjoint(each.candidate.id for each in baselines)


def test_no_two_heuristics_are_the_same_candidate():
    assert len({each.candidate.id for each in CATALOGUE.heuristics.values()}) == len(SHIPPED)


@pytest.mark.parametrize(
    ("name", "level"),
    [
        *((name, "metadata") for name in ("uniform_int4", "layer_type_aware", "position_aware")),
        *((name, "metadata") for name in ("first_last_fp16", "mixed_fp16_int8", "fp32_edges_push_95")),
        *((name, "gradient") for name in ("hybrid", "sensitivity_based", "gradient_weighted")),
    ],
)
def test_rules_do_with_the_level_they_say(name, level):
    (profile,) = REFERENCE.test
    np.testing.assert_array_equal(allocate(name, profile, level), allocate(name, profile))


# Published beside code that is not: scores on test, in the digits that were printed.
@pytest.mark.parametrize(
    ("name", "compression", "accuracy", "fitness"),
    [("mixed_fp16_int8", 2.43, 0.935, 0.0935), ("fp32_edges_push_95", None, 0.936, 0.0936)],
)
def test_rules_deduced_from_their_scores_have_these_scores(name, compression, accuracy, fitness):
    (profile,) = REFERENCE.test
    found = score(allocate(name, profile), profile.num_params, profile.bits, profile.sensitivity)
    assert compression is None or round(found.compression_ratio[0], 2) == compression
    assert round(found.accuracy_retention[0], 3) == accuracy
    assert round(found.fitness[0], 4) == fitness


PER_LAYER = {
    "first_last_fp16": lambda model, i: "FP16" if i in (0, model.num_layers - 1) else "INT8",
    "sensitivity_based": lambda model, i: next(
        (
            name
            for limit, name in ((0.8, "FP32"), (0.5, "FP16"), (0.2, "INT8"))
            if model.gradient_sensitivity[i] > limit
        ),
        "INT4",
    ),
    "position_aware": lambda model, i: (
        "FP16" if model.relative_position[i] < 0.1 or model.relative_position[i] > 0.9 else "INT8"
    ),
    "hybrid": lambda model, i: (
        "FP16"
        if model.layer_type[i] in ("Embedding", "LayerNorm", "Classifier")
        or model.gradient_sensitivity[i] + at_the_ends(model, i) > 0.7
        else "INT8"
        if model.gradient_sensitivity[i] + at_the_ends(model, i) > 0.3
        else "INT4"
    ),
    "sensitivity_threshold": lambda model, i: "FP32" if model.sensitivity[i, 3] > 0.0005 else "FP16",
    "pareto_optimal": lambda model, i: max(
        reversed(model.format_names),
        key=lambda name: (
            np.log(32 / model.bits[model.format_names.index(name)])
            + np.log(1 - model.sensitivity[i, model.format_names.index(name)])
        ),
    ),
}


def at_the_ends(model: ModelProfile, i: int) -> float:
    return 0.2 if model.relative_position[i] < 0.1 or model.relative_position[i] > 0.9 else 0.0


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", PER_LAYER)
def test_rules_are_what_a_plain_loop_says(name, split):
    (profile,) = REFERENCE.split(split)
    assert formats(name, profile) == [PER_LAYER[name](profile, i) for i in range(profile.num_layers)]


def test_gradient_weighted_gives_more_bits_to_sensitive_layers():
    (profile,) = REFERENCE.train
    choices = allocate("gradient_weighted", profile)
    order = np.argsort(profile.gradient_sensitivity)
    assert (np.diff(choices[order].astype(int)) >= 0).all()
    assert len(set(choices.tolist())) > 1


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_rules_work_on_the_smallest_models(layers):
    (whole,) = REFERENCE.test
    small = ModelProfile(
        **{
            name: value[:layers] if isinstance(value, np.ndarray | tuple) and name != "formats" else value
            for name, value in vars(whole).items()
            if name in ModelProfile.__dataclass_fields__
        }
    )
    for name in SHIPPED:
        assert allocate(name, small).shape == (layers,)
    expected = ["FP16", "INT8", "FP16"] if layers == 3 else ["FP16"] * layers
    assert formats("first_last_fp16", small) == expected
