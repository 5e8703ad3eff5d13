"""The signals of a network's layers, cheapest first: weights, one forward pass, backward passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolve.networks.activations import activation_statistics
from evolve.networks.journal import Journal
from evolve.networks.metrics import Reference
from evolve.networks.network import Network, WeightArray
from evolve.networks.weight_statistics import condition_number, weight_statistics

#: The signals that every profile has, beside sizes and sensitivities.
SIGNALS = ("weight_mean", "weight_std", "weight_range", "activation_range", "gradient_sensitivity")

#: Size of the random change that stands for a gradient, relative to a layer's weights.
_NUDGE = 1e-2
_NUDGES = 4
#: Random directions that the Fisher information is the mean of, at least.
_PULLS = 8


@dataclass(frozen=True)
class LayerSignals:
    """All signals of a network's layers.

    Attributes:
        values: By layer and name.
        fisher_diagonal: Fisher information of each weight, by layer; empty where there are no gradients.
        notes: What could not be measured, or how it was.
        evaluations: What the signals cost: passes over the data, by kind.
    """

    values: Mapping[str, Mapping[str, float]]
    fisher_diagonal: Mapping[str, WeightArray] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    evaluations: Mapping[str, int] = field(default_factory=dict)

    def column(self, name: str) -> NDArray[np.float64]:
        """Return one signal of every layer, (L,)."""
        return np.array([each[name] for each in self.values.values()])

    def measurements(self) -> dict[str, NDArray[np.float64]]:
        """Return the signals that not every profile has, by name, (L,)."""
        first = next(iter(self.values.values()))
        return {name: self.column(name) for name in first if name not in SIGNALS}


def measure_signals(
    network: Network, reference: Reference, seed: int, hessian_probes: int, journal: Journal | None
) -> LayerSignals:
    """Measure all signals; what the journal holds is not measured again.

    Args:
        network: The network.
        reference: Its unchanged outputs.
        seed: Of the random directions.
        hessian_probes: Probes of the Hessian trace, 0 for none.
        journal: Keeps what was measured.
    """
    # A stream of its own for each, so that neither changes with the other.
    fisher_seed, hessian_seed = np.random.SeedSequence(seed).spawn(2)
    diagonal, no_fisher = _fisher_diagonal(network, reference, np.random.default_rng(fisher_seed))
    known = next((each for each in (journal.records if journal else []) if each["kind"] == "signals"), None)
    if known is not None:
        return LayerSignals(known["values"], diagonal, known["notes"], known["evaluations"])
    values = layer_statistics(network)
    notes: dict[str, str] = {}
    evaluations = {"forward_passes": 2}
    for name, each in values.items():
        each["condition_number"] = condition_number(network.weights(name))
    if diagonal:
        notes["fisher"] = "from gradients of outputs drawn at random"
        evaluations["backward_passes"] = _draws(network)
        fisher = {name: float(each.astype(np.float64).mean()) for name, each in diagonal.items()}
    else:
        notes["fisher"] = f"{no_fisher}: from the divergence after small random changes of each layer"
        evaluations["nudges"] = _NUDGES * len(network.layers)
        fisher = _nudged(network, reference, np.random.default_rng(fisher_seed))
    largest = max(fisher.values()) or 1.0
    for name, each in values.items():
        each["fisher"] = fisher[name]
        each["gradient_sensitivity"] = float(np.sqrt(fisher[name] / largest))
    traces, why_not = _hessian_traces(network, np.random.default_rng(hessian_seed), hessian_probes)
    if why_not is not None:
        notes["hessian_trace"] = f"not measured: {why_not}"
    else:
        evaluations["hessian_probes"] = hessian_probes
    for name, trace in traces.items():
        values[name]["hessian_trace"] = trace
    if journal is not None:
        record: dict[str, Any] = {"values": values, "notes": notes, "evaluations": evaluations}
        journal.append({"kind": "signals", **record})
    return LayerSignals(values, diagonal, notes, evaluations)


def layer_statistics(network: Network) -> dict[str, dict[str, float]]:
    """Return the statistics of each layer's weights and activations, by name: one forward pass."""
    values = {layer.name: weight_statistics(network.weights(layer.name)) for layer in network.layers}
    for name, activations in activation_statistics(network).items():
        values[name].update(activations)
    return values


def _fisher_diagonal(
    network: Network, reference: Reference, rng: np.random.Generator
) -> tuple[Mapping[str, WeightArray], str | None]:
    if not _is_torch(network):
        return {}, "no gradients"
    from evolve.networks.torch_gradients import fisher_information
    from evolve.networks.torch_network import TorchNetwork

    assert isinstance(network, TorchNetwork)
    try:
        return fisher_information(network, reference, rng, _draws(network)), None
    except RuntimeError as fault:  # what torch raises where an operator has no derivative
        return {}, f"no gradients ({fault})".splitlines()[0]


def _hessian_traces(
    network: Network, rng: np.random.Generator, probes: int
) -> tuple[Mapping[str, float], str | None]:
    if not probes:
        return {}, "no probes"
    if not _is_torch(network):
        return {}, "no gradients"
    from evolve.networks.torch_gradients import hessian_traces
    from evolve.networks.torch_network import TorchNetwork

    assert isinstance(network, TorchNetwork)
    return hessian_traces(network, rng, probes)


def _draws(network: Network) -> int:
    return max(1, -(-_PULLS // network.num_batches))


def _is_torch(network: Network) -> bool:
    return hasattr(network, "parameter")


def _nudged(network: Network, reference: Reference, rng: np.random.Generator) -> dict[str, float]:
    """Return the mean Fisher information of each layer: the divergence grows as ½ F ‖ΔW‖²."""
    from evolve.networks.replay import Replay

    replay = Replay(network)
    found = {}
    for layer in network.layers:
        weights = network.weights(layer.name)
        size = _NUDGE * float(np.sqrt((weights.astype(np.float64) ** 2).mean())) or _NUDGE
        ratios = []
        for _ in range(_NUDGES):
            signs = rng.integers(0, 2, weights.shape, dtype=np.int8) * 2 - 1
            changed = (weights + np.float32(size) * signs).astype(np.float32)
            moved = float(((changed.astype(np.float64) - weights) ** 2).sum())
            ratios.append(reference.compare(replay.outputs(layer.name, changed)).divergence / moved)
        found[layer.name] = 2 * float(np.mean(ratios))
    return found
