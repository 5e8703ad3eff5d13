"""A PyTorch network with its calibration data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from evolve.errors import NetworkError
from evolve.networks.metrics import LABELLED
from evolve.networks.network import OutputArray, Targets, Value, WeightArray, WeightLayer
from evolve.networks.slicing import Slices
from evolve.networks.torch_batches import (
    Batch,
    choose_task,
    hash_tensors,
    make_targets,
    makes_decoder_inputs,
    output_tensor,
    read_batches,
    split_batch,
)
from evolve.networks.torch_layers import find_left_out, find_torch_layers, find_untold
from evolve.networks.torch_products import ProductAxes, find_products
from evolve.networks.torch_recorder import Handing, Recorder
from evolve.networks.torch_tape import Tape

#: Relative change of weights under which a tape has to give what the network gives.
_CHANGE = 0.3


class TorchNetwork:
    """A PyTorch module in evaluation mode, with the batches it is measured on.

    Args:
        model: The module; it is put in evaluation mode.
        loader: An iterable of batches: tensors, pairs of inputs and targets, or dictionaries of keyword
            arguments, labels among them. It is read once.
        task: One of `evolve.networks.metrics.TASKS`; found by the labels where not given.
        name: What reports call it; the module's class by default.

    Raises:
        NetworkError: It is no module, has no weight layer, or does not run on the data.
    """

    def __init__(
        self, model: nn.Module, loader: Iterable[Any], task: str | None = None, name: str | None = None
    ) -> None:
        if not isinstance(model, nn.Module):
            raise NetworkError("not a model", expected="a torch.nn.Module", found=type(model).__name__)
        self.model = model.eval()
        self.name = name or type(model).__name__
        device = next((each.device for each in model.parameters()), torch.device("cpu"))
        self.batches = read_batches(loader, device, self.name, makes_decoder_inputs(model))
        self.num_batches = len(self.batches)
        self._found = {each.name: each for each in find_torch_layers(model, self._products())}
        if not self._found:
            raise NetworkError("no weight layers", file=self.name, expected="a Linear, Conv, Embedding …")
        self._programs: list[Tape | None] = []
        self._rows_of_samples: dict[int, int | None] = {}
        first = self._record(self.batches[0])
        self.task = choose_task(self.batches[0], first, task, self.name)
        self._class_axis = _class_axis(self.batches[0], first, self.task)
        self._targets = [self._make_targets(self.batches[0], first)]
        for batch in self.batches[1:]:
            self._targets.append(self._make_targets(batch, self._record(batch)))
        self._drop_tapes_that_miss_something()
        self.layers = self._order(first)
        self.left_out = self._find_left_out()

    def weights(self, layer: str) -> WeightArray:
        """Return a layer's weights, output channels first."""
        return self.channels_first(layer, self._found[layer].tensor)

    def channels_first(self, layer: str, tensor: torch.Tensor) -> WeightArray:
        """Return a tensor that is laid out as a layer's parameter, output channels first."""
        return self._found[layer].channels_first(tensor.detach().float().cpu().numpy())

    def value_of(self, layer: str, weights: WeightArray) -> torch.Tensor:
        """Return weights in the layout, type and place of the layer's parameter."""
        found = self._found[layer]
        return torch.from_numpy(found.own_layout(weights)).to(found.tensor.device, found.tensor.dtype)

    def outputs(self, batch: int, weights: Mapping[str, WeightArray] | None = None) -> OutputArray:
        """Return the outputs of a batch with some layers' weights replaced: a full forward pass."""
        with self.replaced(weights or {}):
            return self.array_of(self.forward(batch).detach(), batch)

    def forward(self, batch: int) -> torch.Tensor:
        """Return the output of a batch as a tensor; gradients are followed unless they are off."""
        with _same_kernels():
            return self._call(self.batches[batch])

    def forward_in_pieces(self, batch: int, count: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield the output of a batch in about so many pieces, and which of its rows each one holds.

        A row is what has labels of its own, such as a token. Where samples depend on one another, or on
        their number, the batch is one piece.
        """
        pieces = split_batch(self.batches[batch], count)
        if len(pieces) > 1 and batch not in self._rows_of_samples:
            self._rows_of_samples[batch] = self._independent_rows(batch, pieces)
        rows = self._rows_of_samples.get(batch)
        if rows is None:
            yield slice(None), self.forward(batch)
            return
        stop = 0
        for piece in pieces:
            start, stop = stop, stop + rows * _num_samples(piece)
            with _same_kernels():
                output = self._call(piece)
            yield slice(start, stop), output
            del output

    def _independent_rows(self, batch: int, pieces: Sequence[Batch]) -> int | None:
        """Return how many rows of output a sample has; None where pieces do not give what the batch gives."""
        with torch.no_grad(), _same_kernels():
            whole = self._call(self.batches[batch])
            try:
                parts = torch.cat([self._call(each) for each in pieces])
            # The shapes do not allow for pieces, or a piece has no output that can be compared.
            except (RuntimeError, ValueError, IndexError, NetworkError):
                return None
        if parts.shape != whole.shape or not torch.allclose(parts, whole, rtol=1e-4, atol=1e-5):
            return None
        samples = sum(map(_num_samples, pieces))
        rows = self.classes_last(whole).shape[:-1].numel()
        return rows // samples if rows % samples == 0 else None

    @contextmanager
    def replaced(self, weights: Mapping[str, WeightArray]) -> Iterator[nn.Module]:
        """Let the model have other weights inside ``with``: layers by name, output channels first."""
        before = {layer: self._found[layer].tensor.data for layer in weights}
        try:
            for layer, array in weights.items():
                self._found[layer].tensor.data = self.value_of(layer, array)
            with torch.no_grad():
                yield self.model
        finally:
            for layer, data in before.items():
                self._found[layer].tensor.data = data

    def on(self, loader: Iterable[Any]) -> TorchNetwork:
        """Return the same model, with the same layers, on other data; the two share their weights."""
        other = TorchNetwork(self.model, loader, self.task, self.name)
        # What the other data have no use for is a layer all the same.
        other.layers, other.left_out = self.layers, self.left_out
        other._found = self._found
        return other

    endings = (".pt", ".pth")

    def save(self, path: Path, weights: Mapping[str, WeightArray]) -> None:
        """Write the state of the model with some layers' weights replaced, as ``torch.save`` does."""
        with self.replaced(weights) as model:
            state = model.state_dict()
            for name, value in state.items():
                # A file from an accelerator has to load where there is none.
                state[name] = value.cpu() if isinstance(value, torch.Tensor) else value
            torch.save(state, path)

    def parameter(self, layer: str) -> nn.Parameter:
        """Return a layer's parameter."""
        return self._found[layer].tensor

    def targets(self, batch: int) -> Targets:
        """Return what the outputs of a batch should be."""
        return self._targets[batch]

    def program(self, batch: int) -> Tape | None:
        """Return the tape of a batch, None where running parts of it could give other numbers."""
        return self._programs[batch]

    def inputs(self, batch: int) -> dict[Value, Any]:
        """Return the batch's tensors as its tape names them."""
        return {("input", at): tensor for at, tensor in enumerate(self.batches[batch].tensors)}

    def array_of(self, output: torch.Tensor, batch: int) -> OutputArray:
        """Return an output as an array of float32, classes last."""
        del batch
        array: OutputArray = self.classes_last(output).float().cpu().numpy()
        return array

    def classes_last(self, output: torch.Tensor) -> torch.Tensor:
        """Return an output with its classes on the last axis."""
        return torch.movedim(output, self._class_axis, -1)

    def tensor_of(self, array: OutputArray, output: torch.Tensor) -> torch.Tensor:
        """Return an array, classes last, laid out as an output."""
        tensor = torch.from_numpy(array).to(output.device, output.dtype)
        return torch.movedim(tensor, -1, self._class_axis)

    @property
    def provenance(self) -> dict[str, Any]:
        """Hashes of weights and data, and versions."""
        data = [
            (f"{at}.{place}", tensor)
            for at, batch in enumerate(self.batches)
            for place, tensor in enumerate([*batch.tensors, batch.labels])
            if tensor is not None
        ]
        return {
            "framework": "torch",
            "versions": {"torch": torch.__version__, "numpy": np.__version__},
            "weights_sha256": hash_tensors(self.model.state_dict().items()),
            "data_sha256": hash_tensors(data),
            "samples": sum(map(_num_samples, self.batches)),
        }

    def _call(self, batch: Batch) -> torch.Tensor:
        return output_tensor(self.model(*batch.arguments, **batch.keywords), self.name)

    def _products(self) -> dict[str, ProductAxes]:
        """Return how stacked matrices are multiplied with data, by the parameter's name."""
        untold = find_untold(self.model)
        if not untold:
            return {}
        parameters = dict(self.model.named_parameters())
        with _same_kernels(), self._blamed_on(0):
            found = find_products(parameters, lambda: self._call(self.batches[0]))
        return {name: found[name] for name in untold if name in found}

    def _record(self, batch: Batch) -> torch.Tensor:
        """Run a batch, keep its tape and return its output."""
        weights = {name: layer.tensor for name, layer in self._found.items()}
        recorder = Recorder(weights, batch.tensors)
        with (
            torch.no_grad(),
            _same_kernels(),
            self._blamed_on(len(self._programs)),
            Handing(recorder),
            recorder,
        ):
            output = self._call(batch)
        tape = recorder.tape(output)
        # Equal tapes are kept once: usually all batches but the last, smaller one do the same.
        known = (each for each in self._programs if each is not None and each.same_as(tape))
        self._programs.append(next(known, tape))
        return output

    @contextmanager
    def _blamed_on(self, batch: int) -> Iterator[None]:
        """Say of which batch it was that the model did not run."""
        try:
            yield
        except NetworkError:
            raise
        except Exception as fault:
            raise NetworkError(
                f"the model does not run on the data: {type(fault).__name__}: {fault}",
                file=self.name,
                place=f"batch {batch}",
            ) from fault

    def _drop_tapes_that_miss_something(self) -> None:
        """Give up the tapes where, with all weights changed, one differs from the network itself.

        So they do where values pass through something that torch does not see, such as numpy.
        """
        generator = torch.Generator().manual_seed(0)
        # By so much that choices by the largest, or by the sign, change too.
        changed: dict[Value, torch.Tensor] = {
            name: layer.tensor.detach() * (1 + _CHANGE * _noise(layer.tensor, generator))
            for name, layer in self._found.items()
        }
        checked: set[int] = set()
        for batch, tape in enumerate(self._programs):
            if tape is not None and id(tape) not in checked:
                checked.add(id(tape))
                if not self._is_right(tape, batch, changed):
                    self._programs = [None] * self.num_batches
                    return

    def _is_right(self, tape: Tape, batch: int, changed: Mapping[Value, torch.Tensor]) -> bool:
        """Whether a tape gives what the network gives for a batch with other weights."""
        plan = tape.plan(Slices(tape).needed, frozenset({tape.output}))
        recorded = tape.run(plan, {**self.inputs(batch), **changed})[tape.output]
        before = {name: layer.tensor.data for name, layer in self._found.items()}
        try:
            for name, layer in self._found.items():
                layer.tensor.data = changed[name]
            with torch.no_grad():
                expected = self.forward(batch)
        finally:
            for name, layer in self._found.items():
                layer.tensor.data = before[name]
        return recorded.shape == expected.shape and torch.allclose(
            recorded, expected, rtol=1e-5, atol=1e-6, equal_nan=True
        )

    def _find_left_out(self) -> dict[str, int]:
        return find_left_out(self.model, [self._found[layer.name] for layer in self.layers])

    def _make_targets(self, batch: Batch, output: torch.Tensor) -> Targets:
        return make_targets(batch, self.classes_last(output), self.task, self.name)

    def _order(self, output: torch.Tensor) -> tuple[WeightLayer, ...]:
        """Return the layers that the output of some batch depends on, in the order they run in."""
        names = list(self._found)
        if None not in self._programs:
            first: dict[str, int] = {}
            for program in {id(each): each for each in self._programs if each is not None}.values():
                slices = Slices(program)
                for name in names:
                    found = slices.of(name)
                    if found is not None:
                        first.setdefault(name, found.first)
            names = sorted(first or names, key=lambda name: (first.get(name, 0), names.index(name)))
        ordered = [self._found[name].described for name in names]
        for at in reversed(range(len(ordered))):
            if ordered[at].kind == "Linear":
                fits = ordered[at].shape[0] == output.shape[self._class_axis]
                if self.task in LABELLED and fits:
                    ordered[at] = replace(ordered[at], kind="Classifier")
                break
        return tuple(ordered)


def _noise(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(tensor.shape, generator=generator).to(tensor.device, tensor.dtype)


def _num_samples(batch: Batch) -> int:
    return next((len(each) for each in batch.tensors if each.ndim), 1)


def _class_axis(batch: Batch, output: torch.Tensor, task: str) -> int:
    """Return where the classes are: before the places of an image that is labelled by pixel, else last."""
    labels = batch.labels
    images = (
        task == "classification"
        and labels is not None
        and output.ndim > 2
        and labels.shape == (output.shape[0], *output.shape[2:])
    )
    return 1 if images else -1


@contextmanager
def _same_kernels() -> Iterator[None]:
    """Keep attention from a fast path that it takes only where nobody watches its parts."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
