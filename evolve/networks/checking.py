"""Checks an allocation on held-out data: what it measures, what was predicted, and the best uniform format.

Shapes: U units that are drawn for intervals (samples, or tokens), B blocks of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolve.networks.applying import size_bits, uniform
from evolve.networks.joint_measuring import JointMeasurer, Sums
from evolve.statistics import Interval, bootstrap

RESAMPLES = 2000
_BLOCKS = 512
_ROUNDING = 1e-12
_FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Checked:
    """What one allocation measures.

    Attributes:
        label: What it is, in words.
        formats: The format of each layer, by name; empty for the unchanged network.
        avg_bits: Bits per weight, scales and zero points counted; as the network stores them where it is
            unchanged.
        size_bytes: Bytes of all weights.
        predicted: Sum of the divergences of its layers, from a profile; None where there is none.
        divergence: Mean divergence from the unchanged outputs.
        loss: Mean loss; None without labels.
        accuracy: Share of right rows; None unless the labels are classes.
        perplexity: Of a language model.
        broken: Number of outputs that are infinite or no numbers.
        rows: Number of all outputs that count: samples, or tokens.
    """

    label: str
    formats: Mapping[str, str]
    avg_bits: float
    size_bytes: float
    predicted: float | None
    divergence: Interval
    loss: Interval | None
    accuracy: Interval | None
    perplexity: Interval | None
    broken: int
    rows: int

    @property
    def retention(self) -> float:
        """exp(−divergence), what profiles call the retained accuracy."""
        return math.exp(-self.divergence.estimate)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        found: dict[str, Any] = asdict(self)
        return {**found, "formats": dict(self.formats), "retention": self.retention}


@dataclass(frozen=True)
class Check:
    """Allocations beside the best uniform format that takes no more bits than the first.

    Attributes:
        unit: What intervals are over: ``samples`` or ``tokens``.
        num_units: How many.
        unchanged: The network as it is.
        allocations: The allocations.
        uniform: The best uniform format of the first one's size or less; None if every one is larger.
        excesses: Of each allocation, its divergence less that of the uniform format; None without one.
        change: Divergence of the last allocation less that of the first; None if there is only one.
        uniform_measured: By format, the divergence of every uniform one that takes no more.
    """

    unit: str
    num_units: int
    unchanged: Checked
    allocations: tuple[Checked, ...]
    uniform: Checked | None
    excesses: tuple[Interval, ...] | None
    change: Interval | None
    uniform_measured: Mapping[str, float]

    @property
    def handed_out(self) -> Checked:
        """The last allocation that is not worse than the uniform format; that one if all are.

        Without a uniform format, the last of those that break the fewest outputs.
        """
        if self.uniform is None or self.excesses is None:
            return min(reversed(self.allocations), key=lambda each: each.broken)
        pairs = zip(reversed(self.allocations), reversed(self.excesses), strict=True)
        return next((each for each, excess in pairs if excess.estimate <= 0), self.uniform)


def check_allocations(
    measurer: JointMeasurer,
    allocations: Mapping[str, Mapping[str, str]],
    rivals: Sequence[str],
    predicted: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Check:
    """Measure allocations, and every uniform format of the first one's size or less to find the best of them.

    Args:
        measurer: Measures on held-out data.
        allocations: By what they are called, the format of each layer by name; at least one.
        rivals: Formats that everything may be in instead.
        predicted: Predicted divergences by what allocations are called, and by format.
        seed: Of the resamples.
    """
    network, expected = measurer.network, predicted or {}
    bits = size_bits(network, next(iter(allocations.values()))) * (1 + _ROUNDING)
    fitting = [each for each in rivals if size_bits(network, uniform(network, each)) <= bits]
    measured = {each: measurer.measure(uniform(network, each)).divergence for each in fitting}
    best = min(measured, key=lambda each: (measured[each], each), default=None)
    sums = {label: measurer.sums(formats) for label, formats in allocations.items()}
    unchanged = measurer.sums()
    describe = partial(_checked, measurer, seed=seed)
    rival = excesses = change = None
    if best is not None:
        everywhere = uniform(network, best)
        same = (sums[label] for label, formats in allocations.items() if dict(formats) == everywhere)
        other = next(same, None) or measurer.sums(everywhere)
        rival = describe(f"{best} everywhere", everywhere, other, expected.get(best))
        excesses = tuple(_difference(each, other, seed) for each in sums.values())
    if len(sums) > 1:
        first, *_, last = sums.values()
        change = _difference(last, first, seed)
    return Check(
        unchanged.unit,
        len(unchanged.divergence),
        describe("unchanged", {}, unchanged, None),
        tuple(describe(label, allocations[label], each, expected.get(label)) for label, each in sums.items()),
        rival,
        excesses,
        change,
        measured,
    )


def _checked(
    measurer: JointMeasurer,
    label: str,
    formats: Mapping[str, str],
    sums: Sums,
    predicted: float | None,
    seed: int,
) -> Checked:
    network = measurer.network
    weights = sum(layer.num_params for layer in network.layers)
    stored = float(sum(layer.num_params * layer.stored_bits for layer in network.layers))
    bits = size_bits(network, formats) if formats else stored
    loss, perplexity = _mean(sums.loss, seed), None
    if loss is not None and network.task == "language":
        perplexity = Interval(*(math.exp(min(each, 700)) for each in (loss.low, loss.estimate, loss.high)))
    divergence = _mean(sums.divergence, seed)
    assert divergence is not None
    return Checked(
        label,
        formats,
        bits / weights,
        bits / 8,
        predicted,
        divergence,
        loss,
        _mean(sums.hit, seed),
        perplexity,
        sums.broken,
        sums.rows,
    )


def _mean(sums: _FloatArray, seed: int) -> Interval | None:
    """Return the mean of sums and numbers, (U, 2), with its interval; None where nothing is known."""
    if not sums[:, 1].any():
        return None
    return _interval(sums, _ratio, seed)


def _difference(one: Sums, other: Sums, seed: int) -> Interval:
    """Return the difference of two mean divergences, pairs of the same unit kept together."""
    if one is other:
        return Interval(0.0, 0.0, 0.0)

    def statistic(values: _FloatArray, axis: int) -> _FloatArray:
        return _ratio(values[..., :2], axis) - _ratio(values[..., 2:], axis)

    return _interval(np.column_stack([one.divergence, other.divergence]), statistic, seed)


def _interval(values: _FloatArray, statistic: Any, seed: int) -> Interval:
    """Return a statistic with its bootstrap interval; many units are first gathered into blocks."""
    if len(values) > _BLOCKS:
        block = np.arange(len(values)) % _BLOCKS
        values = np.column_stack([np.bincount(block, column, _BLOCKS) for column in values.T])
    return bootstrap(values, np.random.default_rng(seed), statistic, resamples=RESAMPLES)


def _ratio(values: _FloatArray, axis: int) -> _FloatArray:
    total = values.sum(axis=axis)
    ratio: _FloatArray = total[..., 0] / np.maximum(total[..., 1], 1)
    return ratio


def broken_words(found: Checked) -> str | None:
    """Return how many outputs are no numbers; None where all are."""
    if not found.broken:
        return None
    return (
        f"{found.label}: {found.broken} of {found.rows} outputs are infinite or no numbers (NaN); each "
        "counts as wrong, with a divergence that nothing else reaches"
    )


def measured_words(found: Checked, task: str) -> str:
    """Return what was measured as one clause."""
    parts = [f"divergence {found.divergence.estimate:.4g}"]
    if found.accuracy is not None and task == "classification":
        parts.append(f"accuracy {found.accuracy.estimate:.4f}")
    if found.perplexity is not None:
        parts.append(f"perplexity {found.perplexity.estimate:.4g}")
    elif found.loss is not None:
        parts.append(f"loss {found.loss.estimate:.4g}")
    return ", ".join(parts)
