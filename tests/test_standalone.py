"""Rules read back from the files of reports that stand alone."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from evolve.datasets import find_dataset
from evolve.errors import PluginError
from evolve.profile_files import profile_to_json
from evolve.questions import ask
from evolve.ruled import find_rule, rule_as_it_is, rule_within
from evolve.standalone import read_standalone

REPORTS = Path(__file__).parents[1] / "reports"
CHAMPIONS = sorted(REPORTS.glob("*/champion.py"))
FRONTS = sorted(REPORTS.glob("*/front/*.py"))
MODELS = [
    find_dataset("reference").test[0],
    find_dataset("measured").test[-1],
    find_dataset("suite:3").test[3],
]


@pytest.mark.parametrize("file", [*CHAMPIONS, *FRONTS[::5]], ids=lambda file: f"{file.parts[-3]}-{file.stem}")
def test_a_file_alone_allocates_as_it_does_without_this_package(file, tmp_path):
    shutil.copy(file, tmp_path / "champion.py")  # without a champion.json beside it
    rule = find_rule(str(tmp_path / "champion.py"))
    alone = runpy.run_path(str(file))["allocate"]
    for profile in MODELS:
        try:
            expected = alone(profile_to_json(profile))
        except ValueError:
            continue  # the rule reads what this profile does not have
        found = rule_as_it_is(rule, profile)
        untied = profile.tied_layers == () or "tied_layers" in file.read_text(encoding="utf-8")
        if untied:
            assert [profile.format_names[at] for at in found.choices] == expected


@pytest.mark.parametrize("file", CHAMPIONS, ids=lambda file: file.parts[-2])
def test_with_its_json_beside_it_it_is_the_champion(file):
    assert find_rule(str(file)) == find_rule(str(file.with_suffix(".json")))


def test_its_price_is_set_to_keep_a_budget(tmp_path):
    shutil.copy(REPORTS / "discovered-curves" / "champion.py", tmp_path / "mine.py")
    rule = find_rule(str(tmp_path / "mine.py"))
    profile = MODELS[1]
    bits = {}
    for most in (3, 4.5):
        ruling = rule_within(rule, profile, ask(profile, [f"avg_bits={most}"]).budgets)
        size = profile.num_params * profile.bits_table[np.arange(profile.num_layers), ruling.choices]
        bits[most] = size.sum() / profile.total_params
        assert bits[most] <= most
    assert bits[3] > 2
    assert bits[4.5] > bits[3]


def test_numbers_have_wide_bounds_around_them():
    text = (REPORTS / "discovered-curves" / "champion.py").read_text(encoding="utf-8")
    found = read_standalone(text)
    assert {each.name: each.default for each in found.parameters} == runpy.run_path(
        str(REPORTS / "discovered-curves" / "champion.py")
    )["PARAMETERS"]
    for each in found.parameters:
        assert each.low < each.default < each.high
        assert each.default >= 1 or each.high == 1


@pytest.mark.parametrize("text", ["", "def rule(", "def allocate(model, p): ...", "class Model: ...\n"])
def test_other_files_are_no_standalone_rules(text):
    assert read_standalone(text) is None


def test_a_plain_function_is_still_told_how_to_become_a_plugin(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def allocate(profile):\n    return []\n")
    with pytest.raises(PluginError, match="allocate is not declared"):
        find_rule(str(file))
