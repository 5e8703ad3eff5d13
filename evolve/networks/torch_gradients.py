"""What one backward pass tells of each weight: Fisher information, and the trace of the Hessian."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from evolve.networks.metrics import LABELLED, Reference
from evolve.networks.network import WeightArray
from evolve.networks.torch_network import TorchNetwork


def fisher_information(
    network: TorchNetwork, reference: Reference, rng: np.random.Generator, draws: int = 1
) -> dict[str, WeightArray]:
    """Return the diagonal of the Fisher information of every weight, from backward passes.

    The divergence of outputs grows as ½ Σ F ΔW² in small changes of the weights. Each row's output is
    pulled in a random direction whose covariance is the divergence's curvature; of independent pulls of
    mean 0, the square of the summed gradient has the sum of their squares as its mean (Kunstner 2019 has
    why the directions must not come from the labels).

    Args:
        network: The network.
        reference: Its unchanged outputs.
        rng: Draws the directions.
        draws: Backward passes a batch; the fewer batches, the more it takes for a steady estimate.

    Returns:
        By layer, an array like its weights: per row of the output.
    """
    parameters = {layer.name: network.parameter(layer.name) for layer in network.layers}
    sums = {name: torch.zeros_like(each, dtype=torch.float32) for name, each in parameters.items()}
    with _gradients_of(network):
        for batch in range(network.num_batches):
            output = network.forward(batch)
            unchanged = network.array_of(output.detach(), batch)
            for draw in range(draws):
                pull = network.tensor_of(reference.curvature_sample(batch, unchanged, rng), output)
                gradients = torch.autograd.grad(
                    output,
                    list(parameters.values()),
                    pull,
                    retain_graph=draw + 1 < draws,
                    allow_unused=True,
                    materialize_grads=True,
                )
                for name, gradient in zip(parameters, gradients, strict=True):
                    sums[name] += gradient.float() ** 2
    rows = reference.num_rows * draws
    return {name: network.channels_first(name, total / rows) for name, total in sums.items()}


def hessian_traces(
    network: TorchNetwork, rng: np.random.Generator, probes: int
) -> tuple[dict[str, float], str | None]:
    """Return the trace of the loss's Hessian for each layer by Hutchinson's estimate (Hutchinson 1989).

    Args:
        network: The network.
        rng: Draws the probes, of −1 and 1.
        probes: Number of probes, dealt to the batches in turn.

    Returns:
        By layer the mean of the diagonal, that is the trace divided by the number of weights; and why
        there is none: the data have no labels, or an operator has no second derivative.
    """
    if all(network.targets(batch).labels is None for batch in range(network.num_batches)):
        return {}, "no labels"
    parameters = {layer.name: network.parameter(layer.name) for layer in network.layers}
    traces = dict.fromkeys(parameters, 0.0)
    try:
        with _gradients_of(network), _twice_differentiable():
            for probe in range(probes):
                loss = _loss(network, probe % network.num_batches)
                values = list(parameters.values())
                slopes = torch.autograd.grad(
                    loss, values, create_graph=True, allow_unused=True, materialize_grads=True
                )
                signs = [_signs(each, rng) for each in values]
                products = torch.autograd.grad(
                    slopes, values, signs, allow_unused=True, materialize_grads=True
                )
                for name, sign, product in zip(parameters, signs, products, strict=True):
                    traces[name] += float((sign * product).sum()) / (probes * sign.numel())
    except RuntimeError as fault:  # what torch raises where a derivative has none of its own
        return {}, f"no second derivative: {fault}".splitlines()[0]
    return traces, None


def _signs(parameter: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    drawn = rng.integers(0, 2, tuple(parameter.shape), dtype=np.int8)
    return torch.from_numpy(drawn).to(parameter.device, parameter.dtype) * 2 - 1


def _loss(network: TorchNetwork, batch: int) -> torch.Tensor:
    output, targets = network.forward(batch), network.targets(batch)
    rows = network.classes_last(output)
    labels = torch.from_numpy(np.asarray(targets.labels)).to(output.device)
    if network.task in LABELLED:
        flat = rows.reshape(-1, rows.shape[-1]).float()
        labels = torch.where(labels < 0, -100, labels)
        return torch.nn.functional.cross_entropy(flat, labels, ignore_index=-100)
    return ((rows - labels.reshape(rows.shape).to(rows.dtype)) ** 2).mean()


@contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Use only kernels that have a second derivative."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch._C._set_mkldnn_enabled(before)


@contextmanager
def _gradients_of(network: TorchNetwork) -> Iterator[None]:
    """Follow the gradients of the weight layers alone."""
    before = [(each, each.requires_grad) for each in network.model.parameters()]
    wanted = {id(network.parameter(layer.name)) for layer in network.layers}
    try:
        for parameter, _ in before:
            parameter.requires_grad_(id(parameter) in wanted)
        with torch.enable_grad():
            yield
    finally:
        for parameter, follows in before:
            parameter.requires_grad_(follows)
