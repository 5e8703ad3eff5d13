"""An ONNX network, run by onnxruntime, with its calibration data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from evolve.errors import NetworkError
from evolve.networks.metrics import LABELLED
from evolve.networks.network import OutputArray, Targets, Value, WeightArray, WeightLayer
from evolve.networks.onnx_constants import fold_constants, leave_inputs, take_out
from evolve.networks.onnx_data import choose_batch_size, choose_task, fit_data, make_targets
from evolve.networks.onnx_files import load_model, save_model
from evolve.networks.onnx_graph import OnnxGraph
from evolve.networks.onnx_layers import OnnxLayer, find_onnx_layers
from evolve.networks.onnx_left_out import count_weights, no_layers
from evolve.networks.slicing import Slices


class OnnxNetwork:
    """An ONNX model with the data it is measured on.

    Args:
        path: The model.
        data: An array for each input of the graph, by name, samples along the first axis, and the right
            answers as ``labels`` if there are any. Where the graph has one input, the only array that is
            no label serves as it, whatever its name. None for a network that is only written, not run.
        task: One of `evolve.networks.metrics.TASKS`; found by the labels where not given.
        batch_size: Samples a batch; a graph of a fixed batch size keeps that.
        threads: Threads of onnxruntime, 0 for as many as there are cores.

    Raises:
        NetworkError: The model cannot be read or has no weights, or the data do not fit.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        data: Mapping[str, NDArray[Any]] | None,
        task: str | None = None,
        batch_size: int = 64,
        threads: int = 0,
    ) -> None:
        self.path = Path(path)
        self.name = self.path.stem
        self.model, self._apart = load_model(self.path)
        leave_inputs(self.model.graph)
        found = find_onnx_layers(self.model.graph, fold_constants(self.model.graph))
        if not found:
            raise no_layers(self.model.graph, self.path)
        self._layers = {each.name: each for each in found}
        self._counts = count_weights(self.model.graph)
        large = take_out(self.model.graph, {each.initializer for each in found})
        output = self.model.graph.output[0].name
        names = {each.initializer: each.name for each in found}
        self._graph = OnnxGraph(self.model, large, names, output, threads)
        self._slices = Slices(self._graph)
        self._everything = self._graph.plan(self._slices.needed, frozenset({output}))
        self._inputs: list[dict[str, NDArray[Any]]] = []
        self._targets: list[Targets] = []
        self.num_batches, self.task = 0, task or "embedding"
        self.layers = self._order(None)
        if data is not None:
            self._take(data, task, batch_size)

    def _take(self, data: Mapping[str, NDArray[Any]], task: str | None, batch_size: int) -> None:
        inputs, labels = fit_data(self.model.graph, data, self.path)
        samples = len(next(iter(inputs.values())))
        size = choose_batch_size(self.model.graph, samples, batch_size, self.path)
        self._inputs = [
            {name: array[start : start + size] for name, array in inputs.items()}
            for start in range(0, samples, size)
        ]
        self.num_batches = len(self._inputs)
        first = self._run_first()
        self.task = choose_task(self._inputs[0], first, labels, task, self.path)
        self._targets = make_targets(self._inputs, first.ndim, labels, self.task)
        self.layers = self._order(first.shape[-1])

    def weights(self, layer: str) -> WeightArray:
        """Return a layer's weights, output channels first."""
        return self._layers[layer].channels_first(self._graph.constants[layer])

    def value_of(self, layer: str, weights: WeightArray) -> NDArray[Any]:
        """Return weights in the initializer's layout and type."""
        return self._layers[layer].own_layout(weights, self._graph.constants[layer].dtype)

    def outputs(self, batch: int, weights: Mapping[str, WeightArray] | None = None) -> OutputArray:
        """Return the outputs of a batch with some layers' weights replaced: all nodes run."""
        values = self.inputs(batch)
        values |= {layer: self.value_of(layer, array) for layer, array in (weights or {}).items()}
        made = self._graph.run(self._everything, values)
        return self.array_of(made[self._graph.output], batch)

    def model_with(self, weights: Mapping[str, WeightArray]) -> onnx.ModelProto:
        """Return the whole model with some layers' weights replaced."""
        model, _ = load_model(self.path)
        # Before version 4 an initializer had to be an input too, and those that are made here are none.
        model.ir_version = max(model.ir_version, 4)
        fold_constants(model.graph)
        values = {self._layers[name].initializer: self.value_of(name, each) for name, each in weights.items()}
        for tensor in model.graph.initializer:
            if tensor.name in values:
                tensor.CopyFrom(onnx.numpy_helper.from_array(values[tensor.name], tensor.name))
        return model

    endings = (".onnx",)

    def save(self, path: Path, weights: Mapping[str, WeightArray]) -> None:
        """Write the model with some layers' weights replaced, in one file or two as it was read.

        One that is too large for one file is written as two: the tensors as ``NAME.onnx.data``.
        """
        save_model(self.model_with(weights), path, self._apart)

    @property
    def left_out(self) -> dict[str, int]:
        """The weights in no layer, as quantized ones and those inside branches: how many, by tensor."""
        measured = {layer.parameter for layer in self.layers}
        return {name: count for name, count in self._counts.items() if name not in measured}

    def targets(self, batch: int) -> Targets:
        """Return what the outputs of a batch should be."""
        return self._targets[batch]

    def program(self, batch: int) -> OnnxGraph:
        """Return the graph, which all batches share."""
        del batch
        return self._graph

    def inputs(self, batch: int) -> dict[Value, Any]:
        """Return the arrays of a batch by the names of the graph's inputs."""
        values: dict[Value, Any] = {}
        values.update(self._inputs[batch])
        return values

    def array_of(self, output: NDArray[Any], batch: int) -> OutputArray:
        """Return an output as an array of float32."""
        del batch
        return output.astype(np.float32, copy=False)

    @property
    def provenance(self) -> dict[str, Any]:
        """Hashes of weights and data, and versions."""
        constants = self._graph.constants
        weights = {name: each for name, each in constants.items() if isinstance(each, np.ndarray)}
        arrays = {
            f"{at}.{name}": each for at, batch in enumerate(self._inputs) for name, each in batch.items()
        }
        labels = {f"{at}.labels": each.labels for at, each in enumerate(self._targets)}
        return {
            "framework": "onnx",
            "versions": {
                "onnx": onnx.__version__,
                "onnxruntime": onnxruntime.__version__,
                "numpy": np.__version__,
            },
            "weights_sha256": _hash({str(name): each for name, each in weights.items()}),
            "data_sha256": _hash(arrays | {name: each for name, each in labels.items() if each is not None}),
            "samples": sum(len(next(iter(batch.values()))) for batch in self._inputs),
        }

    def _run_first(self) -> OutputArray:
        try:
            return self.outputs(0)
        except Exception as fault:
            raise NetworkError(
                f"onnxruntime does not run the model on the data: {fault}", file=self.path, place="batch 0"
            ) from fault

    def _order(self, classes: int | None) -> tuple[WeightLayer, ...]:
        """Return the layers that the output depends on, in the order they run in."""
        slices = {name: self._slices.of(name) for name in self._layers}
        firsts = {name: found.first for name, found in slices.items() if found is not None}
        names = sorted(firsts, key=lambda name: (firsts[name], list(self._layers).index(name)))
        ordered = [self._weight_layer(self._layers[name]) for name in names]
        last = next((at for at in reversed(range(len(ordered))) if ordered[at].kind == "Linear"), None)
        if last is not None and self.task in LABELLED and ordered[last].shape[0] == classes:
            ordered[last] = replace(ordered[last], kind="Classifier")
        return tuple(ordered)

    def _weight_layer(self, layer: OnnxLayer) -> WeightLayer:
        stored = self._graph.constants[layer.name]
        ordered = tuple(stored.shape[axis] for axis in layer.axes)
        return WeightLayer(layer.name, layer.kind, ordered, layer.initializer, 8 * stored.dtype.itemsize)


def _hash(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
