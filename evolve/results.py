"""The benchmark table: how rules do on every model of a data set, beside the proven optimum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evolve.candidates import Candidate
from evolve.datasets import Dataset
from evolve.evaluation import Arena, Failure, Task, optimum_share
from evolve.objectives import Budgets
from evolve.templates import Template


@dataclass(frozen=True)
class Result:
    """How one rule does on one model.

    Attributes:
        heuristic: The rule's name.
        dataset: The model's name.
        split: ``train``, ``valid`` or ``test``.
        compression_ratio, accuracy_retention, avg_bits, fitness: Its scores; None where it failed.
        optimum: Best fitness any allocation of this model can reach.
        optimum_ratio: fitness / optimum; 1 where the optimum is 0.
        failure: Why it failed; None if it did not.
    """

    heuristic: str
    dataset: str
    split: str
    compression_ratio: float | None
    accuracy_retention: float | None
    avg_bits: float | None
    fitness: float | None
    optimum: float
    optimum_ratio: float | None
    failure: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; ``failure`` only where there is one."""
        return {name: value for name, value in asdict(self).items() if name != "failure" or value is not None}


def evaluate_rules(
    rules: Mapping[str, tuple[Candidate, Template]],
    dataset: Dataset,
    level: str = "curves",
    budgets: Budgets | None = None,
) -> list[Result]:
    """Score named rules on every model of every split.

    Args:
        rules: By name, the candidate and its template.
        dataset: The models.
        level: The information level the rules may read.
        budgets: Score rules as families within these budgets: the fitness is then the share of the best,
            the other scores are means over the budgets. None scores by the cliff.

    Returns:
        One result a rule and model: rules in the order given, models in the order of the splits.
    """
    placed = list(dataset.splits())
    arena = Arena([profile for _, profile in placed], level, budgets)
    results = []
    for name, (candidate, template) in rules.items():
        names = tuple(each for each, _ in candidate.parameters)
        values = np.array([[value for _, value in candidate.parameters]], dtype=np.float64)
        sweep = None if budgets is None else template.sweep_of(candidate)
        values = values.reshape(1, len(names))
        task = Task(template.source(candidate), template.file, names, values, sweep)
        (scores,) = arena.evaluate(task)
        for index, (split, profile) in enumerate(placed):
            optimum = float(arena.optimum_fitness[index])
            if isinstance(scores, Failure):
                failed = Result(
                    name, profile.name, split, None, None, None, None, optimum, None, scores.reason
                )
                results.append(failed)
                continue
            results.append(
                Result(
                    heuristic=name,
                    dataset=profile.name,
                    split=split,
                    compression_ratio=float(scores.compression_ratio[index]),
                    accuracy_retention=float(scores.accuracy_retention[index]),
                    avg_bits=float(scores.avg_bits[index]),
                    fitness=float(scores.fitness[index]),
                    optimum=optimum,
                    optimum_ratio=float(optimum_share(scores.fitness, arena.optimum_fitness)[index]),
                )
            )
    return results
