"""Signals and tables that only measured networks have: in views, expressions, vocabularies and exports."""

from __future__ import annotations

import dataclasses
import json
import random

import numpy as np
import pytest
from measured_profiles import measured_profile

from evolve.candidates import Candidate
from evolve.errors import RuleError, SignalError
from evolve.evaluation import Arena, Failure, ModelScores, Task
from evolve.expressions import Node, parse, required_level, to_text
from evolve.grammar import seeded, vocabulary
from evolve.layer_groups import widest_of_groups
from evolve.number_ranges import signal_range
from evolve.parameters import linear
from evolve.plugin_files import general_templates
from evolve.profile_files import load_profile, profile_to_json, save_profile
from evolve.python_source import compile_rule
from evolve.reports.champion import standalone_source
from evolve.reports.words import in_words
from evolve.signals import LEVELS, MEASURED_SIGNALS, MEASURED_TABLES, level_index
from evolve.synthetic import generate
from evolve.templates import Template
from evolve.verdicts.robustness import _perturbed
from evolve.views import ModelView, measured_everywhere

PROFILES = [measured_profile(seed, 5 + seed) for seed in range(2)]
HELD = ("condition_number", "activation_std", "fisher", "squared_error", "sqnr", "fisher_loss")
RULE = """
def allocate(model, p):
    loss = model.fisher_loss + model.squared_error * np.sqrt(model.fisher) / model.condition_number
    sure = model.is_type("Linear") & (model.activation_std > 100.0)
    cheap = model.cheapest(model.param_fraction * model.bits + p.price * loss - model.sqnr * 1e-9)
    return model.where(sure, model.formats[-1], cheap)
"""


def task(source: str) -> Task:
    return Task(source, "rule.py", ("price",), np.array([[3.0]]))


def test_a_view_reads_what_was_measured():
    view = ModelView(PROFILES)
    for name in ("fisher", "condition_number", "activation_std"):
        expected = np.concatenate([each.measurements[name] for each in PROFILES])
        np.testing.assert_array_equal(getattr(view, name), expected)
    for name in MEASURED_TABLES:
        expected = np.concatenate([each.measurements[name] for each in PROFILES])
        assert getattr(view, name).shape == (6, 1, 11)
        np.testing.assert_array_equal(getattr(view, name)[:, 0, :].T, expected)
        with pytest.raises(ValueError, match="read-only"):
            getattr(view, name)[0] = 1


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_above_the_level_can_be_read(level):
    view = ModelView(PROFILES, level)
    needed = {name: each.level for name, each in (*MEASURED_SIGNALS.items(), *MEASURED_TABLES.items())}
    for name in HELD:
        if level_index(needed[name]) <= level_index(level):
            assert np.isfinite(getattr(view, name)).all()
        else:
            with pytest.raises(SignalError, match=f"{name} needs the signals of level {needed[name]}"):
                getattr(view, name)


def test_what_a_model_lacks_fails_the_rule_by_name():
    words = "reads model.fisher_loss, one number a layer and format, which the profile of resnet.* does not"
    stranger = dataclasses.replace(
        generate(1, 3, ["resnet"])[0], formats=PROFILES[0].formats[:5], name="resnet"
    )
    with pytest.raises(RuleError, match=words):
        _ = ModelView([stranger]).fisher_loss
    (found,) = Arena([*PROFILES, stranger]).evaluate(task(RULE))
    assert isinstance(found, Failure)
    assert found.kind == "rule broken"
    assert "the profile of resnet does not hold among its measurements (none)" in found.reason
    flat = dataclasses.replace(PROFILES[0], measurements={"fisher_loss": np.ones(5)})
    with pytest.raises(RuleError, match=r"does not hold among its measurements \(fisher_loss\)"):
        _ = ModelView([flat]).fisher_loss


def test_a_vocabulary_has_what_all_models_hold():
    assert set(measured_everywhere(PROFILES)) == set(HELD)
    flat = dataclasses.replace(PROFILES[0], measurements={"fisher_loss": np.ones(5), "fisher": np.ones(5)})
    assert measured_everywhere([*PROFILES, flat]) == ("fisher",)
    assert measured_everywhere([*PROFILES, generate(1, 3)[0]]) == ()
    formats = PROFILES[0].format_names
    plain, words = vocabulary(formats, "gradient"), vocabulary(formats, "gradient", measured=HELD)
    assert set(words.signals) - set(plain.signals) == {"fisher", "condition_number", "activation_std"}
    assert {each.value for each in words.tables} == {"bits", *MEASURED_TABLES}
    assert {each.value for each in plain.tables} == {"bits"}
    assert words.reading(("spent",)).measured == HELD
    statistics = vocabulary(formats, "statistics", measured=HELD)
    assert {each.value for each in statistics.tables} == {"bits", "squared_error", "sqnr"}
    with seeded() as seed:
        seed(1)
        drawn = [words.random_expression("table", 3) for _ in range(200)]
        random.seed(2)
    assert all(required_level(each) <= level_index("gradient") for each in drawn)
    assert MEASURED_TABLES.keys() <= {node.value for each in drawn for node in each.walk()}


