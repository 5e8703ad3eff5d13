"""Measures one layer in one format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evolve.errors import NetworkError
from evolve.networks.metrics import Measurement, Reference
from evolve.networks.network import Network, WeightArray
from evolve.networks.replay import Replay
from evolve.networks.weight_statistics import sqnr, squared_error
from evolve.quantizers import Quantizer


def reference_of(network: Network) -> Reference:
    """Return the unchanged outputs of a network on its data, to compare others with.

    Raises:
        NetworkError: A weight, or an output that counts, is infinite or no number.
    """
    for layer in network.layers:
        if not np.isfinite(network.weights(layer.name)).all():
            words = "weights that are numbers"
            raise NetworkError("bad weights", file=network.name, field=layer.name, expected=words)
    batches = range(network.num_batches)
    outputs = [network.outputs(batch) for batch in batches]
    targets = [network.targets(batch) for batch in batches]
    for batch, (each, target) in enumerate(zip(outputs, targets, strict=True)):
        # What stands at padding may be anything.
        rows = each if target.counted is None else each.reshape(-1, each.shape[-1])[target.counted]
        if not np.isfinite(rows).all():
            raise NetworkError(
                "bad outputs",
                file=network.name,
                place=f"batch {batch}",
                expected="outputs that are numbers",
                found="some that are infinite or none",
            )
    return Reference(network.task, outputs, targets)


def measure_weights(
    network: Network, reference: Reference, weights: Mapping[str, WeightArray]
) -> Measurement:
    """Measure a network with the weights of any number of layers replaced, all at once.

    Args:
        network: The network.
        reference: Its unchanged outputs, from `reference_of`.
        weights: New weights by layer, output channels first.
    """
    return reference.compare(network.outputs(batch, weights) for batch in range(network.num_batches))


@dataclass(frozen=True)
class Cell:
    """One layer alone in one format.

    Attributes:
        divergence: Of the outputs from the unchanged ones.
        loss: Mean loss, None without labels.
        accuracy: Share of right rows, None unless the labels are classes.
        perplexity: Of a language model.
        broken: Number of rows with an output that is infinite or no number.
        squared_error: Sum of squared changes of the weights.
        sqnr: Signal-to-quantization-noise ratio of the weights in dB.
        fisher_loss: ½ Σ F ΔW², the divergence that the Fisher information predicts; None without it.
    """

    divergence: float
    loss: float | None
    accuracy: float | None
    perplexity: float | None
    broken: int
    squared_error: float
    sqnr: float
    fisher_loss: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the cell as JSON values."""
        return asdict(self)


def cell_from_json(record: Mapping[str, Any]) -> Cell:
    """Return a cell of a journal's record: the inverse of `Cell.to_json`."""
    return Cell(**{name: record[name] for name in Cell.__dataclass_fields__})


def measure_cell(
    layer: str,
    weights: WeightArray,
    quantizer: Quantizer,
    replay: Replay,
    reference: Reference,
    fisher: WeightArray | None = None,
) -> Cell:
    """Measure a network with one layer in one format.

    Args:
        layer: The layer's name.
        weights: Its weights, output channels first.
        quantizer: The format.
        replay: Runs the network.
        reference: What the outputs are compared with.
        fisher: Diagonal of the Fisher information, like the weights.
    """
    rounded = quantizer.dequantized(weights)
    error = squared_error(weights, rounded)
    # Weights that the format holds exactly change nothing; nothing has to run to know that.
    found = reference.compare(replay.outputs(layer, rounded)) if error else reference.unchanged
    predicted = None
    if fisher is not None:
        change = rounded.astype(np.float64) - weights
        predicted = float(0.5 * (fisher * change**2).sum())
    return Cell(
        found.divergence if error else 0.0,
        found.loss,
        found.accuracy,
        found.perplexity,
        found.broken,
        error,
        sqnr(weights, error),
        predicted,
    )
