"""Decides which allocation of a real network to hand out: by what it measures, never by what was predicted.

Shapes: L layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evolve.allocations import Allocation, names_of, predict
from evolve.constraints import Choices
from evolve.errors import NetworkError
from evolve.joint import additive_range
from evolve.networks.applying import formats_for, make_allocation
from evolve.networks.checking import Check, Checked, broken_words, check_allocations, measured_words
from evolve.networks.choosing import choices_of
from evolve.networks.joint_measuring import FEWEST_SAMPLES, JointMeasurer
from evolve.networks.joint_search import Progress, Refinement, refine
from evolve.networks.measurement_cache import MeasurementCache
from evolve.networks.network import Network, left_out_words
from evolve.networks.profiling import DEFAULT_FORMATS
from evolve.networks.sources import Networks
from evolve.profiles import ModelProfile
from evolve.quantizers import QUANTIZERS

#: Allocations that a search looks at where nobody says how many.
EVALUATIONS = 100
GIVEN, REFINED = "allocation", "refined"


@dataclass(frozen=True, eq=False)
class Verdict:
    """What was measured, and what is handed out.

    Attributes:
        check: The allocation, the refined one if it is another, and the best uniform format.
        on_calibration: By label, the divergence on the calibration data, which is what a profile of these
            predicts; empty without such data.
        refinement: How the search on joint measurements went; None without one.
        allocation: What is handed out, with the layers' shapes.
        notes: What people must know.
        runs: Allocations that the network was run for.
        cached: Allocations whose measurement was in the cache.
        held_out: Whether there were held-out data; else the calibration data judged.
        broken: Whether what is handed out is no nearer to the unchanged outputs than one answer to every
            input, and so no uniform format of its size is.
    """

    check: Check
    on_calibration: Mapping[str, float]
    refinement: Refinement | None
    allocation: Allocation
    notes: tuple[str, ...]
    runs: int
    cached: int
    held_out: bool = True
    broken: bool = False

    @property
    def handed_out(self) -> Checked:
        """What the handed-out allocation measures."""
        return self.check.handed_out

    @property
    def is_uniform(self) -> bool:
        """Whether the best uniform format is handed out instead."""
        return self.handed_out is self.check.uniform

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        check, search = self.check, self.refinement
        rows = [*check.allocations, *([check.uniform] if check.uniform else [])]
        return {
            "model": self.allocation.model,
            "held_out": self.held_out,
            "unit": check.unit,
            "num_units": check.num_units,
            "unchanged": check.unchanged.to_json(),
            "measured": [
                {**each.to_json(), "on_calibration": self.on_calibration.get(each.label)} for each in rows
            ],
            "excess_over_uniform": [asdict(each) for each in check.excesses] if check.excesses else None,
            "change_by_search": asdict(check.change) if check.change else None,
            "uniform_measured": dict(check.uniform_measured),
            "search": search
            and {
                "start": search.start,
                "divergence": search.divergence,
                "evaluations": search.evaluations,
                "exhausted": search.exhausted,
                "improvements": [asdict(each) for each in search.improvements],
                "looked_at": [list(each) for each in search.looked_at],
            },
            "handed_out": self.handed_out.label,
            "handed_out_broken": self.broken,
            "runs": self.runs,
            "cached": self.cached,
            "notes": list(self.notes),
        }


def judge(
    networks: Networks,
    allocation: Allocation,
    profile: ModelProfile | None = None,
    *,
    evaluations: int | None = 0,
    cache: MeasurementCache | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Verdict:
    """Measure an allocation on held-out data, search for a better one if wanted, and decide.

    Args:
        networks: The network on its data.
        allocation: An allocation of it.
        profile: The network's profile, which a search needs.
        evaluations: Allocations that a search looks at, 0 for none; None for 100 where the divergence is
            beyond the range in which adding up holds, as predicted or as measured, and a search is possible.
        cache: Where measurements are kept.
        seed: Of the resamples of intervals.
        progress: Told of the search.

    Raises:
        InputError: The allocation or the profile is that of another network, or a search is not possible.
    """
    network = networks.judging
    given = formats_for(network, allocation)
    choices = None if profile is None else choices_of(profile, allocation)
    expected = allocation.predicted.get("loss")
    if profile is not None and choices is not None:
        expected = predict(profile, choices)["loss"]
    measurer = JointMeasurer(network, cache)
    notes = [*_notes_on_data(networks, profile, measurer)]
    searcher = None if networks.calibration is None else JointMeasurer(networks.calibration, cache)
    found = (searcher or measurer).measure(given).divergence
    range_end = additive_range([layer.kind for layer in network.layers])
    beyond = max(found, expected or 0.0) > range_end
    missing = _missing_for_search(networks, profile)
    if evaluations is None:
        evaluations = EVALUATIONS if beyond and missing is None else 0
    if evaluations and missing is not None:
        raise missing
    if beyond:
        notes.append(_note_on_range(expected, found, range_end, searched=evaluations > 0))
    allocations, refinement = {GIVEN: given}, None
    if evaluations and profile is not None and choices is not None and searcher is not None:
        refinement = refine(profile, choices, searcher, evaluations, progress)
        notes += _notes_on_search(profile, refinement)
        refined = _formats(network, profile, refinement.choices)
        if refined != given:
            allocations[REFINED] = refined
    predicted = _predicted(profile, refinement, expected)
    check = check_allocations(measurer, allocations, _rivals(profile, allocation), predicted, seed)
    calibrated = {}
    if searcher is not None and networks.held_out is not None:
        shown = [*check.allocations, *([check.uniform] if check.uniform else [])]
        calibrated = {each.label: searcher.measure(each.formats).divergence for each in shown}
    broken = _note_on_broken(measurer, check, range_end)
    return Verdict(
        check,
        calibrated,
        refinement,
        _handed_out(network, allocation, profile, check),
        (*notes, *_notes_on_check(check), *([broken] if broken else [])),
        measurer.measured + (searcher.measured if searcher else 0),
        measurer.found + (searcher.found if searcher else 0),
        networks.held_out is not None,
        broken is not None,
    )


def _rivals(profile: ModelProfile | None, allocation: Allocation) -> list[str]:
    names = [*(profile.format_names if profile else DEFAULT_FORMATS), *allocation.formats]
    return [name for name in dict.fromkeys(names) if name in QUANTIZERS]


def _formats(network: Network, profile: ModelProfile, choices: Choices) -> dict[str, str]:
    indices = dict(zip(names_of(profile), choices.tolist(), strict=True))
    return {layer.name: profile.format_names[indices[layer.name]] for layer in network.layers}


def _predicted(
    profile: ModelProfile | None, refinement: Refinement | None, expected: float | None
) -> dict[str, float]:
    """Return predicted divergences by what is measured."""
    found = {} if expected is None else {GIVEN: expected}
    if profile is not None:
        found |= dict(zip(profile.format_names, profile.loss.sum(axis=0).tolist(), strict=True))
        if refinement is not None:
            found[REFINED] = predict(profile, refinement.choices)["loss"]
    return found


def _handed_out(
    network: Network, allocation: Allocation, profile: ModelProfile | None, check: Check
) -> Allocation:
    chosen = check.handed_out
    names = [layer.name for layer in network.layers]
    ties = [sorted(names.index(allocation.names[at]) for at in group) for group in allocation.tied_layers]
    predicted: Mapping[str, float] = {}
    if chosen.formats == dict(zip(allocation.names, allocation.formats, strict=True)):
        predicted = allocation.predicted
    elif profile is not None:
        known = names_of(profile)
        indices = [profile.format_names.index(chosen.formats[name]) for name in known]
        predicted = predict(profile, np.array(indices))
    what = {GIVEN: "", REFINED: "refined on joint measurements, from "}
    origin = what.get(chosen.label, f"{chosen.label}, in place of ") + (allocation.source or allocation.model)
    source = f"{origin}; measured on {check.num_units} {check.unit}: {measured_words(chosen, network.task)}"
    return make_allocation(network, chosen.formats, source, ties, predicted)


def _missing_for_search(networks: Networks, profile: ModelProfile | None) -> NetworkError | None:
    """Return what keeps a search from being possible."""
    if profile is None:
        cure = "Give --profile PROFILE.json, which 'evolve profile' makes."
        return NetworkError("a search needs the network's profile", field="--search", cure=cure)
    if networks.calibration is None or networks.held_out is None:
        return NetworkError(
            "a search needs data to search on, besides those that judge what it finds",
            field="--search",
            cure="Let the function return (model, calibration loader, held-out loader); "
            "of an ONNX model give --calibration FILE.npz too.",
        )
    return None


def _notes_on_data(networks: Networks, profile: ModelProfile | None, measurer: JointMeasurer) -> list[str]:
    notes = []
    found, measured = measurer.provenance, dict(profile.provenance) if profile else {}
    if networks.held_out is None:
        notes.append(
            "no held-out data: measured on the calibration data (the function may return held-out batches "
            "as a third value)"
        )
    elif measured.get("data_sha256") == found["data_sha256"]:
        notes.append("measured on the very data that the profile was measured on: they are not held out")
    left = left_out_words(measurer.network)
    if left is not None:
        notes.append(f"not counted, and kept as they are: {left}")
    same_framework = measured.get("framework") == found["framework"]
    if same_framework and measured.get("weights_sha256") != found["weights_sha256"]:
        notes.append("the profile was measured on other weights: what it predicts may not hold for these")
    return notes


def _note_on_range(expected: float | None, found: float, range_end: float, searched: bool) -> str:
    foreseen = "" if expected is None else f"the profile's divergences add up to {expected:.3g} and "
    where = " in a convolutional network" if range_end == additive_range(["Conv"]) else ""
    beyond = f"{foreseen}{found:.3g} is measured: beyond {range_end}{where} they need not add up"
    return beyond if searched else f"{beyond}; --search looks for a better allocation on the network itself"


def _notes_on_search(profile: ModelProfile, search: Refinement) -> list[str]:
    change = f"from {search.start:.4g} to {search.divergence:.4g}"
    notes = [f"the search looked at {search.evaluations} allocations: on calibration data {change}"]
    if profile.costs:
        notes.append(f"the search keeps the size only, not {', '.join(profile.costs)}")
    return notes


def _notes_on_check(check: Check) -> list[str]:
    notes = []
    shown = [*check.allocations, *([check.uniform] if check.uniform else [])]
    notes += [words for each in shown if (words := broken_words(each)) is not None]
    if check.uniform is None:
        notes.append("every uniform format is larger: there is none to compare with")
    for each, excess in zip(check.allocations, check.excesses or (), strict=check.excesses is not None):
        if excess.estimate > 0:
            assert check.uniform is not None
            certain = "" if excess.low > 0 else f", though not surely: {excess.low:.2g} to {excess.high:.2g}"
            notes.append(
                f"the {each.label} is worse than {check.uniform.label}, which takes no more: divergence "
                f"{each.divergence.estimate:.4g} against {check.uniform.divergence.estimate:.4g}{certain}"
            )
    if check.change is not None and check.change.estimate > 0:
        notes.append("on held-out data the search made it worse: calibrate on more data")
    if check.handed_out is check.uniform:
        notes.append(f"{check.uniform.label} is handed out")
    return notes


def _note_on_broken(measurer: JointMeasurer, check: Check, range_end: float) -> str | None:
    """Return what to do where even what is handed out breaks the network; None where it does not.

    It does where its outputs are as far from the unchanged ones as the same answer to every input is.
    """
    chosen = check.handed_out
    found = chosen.divergence.estimate
    # Few samples do not tell, and a small change breaks nothing, though the outputs may hardly differ.
    if found <= range_end or chosen.rows < FEWEST_SAMPLES:
        return None
    same = measurer.reference.divergence_of_one_answer()
    if found < same:
        return None
    name = chosen.label if chosen is check.uniform else f"the {chosen.label}"
    others = "" if check.uniform is None else ", and no uniform format of its size is better"
    return (
        f"the network is broken at this size: {name} has a divergence of {found:.3g}, where the same output "
        f"for every input would have {same:.3g}{others}: allocate more bits"
    )
