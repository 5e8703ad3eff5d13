"""Does the champion overfit: is it better on the models it was found with than on others?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evolve.candidates import Scored
from evolve.engine import GenerationSummary
from evolve.verdicts.bootstrap import Interval, difference_interval, mean_interval
from evolve.verdicts.models import FloatArray, Shares
from evolve.verdicts.wording import listed, points, signed_range

#: A gap of shares below this is no overfitting worth the name.
TOLERANCE = 0.002
#: Valid has something to say against test from so many models on.
_ENOUGH = 8


@dataclass(frozen=True)
class SplitShare:
    """The champion's share of the optimum on one split.

    Attributes:
        split: ``train``, ``valid`` or ``test``.
        models: M, how many models.
        mean: Mean share.
        worst: Least share.
        interval: Of the mean, over models; None for a single model.
    """

    split: str
    models: int
    mean: float
    worst: float
    interval: Interval | None


@dataclass(frozen=True)
class Gap:
    """How much better the champion is on train than on another split.

    Attributes:
        split: ``valid`` or ``test``.
        gap: Mean share on train minus that on the split.
        interval: Of the gap; None where both are single models.
    """

    split: str
    gap: float
    interval: Interval | None

    @property
    def clear(self) -> bool:
        """Whether the gap is beyond the tolerance, and not by chance."""
        return self.interval is not None and self.interval.low > TOLERANCE


@dataclass(frozen=True)
class GenerationGap:
    """A new champion's mean shares on train and valid, and by how much the first is above the second."""

    generation: int
    train: float
    valid: float
    gap: float


@dataclass(frozen=True)
class Overfitting:
    """Whether the champion overfits.

    Attributes:
        finding: ``overfits``, ``does not carry over``, ``no sign`` or ``cannot be told``.
        verdict: The finding in words.
        splits: Its shares, per split.
        gaps: How much better it is on train.
        generations: The gap of every new champion, oldest first.
    """

    finding: str
    verdict: str
    splits: tuple[SplitShare, ...]
    gaps: tuple[Gap, ...]
    generations: tuple[GenerationGap, ...]

    def gap_on(self, split: str) -> Gap | None:
        """Return the gap to a split; None for train itself."""
        return next((each for each in self.gaps if each.split == split), None)


def judge_overfitting(
    champion: Shares, seed: int, generations: tuple[GenerationGap, ...] = ()
) -> Overfitting:
    """Judge by the champion's share of the optimum on every model.

    Args:
        champion: By split, (M,) shares; ``train`` first.
        seed: Of the bootstrap.
        generations: From `generation_gaps`.
    """
    train = champion["train"]
    gaps = tuple(
        Gap(split, float(train.mean() - values.mean()), difference_interval(train, values, seed))
        for split, values in champion.items()
        if split != "train"
    )
    finding = _finding(gaps, {split: len(values) for split, values in champion.items()})
    return Overfitting(
        finding=finding,
        verdict=_verdict(finding, gaps, len(train)),
        splits=tuple(_split_share(split, values, seed) for split, values in champion.items()),
        gaps=gaps,
        generations=generations,
    )


def _split_share(split: str, values: FloatArray, seed: int) -> SplitShare:
    return SplitShare(
        split, len(values), float(values.mean()), float(values.min()), mean_interval(values, seed)
    )


def _finding(gaps: Sequence[Gap], models: dict[str, int]) -> str:
    known = {each.split: each for each in gaps if models[each.split] > 1}
    valid, test = known.get("valid"), known.get("test")
    if not known:
        return "cannot be told"
    if not any(each.clear for each in known.values()):
        return "no sign"
    if (
        valid is not None
        and test is not None
        and valid.interval is not None
        and test.interval is not None
        and models["valid"] >= _ENOUGH
        and not valid.clear
        and valid.interval.high < test.interval.low
    ):
        return "does not carry over"
    return "overfits"


def _verdict(finding: str, gaps: Sequence[Gap], train_models: int) -> str:
    if not gaps:
        return "It cannot be told whether the rule overfits: there is no model it was not found with."
    measured = listed([_measured(each) for each in gaps])
    if finding == "cannot be told":
        return (
            "It cannot be told whether the rule overfits: with one model a split there is no interval. "
            f"Compared with train, its share is {measured}."
        )
    alone = " Train is a single model, taken as it is." if train_models == 1 else ""
    match finding:
        case "overfits":
            start = "The rule overfits"
        case "does not carry over":
            start = (
                "The rule does not overfit the models of train, for it does as well on those of valid, "
                "but it does not carry over to the models of test, which are of another kind"
            )
        case _:
            start = "There is no sign that the rule overfits"
    return f"{start}: compared with train, its share is {measured}.{alone}"


def _measured(gap: Gap) -> str:
    interval = "" if gap.interval is None else f" (gap: {signed_range(gap.interval)})"
    if abs(gap.gap) < 5e-5:
        return f"the same on {gap.split}{interval}"
    return f"{points(gap.gap)} {'lower' if gap.gap > 0 else 'higher'} on {gap.split}{interval}"


def generation_gaps(
    summaries: Sequence[GenerationSummary], scored: Sequence[Scored]
) -> tuple[GenerationGap, ...]:
    """Return the gap of every new champion, from what the journal holds; none without a valid split."""
    known = {each.candidate.id: each.evaluation for each in scored}
    gaps: list[GenerationGap] = []
    before = None
    for summary in summaries:
        evaluation = known.get(summary.champion or "")
        if evaluation is None or summary.champion == before:
            continue
        before = summary.champion
        if evaluation.train is not None and evaluation.valid is not None:
            train, valid = evaluation.train.optimum_ratio, evaluation.valid.optimum_ratio
            gaps.append(GenerationGap(summary.generation, train, valid, train - valid))
    return tuple(gaps)
