"""What the champion and the optimum give each layer of the models that a report draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from evolve.candidates import Candidate
from evolve.datasets import Dataset
from evolve.evaluation import Failure, Task, allocate, optimum_of
from evolve.families import NO_PRICE, Families
from evolve.heuristics import Rule
from evolve.layer_groups import widest_of_groups
from evolve.objectives import best_allocation
from evolve.optimum import frontier
from evolve.profiles import FloatArray, ModelProfile
from evolve.python_source import compile_rule
from evolve.reports.tables import model_label
from evolve.setup import Setup
from evolve.views import BoolArray, ChoiceArray, ModelView

#: Models that are drawn, at most.
MOST_DRAWN = 6
#: Retentions at which the frontiers of a split's models are averaged.
_GRID = np.concatenate((np.linspace(0.0, 0.94, 95), np.linspace(0.941, 1.0, 119)))


@dataclass(frozen=True)
class FormatShare:
    """How much of a model is in one format.

    Attributes:
        format: Its name.
        layers, optimum_layers: Number of layers, by the champion and by the optimum.
        weights, optimum_weights: Share of the model's weights.
    """

    format: str
    layers: int
    weights: float
    optimum_layers: int
    optimum_weights: float


@dataclass(frozen=True)
class ModelMap:
    """The allocations of one model, layers in the order of the network.

    Attributes:
        label: What the model is called beside its split.
        split: Its split.
        formats: Names of the formats, by increasing bits.
        bits: Bits per weight of each format.
        layer_types: (L,) type of each layer.
        champion: (L,) format index of each layer by the champion; None where it fails.
        optimum: (L,) format index of each layer in the optimal allocation.
        shares: How much is in each format that either uses.
    """

    label: str
    split: str
    formats: tuple[str, ...]
    bits: tuple[float, ...]
    layer_types: tuple[str, ...]
    champion: tuple[int, ...] | None
    optimum: tuple[int, ...]
    shares: tuple[FormatShare, ...]

    @property
    def agreement(self) -> int | None:
        """In how many layers the champion has the optimum's format; None where it fails."""
        if self.champion is None:
            return None
        return sum(own == best for own, best in zip(self.champion, self.optimum, strict=True))


def model_maps(
    setup: Setup, champion: Candidate | None, splits: Sequence[str]
) -> tuple[tuple[ModelMap, ...], int]:
    """Allocate for the models that are drawn: the first of every split, as many of each as fit.

    Returns:
        The maps, and how many models are left out.
    """
    if champion is None:
        return (), 0
    each_split = max(1, MOST_DRAWN // len(splits))
    drawn = [(split, profile) for split in splits for profile in setup.dataset.split(split)[:each_split]]
    total = sum(len(setup.dataset.split(split)) for split in splits)
    template = setup.problem.templates[champion.template]
    rule = compile_rule(template.source(champion), template.file or "<rule>")
    names = tuple(name for name, _ in champion.parameters)
    values = np.array([[value for _, value in champion.parameters]], dtype=np.float64).reshape(1, len(names))
    maps = []
    for split, profile in drawn:
        if setup.arena.budgets is not None:
            task = Task("", "", names, values, template.sweep_of(champion))
            maps.append(_map_within(split, profile, rule, task, setup))
            continue
        choices = allocate(rule, ModelView([profile], setup.config.signals), names, values)
        own = None if isinstance(choices, Failure) else widest_of_groups(choices[0], profile.tied_layers)
        maps.append(_map(split, profile, own, optimum_of(profile).allocation))
    return tuple(maps), total - len(drawn)


def _map_within(split: str, profile: ModelProfile, rule: Rule, task: Task, setup: Setup) -> ModelMap:
    """Return the map of a family within the narrowest budget that any allocation keeps."""
    budgets = setup.arena.budgets
    assert budgets is not None
    families = Families([profile], setup.config.signals, budgets)
    found = NO_PRICE if task.sweep is None else families.within(rule, task, 0)
    for place, bits in enumerate(budgets.bits):
        best = best_allocation(profile, bits)
        if best is not None:
            own = (
                None if isinstance(found, Failure) or not found.within[0, place] else found.choices[0, place]
            )
            return _map(split, profile, own, best.choices, f" within {bits:g} bits")
    own = None if isinstance(found, Failure) else found.choices[0, 0]
    return _map(split, profile, own, np.zeros(profile.num_layers, dtype=np.uint8))


def _map(
    split: str, profile: ModelProfile, champion: ChoiceArray | None, best: ChoiceArray, within: str = ""
) -> ModelMap:
    order = np.argsort(profile.layer_index)
    return ModelMap(
        label=model_label(split, profile) + within,
        split=split,
        formats=profile.format_names,
        bits=tuple(profile.bits.tolist()),
        layer_types=tuple(profile.layer_type[layer] for layer in order),
        champion=None if champion is None else tuple(champion[order].tolist()),
        optimum=tuple(best[order].tolist()),
        shares=tuple(_shares(profile, champion, best)),
    )


def _shares(profile: ModelProfile, champion: ChoiceArray | None, best: ChoiceArray) -> Iterator[FormatShare]:
    for index, name in enumerate(profile.format_names):
        own = np.zeros(profile.num_layers, dtype=bool) if champion is None else champion == index
        optimal = best == index
        if own.any() or optimal.any():
            yield FormatShare(name, *_share(profile, own), *_share(profile, optimal))


def _share(profile: ModelProfile, chosen: BoolArray) -> tuple[int, float]:
    return int(chosen.sum()), int(profile.num_params[chosen].sum()) / profile.total_params


def mean_frontier(dataset: Dataset, split: str) -> tuple[FloatArray, FloatArray]:
    """Return the best trade-offs of a split: retentions, and the mean of its models' best compressions.

    Returns:
        Retention, increasing, and compression ratio at it; the exact frontier if there is one model.
    """
    profiles = dataset.split(split)
    curves = []
    for profile in profiles:
        bits, retention = frontier(profile.num_params, profile.own_bits, profile.sensitivity)
        curves.append((retention[::-1], 32 / bits[::-1]))
    if len(curves) == 1:
        return curves[0]
    # Nothing is left out of the mean: beyond its last allocation a model compresses no further.
    means = np.mean([np.interp(_GRID, retention, ratio) for retention, ratio in curves], axis=0)
    return _GRID, means
