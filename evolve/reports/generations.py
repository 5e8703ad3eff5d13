"""The table of generations: all of a short run, of a long one those that brought something and every n-th."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from evolve.candidates import Scored, SplitScore
from evolve.engine import Outcome

GENERATIONS = "generations.csv"
#: A search of more generations is a long one: its table is folded, its picture sums up its candidates.
LONG_SEARCH = 20
#: About so many generations that brought nothing are left, a round number apart.
_BETWEEN = 8


@dataclass(frozen=True)
class GenerationRow:
    """One generation.

    Attributes:
        generation: Its number.
        best, median: Fitness on train: the best so far, the median of this generation.
        evaluations, failures, duplicates: Counts of this generation.
        champion: Id of the champion if this generation brought a new one, else empty.
        operator, change: How the new champion was made.
        gains: Fitness above the champion before, per split; None for the first.
    """

    generation: int
    best: float | None
    median: float | None
    evaluations: int
    failures: int
    duplicates: int
    champion: str
    operator: str
    change: str
    gains: tuple[float | None, ...]


def generation_rows(outcome: Outcome, splits: Sequence[str]) -> tuple[GenerationRow, ...]:
    """Return every generation of a run, gains on these splits."""
    known = {each.candidate.id: each for each in outcome.scored}
    rows, before = [], None
    for summary in outcome.generations:
        champion = known.get(summary.champion or "")
        fresh = champion if champion is not before else None
        rows.append(
            GenerationRow(
                generation=summary.generation,
                best=summary.best,
                median=summary.median,
                evaluations=summary.evaluations,
                failures=summary.failures,
                duplicates=summary.duplicates,
                champion="" if fresh is None else fresh.candidate.id,
                operator="" if fresh is None else fresh.offspring.operator,
                change="" if fresh is None else fresh.offspring.change,
                gains=tuple(_gain(before, fresh, split) for split in splits),
            )
        )
        before = champion
    return tuple(rows)


def _gain(before: Scored | None, after: Scored | None, split: str) -> float | None:
    if before is None or after is None:
        return None
    old: SplitScore | None = getattr(before.evaluation, split)
    new: SplitScore | None = getattr(after.evaluation, split)
    return None if old is None or new is None else new.fitness - old.fitness


def folded(rows: Sequence[GenerationRow]) -> tuple[tuple[GenerationRow, ...], int]:
    """Return the rows to show and how far apart those stand that brought nothing; 1 if all are shown."""
    if len(rows) <= LONG_SEARCH:
        return tuple(rows), 1
    steps = (step * 10**power for power in range(9) for step in (1, 2, 5))
    apart = next(step for step in steps if len(rows) <= step * _BETWEEN)
    news = {row.generation for row in rows if row.champion}
    news |= {after.generation for before, after in pairwise(rows) if after.best != before.best}
    news |= {rows[0].generation, rows[-1].generation}
    return tuple(row for row in rows if row.generation in news or row.generation % apart == 0), apart


def generations_csv(rows: Sequence[GenerationRow], splits: Sequence[str]) -> str:
    """Return every generation as CSV."""
    text = io.StringIO()
    columns = ("generation", "best", "median", "evaluations", "failures", "duplicates")
    new = ("champion", "operator", "change")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *new, *(f"gain_on_{split}" for split in splits)])
    for row in rows:
        writer.writerow([*(getattr(row, name) for name in (*columns, *new)), *row.gains])
    return text.getvalue()
