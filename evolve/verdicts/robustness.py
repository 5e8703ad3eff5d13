"""Is the champion robust: what is it worth if the signals it reads are measured with errors?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evolve.candidates import Candidate
from evolve.evaluation import Arena, Failure, Task
from evolve.profiles import ModelProfile
from evolve.scoring import ROUNDING, THRESHOLD
from evolve.templates import Template
from evolve.verdicts.models import DisguisedArena, FloatArray, Shares, Split, retentions, shares
from evolve.verdicts.wording import listed, percent, points

#: Relative errors, as the standard deviation of the logarithm.
NOISE = (0.01, 0.05, 0.10, 0.20)
_DRAWS = 5
#: A mean share that moves by no more than this, for the worse or the better, is robust.
TOLERANCE = 0.01
_DECIBELS = 10 / np.log(10)
_STATISTICS = ("weight_mean", "weight_std", "weight_range", "activation_range")


@dataclass(frozen=True)
class NoisyShare:
    """The champion on one split with errors of one size.

    Attributes:
        split: ``train``, ``valid`` or ``test``.
        noise: The errors' relative size.
        mean: Mean share over models and draws.
        worst: Least share.
        below: Part of models and draws where the retention falls below the threshold.
        loss: Mean share without errors minus ``mean``.
    """

    split: str
    noise: float
    mean: float
    worst: float
    below: float
    loss: float


@dataclass(frozen=True)
class Robustness:
    """Whether the champion is robust.

    Attributes:
        finding: ``robust``, ``robust to small errors``, ``not robust`` or ``reads nothing measured``.
        verdict: The finding in words.
        rows: One a split and size of errors; none where nothing measured is read.
        draws: How often each model was perturbed.
    """

    finding: str
    verdict: str
    rows: tuple[NoisyShare, ...]
    draws: int


def judge_robustness(
    champion: Candidate, templates: Mapping[str, Template], splits: Sequence[Split], clean: Shares, seed: int
) -> Robustness:
    """Perturb the signals that a rule sees and score its allocations with the truth.

    Every measured signal of every layer gets a log-normal factor of its own; sensitivities get theirs
    per format, on their logarithmic loss, so that they stay below 1. Types, positions and sizes are
    known exactly. The draws are the same for all sizes of errors, only scaled.

    Args:
        champion: The rule.
        templates: Its code template, by name.
        splits: The models.
        clean: By split, the (M,) shares it reaches without errors.
        seed: Of the errors.
    """
    if not _reads_measurements(champion, templates, splits[0]):
        verdict = "The rule reads only types, positions and sizes of layers, which are known without error."
        return Robustness("reads nothing measured", verdict, (), 0)
    rows = []
    for split in splits:
        mean = float(clean[split.name].mean())
        for noise in NOISE:
            arena = _noisy_arena(split, noise, seed)
            found = shares([champion], templates, arena)[0]
            kept = retentions([champion], templates, arena)[0]
            below = float((kept < THRESHOLD - ROUNDING).mean())
            rows.append(
                NoisyShare(
                    split.name,
                    noise,
                    float(found.mean()),
                    float(found.min()),
                    below,
                    mean - float(found.mean()),
                )
            )
    finding, verdict = _judge(rows)
    return Robustness(finding, verdict, tuple(rows), _DRAWS)


def _reads_measurements(champion: Candidate, templates: Mapping[str, Template], split: Split) -> bool:
    exact = Arena(split.profiles[:1], "metadata")
    names = tuple(name for name, _ in champion.parameters)
    template = templates[champion.template]
    values = np.array([[value for _, value in champion.parameters]], dtype=np.float64)
    task = Task(template.source(champion), template.file, names, values.reshape(1, len(names)))
    (result,) = exact.evaluate(task)
    return isinstance(result, Failure)


def _noisy_arena(split: Split, noise: float, seed: int) -> Arena:
    generator = np.random.default_rng(seed)
    copies = [each for _ in range(_DRAWS) for each in split.profiles]
    seen = list(_perturbed(copies, noise, generator))
    optima = np.tile(split.arena.optimum_fitness, _DRAWS)
    return DisguisedArena(seen, copies, split.arena.level, optima, split.arena.budgets)


def _perturbed(
    profiles: Sequence[ModelProfile], noise: float, generator: np.random.Generator
) -> Iterator[ModelProfile]:
    for each in profiles:
        size = each.num_layers
        changed = {
            name: getattr(each, name) * np.exp(noise * generator.standard_normal(size))
            for name in _STATISTICS
        }
        gradient = each.gradient_sensitivity * np.exp(noise * generator.standard_normal(size))
        loss = each.loss * np.exp(noise * generator.standard_normal(each.loss.shape))
        sensitivity = np.minimum(-np.expm1(-loss), np.nextafter(1.0, 0.0))
        measured = {name: _noisy(name, table, noise, generator) for name, table in each.measurements.items()}
        yield replace(
            each,
            **changed,
            gradient_sensitivity=np.minimum(gradient, 1.0),
            sensitivity=sensitivity,
            measurements=measured,
        )


def _noisy(name: str, table: FloatArray, noise: float, generator: np.random.Generator) -> FloatArray:
    """Return a measurement with errors: factors, which are added where it is in decibels."""
    errors = noise * generator.standard_normal(table.shape)
    changed: FloatArray = table + errors * _DECIBELS if name == "sqnr" else table * np.exp(errors)
    return changed


def _judge(rows: Sequence[NoisyShare]) -> tuple[str, str]:
    """Judge by the rows of all splits, those of each by growing noise."""
    moved = [row for row in rows if abs(row.loss) > TOLERANCE]
    tolerable = max((noise for noise in NOISE if all(row.noise > noise for row in moved)), default=0.0)
    splits = listed(list(dict.fromkeys(row.split for row in rows)))
    if not moved:
        start = (
            f"The rule is robust: errors of up to {_size(NOISE[-1])} in the signals it reads cost it no more "
            f"than {100 * TOLERANCE:.0f} point on {splits}."
        )
        return "robust", f"{start} {_measured(rows)}"
    if tolerable:
        finding = "robust to small errors"
        start = f"The rule is robust to errors of up to {_size(tolerable)}, not to larger ones"
    else:
        finding = "not robust"
        start = "The rule is not robust"
    return finding, f"{start}: {'; '.join(_told(moved))}. {_measured(rows)}"


def _told(moved: Sequence[NoisyShare]) -> Iterator[str]:
    """Yield what errors cost, and what they bring: the least that move the mean share, on which split."""
    lost = [row for row in moved if row.loss > 0]
    won = [row for row in moved if row.loss < 0]
    if lost:
        first = min(lost, key=lambda row: (row.noise, -row.loss))
        yield f"errors of {_size(first.noise)} cost it {points(first.loss)} on {first.split}"
    if won:
        first = min(won, key=lambda row: (row.noise, row.loss))
        # Errors tell nothing about a layer, so what they bring is no merit of the rule.
        yield (
            f"errors of {_size(first.noise)} add {points(first.loss)} on {first.split}, so what it has there "
            "hangs on the exact values of the signals"
        )


def _measured(rows: Sequence[NoisyShare]) -> str:
    """Tell the mean shares on the last split."""
    last = [row for row in rows if row.split == rows[-1].split]
    told = [f"{percent(row.mean)} at {_size(row.noise)}" for row in last]
    without = f"{percent(last[0].mean + last[0].loss)} without errors"
    return f"On {last[0].split}, its mean share is {listed([without, *told])}."


def _size(noise: float) -> str:
    return f"{100 * noise:.0f} %"
