"""What one backward pass tells of each weight: Fisher information, and the trace of the Hessian."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from evolve.networks.metrics import LABELLED, Reference
from evolve.networks.network import WeightArray
from evolve.networks.torch_network import TorchNetwork

#: Pieces that a batch is cut into for second derivatives, whose graph holds several times its activations.
_PIECES = 8


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

    def add(name: str, gradient: torch.Tensor) -> None:
        sums[name] += gradient.float() ** 2

    with _gradients_of(network), _handed_on(parameters, add):
        for batch in range(network.num_batches):
            output = network.forward(batch)
            unchanged = network.array_of(output.detach(), batch)
            for draw in range(draws):
                pull = network.tensor_of(reference.curvature_sample(batch, unchanged, rng), output)
                torch.autograd.backward(
                    output, pull, retain_graph=draw + 1 < draws, inputs=list(parameters.values())
                )
    rows = reference.num_rows * draws
    # Each sum is let go as soon as its array is made.
    return {name: network.channels_first(name, sums.pop(name).div_(rows)) for name in parameters}


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
    signs: dict[str, torch.Tensor] = {}

    def add(name: str, product: torch.Tensor) -> None:
        traces[name] += float((signs[name] * product).sum()) / (probes * product.numel())

    sums: list[torch.Tensor] = []

    def note(name: str, slope: torch.Tensor) -> None:
        sums.append(_SignedSum.apply(slope, signs[name]))  # type: ignore[no-untyped-call] # torch's

    values = list(parameters.values())
    try:
        with _gradients_of(network), _twice_differentiable():
            for probe in range(probes):
                signs |= {name: _signs(each, rng) for name, each in parameters.items()}
                for loss in _losses(network, probe % network.num_batches):
                    with _handed_on(parameters, note), warnings.catch_warnings():
                        # The gradients are taken away, so there is no circle to warn of.
                        warnings.filterwarnings("ignore", "Using backward\\(\\) with create_graph=True")
                        torch.autograd.backward(loss, create_graph=True, inputs=values)
                    followed = [each for each in sums if each.requires_grad]
                    sums.clear()
                    if followed:
                        with _handed_on(parameters, add):
                            torch.autograd.backward(followed, inputs=values)
    except RuntimeError as fault:  # what torch raises where a derivative has none of its own
        return {}, f"no second derivative: {fault}".splitlines()[0]
    return traces, None


def _signs(parameter: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return −1 and 1 at random in a byte each."""
    drawn = rng.integers(0, 2, tuple(parameter.shape), dtype=np.int8)
    return torch.from_numpy(drawn * np.int8(2) - np.int8(1)).to(parameter.device)


class _SignedSum(torch.autograd.Function):
    """Σ slope · sign, which keeps nothing but the signs, a byte each."""

    @staticmethod
    def forward(ctx: Any, slope: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(sign)
        ctx.dtype = slope.dtype
        return (slope * sign).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (sign,) = ctx.saved_tensors
        return sign.to(ctx.dtype) * gradients[0], None


def _losses(network: TorchNetwork, batch: int) -> Iterator[torch.Tensor]:
    """Yield the loss of a batch in parts that add up to it, each of a few samples."""
    labels = torch.from_numpy(np.asarray(network.targets(batch).labels))
    if network.task in LABELLED:
        labels = torch.where(labels < 0, -100, labels).reshape(-1)
        count = max(1, int((labels >= 0).sum()))
    else:
        count = labels.numel()
    for rows, output in network.forward_in_pieces(batch, _PIECES):
        found = network.classes_last(output)
        found = found.reshape(-1, found.shape[-1])
        # Nothing here may hold what the loss lets go of.
        del output
        if network.task in LABELLED:
            wanted = labels[rows].to(found.device)
            yield (
                torch.nn.functional.cross_entropy(found.float(), wanted, ignore_index=-100, reduction="sum")
                / count
            )
        else:
            wanted = labels.reshape(-1, found.shape[-1])[rows].to(found)
            yield ((found - wanted) ** 2).sum() / count


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


@contextmanager
def _handed_on(
    parameters: Mapping[str, torch.nn.Parameter], take: Callable[[str, torch.Tensor], None]
) -> Iterator[None]:
    """Hand each gradient on as soon as a backward pass has it, so that there is never more than one."""
    before = [each.grad for each in parameters.values()]

    def hook(name: str) -> Callable[[torch.Tensor], None]:
        def hand_on(parameter: torch.Tensor) -> None:
            assert parameter.grad is not None
            take(name, parameter.grad)
            parameter.grad = None

        return hand_on

    for each in parameters.values():
        each.grad = None
    hooks = [
        each.register_post_accumulate_grad_hook(hook(name))  # type: ignore[no-untyped-call] # torch's
        for name, each in parameters.items()
    ]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()
        for parameter, gradient in zip(parameters.values(), before, strict=True):
            parameter.grad = gradient
