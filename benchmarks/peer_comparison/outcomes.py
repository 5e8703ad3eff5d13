"""What one tool did in one run, and the statistics over runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evolve.statistics import holm, wilcoxon
from peer_comparison.problems import FloatArray

Quartiles = tuple[float, float, float]


@dataclass(frozen=True)
class Outcome:
    """One run of one tool.

    Attributes:
        tool: Its name.
        model: The model searched, empty where the rule serves all models.
        seed: The seed.
        best_so_far: Share of the optimum after each evaluation, (E,).
        seconds: Wall-clock time of the run; the only thing that differs between equal runs.
        test_share: Mean share on the test models of what was found, None where there is no rule.
    """

    tool: str
    model: str
    seed: int
    best_so_far: FloatArray
    seconds: float
    test_share: float | None = None

    def share_at(self, evaluations: int) -> float:
        """Return the best share after so many evaluations, of all of them where there were fewer."""
        return float(self.best_so_far[min(evaluations, len(self.best_so_far)) - 1])

    def evaluations_to(self, share: float) -> float:
        """Return the evaluations until a share is reached; infinite where it never is."""
        reached = np.flatnonzero(self.best_so_far >= share)
        return float(reached[0] + 1) if len(reached) else float("inf")


def quartiles_of_counts(counts: Sequence[float]) -> Quartiles:
    """Return lower quartile, median and upper quartile of counts of which some are infinite.

    Between two counts the larger one is taken, so that infinity never mixes with a number.
    """
    low, median, high = np.quantile(counts, [0.25, 0.5, 0.75], method="higher")
    return float(low), float(median), float(high)


def corrected_p(pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> dict[str, float]:
    """Return the p of Wilcoxon's signed-rank test of each named pair of samples, corrected by Holm."""
    raw = [wilcoxon(first, second) for first, second in pairs.values()]
    return dict(zip(pairs, holm(raw).tolist(), strict=True))
