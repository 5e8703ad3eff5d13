"""Measures whole allocations on the real networks, each once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from zoo.catalogue import find_entry
from zoo.measuring import networks_of, rounded_weights
from zoo.training import trained

from evolve.executors import end_with_parent
from evolve.networks.measurement_cache import MeasurementCache, content_key
from evolve.networks.measuring import measure_weights, reference_of
from evolve.profiles import ModelProfile

#: Format index of each layer, as bytes: what allocations are told apart by.
Choices = bytes
#: The data that profiles were measured on, and those that nothing was.
Part = Literal["calibration", "held_out"]
#: Told how many networks are done.
Progress = Callable[[int], None]


def measure_all(
    wanted: Mapping[ModelProfile, set[Choices]],
    weights: Path,
    cache: Path,
    workers: int,
    part: Part = "held_out",
    progress: Progress = lambda _: None,
) -> dict[tuple[str, Choices], float]:
    """Return the KL divergence of the outputs in nats, by network and allocation.

    Args:
        wanted: The allocations to measure of each network.
        weights: The folder of trained weights; a network that is not there is trained.
        cache: A folder that keeps what was measured, a file a network.
        workers: Networks measured at once.
        part: The data to measure on.
        progress: Called after each network.
    """
    jobs = [(profile, sorted(chosen), weights, cache / part, part) for profile, chosen in wanted.items()]
    found: dict[tuple[str, Choices], float] = {}
    for done, (profile, measured) in enumerate(zip(wanted, _mapped(jobs, workers), strict=True), 1):
        found |= {(profile.name, choices): divergence for choices, divergence in measured.items()}
        progress(done)
    return found


def _mapped(
    jobs: list[tuple[ModelProfile, list[Choices], Path, Path, Part]], workers: int
) -> Iterator[dict[Choices, float]]:
    if workers == 1:
        yield from (_measure(*job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
        yield from pool.map(_measure, *zip(*jobs, strict=True))


def _measure(
    profile: ModelProfile, wanted: list[Choices], folder: Path, cache: Path, part: Part
) -> dict[Choices, float]:
    """Return the divergence of each allocation of a network; it is loaded only where one is new."""
    known = MeasurementCache(cache / f"{profile.name}.jsonl")
    about = {name: profile.provenance[name] for name in ("versions", "weights_sha256", "data_sha256")}
    keys = {choices: content_key(about, _formats(profile, choices)) for choices in wanted}
    new = [choices for choices, key in keys.items() if known.find(key) is None]
    if new:
        torch.set_num_threads(1)
        entry = find_entry(profile.name)
        calibration, held_out = networks_of(entry, trained(entry, folder))
        network = calibration if part == "calibration" else held_out
        if network.provenance["weights_sha256"] != profile.provenance["weights_sha256"]:
            raise SystemExit(
                f"{profile.name}: the weights in {folder} are not those that were profiled; "
                "train and profile the zoo again with benchmarks/train_zoo.py"
            )
        reference, rounded = reference_of(network), rounded_weights(profile, network)
        for choices in new:
            weights = {layer: rounded[layer, name] for layer, name in _formats(profile, choices).items()}
            known.add(keys[choices], measure_weights(network, reference, weights))
    found = {choices: known.find(key) for choices, key in keys.items()}
    return {choices: each.divergence for choices, each in found.items() if each is not None}


def _formats(profile: ModelProfile, choices: Choices) -> dict[str, str]:
    """Return the format of each layer by name."""
    indices = np.frombuffer(choices, dtype=np.uint8).tolist()
    names = [profile.format_names[each] for each in indices]
    return dict(zip(profile.layer_names, names, strict=True))
