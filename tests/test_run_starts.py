"""What a run may start from: its seed heuristics and its data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from searches import REFERENCE, RESNETS, SMALL, run

from evolve.configuration import RunConfig
from evolve.datasets import Dataset, generate_dataset, write_dataset
from evolve.errors import InputError, PluginError, ProfileError, RunError
from evolve.formats import get_formats
from evolve.plugins import load_catalogue
from evolve.profile_files import save_profile
from evolve.setup import check_unchanged, prepare_run, stored_config


def seed_names(**config: Any) -> list[str]:
    return [each.change for each in prepare_run(RunConfig(**config)).problem.seeds]


def test_a_run_starts_from_baselines_only():
    """A discovery must be discovered, not planted."""
    roles = {each.name: each.role for each in load_catalogue().heuristics.values()}
    setup = prepare_run(RunConfig())
    assert {roles[each.change] for each in setup.problem.seeds} == {"baseline"}
    assert len(setup.problem.seeds) == list(roles.values()).count("baseline") >= 12
    published = {
        each.candidate.id for each in load_catalogue().heuristics.values() if each.role == "published"
    }
    assert not published & {each.candidate.id for each in setup.problem.seeds}


def test_a_run_starts_from_the_roles_and_names_it_is_told():
    assert seed_names(start_from=("uniform_int8", "hybrid")) == ["uniform_int8", "hybrid"]
    assert set(seed_names(start_from=("published", "hybrid"))) > {"hybrid", "sensitivity_fp16_001"}
    assert len(seed_names(start_from=("hybrid", "hybrid"))) == 1
    assert len(seed_names(start_from=("all",))) == len(load_catalogue().heuristics)
    assert seed_names(start_from=("all", "baseline")) == seed_names(start_from=("all",))


def test_two_heuristics_of_one_content_are_one_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heuristics").mkdir()
    text = '{#\nrole = "user"\ntemplate = "ladder"\n[slots]\nclauses = []\notherwise = "FP16"\n#}\n'
    for name in ("first", "second"):
        (tmp_path / "heuristics" / f"{name}.py.j2").write_text(text)
    assert seed_names(start_from=("first", "second")) == ["first"]


@pytest.mark.parametrize(
    ("start_from", "error", "words"),
    [
        (("no_such_rule",), PluginError, "unknown heuristic"),
        (("unifrom_fp16",), PluginError, "Did you mean uniform_fp16"),
        (("user",), InputError, "no seed heuristics"),
        ((), InputError, "no seed heuristics"),
    ],
)
def test_what_there_is_not_is_no_start(start_from, error, words):
    with pytest.raises(error, match=words):
        prepare_run(RunConfig(start_from=start_from))


def test_a_template_of_a_rule_that_is_not_started_from_is_not_used():
    names = set(prepare_run(RunConfig(start_from=("uniform_fp16",))).problem.templates)
    assert "hybrid" not in names
    assert "hybrid" in prepare_run(RunConfig(start_from=("hybrid",))).problem.templates
    assert {"ladder", "cheapest"} <= names


def test_models_of_several_formats_share_a_search(tmp_path):
    """Only formats that every model has are given; a rule that names others fails, and that is all."""
    widths = {"a": ("INT3", "INT8", "FP16"), "b": ("INT8", "FP16", "FP32")}
    train = []
    for name, formats in widths.items():
        made = generate_dataset(name, {"train": 1, "valid": 0, "test": 0}, 1, RESNETS, get_formats(formats))
        train.append(replace(made.train[0], name=name))
    write_dataset(Dataset("mixed", tuple(train), (), ()), tmp_path / "mixed")
    setup = prepare_run(RunConfig(datasets=str(tmp_path / "mixed"), **SMALL))
    assert setup.problem.words.formats == ("INT8", "FP16")
    _, outcome = run(tmp_path, setup=setup)
    by_seed = {
        each.offspring.change: each.evaluation.status
        for each in outcome.scored
        if each.offspring.operator == "seed"
    }
    assert by_seed["uniform_fp16"] == by_seed["mixed_fp16_int8"] == "ok"
    assert by_seed["uniform_fp32"] == "failed"
    assert outcome.champion is not None
    assert outcome.champion.evaluation.valid is None


def with_formats(names: tuple[str, ...]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        sizes = {"train": 1, "valid": 0, "test": 0}
        one = generate_dataset("a", sizes, 1, RESNETS, get_formats(("INT4",))).train[0]
        two = generate_dataset("b", sizes, 2, RESNETS, get_formats(names)).train[0]
        write_dataset(Dataset("bad", (one,), (replace(two, name="other"),), ()), folder)

    return write


def only_test(folder: Path) -> None:
    write_dataset(Dataset("bad", (), (), REFERENCE.test), folder)


@pytest.mark.parametrize(
    ("write", "words"),
    [(only_test, "nothing to train on"), (with_formats(("FP16", "FP32")), "no format in common")],
)
def test_data_that_cannot_be_searched_on_are_an_error(tmp_path, write, words):
    write(tmp_path / "bad")
    with pytest.raises(ProfileError, match=words):
        prepare_run(RunConfig(datasets=str(tmp_path / "bad")))


def test_one_profile_serves_as_train_and_valid(tmp_path):
    save_profile(REFERENCE.train[0], tmp_path / "model.json")
    _, outcome = run(tmp_path, datasets=str(tmp_path / "model.json"), **SMALL)
    assert outcome.champion is not None
    assert all(each.evaluation.train == each.evaluation.valid for each in outcome.scored)


def test_a_run_continues_only_with_the_same_data_and_heuristics(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heuristics").mkdir()
    plugin = tmp_path / "heuristics" / "mine.py.j2"
    text = '{{#\ntemplate = "ladder"\n[slots]\nclauses = []\notherwise = "{}"\n#}}\n'
    plugin.write_text(text.format("FP16"))
    write_dataset(REFERENCE, tmp_path / "data")
    config = RunConfig(datasets="data", start_from=("mine", "uniform_int8"))
    stored = json.loads(json.dumps(prepare_run(config).resolved()))
    assert stored_config(stored) == config
    check_unchanged(prepare_run(stored_config(stored)), stored)
    plugin.write_text(text.format("INT8"))
    with pytest.raises(RunError, match="the heuristics have changed since this run was started"):
        check_unchanged(prepare_run(stored_config(stored)), stored)
    plugin.write_text(text.format("FP16"))
    file = next((tmp_path / "data" / "valid").iterdir())
    save_profile(replace(REFERENCE.valid[0], num_params=REFERENCE.valid[0].num_params + 1), file)
    with pytest.raises(RunError, match=r"the datasets have changed.*Restore them, or start a new run"):
        check_unchanged(prepare_run(stored_config(stored)), stored)
