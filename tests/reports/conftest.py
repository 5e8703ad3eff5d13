from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from small_runs import BROKEN_RULE, ROOT, Run, make_run

from evolve.datasets import Dataset, write_dataset
from evolve.store import RunStore
from evolve.synthetic import generate


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on the published models with every part of a report; not to be changed."""
    return make_run(tmp_path_factory.mktemp("run"), figures=True)


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    """A copy of the run that a test may damage."""
    shutil.copytree(run.store.path.parent, tmp_path / "runs")
    shutil.copytree(run.reports, tmp_path / "reports")
    return Run(run.setup, RunStore(tmp_path / "runs" / run.store.name), run.outcome, tmp_path / "reports")


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on one file, whose model has a name that means something to every format we write."""
    folder = tmp_path_factory.mktemp("single")
    profile = json.loads((ROOT / "datasets" / "reference" / "test.json").read_text())
    profile["name"] = "a|b $x$ <i>_c_ `d`"
    (folder / "one.json").write_text(json.dumps(profile))
    return make_run(folder, figures=True, datasets=str(folder / "one.json"))


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on several models a split, without test, at a low level; some candidates fail."""
    folder = tmp_path_factory.mktemp("suite")
    models = generate(8, 0)
    write_dataset(Dataset("small", models[:5], models[5:], ()), folder / "small")
    return make_run(
        folder, datasets=str(folder / "small"), population=20, signals="metadata", plateau=2, generations=9
    )


@pytest.fixture(scope="session")
def hopeless(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in which no candidate works."""
    folder = tmp_path_factory.mktemp("hopeless")
    (folder / "heuristics").mkdir()
    (folder / "heuristics" / "broken.py").write_text(BROKEN_RULE)
    return make_run(
        folder,
        figures=True,
        heuristics=folder / "heuristics",
        start_from="broken",
        operators={"parameters": 1.0},
        generations=1,
        population=2,
    )
