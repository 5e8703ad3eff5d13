"""What the rows say: ratios of measured divergence, goals kept or missed, and tables of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from transfer_study.allocating import FISHER, KL, RIVALS, UNIFORM
from transfer_study.comparing import Row
from transfer_study.searching import BUDGETS
from transfer_study.study import CHEAP_RULE, CURVES_RULE, STUDIES

#: Relative difference below which two measurements are the same.
_SAME = 1e-9


@dataclass(frozen=True)
class Ratio:
    """What a rule measures over what a rival measures, on M networks.

    Attributes:
        median: Of the M ratios.
        won: Networks on which the rule has the lower divergence.
        tied: Networks on which both have the same.
        count: M, those that both can allocate within the budget.
    """

    median: float
    won: int
    tied: int
    count: int

    def __str__(self) -> str:
        """Return the median and how many networks were won of how many."""
        tied = f" + {self.tied} equal" if self.tied else ""
        return f"{self.median:.2f} ({self.won}{tied} of {self.count})"


def ratios(rows: Sequence[Row], way: str, rival: str, budget: float | None = None) -> dict[str, float]:
    """Return the ratios of measured divergence, by network and budget, where both have an allocation."""
    found = {
        (row.network, row.budget, row.way): row.divergence
        for row in rows
        if row.way in (way, rival) and (budget is None or row.budget == budget)
    }
    pairs = {}
    for (network, bits, name), own in found.items():
        other = found.get((network, bits, rival), np.nan)
        if name == way and np.isfinite(own) and np.isfinite(other):
            pairs[f"{network} {bits:g}"] = own / other
    return pairs


def ratio(rows: Sequence[Row], way: str, rival: str, budget: float | None = None) -> Ratio:
    """Return the summary of `ratios`; of all budgets together where none is given."""
    return _summed_up(ratios(rows, way, rival, budget).values())


def ratio_by_network(rows: Sequence[Row], way: str, rival: str) -> Ratio:
    """Return the summary of one number a network: the geometric mean of its `ratios` over the budgets."""
    logs: dict[str, list[float]] = {}
    for case, value in ratios(rows, way, rival).items():
        logs.setdefault(case.rpartition(" ")[0], []).append(float(np.log(value)))
    return _summed_up(float(np.exp(np.mean(each))) for each in logs.values())


def _summed_up(found: Iterable[float]) -> Ratio:
    values = np.array(list(found))
    tied = np.abs(values - 1) <= _SAME
    median = float(np.median(values)) if len(values) else float("nan")
    return Ratio(median, int(((values < 1) & ~tied).sum()), int(tied.sum()), len(values))


def ratio_table(rows: Sequence[Row], way: str, budgets: Sequence[float] = BUDGETS) -> str:
    """Return a row a budget: medians of rule over rival, and networks won; then all of them together."""
    lines = [["average bits", *RIVALS], ["---"] * (1 + len(RIVALS))]
    lines += [[f"{bits:g}", *(str(ratio(rows, way, rival, bits)) for rival in RIVALS)] for bits in budgets]
    lines.append(["all cases", *(str(ratio(rows, way, rival)) for rival in RIVALS)])
    lines.append(["by network", *(str(ratio_by_network(rows, way, rival)) for rival in RIVALS)])
    return _markdown(lines)


def family_table(rows: Sequence[Row], way: str) -> str:
    """Return a row a family left out: medians over its networks and budgets, and cases won."""
    families = list(dict.fromkeys(row.family for row in rows))
    lines = [["family left out", *RIVALS], ["---"] * (1 + len(RIVALS))]
    for family in families:
        own = [row for row in rows if row.family == family]
        lines.append([family, *(str(ratio(own, way, rival)) for rival in RIVALS)])
    return _markdown(lines)


def network_table(rows: Sequence[Row], budget: float) -> str:
    """Return a row a network: the divergence of every way within one budget."""
    ways = (*STUDIES.values(), *RIVALS)
    found = {(row.network, row.way): row.divergence for row in rows if row.budget == budget}
    lines = [["network", *ways], ["---"] * (1 + len(ways))]
    lines += [
        [f"`{network}`", *(_number(found.get((network, way), np.nan)) for way in ways)]
        for network in dict.fromkeys(row.network for row in rows)
    ]
    return _markdown(lines)


def _number(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "–"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


@dataclass(frozen=True)
class Goal:
    """Something that was hoped for, and whether it is so.

    Attributes:
        words: What was hoped for.
        kept: Whether it is so.
        found: The figure.
    """

    words: str
    kept: bool
    found: str


def goals(rows: Sequence[Row]) -> list[Goal]:
    """Return the four goals by case, as they were read before anything was measured."""
    uniform, fisher = ratio(rows, CHEAP_RULE, UNIFORM), ratio(rows, CHEAP_RULE, FISHER)
    curves, below = ratio(rows, CHEAP_RULE, KL), ratio(rows, CURVES_RULE, KL, BUDGETS[0])
    return _goals("cases", uniform, fisher, curves, below)


def goals_by_network(rows: Sequence[Row]) -> list[Goal]:
    """Return the four goals by network, its budgets together in one number."""
    uniform, fisher, curves = (ratio_by_network(rows, CHEAP_RULE, each) for each in (UNIFORM, FISHER, KL))
    return _goals("networks", uniform, fisher, curves, ratio(rows, CURVES_RULE, KL, BUDGETS[0]))


def _goals(units: str, uniform: Ratio, fisher: Ratio, curves: Ratio, below: Ratio) -> list[Goal]:
    worse = uniform.count - uniform.won - uniform.tied
    return [
        Goal(
            "from cheap signals, better than the best uniform format on every network",
            uniform.won == uniform.count,
            f"better in {uniform.won} of {uniform.count} {units}, worse in {worse}",
        ),
        Goal(
            "from cheap signals, better than the Lagrangian from Fisher in the median",
            fisher.median < 1,
            f"ratio {fisher.median:.3f}, better in {fisher.won} of {fisher.count} {units}",
        ),
        Goal(
            "from cheap signals, within 1.25 of the Lagrangian from KL curves in the median",
            curves.median <= 1.25,
            f"ratio {curves.median:.3f}",
        ),
        Goal(
            f"from curves, better than the Lagrangian from KL curves in the median at {BUDGETS[0]:g} bits",
            below.median < 1,
            f"ratio {below.median:.3f}, better in {below.won} of {below.count} networks",
        ),
    ]


def as_csv(rows: Sequence[Row]) -> str:
    """Return all rows as CSV, numbers with seven digits."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["family", "network", "budget", "way", "bits", "divergence"])
    for row in rows:
        numbers = [f"{value:.7g}" if np.isfinite(value) else "" for value in (row.bits, row.divergence)]
        writer.writerow([row.family, row.network, f"{row.budget:g}", row.way, *numbers])
    return file.getvalue()
