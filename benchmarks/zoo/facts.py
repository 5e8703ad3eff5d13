"""What the measurements show of adding up, as the tables of the data set's page.

Shapes: J allocations, L layers, K formats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pages import write_between
from scipy.stats import spearmanr

from evolve.datasets import Dataset, find_dataset
from evolve.joint import JointMeasurements, joint_of
from evolve.profiles import ModelProfile
from zoo.allocating import NEAR_BUDGETS, fisher_loss
from zoo.catalogue import FAMILIES

FloatArray = NDArray[np.float64]
#: Bands of predicted divergence, and of average bits.
SUMS = (1e-4, 0.01, 0.1, 0.5, 2.0, np.inf)
BITS = ((2.0, 3.0), (3.0, 4.0), (4.0, 6.25), (3.5, 8.5))
#: Fewer allocations in a band than this say nothing.
_ENOUGH = 8
#: The formats whose sensitivity is said to be concentrated.
_NARROW = ("TERNARY_MSE", "INT3_MSE", "INT4")
_SEEDED = re.compile(r"-s(\d+)$")


@dataclass(frozen=True, eq=False)
class Measured:
    """A network's profile and joint measurements."""

    split: str
    family: str
    profile: ModelProfile
    joint: JointMeasurements

    @property
    def predicted(self) -> FloatArray:
        """The sum of divergences, (J,)."""
        return self.joint.predicted(self.profile)

    def summed(self, table: FloatArray) -> FloatArray:
        """Return the sums of a table over layers, (L, K), for each allocation, (J,)."""
        summed: FloatArray = table[np.arange(self.profile.num_layers), self.joint.allocations].sum(axis=1)
        return summed


def read(dataset: Dataset) -> list[Measured]:
    """Return all networks of a data set that have joint measurements."""
    joints = joint_of(dataset)
    return [
        Measured(split, profile.provenance["trained"]["family"], profile, joints[profile.name])
        for split, profile in dataset.splits()
        if profile.name in joints
    ]


def write_facts(folder: Path) -> None:
    """Write the tables into the data set's page, or on standard output where there is no page."""
    found = read(find_dataset(folder))
    tables = {
        "adding up": adding_up(found),
        "ranks": ranks(found),
        "searched": searched(found),
        "concentration": concentration(found),
        "seeds": seeds(found),
        "networks": networks(found),
    }
    for name, text in tables.items():
        if (folder / "README.md").exists():
            write_between(folder / "README.md", name, text)
        else:
            print(f"{name}\n\n{text}\n")


def adding_up(found: Sequence[Measured]) -> str:
    """Return a table of measured over predicted divergence by bands of the prediction."""

    def row(members: Sequence[Measured]) -> Iterator[str]:
        predicted = np.concatenate([each.predicted for each in members])
        same = np.concatenate([each.joint.calibration_divergence for each in members])
        other = np.concatenate([each.joint.divergence for each in members])
        for low, high in pairwise(SUMS):
            inside = (predicted >= low) & (predicted < high)
            if inside.sum() < _ENOUGH:
                yield "–"
                continue
            low_end, middle, high_end = np.quantile(same[inside] / predicted[inside], (0.1, 0.5, 0.9))
            held_out = np.median(other[inside] / predicted[inside])
            yield f"{middle:.2f} ({low_end:.2f}–{high_end:.2f}), {held_out:.2f}"

    heads = [f"{low:g} – {high:g}" for low, high in pairwise(SUMS)]
    return _table(["family", *heads], _by_family(found, row))


def ranks(found: Sequence[Measured]) -> str:
    """Return a table of rank correlations with the divergence on held-out data within bands of bits."""
    signals: dict[str, Callable[[Measured], FloatArray]] = {
        "ΣKL": lambda each: each.predicted,
        "½ΣFΔW²": lambda each: each.summed(fisher_loss(each.profile)),
        "ΣΔW²": lambda each: each.summed(each.profile.measurements["squared_error"]),
        "−bits": lambda each: -each.joint.average_bits,
    }
    rows = []
    for word, signal in signals.items():
        row = [word]
        for low, high in BITS:
            values = []
            for each in found:
                inside = (each.joint.average_bits >= low) & (each.joint.average_bits < high)
                if inside.sum() >= _ENOUGH:
                    ranked = spearmanr(signal(each)[inside], each.joint.divergence[inside]).statistic
                    values.append(float(ranked))
            low_end, middle, high_end = np.quantile(values, (0.1, 0.5, 0.9)) if values else [np.nan] * 3
            row.append(f"{middle:.2f} ({low_end:.2f}–{high_end:.2f})")
        rows.append(row)
    return _table(["signal", *(f"{low:g} – {high:g} bits" for low, high in BITS)], rows)


