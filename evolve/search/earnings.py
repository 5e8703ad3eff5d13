"""Which operator earned what, from the candidates of a run and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import isfinite

from evolve.candidates import Scored
from evolve.search.base import rank_key


@dataclass(frozen=True)
class OperatorEarnings:
    """What one operator contributed to a run.

    Attributes:
        operator: Its name.
        evaluations: Candidates it made.
        failures: Those that failed.
        improved: Those better than every parent of theirs; newcomers, than everything before them.
        records: Those better than everything before them.
        best_gain: Largest gain in objective over the best parent, of newcomers over the best before
            them; None if no candidate had both.
        earned: By how much its records raised the best objective so far, together.
    """

    operator: str
    evaluations: int = 0
    failures: int = 0
    improved: int = 0
    records: int = 0
    best_gain: float | None = None
    earned: float = 0.0


def operator_earnings(scored: Iterable[Scored]) -> list[OperatorEarnings]:
    """Return what each operator earned, those that earned most first.

    Args:
        scored: A run's candidates in the order of its journal; parents may stand anywhere.
    """
    listed = list(scored)
    by_id = {each.candidate.id: each for each in listed}
    found: dict[str, OperatorEarnings] = {}
    best: Scored | None = None
    for each in listed:
        name = each.offspring.operator
        row = found.get(name, OperatorEarnings(name))
        parents = [by_id[parent] for parent in each.offspring.parents if parent in by_id]
        record = each.evaluation.status == "ok" and (best is None or rank_key(each) > rank_key(best))
        better = bool(parents and all(rank_key(each) > rank_key(one) for one in parents))
        if name == "newcomer":
            # The seed that stands as its parent is no measure of a random rule, for breeders neither.
            parents, better = [] if best is None else [best], record
        earned = 0.0
        if record:
            # The first candidate that works sets the mark; what it has is its seed's merit.
            earned = 0.0 if best is None else each.evaluation.objective - best.evaluation.objective
            best = each
        gains = [gain for gain in (row.best_gain, _gain(each, parents)) if gain is not None]
        found[name] = replace(
            row,
            evaluations=row.evaluations + 1,
            failures=row.failures + (each.evaluation.status == "failed"),
            improved=row.improved + better,
            records=row.records + record,
            best_gain=max(gains, default=None),
            earned=row.earned + max(0.0, earned),
        )
    return sorted(found.values(), key=lambda row: (-row.earned, -row.improved, row.operator))


def _gain(scored: Scored, parents: Iterable[Scored]) -> float | None:
    """Return the gain in objective over the best parent; None without a working parent and child."""
    before = [one.evaluation.objective for one in parents if isfinite(one.evaluation.objective)]
    if not before or not isfinite(scored.evaluation.objective):
        return None
    return scored.evaluation.objective - max(before)
