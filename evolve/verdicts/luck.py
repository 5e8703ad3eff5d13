"""Is the champion luck: would the best of as many candidates look as good without being good?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evolve.candidates import Candidate, Scored
from evolve.engine import Outcome, finalists
from evolve.search.base import rank_key
from evolve.templates import Template
from evolve.verdicts.alternatives import uniform_shares
from evolve.verdicts.bootstrap import RESAMPLES, Interval
from evolve.verdicts.control import permuted_shares, searched_shares
from evolve.verdicts.models import FloatArray, Shares, Split, shares
from evolve.verdicts.wording import counted, percent, points

#: Where train itself chose: the best on train, which resampling chooses among again.
_POOL = 64
#: The correction weighs in the finding from so many models on.
_ENOUGH = 8
#: Falling to the level of the uniform formats, give or take this share.
TOLERANCE = 0.01


@dataclass(frozen=True)
class SelectionBias:
    """How much of the champion's share on the split that chose it is due to choosing.

    Attributes:
        split: The split that chose the champion: ``valid``, or ``train`` where there is no other.
        models: M, how many models chose.
        candidates: Working candidates of the run.
        pool: The best of them on train, among which the split chose.
        measured: Mean share of the champion on the split.
        corrected: The same, corrected for the choice.
        bias: ``measured - corrected``; negative where chance pleaded for another candidate.
        interval: 95 % of the corrected shares.
    """

    split: str
    models: int
    candidates: int
    pool: int
    measured: float
    corrected: float
    bias: float
    interval: Interval


@dataclass(frozen=True)
class ControlShare:
    """The permuted control on one split: mean shares of the optimum.

    Attributes:
        split: ``train``, ``valid`` or ``test``.
        champion: The champion on the models as they are.
        permuted: The champion on permuted models.
        searched: The rule that the same search found on permuted models; None where none worked.
        uniform: The best uniform format of each model.
    """

    split: str
    champion: float
    permuted: float
    searched: float | None
    uniform: float


@dataclass(frozen=True)
class Luck:
    """Whether the champion is luck.

    Attributes:
        finding: ``not luck``, ``luck`` or ``nothing beyond a uniform format``.
        verdict: The finding in words.
        bias: The selection bias; None where one model chose.
        controls: The permuted control, per split.
        searched_evaluations: Evaluations of the control search.
        run_evaluations: Evaluations of the run.
    """

    finding: str
    verdict: str
    bias: SelectionBias | None
    controls: tuple[ControlShare, ...]
    searched_evaluations: int
    run_evaluations: int


def judge_luck(
    outcome: Outcome,
    control: Outcome,
    templates: Mapping[str, Template],
    splits: Sequence[Split],
    champion: Shares,
    seed: int,
) -> Luck:
    """Judge by the selection bias and by the permuted control (see `evolve.verdicts.control`).

    Args:
        outcome: What the run found.
        control: What the same search found on permuted models.
        templates: Every code template, by name.
        splits: The models.
        champion: By split, the champion's (M,) shares.
        seed: The run's seed.
    """
    assert outcome.champion is not None
    found = None if control.champion is None else control.champion.candidate
    controls = tuple(
        _control(outcome.champion.candidate, found, templates, split, champion[split.name], seed)
        for split in splits
    )
    bias = _bias_of(outcome.scored, templates, splits, champion, seed)
    finding = _finding(controls[-1], bias, {each.split: each.uniform for each in controls})
    told = (
        _control_verdict(finding, controls[-1], bias),
        _searched_verdict(controls[-1], len(control.scored)),
        _bias_verdict(bias),
    )
    return Luck(finding, " ".join(told), bias, controls, len(control.scored), len(outcome.scored))


def _control(
    champion: Candidate,
    found: Candidate | None,
    templates: Mapping[str, Template],
    split: Split,
    clean: FloatArray,
    seed: int,
) -> ControlShare:
    searched = None if found is None else float(searched_shares(found, templates, split, seed).mean())
    return ControlShare(
        split=split.name,
        champion=float(clean.mean()),
        permuted=float(permuted_shares(champion, templates, split, seed).mean()),
        searched=None if searched is None or np.isnan(searched) else searched,
        uniform=float(uniform_shares(split).mean()),
    )


def _bias_of(
    scored: Sequence[Scored],
    templates: Mapping[str, Template],
    splits: Sequence[Split],
    champion: Shares,
    seed: int,
) -> SelectionBias | None:
    chooser = [split for split in splits if split.name != "test"][-1]
    if len(chooser.profiles) < 2:
        return None
    working = [each for each in scored if each.evaluation.status == "ok"]
    # What valid chose among was selected on train, so only the choice among the finalists biases valid.
    if chooser.name == "valid":
        pool = finalists(working)
    else:
        pool = sorted(working, key=rank_key, reverse=True)[:_POOL]
    # As in `evolve.engine.choose_champion`, of equals the simplest is taken: it stands first.
    pool.sort(key=lambda each: each.evaluation.complexity)
    table = shares([each.candidate for each in pool], templates, chooser.arena)
    corrected, interval = corrected_share(table, seed)
    measured = float(champion[chooser.name].mean())
    return SelectionBias(
        chooser.name,
        len(chooser.profiles),
        len(working),
        len(pool),
        measured,
        corrected,
        measured - corrected,
        interval,
    )


def corrected_share(table: FloatArray, seed: int) -> tuple[float, Interval]:
    """Return the share that the chosen candidate has on models that did not choose it.

    Models are drawn anew, with replacement; the best candidate on those drawn is scored on those that
    were not: the bootstrap bias correction of Tsamardinos (2018).

    Args:
        table: (C, M) shares of the candidates on M ≥ 2 models; at equal scores the first is chosen.
        seed: Of the draws.

    Returns:
        The mean over draws, and the interval that holds 95 % of them.
    """
    models = table.shape[1]
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(models, np.full(models, 1 / models), size=RESAMPLES)
    drawn = drawn[(drawn == 0).any(axis=1)]
    chosen = np.round(drawn @ table.T / models, 9).argmax(axis=1)
    left_out = drawn == 0
    scores = (table[chosen] * left_out).sum(axis=1) / left_out.sum(axis=1)
    low, high = np.percentile(scores, (2.5, 97.5))
    return float(scores.mean()), Interval(float(low), float(high))


def _finding(control: ControlShare, bias: SelectionBias | None, uniform: Mapping[str, float]) -> str:
    if control.champion <= control.uniform + 1e-9:
        return "nothing beyond a uniform format"
    falls = control.permuted <= control.uniform + TOLERANCE and control.permuted < control.champion - 1e-9
    holds = bias is None or bias.models < _ENOUGH or bias.corrected > uniform[bias.split]
    return "not luck" if falls and holds else "luck"


def _control_verdict(finding: str, control: ControlShare, bias: SelectionBias | None) -> str:
    level = f"{percent(control.uniform)} of the best uniform format of each model"
    own, fallen = percent(control.champion), percent(control.permuted)
    if finding == "nothing beyond a uniform format":
        return (
            f"On {control.split} the rule, with {own}, is not above the {level}, so there is nothing "
            "that could be luck."
        )
    numbers = f"on {control.split} it has {own}, with the layers permuted {fallen}, beside the {level}"
    if finding == "not luck":
        return f"The rule is not luck: its share rests on which layer is which, for {numbers}."
    if control.permuted > control.uniform + TOLERANCE:
        return f"The rule may be luck: permuting the layers does not take away what it has; {numbers}."
    assert bias is not None
    return (
        f"The rule may be luck: corrected for having been chosen it is not above a uniform format on "
        f"{bias.split}; {numbers}."
    )


def _searched_verdict(control: ControlShare, evaluations: int) -> str:
    if control.searched is None:
        return "The same search on permuted models finds no rule that works."
    above = "still above" if control.searched > control.uniform + TOLERANCE else "not above"
    return (
        f"The same search on permuted models, with {counted(evaluations, 'evaluation')}, finds a rule of "
        f"{percent(control.searched)}, {above} that level."
    )


def _bias_verdict(bias: SelectionBias | None) -> str:
    if bias is None:
        return "One model chose it, so how much of its score is due to being chosen cannot be told."
    # Where train itself chose, resampling chooses among rules, however alike they are.
    pool = f"{bias.pool} structures" if bias.split == "valid" else f"{bias.pool}"
    chance = f"{points(bias.bias)} of its share are" if bias.bias > 5e-5 else "no part of its share is"
    return (
        f"Of {counted(bias.candidates, 'working candidate')}, {bias.split} chose it among the {pool} "
        f"best on train; {chance} due to that choice: {percent(bias.measured)} on {bias.split} as measured, "
        f"{percent(bias.corrected)} corrected."
    )
