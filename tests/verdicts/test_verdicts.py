from __future__ import annotations

from pathlib import Path

import pytest
from cases import CATALOGUE, REFERENCE, small_suite

from evolve.configuration import RunConfig
from evolve.datasets import write_dataset
from evolve.engine import recorded_outcome, search
from evolve.setup import prepare_run
from evolve.store import create_run
from evolve.verdicts import judge
from evolve.verdicts.control import CONTROL, control_search, run_control


def _run(folder: Path, **settings: object):
    given = {"population": 8, "generations": 3, "seed": 1, "datasets": REFERENCE} | settings
    setup = prepare_run(RunConfig.from_json(given), CATALOGUE)
    store = create_run("run", setup.resolved(), folder / "runs")
    return store, setup, search(setup, store)


def test_the_same_run_gives_the_same_verdicts(tmp_path: Path) -> None:
    store, setup, outcome = _run(tmp_path)
    first = judge(store, setup, outcome)
    assert first is not None
    assert first == judge(store, setup, recorded_outcome(store))
    assert first.overfitting.finding == "cannot be told"
    assert first.luck.bias is None


def test_a_search_with_one_train_model_overfits(tmp_path: Path) -> None:
    write_dataset(small_suite(train=1, valid=2, test=24), tmp_path / "small")
    store, setup, outcome = _run(
        tmp_path, datasets=str(tmp_path / "small"), population=24, generations=20, seed=0
    )
    found = judge(store, setup, outcome)
    assert found.overfitting.finding == "overfits"
    assert found.luck.controls[-1].searched <= found.luck.controls[-1].uniform + 0.01


def test_a_full_control_is_kept_with_the_run_and_used(tmp_path: Path) -> None:
    store, setup, outcome = _run(tmp_path)
    run_control(store, setup)
    kept = control_search(store, setup)
    assert (store.path / CONTROL / "journal.jsonl").is_file()
    assert len(kept.generations) == setup.config.generations
    assert judge(store, setup, outcome).luck.searched_evaluations == len(kept.scored)


def test_the_control_never_scores_on_the_models_as_they_are(tmp_path: Path) -> None:
    store, setup, outcome = _run(tmp_path)
    real = {each.candidate.id: each.evaluation.objective for each in outcome.scored}
    control = {each.candidate.id: each.evaluation.objective for each in control_search(store, setup).scored}
    both = real.keys() & control.keys()
    assert any(real[each] != pytest.approx(control[each]) for each in both)
