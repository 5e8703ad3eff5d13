"""Profiles a trained network, and measures whole allocations of it on data that no profile saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from evolve.joint import JointMeasurements
from evolve.networks import Network, TorchNetwork, measure_weights, profile_network, reference_of
from evolve.profiles import ModelProfile
from evolve.quantizers import find_quantizer
from zoo.allocating import choose_allocations
from zoo.catalogue import Entry
from zoo.data import SOURCES, Split, help_text_hash

#: A ladder from 2 to 32 bits that is fine at 2.5 to 4.5, where the transfer of rules is studied. Below 4
#: bits the formats are clipped by mean squared error, for absmax wastes their few levels. Groups are left
#: out, for the channels of these networks are hardly longer than one; INT4, INT8, FP16 and FP32 are what
#: rules name.
FORMATS = (
    "TERNARY_MSE",
    "LEVELS5_MSE",
    "INT3_MSE",
    "INT4",
    "NF4",
    "INT5",
    "INT6",
    "INT8",
    "FP16",
    "FP32",
)
_BATCH = 256
_TEXT_BATCH = 24

#: Told of steps done and of all.
Progress = Callable[[int, int], None]


def networks_of(entry: Entry, model: nn.Module) -> tuple[Network, Network]:
    """Return a trained network with its calibration data, and with its held-out data."""
    source = SOURCES[entry.data]()
    size = _TEXT_BATCH if source.task == "language" else _BATCH

    def on(part: Split) -> TorchNetwork:
        return TorchNetwork(model, part.batches(size), source.task, entry.name)

    return on(source.calibration), on(source.held_out)


def measure_profile(entry: Entry, network: Network, progress: Progress | None = None) -> ModelProfile:
    """Return a network's profile, and in its provenance where the network comes from."""
    told = None if progress is None else (lambda done, total, _: progress(done, total))
    profile = profile_network(network, FORMATS, seed=entry.seed, progress=told)
    origin: dict[str, Any] = {"family": entry.family, "data": entry.data, "seed": entry.seed}
    if entry.data == "text":
        origin["text_sha256"] = help_text_hash()
    return replace(
        profile,
        description=f"Trained from scratch and measured: {entry.family} on {entry.data}.",
        provenance={**profile.provenance, "trained": origin},
    )


def measure_jointly(
    profile: ModelProfile,
    calibration: Network,
    held_out: Network,
    seed: int,
    progress: Progress | None = None,
) -> JointMeasurements:
    """Return what `choose_allocations` do to a network on both parts of its data."""
    chosen = choose_allocations(profile, seed)
    rounded = rounded_weights(profile, held_out)
    references = reference_of(calibration), reference_of(held_out)
    found = []
    for at, choice in enumerate(chosen):
        if progress is not None:
            progress(at, len(chosen))
        weights = {
            name: rounded[name, profile.format_names[each]]
            for name, each in zip(profile.layer_names, choice, strict=True)
        }
        calibrated = measure_weights(calibration, references[0], weights)
        measured = measure_weights(held_out, references[1], weights)
        found.append((measured.divergence, calibrated.divergence, measured.loss, measured.accuracy))
    allocations = np.array(list(chosen), dtype=np.uint8)
    size = profile.cost_table("size")[np.arange(profile.num_layers), allocations].sum(axis=1)
    divergence, calibrated, loss, accuracy = np.array(found, dtype=np.float64).T
    unchanged = {key: value for key, value in vars(references[1].unchanged).items() if value is not None}
    return JointMeasurements(
        model=profile.name,
        profile_sha256=profile.content_hash,
        formats=profile.format_names,
        allocations=allocations,
        sources=tuple(chosen.values()),
        average_bits=size / profile.total_params,
        divergence=divergence,
        calibration_divergence=calibrated,
        loss=loss,
        accuracy=accuracy,
        provenance={**held_out.provenance, "seed": seed, "unchanged": unchanged},
    )


def rounded_weights(profile: ModelProfile, network: Network) -> Mapping[tuple[str, str], Any]:
    """Return every layer's weights in every format, by the names of both."""
    return {
        (layer, name): find_quantizer(name).dequantized(network.weights(layer))
        for layer in profile.layer_names
        for name in profile.format_names
    }
