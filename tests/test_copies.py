"""Altered copies: what they keep, and a search that has them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured_profiles import measured_profile
from searches import files, run
from strategies import profiles

from evolve.configuration import RunConfig
from evolve.copies import altered_copies, altered_copy
from evolve.datasets import Dataset, find_dataset
from evolve.evaluation import Arena, SearchArena, Task
from evolve.executors import make_executor
from evolve.profiles import MOST_PARAMS
from evolve.reports.verification import verify
from evolve.reports.writer import write_report
from evolve.setup import prepare_run
from evolve.verdicts.control import permuted_setup

RULE = """
def allocate(model, p):
    return model.where(model.sensitivity("INT8") < 0.02, "INT8", "FP32")
"""


PRICED = """
def allocate(model, p):
    return model.cheapest(model.param_fraction * model.bits + p.price * model.loss)
"""


def plain_arena() -> Arena:
    return SearchArena(find_dataset("reference"), "curves", copies=2)


def disguised_arena() -> Arena:
    return permuted_setup(prepare_run(RunConfig(copies=1))).arena


@given(profiles(), st.integers(1, 9))
def test_layers_of_a_type_change_by_one_factor_and_losses_a_little(profile, number):
    copy = altered_copy(profile, number)
    assert copy == altered_copy(profile, number)
    assert copy.name == f"{profile.name} ~{number}"
    assert copy.layer_type == profile.layer_type
    assert (copy.gradient_sensitivity == profile.gradient_sensitivity).all()
    assert copy.num_params.min() >= 1
    for kind in set(profile.layer_type):
        own = np.array([each == kind for each in profile.layer_type])
        large = own & (profile.num_params > 1000) & (copy.num_params > 1000)
        factors = copy.num_params[large] / profile.num_params[large]
        assert np.allclose(factors, factors[:1], rtol=2e-3)
    low = profile.sensitivity < 0.5
    assert (np.abs(copy.sensitivity[low] - profile.sensitivity[low]) <= 0.35 * profile.sensitivity[low]).all()


def test_another_number_is_another_copy():
    profile = find_dataset("reference").train[0]
    first, second = altered_copy(profile, 1), altered_copy(profile, 2)
    assert (first.num_params != second.num_params).any()
    assert (first.sensitivity != second.sensitivity).any()


def test_the_largest_model_stays_one():
    profile = replace(measured_profile(1), num_params=np.full(8, MOST_PARAMS // 8))
    assert all(altered_copy(profile, number).total_params <= MOST_PARAMS for number in range(1, 20))


def test_ties_costs_and_bits_are_kept():
    profile = measured_profile(1)
    copy = altered_copy(profile, 1)
    assert copy.tied_layers == profile.tied_layers
    assert (copy.bits_table == profile.bits_table).all()
    assert copy.measurements.keys() == profile.measurements.keys()


def test_the_first_copy_of_each_comes_before_the_second():
    models = find_dataset("suite").train[:3]
    names = [each.name for each in altered_copies(models, 2)]
    assert names == [f"{each.name} ~{number}" for number in (1, 2) for each in models]


def test_rules_that_do_well_are_tried_on_the_copies_and_others_are_not():
    dataset = find_dataset("suite")
    plain, copied = SearchArena(dataset, "curves"), SearchArena(dataset, "curves", copies=2)
    sources = (
        "weight = p.price * model.loss\n    return model.cheapest(model.param_fraction * model.bits + weight)"
    )
    task = Task(f"def allocate(model, p):\n    {sources}\n", "rule", ("price",), np.array([[150.0], [1.0]]))
    good, bad = copied.evaluate(task)
    well, badly = plain.evaluate(task)
    assert (bad.fitness == badly.fitness).all()
    assert copied.summaries(bad) == plain.summaries(badly)
    assert (good.fitness[:96] == well.fitness).all()
    assert len(good.fitness) == 3 * 96
    alone = Arena(altered_copies(dataset.train, 2), "curves")
    (expected,) = alone.evaluate(replace(task, values=task.values[:1]))
    shares = np.concatenate(
        [
            well.fitness[:64] / plain.optimum_fitness[:64],
            expected.fitness / alone.optimum_fitness,
        ]
    )
    train, valid = copied.summaries(good)
    assert train.objective == pytest.approx(shares.mean())
    assert train.worst_ratio == pytest.approx(shares.min())
    assert valid.objective != plain.summaries(well)[1].objective


def test_one_file_still_serves_as_train_and_valid():
    profile = find_dataset("reference").train[0]
    arena = SearchArena(Dataset("one", (profile,), (profile,), (), single_file=True), "curves", copies=3)
    assert len(arena.copied.profiles) == 3
    (result,) = arena.evaluate(Task(RULE, "rule", (), np.empty((1, 0))))
    train, valid = arena.summaries(result)
    assert train == valid


@pytest.mark.parametrize("make", [plain_arena, disguised_arena])
def test_processes_evaluate_as_one_does(make):
    arena = make()
    task = Task(RULE, "rule", (), np.empty((1, 0)))
    with make_executor(arena, 2) as executor:
        ((found,),) = executor.map([task])
    (expected,) = arena.evaluate(task)
    assert (found.fitness == expected.fitness).all()


def test_a_search_with_copies_holds_when_it_is_made_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {"datasets": "suite", "generations": 2, "population": 8, "copies": 1}
    store, outcome = run(tmp_path / "runs", "copies", **config)
    setup = prepare_run(RunConfig(**config))
    folder = write_report(store, setup, outcome, figures=False)
    assert list(verify(store, setup)) == []
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "--copies 1" in report
    assert "altered copies of each model beside it, 1 of each" in report


def test_the_control_permutes_the_copies_too(tmp_path):
    setup = prepare_run(RunConfig(generations=2, population=8, copies=1))
    permuted = permuted_setup(setup)
    task = Task(RULE, "rule", (), np.empty((1, 0)))
    (own,), (moved,) = setup.arena.copied.evaluate(task), permuted.arena.copied.evaluate(task)
    assert (own.fitness != moved.fitness).all()


def test_without_copies_a_run_is_what_it_was(tmp_path):
    plain, _ = run(tmp_path, "plain", generations=2, population=8)
    none, _ = run(tmp_path, "none", generations=2, population=8, copies=0)
    assert files(plain) == files(none)
    assert "copies" not in RunConfig().to_json()
    again = RunConfig.from_json(RunConfig(copies=2).to_json())
    assert again.copies == 2
