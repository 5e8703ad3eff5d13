"""What carried the champion: each step of its ancestry undone alone, each part of the rule removed alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evolve.ancestry import refinements_folded
from evolve.candidates import Candidate, Scored
from evolve.engine import Outcome
from evolve.templates import Template
from evolve.verdicts.models import FloatArray, Shares, Split, shares
from evolve.verdicts.parts import Variant, variants
from evolve.verdicts.undoing import without_step
from evolve.verdicts.wording import counted, listed, points

#: Steps and parts that are shown; of more, the last steps and the first parts.
_MOST = 40
#: A change of mean share below this is none.
_NOTHING = 1e-9

Losses = tuple[float | None, ...]


@dataclass(frozen=True)
class StepEffect:
    """What one step of the ancestry did; refinements that follow one another are one.

    Attributes:
        number: Its place in the lineage, from 1.
        operator: What made it.
        change: What the operator changed, in words.
        gains: Mean share above that of its better parent, per split; None where one of them fails. Empty for
            a newcomer, which has no parent.
        losses: What the champion loses with this step alone undone, per split; None where that rule
            fails. Empty where it cannot be undone alone.
    """

    number: int
    operator: str
    change: str
    gains: Losses
    losses: Losses


@dataclass(frozen=True)
class PartEffect:
    """What one part of the rule does.

    Attributes:
        part: The part, as code.
        instead: What stands in its place.
        losses: What the champion loses without it, per split; None where that rule fails.
        repriced: The same where the price is then set anew: with a part goes its scale too, which a price
            makes up for. Empty for numbers and where there is no price to set.
    """

    part: str
    instead: str
    losses: Losses
    repriced: Losses

    @property
    def dead(self) -> bool:
        """Whether it makes no difference on any model."""
        return all(loss is not None and abs(loss) < _NOTHING for loss in self.losses)


@dataclass(frozen=True)
class Carriers:
    """What carried the champion.

    Attributes:
        verdict: In words.
        splits: Names of the splits that effects are given for.
        steps: The steps of its ancestry, seeds left out, oldest first.
        parts: The parts of the rule.
        left_out: Earlier steps that are not shown.
    """

    verdict: str
    splits: tuple[str, ...]
    steps: tuple[StepEffect, ...]
    parts: tuple[PartEffect, ...]
    left_out: int


def judge_carriers(
    outcome: Outcome,
    templates: Mapping[str, Template],
    splits: Sequence[Split],
    champion: Shares,
    read: Collection[str] | None = None,
    prices: Callable[[Candidate], Candidate] | None = None,
) -> Carriers:
    """Measure what each step of the ancestry and each part of the champion contributes.

    Args:
        outcome: What the run found.
        templates: Every code template, by name.
        splits: The models.
        champion: By split, the champion's (M,) shares.
        read: The parameters that the rule reads as it is shown, by name; None for all.
        prices: Sets the price of a rule to what brings most on train; None where that says nothing.
    """
    assert outcome.champion is not None
    rule = outcome.champion.candidate
    own = np.array([champion[split.name].mean() for split in splits])
    steps, left_out = _step_effects(outcome, rule, templates, splits, own)
    found = variants(rule, templates[rule.template], read)[:_MOST]
    means = _means([each.candidate for each in found], templates, splits)
    priced = _repriced(found, prices)
    repriced = dict(zip(priced, _means(list(priced.values()), templates, splits), strict=True))
    parts = tuple(
        PartEffect(
            each.part,
            each.instead,
            _numbers(own - mean),
            _numbers(own - repriced[place]) if place in repriced else (),
        )
        for place, (each, mean) in enumerate(zip(found, means, strict=True))
    )
    names = tuple(split.name for split in splits)
    return Carriers(_verdict(steps, parts, names[-1]), names, steps, parts, left_out)


def _step_effects(
    outcome: Outcome,
    rule: Candidate,
    templates: Mapping[str, Template],
    splits: Sequence[Split],
    own: FloatArray,
) -> tuple[tuple[StepEffect, ...], int]:
    chain = refinements_folded(outcome.ancestry())
    known = {each.candidate.id: each.candidate for each in chain}
    means = dict(zip(known, _means(list(known.values()), templates, splits), strict=True))
    made = [(number, each) for number, each in enumerate(chain, 1) if each.offspring.parents]
    shown = made[-_MOST:]
    undone = [
        None
        if _is_newcomer(each)
        else without_step(rule, each.candidate, known[each.offspring.parents[0]], templates[rule.template])
        for _, each in shown
    ]
    measured = iter(_means([each for each in undone if each is not None], templates, splits))
    effects = []
    for (number, each), candidate in zip(shown, undone, strict=True):
        parents = np.array([means[name] for name in each.offspring.parents])
        before = np.where(np.isnan(parents).all(axis=0), np.nan, np.fmax.reduce(parents))
        losses = () if candidate is None else _numbers(own - next(measured))
        gains = () if _is_newcomer(each) else _numbers(means[each.candidate.id] - before)
        effects.append(StepEffect(number, each.offspring.operator, each.offspring.change, gains, losses))
    return tuple(effects), len(made) - len(shown)


def _is_newcomer(step: Scored) -> bool:
    """Whether it was drawn at random: the seed that stands as its parent lent it nothing."""
    return step.offspring.operator == "newcomer"


def _repriced(
    variants: Sequence[Variant], prices: Callable[[Candidate], Candidate] | None
) -> dict[int, Candidate]:
    """Return the rules that lack structure, with their prices set anew, by place; those that have prices."""
    if prices is None:
        return {}
    found = {place: prices(each.candidate) for place, each in enumerate(variants) if not each.is_number}
    return {place: each for place, each in found.items() if each != variants[place].candidate}


def _means(
    candidates: Sequence[Candidate], templates: Mapping[str, Template], splits: Sequence[Split]
) -> FloatArray:
    """Return (C, splits) mean shares; NaN where a candidate fails."""
    columns = [shares(candidates, templates, split.arena).mean(axis=1) for split in splits]
    return np.array(columns).reshape(len(splits), len(candidates)).T


def _numbers(values: FloatArray) -> Losses:
    return tuple(None if np.isnan(each) else float(each) for each in values)


def _verdict(steps: Sequence[StepEffect], parts: Sequence[PartEffect], split: str) -> str:
    return " ".join([_steps_verdict(steps, split), *_parts_verdict(parts, split)])


def _steps_verdict(steps: Sequence[StepEffect], split: str) -> str:
    if not steps:
        return "The rule is a seed heuristic: no step of the search carried it."
    gains = [(each.gains[-1] or 0.0, each) for each in steps if each.gains]
    drawn = [str(each.number) for each in steps if not each.gains]
    noun = "steps" if len(drawn) > 1 else "step"
    anew = f" It goes back to what was drawn at random in {noun} {listed(drawn)}." if drawn else ""
    if not gains:
        return "The rule was drawn at random: no other step of the search carried it."
    most, step = max(gains, key=lambda pair: pair[0])
    if most < _NOTHING:
        return f"None of {counted(len(gains), 'step')} of its ancestry gained anything on {split}.{anew}"
    gaining = sum(gain > _NOTHING for gain, _ in gains)
    return (
        f"Of {counted(len(gains), 'step')} of its ancestry {gaining} gained on {split}, "
        f"the most step {step.number} ({step.operator}: {step.change}), {points(most)}.{anew}"
    )


def _parts_verdict(parts: Sequence[PartEffect], split: str) -> list[str]:
    if not parts:
        return []
    told = []
    # What a part says weighs more than its scale, so numbers stand back where prices can be set.
    telling = [each for each in parts if each.repriced] or parts
    losing = [((each.repriced or each.losses)[-1] or 0.0, each) for each in telling]
    most, part = max(losing, key=lambda pair: pair[0])
    if most > _NOTHING:
        without = "without it and with its price set anew" if part.repriced else "without it"
        told.append(
            f"Of {counted(len(parts), 'part')} of the rule, {part.part} matters most: "
            f"{without}, it loses {points(most)} on {split}."
        )
    dead = sum(each.dead for each in parts)
    if dead:
        told.append(f"{counted(dead, 'part').capitalize()} could go without any change of its shares.")
    return told
