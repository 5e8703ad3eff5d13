"""Measures one layer in one format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evolve.errors import NetworkError
from evolve.fields import Words
from evolve.networks.metrics import LABELLED, Measurement, Reference
from evolve.networks.network import Network, OutputArray, Targets, WeightArray
from evolve.networks.replay import Replay
from evolve.networks.weight_statistics import sqnr, squared_error
from evolve.quantizers import Quantizer

#: Kernels that add up in any order change outputs by less, relative to their spread: those of 32 bits, and
#: those of fewer.
_ROUNDING, _SHORT_ROUNDING = 1e-4, 1e-2
#: So many outputs are enough to see whether they change.
_ENOUGH = 1 << 22


def reference_of(network: Network) -> Reference:
    """Return the unchanged outputs of a network on its data, to compare others with.

    Raises:
        NetworkError: A weight, or an output that counts, is infinite or no number; or the network gives
            other outputs each time that it runs; or batches differ in the width of outputs.
    """
    for layer in network.layers:
        finite = np.isfinite(network.weights(layer.name))
        if not finite.all():
            raise NetworkError(
                "bad weights",
                file=network.name,
                field=layer.name,
                expected="weights that are numbers",
                found=Words(f"{(~finite).sum()} of {finite.size} that are infinite or none"),
                cure="Load or train it again: no format holds such weights.",
            )
    batches = range(network.num_batches)
    outputs = [network.outputs(batch) for batch in batches]
    targets = [network.targets(batch) for batch in batches]
    for batch, (each, target) in enumerate(zip(outputs, targets, strict=True)):
        if not np.isfinite(_counted(each, target)).all():
            raise NetworkError(
                "bad outputs",
                file=network.name,
                place=f"batch {batch}",
                expected="outputs that are numbers",
                found=Words("some that are infinite or none"),
                cure="Where scores are masked, return a large negative number instead of minus infinity.",
            )
    _refuse_noise(network, outputs[0], targets[0])
    if network.task != "regression":
        _refuse_widths(network, [each.shape[-1] for each in outputs])
    return Reference(network.task, outputs, targets)


def _counted(outputs: OutputArray, targets: Targets) -> OutputArray:
    """Return the rows of outputs that count, with their axes where all do."""
    # What stands at padding may be anything.
    return outputs if targets.counted is None else outputs.reshape(-1, outputs.shape[-1])[targets.counted]


def _refuse_widths(network: Network, widths: Sequence[int]) -> None:
    """Refuse outputs whose last axis differs between batches, as that of feature maps of other images does.

    Raises:
        NetworkError: They are such outputs.
    """
    other = next((batch for batch, width in enumerate(widths) if width != widths[0]), None)
    if other is None:
        return
    last = "classes" if network.task in LABELLED else "dimensions"
    raise NetworkError(
        "outputs of several widths",
        file=network.name,
        place=f"batch {other}",
        expected=f"{widths[0]} {last} along the last axis, as in batch 0",
        found=widths[other],
        cure=f"Let the model return its {last} along the last axis, as many in each batch; "
        "or give --task regression, which compares every number.",
    )


def _refuse_noise(network: Network, outputs: OutputArray, targets: Targets) -> None:
    """Refuse a network that gives other outputs for the first batch when it runs again.

    Raises:
        NetworkError: It does, and by more than rounding.
    """
    if not _counted(outputs, targets).size:
        return
    again = network.outputs(0)
    change = math.inf
    if again.shape == outputs.shape:
        first, second = _counted(outputs, targets), _counted(again, targets)
        # Some of the rows tell as well as all, and a large vocabulary has many numbers.
        step = max(1, first.size // _ENOUGH)
        before = first[::step].astype(np.float64)
        noise = np.sqrt(((second[::step] - before) ** 2).mean())
        # Outputs that are all alike have no spread to go by.
        spread = max(before.std(), 1e-3 * np.abs(before).max())
        change = 0.0 if noise == 0 else float(noise / spread)
    short = min(layer.stored_bits for layer in network.layers) < 32
    if not change <= (_SHORT_ROUNDING if short else _ROUNDING):
        raise NetworkError(
            "the network gives other outputs each time it runs",
            file=network.name,
            place="batch 0",
            expected="the same outputs for the same batch",
            found=Words(f"outputs that change by {change:.2g} of their spread"),
            cure="Put it in evaluation mode (model.eval()) and leave dropout, noise and counters out of its "
            "forward: what is measured of it would be that noise.",
        )


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
