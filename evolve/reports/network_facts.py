"""What reports show of real networks: their layers, and what whole allocations measured beside their sums.

Shapes: L layers, K formats, J allocations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from numpy.typing import ArrayLike

from evolve.allocations import names_of
from evolve.profiles import FloatArray, IntArray, ModelProfile

#: Statistics that are shown of a layer, where they are known.
STATISTICS = ("weight_mean", "weight_std", "weight_range", "activation_std", "activation_range")
#: Ends of the bands of sums in which measured and predicted are compared.
BANDS = (1e-4, 0.01, 0.1, 0.5, 2.0, np.inf)
#: Fewer allocations say nothing of a ratio's distribution.
FEWEST = 8


@dataclass(frozen=True, eq=False)
class NetworkLayers:
    """The layers of one network, in the order of the network.

    Attributes:
        name: What the network is called.
        names: What it calls each layer, (L,).
        kinds: The type of each layer, (L,).
        num_params: Number of weights, (L,).
        statistics: By name, one of `STATISTICS`, (L,).
        formats: Names of the formats by bits, (K,).
        divergence: Of the outputs with this layer alone in this format, (L, K); None without a profile.
    """

    name: str
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    num_params: IntArray
    statistics: Mapping[str, FloatArray]
    formats: tuple[str, ...]
    divergence: FloatArray | None


@dataclass(frozen=True, eq=False)
class SumGroup:
    """Allocations that were measured, beside the sum of their layers' divergences.

    Attributes:
        label: What they are.
        predicted: Sums of the divergences of the layers, each measured alone, (J,).
        measured: Divergence with all layers in their formats at once, (J,).
    """

    label: str
    predicted: FloatArray
    measured: FloatArray


@dataclass(frozen=True, eq=False)
class SumPanel:
    """A panel of sums beside what was measured.

    Attributes:
        title: What the panel shows.
        groups: Its allocations, each group with a colour of its own.
        range_ends: The sums up to which adding up holds, one for each kind of network in the panel.
        marked: Sums to point out, whether measured or not.
    """

    title: str
    groups: tuple[SumGroup, ...]
    range_ends: tuple[float, ...]
    marked: tuple[float, ...] = ()


@dataclass(frozen=True)
class FormatMap:
    """An allocation to draw beside the layers.

    Attributes:
        label: What it is.
        formats: The format of each layer by its name.
    """

    label: str
    formats: Mapping[str, str]


@dataclass(frozen=True)
class Ratio:
    """Measured over predicted divergence.

    Attributes:
        count: Number of allocations.
        median, low, high: The median, and the 10 and 90 % quantiles.
    """

    count: int
    median: float
    low: float
    high: float


def layers_of(profile: ModelProfile) -> NetworkLayers:
    """Return the layers of a profile in the order of the network."""
    order = np.argsort(profile.layer_index)
    names = names_of(profile)
    known = {name: getattr(profile, name) for name in STATISTICS if hasattr(profile, name)}
    known |= {name: profile.measurements[name] for name in STATISTICS if name in profile.measurements}
    return NetworkLayers(
        name=profile.name,
        names=tuple(names[at] for at in order),
        kinds=tuple(profile.layer_type[at] for at in order),
        num_params=profile.num_params[order],
        statistics={name: known[name][order] for name in STATISTICS if name in known},
        formats=profile.format_names,
        divergence=profile.loss[order],
    )


def ratio_of(group: SumGroup, low: float, high: float) -> Ratio | None:
    """Return measured over predicted where the prediction is within bounds; None of too few allocations."""
    there = (group.predicted >= low) & (group.predicted < high)
    if there.sum() < FEWEST:
        return None
    ratios = group.measured[there] / group.predicted[there]
    lowest, median, highest = np.quantile(ratios, (0.1, 0.5, 0.9)).tolist()
    return Ratio(int(there.sum()), median, lowest, highest)


def joined_groups(label: str, groups: Sequence[SumGroup]) -> SumGroup:
    """Return several groups as one."""
    columns: list[ArrayLike] = [
        np.concatenate([getattr(each, name) for each in groups]) for name in ("predicted", "measured")
    ]
    return SumGroup(label, *map(np.asarray, columns))


def band_words(low: float, high: float) -> str:
    """Return the bounds of a band in words."""
    return f"above {low:g}" if np.isinf(high) else f"{low:g} to {high:g}"


def ratio_words(ratio: Ratio | None) -> str:
    """Return a ratio for a table: the median, in parentheses the 10 and 90 % quantiles."""
    return "–" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def decades(values: FloatArray, least: float) -> tuple[float, float]:
    """Return powers of ten around all values, the lower one at least ``least``, at least two apart."""
    if not len(values):
        return 1e-4, 1.0
    low = np.floor(np.log10(max(float(values.min()), least)))
    high = np.ceil(np.log10(max(float(values.max()), least)))
    return float(10.0**low), float(10.0 ** max(high, low + 2))


def common_prefix(names: Sequence[str]) -> str:
    """Return the modules that all paths of several layers begin with, the last dot included."""
    parts = [name.split(".")[:-1] for name in names]
    shared = takewhile(lambda same: len(set(same)) == 1, zip(*parts, strict=False))
    return "".join(f"{same[0]}." for same in shared) if len(names) > 1 else ""


def counted_weights(count: int) -> str:
    """Return a number of weights in few characters: ``768``, ``3.1k``, ``39M``."""
    value = float(count)
    for unit in ("", "k", "M", "G"):
        if value < 999.5 or unit == "G":
            break
        value /= 1000
    return f"{value:.0f}{unit}" if value >= 99.5 or not unit else f"{value:.2g}{unit}"
