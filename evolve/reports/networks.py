"""What a run's report shows of real networks: ``networks.md``, from their profiles and joint measurements.

Runs on synthetic models have no such page. Shapes: L layers, K formats, J allocations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from evolve.candidates import Candidate
from evolve.profiles import LAYER_TYPES, FloatArray, ModelProfile
from evolve.reports.markdown import render
from evolve.reports.network_facts import (
    BANDS,
    FormatMap,
    NetworkLayers,
    SumPanel,
    band_words,
    layers_of,
    ratio_of,
    ratio_words,
)
from evolve.reports.network_sums import (
    ChampionRule,
    ChampionSum,
    champion_sums,
    joint_measurements,
    sum_panels,
)
from evolve.setup import Setup
from evolve.views import ChoiceArray

PAGE = "networks.md"
SUMS_FIGURE = "figures/predicted_measured.svg"
BOXES_FIGURE = "figures/sensitivity.svg"


@dataclass(frozen=True, eq=False)
class DrawnNetwork:
    """A network whose layers are drawn.

    Attributes:
        split: Its split.
        layers: Its layers.
        maps: The champion's allocation; none where it fails.
        figure: The picture's file.
    """

    split: str
    layers: NetworkLayers
    maps: tuple[FormatMap, ...]
    figure: str


@dataclass(frozen=True, eq=False)
class MeasuredNetworks:
    """The measured networks of a run.

    Attributes:
        layers: All of them.
        drawn: The first of each split.
        panels: Sums beside what was measured, by split; empty without joint measurements.
        champion: The champion's own sums.
        fault: Why there are no joint measurements.
    """

    layers: tuple[NetworkLayers, ...]
    drawn: tuple[DrawnNetwork, ...]
    panels: tuple[SumPanel, ...]
    champion: tuple[ChampionSum, ...]
    fault: str


def collect_networks(
    setup: Setup, champion: Candidate | None, splits: Sequence[str]
) -> MeasuredNetworks | None:
    """Return what a report shows of a data set's measured networks; None where there are none.

    Args:
        setup: What was searched.
        champion: The rule that was found.
        splits: The splits that the report shows.
    """
    found = [(split, each) for split in splits for each in setup.dataset.split(split) if _is_measured(each)]
    if not found:
        return None
    joint, fault = joint_measurements(setup.dataset)
    rule = None if champion is None else ChampionRule(setup, champion)
    sums: list[ChampionSum] = []
    drawn: dict[str, DrawnNetwork] = {}
    for split, profile in found:
        allocated = [] if rule is None else rule.allocations(profile)
        sums += champion_sums(split, profile, allocated, joint.get(profile.name))
        if split not in drawn:
            figure = f"figures/layers_{split}.svg"
            drawn[split] = DrawnNetwork(split, layers_of(profile), _maps(profile, allocated), figure)
    panels = sum_panels(found, joint, sums)
    return MeasuredNetworks(
        tuple(layers_of(profile) for _, profile in found), tuple(drawn.values()), panels, tuple(sums), fault
    )


def _is_measured(profile: ModelProfile) -> bool:
    """Whether a profile was measured on the weights of a network, not made up or taken from a paper."""
    return "weights_sha256" in profile.provenance


def _maps(profile: ModelProfile, allocated: Sequence[tuple[str, ChoiceArray]]) -> tuple[FormatMap, ...]:
    """Return the champion's allocations to draw: the narrowest and the widest budget's."""
    ends = [allocated[0], allocated[-1]] if len(allocated) > 1 else allocated
    layers = layers_of(profile).names
    order = np.argsort(profile.layer_index)
    return tuple(
        FormatMap(
            f"champion{', ' if within else ''}{within}",
            {name: profile.format_names[choices[at]] for name, at in zip(layers, order, strict=True)},
        )
        for within, choices in ends
    )


def networks_texts(networks: MeasuredNetworks | None, figures: bool) -> dict[str, str]:
    """Return the page by its name; none without measured networks."""
    if networks is None:
        return {}
    bands = list(pairwise(BANDS))
    drawn = {each.layers.name for each in networks.drawn}
    context = {
        "networks": networks,
        "figures": figures,
        "sums_figure": SUMS_FIGURE,
        "boxes_figure": BOXES_FIGURE,
        "bands": [band_words(*each) for each in bands],
        "rows": [
            (
                panel.title.partition(",")[0].partition(":")[0],
                group.label,
                [ratio_words(ratio_of(group, *each)) for each in bands],
            )
            for panel in networks.panels
            for group in panel.groups
        ],
        "shown": [each for each in networks.champion if each.network in drawn],
        "hidden": [each for each in networks.champion if each.network not in drawn],
        "medians": median_rows(networks.layers),
    }
    return {PAGE: render("networks.md.j2", context)}


def networks_json(networks: MeasuredNetworks | None) -> dict[str, Any]:
    """Return the champion's sums as JSON values under a key of their own; nothing where none is measured."""
    return {} if networks is None else {"networks": [asdict(each) for each in networks.champion]}


def median_rows(
    networks: Sequence[NetworkLayers],
) -> tuple[list[str], list[tuple[str, int, list[float | None]]]]:
    """Return formats, and by layer type the number of layers and their median divergence in each format."""
    formats = list(dict.fromkeys(name for each in networks for name in each.formats))
    rows = []
    for kind in LAYER_TYPES:
        count, columns = 0, {name: np.empty(0) for name in formats}
        for each in networks:
            chosen = np.array(each.kinds) == kind
            count += int(chosen.sum())
            if each.divergence is not None:
                for index, name in enumerate(each.formats):
                    columns[name] = np.append(columns[name], each.divergence[chosen, index])
        if count:
            rows.append((kind, count, [_median(columns[name]) for name in formats]))
    return formats, rows


def _median(values: FloatArray) -> float | None:
    return float(np.median(values)) if len(values) else None


def draw_networks(networks: MeasuredNetworks | None) -> dict[str, bytes]:
    """Draw the pictures of the page; none without measured networks.

    Returns:
        SVG by file name.
    """
    if networks is None:
        return {}
    # Only here, for matplotlib takes longer to load than a small search to run.
    from evolve.reports.box_plots import draw_boxes
    from evolve.reports.layer_picture import draw_layers
    from evolve.reports.sum_plots import draw_sums

    pictures = {each.figure: draw_layers(each.layers, each.maps) for each in networks.drawn}
    if networks.panels:
        pictures[SUMS_FIGURE] = draw_sums(networks.panels, "what is predicted of the champion")
    boxes = draw_boxes(networks.layers)
    return pictures | ({BOXES_FIGURE: boxes} if boxes else {})