@pytest.mark.parametrize("name", [*MEASURED_SIGNALS, *MEASURED_TABLES])
def test_expressions_read_and_print_them(name):
    type_ = "table" if name in MEASURED_TABLES else "score"
    node = parse(f"model.{name} + model.depth", type_, {})
    assert to_text(node) == f"model.{name} + model.depth"
    known = MEASURED_TABLES.get(name) or MEASURED_SIGNALS[name]
    assert required_level(node) == level_index(known.level)
    if type_ == "score":
        bounds = signal_range(Node("signal", value=name))
        assert bounds.name == name
        assert bounds.low < bounds.default < bounds.high
    source = f"def allocate(model, p):\n    return model.cheapest(model.{name} * model.bits)\n"
    assert known.meaning in in_words(source, {})


def test_a_rule_that_reads_them_stands_alone(tmp_path):
    parameters = (linear("price", 3.0, 0.0, 10.0),)
    template = Template("mine", RULE, (), parameters, "mine.py", "function")
    text = standalone_source(Candidate("mine", (), (("price", 3.0),)), template, title="A rule", facts={})
    assert "measurements.fisher_loss: a list, one for each format: loss by Fisher information" in text
    namespace: dict[str, object] = {"__name__": "champion"}
    exec(compile(text, "champion.py", "exec", dont_inherit=True), namespace)
    for profile in PROFILES:
        save_profile(profile, tmp_path / "p.json")
        assert load_profile(tmp_path / "p.json") == profile
        data = json.loads((tmp_path / "p.json").read_text())
        free = dataclasses.replace(profile, tied_layers=())
        rule = compile_rule(RULE)
        values = type("p", (), {"price": np.array([[3.0]])})
        expected = [profile.format_names[each] for each in np.ravel(rule(ModelView([free]), values))]
        assert namespace["allocate"](data) == expected
        del data["layers"][2]["measurements"]["fisher"]
        with pytest.raises(ValueError, match=r"layer 2: measurements\.fisher: expected a number, found None"):
            namespace["allocate"](data)


def test_a_file_of_its_own_keeps_ties():
    template = general_templates()["weighted"]
    slots = (("weight", "model.param_fraction"), ("loss", "model.fisher_loss"))
    candidate = Candidate("weighted", slots, (("price", 30.0),))
    (profile,) = [dataclasses.replace(PROFILES[1], tied_layers=((0, 2), (3, 5, 4)))]
    found: dict[str, object] = {"__name__": "champion"}
    text = standalone_source(candidate, template, title="A rule", facts={}, tied=True)
    exec(compile(text, "champion.py", "exec", dont_inherit=True), found)
    rule = compile_rule(template.source(candidate))
    raw = np.ravel(rule(ModelView([profile]), type("p", (), {"price": np.array([[30.0]])})))
    tied = widest_of_groups(raw, profile.tied_layers)
    assert (tied != raw).any()
    assert found["allocate"](profile_to_json(profile)) == [profile.format_names[each] for each in tied]
    with pytest.raises(ValueError, match=r"tied_layers: expected positions of layers, found \[0, 9\]"):
        found["allocate"]({**profile_to_json(profile), "tied_layers": [[0, 9]]})


def test_only_what_the_rule_reads_is_in_its_file():
    template = general_templates()["weighted"]
    slots = (("weight", "model.param_fraction"), ("loss", "model.squared_error"))
    candidate = Candidate("weighted", slots, (("price", 1.0),))
    text = standalone_source(candidate, template, title="A rule", facts={})
    assert "measurements.squared_error" in text
    assert "fisher" not in text
    plain = dataclasses.replace(candidate, slots=(slots[0], ("loss", "np.exp(-model.bits)")))
    assert "measure" not in standalone_source(plain, template, title="A rule", facts={}).replace(
        "What it was measured", ""
    )


def test_errors_of_measuring_reach_them():
    (noisy,) = _perturbed(PROFILES[:1], 0.1, np.random.default_rng(0))
    factors = noisy.measurements["fisher_loss"] / PROFILES[0].measurements["fisher_loss"]
    assert 0.02 < np.log(factors).std() < 0.3
    differences = noisy.measurements["sqnr"] - PROFILES[0].measurements["sqnr"]
    assert 0.1 < differences.std() < 1.5
    assert isinstance(Arena([noisy]).evaluate(task(RULE))[0], ModelScores)
