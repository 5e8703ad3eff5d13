"""Evolves rules on the networks of a fold, and keeps each search so that a killed one goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evolve.batches import make_batch
from evolve.candidates import Scored
from evolve.configuration import RunConfig
from evolve.engine import search
from evolve.evaluation import Task
from evolve.plugins import heuristic_folders, load_catalogue
from evolve.setup import prepare_run
from evolve.store import RunStore, create_run
from evolve.templates import Template
from transfer_study.folds import Fold

#: Budgets of average bits, and what the searches maximise within them.
BUDGETS = (2.5, 3.0, 3.5, 4.5)
OBJECTIVE = f"relaxed:{','.join(f'{each:g}' for each in BUDGETS)}"
#: The studies, by the signals that rules may read.
CHEAP, CURVES = "gradient", "curves"
POPULATION = 60
#: Altered copies of each network that are searched on beside it.
COPIES = 3
#: The Lagrangians that the rules have to beat; searches start from those that their signals allow.
_TEXTBOOK = {CHEAP: ("lagrangian_fisher",), CURVES: ("lagrangian_fisher", "lagrangian_curves")}
#: Rules of each search that are measured.
MOST = 6
#: Of the best rule's share of the optimum, what a rule must have to be measured.
LEAST = 0.8


@dataclass(frozen=True)
class Found:
    """A finalist of a search.

    Attributes:
        scored: The candidate with its score.
        template: The code template that it fills.
    """

    scored: Scored
    template: Template

    @property
    def task(self) -> Task:
        """What is run to get its allocations."""
        candidate = self.scored.candidate
        batch = make_batch([candidate], {candidate.template: self.template}, swept=True)
        return batch.tasks[0]


def search_fold(fold: Fold, level: str, evaluations: int, seed: int, runs: Path) -> list[Found]:
    """Return the candidates of a search for the choice: its front of complexity and fit, the simplest first.

    Args:
        fold: The networks.
        level: The information level that rules may read.
        evaluations: Candidates to evaluate.
        seed: Of the search.
        runs: Keeps data sets and searches.
    """
    setup = prepare_run(
        RunConfig(
            datasets=str(fold.written(runs / "data")),
            objective=OBJECTIVE,
            signals=level,
            population=POPULATION,
            generations=evaluations,
            evaluations=evaluations,
            seed=seed,
            start_from=("baseline", *_TEXTBOOK[level]),
            copies=COPIES,
        ),
        load_catalogue((*heuristic_folders(), Path(__file__).parent / "heuristics")),
    )
    resolved = setup.resolved()
    key = hashlib.sha256(json.dumps(resolved, sort_keys=True).encode()).hexdigest()[:12]
    name = f"{level}-{fold.name}-{key}"
    store = RunStore(runs / name) if (runs / name).exists() else create_run(name, resolved, runs)
    with store.locked():
        outcome = search(setup, store)
    return [Found(each, setup.problem.templates[each.candidate.template]) for each in front(outcome.scored)]


def front(scored: Sequence[Scored]) -> list[Scored]:
    """Return rules that are better on train than every one as simple, the simplest first, the best last.

    What has less than `LEAST` of the best one's share is no choice; of more than `MOST` some are taken, at
    even distances.
    """
    working = [each for each in scored if each.evaluation.status == "ok"]
    least = LEAST * max(each.evaluation.objective for each in working)
    working = [each for each in working if each.evaluation.objective >= least]
    working.sort(key=lambda each: (each.evaluation.complexity, -each.evaluation.objective))
    found: list[Scored] = []
    for each in working:
        if not found or each.evaluation.objective > found[-1].evaluation.objective:
            found.append(each)
    if len(found) <= MOST:
        return found
    return [found[round(at * (len(found) - 1) / (MOST - 1))] for at in range(MOST)]
