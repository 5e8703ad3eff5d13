"""Profiles as `evolve profile` makes them: ties, bits of each layer's own, and measurements."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evolve.datasets import Dataset, write_dataset
from evolve.formats import PrecisionFormat
from evolve.profiles import ModelProfile

BITS = (2.5, 3.5, 4.5, 6.1, 8.1, 16.0)


def measured_profile(seed: int, layers: int = 8, name: str = "") -> ModelProfile:
    """A network whose losses follow Fisher information, up to a factor a layer that nothing tells."""
    rng = np.random.default_rng(seed)
    bits = np.array(BITS)
    error = rng.uniform(0.5, 2.0, (layers, 1)) * 4.0**-bits
    fisher = np.exp(rng.normal(-2, 1.5, layers))
    predicted = fisher[:, None] * error
    loss = predicted * np.exp(rng.normal(0, 0.5, (layers, 1)))
    kinds = ("Embedding", "Linear", "Attention", "Linear", "Classifier")
    return ModelProfile(
        name=name or f"measured-{seed}",
        formats=tuple(PrecisionFormat(f"W{each:g}".replace(".", "_"), each, "integer") for each in BITS),
        layer_type=tuple(kinds[layer % len(kinds)] for layer in range(layers)),
        layer_index=np.arange(layers),
        num_params=rng.integers(100, 10_000, layers),
        weight_mean=rng.normal(0, 0.01, layers),
        weight_std=rng.uniform(0.01, 0.1, layers),
        weight_range=rng.uniform(0.1, 1, layers),
        activation_range=rng.uniform(1, 5, layers),
        gradient_sensitivity=np.sqrt(fisher / fisher.max()),
        sensitivity=np.minimum(-np.expm1(-loss), np.nextafter(1, 0)),
        tied_layers=((1, 3),) if layers > 3 else (),
        layer_bits=bits + rng.uniform(0, 0.2, (layers, 1)) * (bits < 16),
        measurements={
            "squared_error": error,
            "sqnr": -10 * np.log10(error),
            "fisher_loss": predicted,
            "fisher": fisher,
            "condition_number": rng.uniform(1, 100, layers),
            "activation_std": rng.uniform(0.1, 2, layers),
            "change_of_loss": loss * 1.1,
        },
    )


def measured_dataset(folder: Path, train: int = 4, valid: int = 2, test: int = 2) -> Dataset:
    """Write a folder of such profiles, each of its own size."""
    made = [measured_profile(seed, 4 + seed) for seed in range(train + valid + test)]
    dataset = Dataset(
        folder.name, tuple(made[:train]), tuple(made[train : train + valid]), tuple(made[train + valid :])
    )
    write_dataset(dataset, folder)
    return dataset
