from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evolve.configuration import RunConfig
from evolve.engine import Outcome, search
from evolve.plugins import load_catalogue
from evolve.reports.contents import Contents, collect
from evolve.reports.writer import write_report
from evolve.setup import Setup, prepare_run
from evolve.store import RunStore, create_run

ROOT = Path(__file__).parents[2]
CATALOGUE = load_catalogue([ROOT / "heuristics"])
BROKEN_RULE = '''
from evolve.heuristics import heuristic


@heuristic()
def allocate(model, p):
    """Fails on every model."""
    raise KeyError("no | such `layer`")
'''


@dataclass(frozen=True)
class Run:
    """A run with its report, in a folder of its own."""

    setup: Setup
    store: RunStore
    outcome: Outcome
    reports: Path

    @property
    def folder(self) -> Path:
        return self.reports / self.store.name

    @property
    def contents(self) -> Contents:
        return collect(self.store, self.setup, self.outcome)

    def text(self, name: str = "report.md") -> str:
        return (self.folder / name).read_text(encoding="utf-8")


def make_run(
    folder: Path,
    name: str = "zebra",
    figures: bool = False,
    heuristics: Path | None = None,
    **settings: object,
) -> Run:
    given = {"population": 8, "generations": 3, "seed": 1, "datasets": str(ROOT / "datasets" / "reference")}
    catalogue = CATALOGUE if heuristics is None else load_catalogue([heuristics])
    setup = prepare_run(RunConfig.from_json(given | settings), catalogue)
    store = create_run(name, setup.resolved(), runs=folder / "runs")
    outcome = search(setup, store)
    write_report(store, setup, outcome, folder / "reports", figures)
    return Run(setup, store, outcome, folder / "reports")
