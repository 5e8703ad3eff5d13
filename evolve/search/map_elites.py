"""MAP-Elites: the best rule of every kind, the kinds being cells of compression and retention."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from evolve.candidates import Evaluation, Offspring, Scored
from evolve.search.base import Novelty, Problem, rank_key
from evolve.search.breeding import Breeder

Cell = tuple[int, int]

#: Cells a doubling of the compression ratio, and a halving of the accuracy that is lost.
_COMPRESSION_STEPS = 4
_RETENTION_STEPS = 2
#: Losses below this fall in one cell.
_LEAST_LOSS = 1e-4


def cell_of(evaluation: Evaluation) -> Cell | None:
    """Return a candidate's cell from its means on train; None for a failure.

    Both axes are logarithmic: in the compression ratio, and in the accuracy lost, so that the
    rules worth having do not share one cell.
    """
    if evaluation.train is None:
        return None
    loss = max(_LEAST_LOSS, 1.0 - evaluation.train.accuracy_retention)
    return (
        math.floor(_COMPRESSION_STEPS * math.log2(max(1e-3, evaluation.train.compression_ratio))),
        math.floor(-_RETENTION_STEPS * math.log2(loss)),
    )


class MapElites:
    """MAP-Elites (Mouret & Clune 2015): parents are drawn evenly from the cells that are filled."""

    def __init__(self, problem: Problem, novelty: Novelty | None = None) -> None:
        self._breeder = Breeder(problem, novelty)
        self._grid: dict[Cell, Scored] = {}

    def grid(self) -> dict[Cell, Scored]:
        """Return the best candidate of each cell that is filled."""
        return dict(self._grid)

    def ask(self) -> list[Offspring]:
        """Return offspring of elites drawn evenly."""
        elites = list(self._grid.values())
        if not elites:
            return self._breeder.begin()
        return self._breeder.breed(lambda: random.choice(elites), elites)

    def tell(self, scored: Sequence[Scored]) -> None:
        """Let each candidate take its cell if it is better than what is there."""
        self._breeder.tell(scored)
        self.welcome(scored)

    def welcome(self, immigrants: Sequence[Scored]) -> None:
        """Let each immigrant take its cell if it is better than what is there."""
        for each in immigrants:
            cell = cell_of(each.evaluation)
            if cell is not None and (cell not in self._grid or rank_key(each) > rank_key(self._grid[cell])):
                self._grid[cell] = each

    def state(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "breeder": self._breeder.state(),
            "elites": [each.candidate.id for each in self._grid.values()],
        }

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state."""
        self._breeder.restore(state["breeder"], archive)
        self._grid = {}
        self.welcome([archive[each] for each in state["elites"]])