def searched(found: Sequence[Measured]) -> str:
    """Return a table of what ways to allocate reach within a budget, relative to the Lagrangian from KL."""
    rows = []
    for budget in NEAR_BUDGETS:
        ratios: dict[str, list[float]] = {"uniform": [], "error": [], "fisher": [], "random": []}
        for each in found:
            kept = _kept(each, budget)
            if "kl" in kept:
                for word in ratios.keys() & kept.keys():
                    ratios[word].append(kept[word] / kept["kl"])
        cells = [f"{np.median(values):.2f} ({len(values)})" for values in ratios.values()]
        rows.append([f"{budget:g}", *cells])
    return _table(["budget", "best uniform", "from ΣΔW²", "from Fisher", "best of the random"], rows)


def _kept(each: Measured, budget: float) -> dict[str, float]:
    """Return the least measured divergence of each way to allocate that keeps a budget."""
    kept: dict[str, float] = {}
    joint = each.joint
    for bits, divergence, sources in zip(joint.average_bits, joint.divergence, joint.sources, strict=True):
        for word, *rest in (source.split() for source in sources.split("; ")):
            free = word in ("uniform", "random")
            if bits <= budget + 1e-9 and (free or rest == [f"{budget:g}"]):
                kept[word] = min(kept.get(word, np.inf), float(divergence))
    return kept


def concentration(found: Sequence[Measured]) -> str:
    """Return a table of how few layers, and weights, carry four fifths of the sum of divergences."""

    def row(members: Sequence[Measured]) -> Iterator[str]:
        for name in _NARROW:
            shares = np.array([_carriers(each.profile, name) for each in members])
            layers, weights = np.median(shares, axis=0)
            yield f"{layers:.0%} of layers, {weights:.0%} of weights"

    return _table(["family", *_NARROW], _by_family(found, row))


def _carriers(profile: ModelProfile, name: str) -> tuple[float, float]:
    """Return the shares of layers and of weights that carry four fifths, the densest layers first."""
    loss = _column(profile, name)
    order = np.argsort(-loss / profile.num_params)
    needed = int(np.searchsorted(loss[order].cumsum(), 0.8 * loss.sum())) + 1
    return needed / len(loss), float(profile.param_fraction[order[:needed]].sum())


def _column(profile: ModelProfile, name: str) -> FloatArray:
    return profile.loss[:, profile.format_names.index(name)]


def seeds(found: Sequence[Measured]) -> str:
    """Return a table of how alike the layers of one architecture rank after another seed."""
    named = {each.profile.name: each for each in found}
    rows = []
    for name, each in named.items():
        other = named.get(_SEEDED.sub("-s1", name))
        if not name.endswith("-s0") or other is None:
            continue
        row = [f"`{_SEEDED.sub('', name)}`"]
        for narrow in _NARROW:
            alike = spearmanr(_column(each.profile, narrow), _column(other.profile, narrow)).statistic
            row.append(f"{alike:.2f}")
        rows.append(row)
    return _table(["architecture", *_NARROW], rows)


def networks(found: Sequence[Measured]) -> str:
    """Return a table of every network: its size, how good it is, and what 4 and 3 bits do to it."""
    rows = []
    for each in found:
        unchanged = each.joint.provenance["unchanged"]
        quality = f"{unchanged['accuracy']:.3f}"
        if "perplexity" in unchanged:
            quality += f", perplexity {unchanged['perplexity']:.2f}"
        rows.append(
            [
                each.split,
                f"`{each.profile.name}`",
                str(each.profile.num_layers),
                str(each.profile.total_params),
                quality,
                _uniform(each, "INT4"),
                _uniform(each, "INT3_MSE"),
                str(len(each.joint)),
                f"`{each.profile.provenance['weights_sha256'][:10]}`",
            ]
        )
    heads = ["split", "network", "layers", "weights", "accuracy", "KL INT4", "KL INT3", "J", "SHA-256"]
    return _table(heads, rows)


def _uniform(each: Measured, name: str) -> str:
    at = next(at for at, source in enumerate(each.joint.sources) if f"uniform {name}" in source.split("; "))
    return f"{each.joint.divergence[at]:.4f}"


def _by_family(
    found: Sequence[Measured], row: Callable[[Sequence[Measured]], Iterator[str]]
) -> list[list[str]]:
    order = [family for families in FAMILIES.values() for family in families]
    members = {family: [each for each in found if each.family == family] for family in order}
    rows = [[family, *row(each)] for family, each in members.items() if each]
    return [*rows, ["**all**", *row(found)]]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
