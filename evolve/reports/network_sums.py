"""Sums of divergences on real networks: what is predicted of a champion, and what such sums measured.

Shapes: J allocations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evolve.allocations import predict
from evolve.candidates import Candidate
from evolve.datasets import Dataset
from evolve.errors import ProfileError
from evolve.evaluation import Failure, Task, allocate
from evolve.families import Families
from evolve.joint import FOLDER, JointMeasurements, additive_range, joint_of
from evolve.layer_groups import widest_of_groups
from evolve.profiles import ModelProfile
from evolve.python_source import compile_rule
from evolve.reports.network_facts import Ratio, SumGroup, SumPanel, joined_groups, ratio_of, ratio_words
from evolve.setup import Setup
from evolve.views import ChoiceArray, ModelView

#: More groups than this are one colour: nobody tells more apart.
_MOST_GROUPS = 6
#: Sums within this factor of the champion's are taken for like it.
_NEAR = 2.0


@dataclass(frozen=True)
class ChampionSum:
    """What adding up predicts of one allocation of the champion.

    Attributes:
        network, split: Whose allocation it is.
        within: The budget that it keeps, in words; empty without one.
        avg_bits: Bits per weight.
        predicted: Sum of the divergences of its layers.
        nearby: Measured over predicted of the network's measured allocations with such a sum.
        measured: What the very allocation measured; None where it is not among those measured.
    """

    network: str
    split: str
    within: str
    avg_bits: float
    predicted: float
    nearby: Ratio | None
    measured: float | None

    @property
    def nearby_words(self) -> str:
        """The ratio for a table."""
        return ratio_words(self.nearby)


def joint_measurements(dataset: Dataset) -> tuple[Mapping[str, JointMeasurements], str]:
    """Return the joint measurements beside a data set's profiles by name, or why there are none."""
    if not (Path(dataset.source) / FOLDER).is_dir():
        return {}, "no joint measurements lie beside these profiles"
    try:
        return joint_of(dataset), ""
    except ProfileError as error:
        # Without the file, which is a path of this machine.
        return {}, f"the joint measurements beside these profiles cannot be used ({error.problem})"


class ChampionRule:
    """Allocates by the champion: once a network, or once for each budget that it keeps."""

    def __init__(self, setup: Setup, candidate: Candidate) -> None:
        template = setup.problem.templates[candidate.template]
        self._level, self._budgets = setup.config.signals, setup.arena.budgets
        self._rule = compile_rule(template.source(candidate), template.file or "<rule>")
        self._names = tuple(name for name, _ in candidate.parameters)
        values = [value for _, value in candidate.parameters]
        self._values = np.array([values], dtype=np.float64).reshape(1, len(self._names))
        self._sweep = template.sweep_of(candidate)

    def allocations(self, profile: ModelProfile) -> list[tuple[str, ChoiceArray]]:
        """Return allocations with the budget that each keeps, in words; none where the rule fails."""
        if self._budgets is None:
            found = allocate(self._rule, ModelView([profile], self._level), self._names, self._values)
            return (
                [] if isinstance(found, Failure) else [("", widest_of_groups(found[0], profile.tied_layers))]
            )
        if self._sweep is None:
            return []
        task = Task("", "", self._names, self._values, self._sweep)
        scores = Families([profile], self._level, self._budgets).within(self._rule, task, 0)
        if isinstance(scores, Failure):
            return []
        return [
            (f"{bits:g} bits", scores.choices[0, place])
            for place, bits in enumerate(self._budgets.bits)
            if scores.within[0, place]
        ]


def champion_sums(
    split: str,
    profile: ModelProfile,
    allocated: Sequence[tuple[str, ChoiceArray]],
    joint: JointMeasurements | None,
) -> Iterator[ChampionSum]:
    """Yield what is predicted of the champion's allocations of a network, and what is known of such sums."""
    for within, choices in allocated:
        expected = predict(profile, choices)
        nearby = measured = None
        if joint is not None:
            group = SumGroup("", joint.predicted(profile), joint.calibration_divergence)
            nearby = ratio_of(group, expected["loss"] / _NEAR, expected["loss"] * _NEAR)
            same = np.flatnonzero((joint.allocations == choices).all(axis=1))
            measured = float(joint.calibration_divergence[same[0]]) if len(same) else None
        yield ChampionSum(
            profile.name, split, within, expected["avg_bits"], expected["loss"], nearby, measured
        )


def sum_panels(
    found: Sequence[tuple[str, ModelProfile]],
    joint: Mapping[str, JointMeasurements],
    sums: Sequence[ChampionSum],
) -> tuple[SumPanel, ...]:
    """Return a panel a split, its networks grouped by family, with the champion's sums marked."""
    panels = []
    for split in dict.fromkeys(split for split, _ in found):
        networks = [each for where, each in found if where == split and each.name in joint]
        if not networks:
            continue
        families = _by_family(networks)
        groups = [
            joined_groups(label, [_group(each, joint[each.name]) for each in members])
            for label, members in families.items()
        ]
        ends = sorted({additive_range(each.layer_type) for each in networks})
        marked = tuple(each.predicted for each in sums if each.split == split)
        title = f"{split}: {networks[0].name}" if len(networks) == 1 else f"{split}, {len(networks)} networks"
        panels.append(SumPanel(title, tuple(groups), tuple(ends), marked))
    return tuple(panels)


def _by_family(networks: Sequence[ModelProfile]) -> dict[str, list[ModelProfile]]:
    """Group networks by the family that they say they are of, or by name; in one group if they are many."""
    families: dict[str, list[ModelProfile]] = {}
    for each in networks:
        trained = each.provenance.get("trained")
        family = trained.get("family") if isinstance(trained, Mapping) else None
        families.setdefault(str(family or each.name), []).append(each)
    return families if len(families) <= _MOST_GROUPS else {"all networks": list(networks)}


def _group(profile: ModelProfile, joint: JointMeasurements) -> SumGroup:
    return SumGroup(profile.name, joint.predicted(profile), joint.calibration_divergence)
