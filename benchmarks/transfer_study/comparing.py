"""Chooses each fold's rule by what was measured, and puts it beside its rivals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transfer_study.allocating import RANDOM, UNIFORM, Proposal
from transfer_study.folds import Fold, family_of
from transfer_study.measuring import Choices
from transfer_study.rivals import bits_of

#: Divergences below this, in nats, count as this where rules are chosen: nobody can tell them from none.
_FLOOR = 1e-4

FloatArray = NDArray[np.float64]
Measured = Mapping[tuple[str, Choices], float]


@dataclass(frozen=True)
class Row:
    """One way to allocate, measured on one network within one budget.

    Attributes:
        family: Of the network.
        network: Its name.
        budget: Average bits allowed.
        way: What made the allocation.
        bits: Average bits that it has.
        divergence: KL divergence of the outputs on held-out data in nats.
    """

    family: str
    network: str
    budget: float
    way: str
    bits: float
    divergence: float


def merits(proposals: Sequence[Proposal], fold: Fold, measured: Measured) -> FloatArray:
    """Return the mean logarithm of what a rule measures on each family but the one left out, (F,)."""
    families: dict[str, list[float]] = {family_of(each): [] for each in (*fold.training, *fold.choosing)}
    for each in proposals:
        family = family_of(each.profile)
        if family in families:
            divergence = max(measured[each.profile.name, each.choices], _FLOOR)
            families[family].append(float(np.log(divergence)))
    return np.array([np.mean(values) if values else np.inf for values in families.values()])


def choose(found: Sequence[FloatArray]) -> int:
    """Return the place of the rule to take: the simplest that is hardly worse than the best.

    Hardly worse is within one standard error of the difference over families (Breiman 1984).

    Args:
        found: `merits` of each rule, (F,), the simplest rule first.
    """
    best = min(found, key=np.mean)
    for place, each in enumerate(found):
        difference = each - best
        error = difference.std(ddof=1) / np.sqrt(len(difference)) if np.isfinite(difference).all() else 0.0
        if difference.mean() <= error:
            return place
    raise AssertionError("the best rule is not worse than itself")


def rows_of(way: str, proposals: Sequence[Proposal], fold: Fold, measured: Measured) -> Iterator[Row]:
    """Yield what a way measures on the networks left out; of several proposals the one that counts.

    Of uniform formats that is the best one, of random allocations the median.
    """
    cases: dict[tuple[str, float], list[Row]] = {}
    present = {each.name for each in fold.left_out}
    for each in proposals:
        name = each.profile.name
        if each.way == way and name in present:
            bits = bits_of(each.profile, np.frombuffer(each.choices, dtype=np.uint8))
            divergence = measured[name, each.choices]
            row = Row(fold.family, name, each.budget, way, bits, divergence)
            cases.setdefault((name, each.budget), []).append(row)
    for rows in cases.values():
        ranked = sorted(rows, key=lambda row: row.divergence)
        assert len(ranked) == 1 or way in (UNIFORM, RANDOM)
        yield ranked[len(ranked) // 2 if way == RANDOM else 0]


def handed_out(
    way: str, proposals: Sequence[Proposal], fold: Fold, calibration: Measured, measured: Measured
) -> Iterator[Row]:
    """Yield what is measured of a rule that is handed out as `check-network` does it.

    That is the allocation or a uniform format of no more bits, whichever does best on calibration data.

    Args:
        way: What to call it.
        proposals: The rule's, and all uniform formats.
        fold: Whose networks left out count.
        calibration: What the proposals measure there.
        measured: What they measure on held-out data.
    """
    cases: dict[tuple[str, float], list[Proposal]] = {}
    present = {each.name for each in fold.left_out}
    for each in proposals:
        if each.profile.name in present:
            cases.setdefault((each.profile.name, each.budget), []).append(each)
    for (name, budget), several in cases.items():
        if all(each.way == UNIFORM for each in several):
            continue
        # At a tie the rule's own, which stands first.
        best = min(several, key=lambda each: calibration[name, each.choices])
        bits = bits_of(best.profile, np.frombuffer(best.choices, dtype=np.uint8))
        yield Row(fold.family, name, budget, way, bits, measured[name, best.choices])
