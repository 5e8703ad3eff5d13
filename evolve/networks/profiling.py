"""Measures a real network: every weight layer in every format, and all the signals of a profile.

Shapes: L layers, K formats.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolve.errors import NetworkError
from evolve.formats import PrecisionFormat
from evolve.networks.journal import Journal
from evolve.networks.measuring import Cell, cell_from_json, measure_cell, reference_of
from evolve.networks.metrics import Reference
from evolve.networks.network import Network, left_out_words, some
from evolve.networks.replay import Replay
from evolve.networks.signals import LayerSignals, measure_signals
from evolve.networks.ties import check_ties, find_ties
from evolve.profiles import ModelProfile
from evolve.quantizers import Quantizer, find_quantizer

#: Measured where no formats are chosen: one of each width that is in use, scales counted.
DEFAULT_FORMATS = ("INT2_G32", "INT3_G32", "INT4_G32", "INT4", "INT6", "INT8", "FP8_E4M3", "FP16", "FP32")


#: Told of cells measured, of all cells, and of the layer that comes next.
Progress = Callable[[int, int, str], None]


def profile_network(
    network: Network,
    formats: Sequence[str] = DEFAULT_FORMATS,
    *,
    ties: Sequence[Sequence[str]] | None = None,
    seed: int = 0,
    hessian_probes: int = 8,
    journal: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    cache_bytes: int | None = None,
) -> ModelProfile:
    """Measure a network and return its profile.

    Its ``sensitivity`` is ``1 − exp(−divergence)``, its ``gradient_sensitivity`` the root mean square
    gradient of a layer relative to the largest, from the Fisher information. A format's bits are the mean
    over the model's weights; each layer's own are in ``layer_bits``.

    Args:
        network: A `TorchNetwork` or an `OnnxNetwork`.
        formats: Names of quantizers.
        ties: Groups of layers, by name, that share a format; by default those that `find_ties` finds.
        seed: Of the random directions of Fisher information and Hessian trace.
        hessian_probes: Probes of the Hessian trace (PyTorch); 0 leaves it out.
        journal: A file that keeps every measurement as it is made.
        resume: Whether to go on with the measurements in that file.
        progress: Called before each layer and at the end, with the cells measured, all cells, and the layer.
        cache_bytes: Memory for the inputs of the current layer; by default as much as the weights take.

    Raises:
        NetworkError: A tie or the journal is not right.
        FormatError: A format is unknown.
    """
    quantizers = _by_bits(network, formats)
    groups = find_ties(network) if ties is None else check_ties(network, ties)
    heading = {
        "profile": network.name,
        "task": network.task,
        "formats": [each.name for each in quantizers],
        "seed": seed,
        "hessian_probes": hessian_probes,
        **network.provenance,
    }
    with _opened(journal, heading, resume) as book:
        reference = reference_of(network)
        signals = measure_signals(network, reference, seed, hessian_probes, book)
        cells = _measure_cells(network, quantizers, reference, signals, book, progress, cache_bytes)
    tables = _Tables(network, quantizers, cells, signals, reference)
    more = {"broken": tables.broken_words(), "not_measured": left_out_words(network)}
    provenance = {
        **{key: value for key, value in heading.items() if key != "profile"},
        "unchanged": {
            key: value
            for key, value in vars(reference.unchanged).items()
            if value is not None and key != "broken"  # an unchanged network has no such outputs
        },
        "tied_layers": "found" if ties is None else "declared",
        "notes": {**signals.notes, **{name: words for name, words in more.items() if words}},
        "not_measured": dict(network.left_out),
        "evaluations": {"cells": len(cells), **signals.evaluations},
    }
    return tables.profile(groups, seed, provenance)


def _by_bits(network: Network, formats: Sequence[str]) -> list[Quantizer]:
    """Return the quantizers by the bits that they take for the whole network."""
    if isinstance(formats, str) or not formats or len(set(formats)) < len(formats):
        words = "a list of names of formats, each once"
        raise NetworkError("bad formats", field="formats", expected=words, found=formats)
    found = [find_quantizer(name) for name in formats]
    return sorted(found, key=lambda each: (_mean_bits(network, each), each.name))


def _mean_bits(network: Network, quantizer: Quantizer) -> float:
    sizes = [layer.num_params * quantizer.bits(layer.shape) for layer in network.layers]
    return sum(sizes) / sum(layer.num_params for layer in network.layers)


def _measure_cells(
    network: Network,
    quantizers: Sequence[Quantizer],
    reference: Reference,
    signals: LayerSignals,
    journal: Journal | None,
    progress: Progress | None,
    cache_bytes: int | None,
) -> dict[tuple[str, str], Cell]:
    """Return every layer in every format, by their names."""
    cells = {
        (record["layer"], record["format"]): cell_from_json(record)
        for record in (journal.records if journal else [])
        # Older journals do not say what is broken, and left such rows out of the means: measured again.
        if record["kind"] == "cell" and "broken" in record
    }
    replay = Replay(network, cache_bytes)
    total = len(network.layers) * len(quantizers)
    for layer in network.layers:
        if progress is not None:
            progress(len(cells), total, layer.name)
        weights = network.weights(layer.name)
        for quantizer in quantizers:
            if (layer.name, quantizer.name) not in cells:
                fisher = signals.fisher_diagonal.get(layer.name)
                cell = measure_cell(layer.name, weights, quantizer, replay, reference, fisher)
                cells[layer.name, quantizer.name] = cell
                if journal is not None:
                    names = {"kind": "cell", "layer": layer.name, "format": quantizer.name}
                    journal.append({**names, **cell.to_json()})
    if progress is not None:
        progress(total, total, "")
    return cells


@dataclass(frozen=True)
class _Tables:
    """Puts cells and signals into the arrays of a profile."""

    network: Network
    quantizers: Sequence[Quantizer]
    cells: Mapping[tuple[str, str], Cell]
    signals: LayerSignals
    reference: Reference

    def profile(
        self, ties: Sequence[Sequence[str]], seed: int, provenance: Mapping[str, Any]
    ) -> ModelProfile:
        layers = self.network.layers
        names = [layer.name for layer in layers]
        bits = np.array([[each.bits(layer.shape) for each in self.quantizers] for layer in layers])
        divergence = self.table("divergence")
        return ModelProfile(
            name=self.network.name,
            formats=tuple(
                PrecisionFormat(each.name, _mean_bits(self.network, each), each.kind)
                for each in self.quantizers
            ),
            layer_type=tuple(layer.kind for layer in layers),
            layer_index=np.arange(len(layers)),
            num_params=np.array([layer.num_params for layer in layers]),
            weight_mean=self.signals.column("weight_mean"),
            weight_std=self.signals.column("weight_std"),
            weight_range=self.signals.column("weight_range"),
            activation_range=self.signals.column("activation_range"),
            gradient_sensitivity=self.signals.column("gradient_sensitivity"),
            # Beyond a divergence of 36 the nearest number is 1, which no sensitivity may be.
            sensitivity=np.minimum(-np.expm1(-divergence), np.nextafter(1, 0)),
            description=f"Measured: {self.network.task}, {provenance['samples']} samples.",
            seed=seed,
            source="measured",
            layer_names=tuple(names),
            layer_shapes=tuple(layer.shape for layer in layers),
            layer_aliases=tuple(layer.aliases for layer in layers),
            channel_axes=tuple(layer.channel_axis for layer in layers),
            num_experts=tuple(layer.num_experts for layer in layers),
            tied_layers=tuple(tuple(map(names.index, group)) for group in ties),
            layer_bits=bits,
            measurements={**self._changes(), **self.signals.measurements()},
            provenance=provenance,
        )

    def table(self, name: str) -> NDArray[np.float64]:
        """Return one number of every cell, (L, K)."""
        return np.array(
            [
                [getattr(self.cells[layer.name, each.name], name) for each in self.quantizers]
                for layer in self.network.layers
            ],
            dtype=np.float64,
        )

    def broken_words(self) -> str | None:
        """Return which layers make outputs infinite or no numbers in which formats; None if none does."""
        broken = [f"{layer} in {name}" for (layer, name), cell in self.cells.items() if cell.broken]
        if not broken:
            return None
        return f"outputs are infinite or no numbers with {some(broken)}: the worst that a profile can say"

    def _changes(self) -> dict[str, NDArray[np.float64]]:
        found = {name: self.table(name) for name in ("squared_error", "sqnr")}
        if self.signals.fisher_diagonal:
            found["fisher_loss"] = self.table("fisher_loss")
        for name in ("loss", "accuracy", "perplexity"):
            before = getattr(self.reference.unchanged, name)
            if before is not None:
                found[f"change_of_{name}"] = self.table(name) - before
        return found


@contextmanager
def _opened(
    path: str | os.PathLike[str] | None, heading: Mapping[str, Any], resume: bool
) -> Iterator[Journal | None]:
    if path is None:
        with nullcontext():
            yield None
        return
    journal = Journal(Path(path), heading, resume)
    try:
        yield journal
    finally:
        # What cannot be measured leaves nothing that the next try would have to remove.
        if not journal.records:
            journal.path.unlink(missing_ok=True)
        journal.close()
