"""What a loader of calibration data may yield, and what the network should make of it."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from evolve.errors import NetworkError
from evolve.fields import Words
from evolve.networks.metrics import LABELLED, TASKS, check_scores
from evolve.networks.network import Targets

_FORMS = "tensors, pairs of inputs and targets, or dictionaries of keyword arguments"
_LABELS = ("labels", "label", "targets", "target")
#: What the keywords of a decoder begin with, beside those of its encoder.
_DECODER = "decoder_"


@dataclass(frozen=True, eq=False)
class Batch:
    """One call of the network, and the right answers.

    Attributes:
        arguments: Positional arguments.
        keywords: Keyword arguments.
        labels: The right classes or outputs, or None.
    """

    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any] = field(default_factory=dict)
    labels: torch.Tensor | None = None

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All tensors among the arguments."""
        leaves = tree_leaves((self.arguments, dict(self.keywords)))
        return [each for each in leaves if isinstance(each, torch.Tensor)]

    @property
    def has_decoder(self) -> bool:
        """Whether the outputs are a decoder's, whose rows are not those of the encoder's inputs."""
        return any(str(key).startswith(_DECODER) or key in _LABELS for key in self.keywords)

    @property
    def token_ids(self) -> torch.Tensor | None:
        """The first tensor, or a decoder's own tokens, if it holds whole numbers, (N, T)."""
        if self.has_decoder:
            known = self.keywords.get(f"{_DECODER}input_ids")
        else:
            named = self.keywords.get("input_ids")
            known = named if named is not None else next(iter(self.tensors), None)
        whole = isinstance(known, torch.Tensor) and known.ndim == 2 and not known.is_floating_point()
        return known if whole else None

    @property
    def mask(self) -> torch.Tensor | None:
        """Which tokens of the outputs are no padding, if it is given."""
        found = self.keywords.get(f"{_DECODER}attention_mask" if self.has_decoder else "attention_mask")
        return found if isinstance(found, torch.Tensor) else None


def makes_decoder_inputs(model: nn.Module) -> bool:
    """Whether a model of an encoder and a decoder can make what the decoder reads of the labels."""
    paired = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
    return paired and "labels" in inspect.signature(model.forward).parameters


def read_batches(
    loader: Iterable[Any], device: torch.device, name: str, needs_labels: bool = False
) -> list[Batch]:
    """Return all batches of a loader.

    Args:
        loader: Yields them.
        device: Where their tensors go.
        name: The network, for errors.
        needs_labels: Whether the network makes of the labels what its decoder reads, where nothing else
            is given.

    Raises:
        NetworkError: It yields nothing, or something that is no batch; or the device holds no numbers.
    """
    if device.type == "meta":
        raise NetworkError(
            "the model has no weights",
            file=name,
            expected="weights on a CPU or an accelerator",
            found=Words("parameters on the meta device"),
            cure="Load them: model.to_empty(device='cpu'), then model.load_state_dict(...).",
        )
    try:
        listed = list(loader)
    except TypeError:
        raise NetworkError(
            "not a loader", file=name, field="data", expected=f"an iterable of {_FORMS}", found=type(loader)
        ) from None
    if not listed:
        raise NetworkError("no data", file=name, field="data", expected="at least one batch")
    batches = [_read_batch(each, device, f"batch {at}", name) for at, each in enumerate(listed)]
    return [_with_labels(each) for each in batches] if needs_labels else batches


def _with_labels(batch: Batch) -> Batch:
    """Return a batch that hands its labels on, where they are tokens and its decoder has nothing else."""
    labels = batch.labels
    tokens = labels is not None and labels.ndim == 2 and not labels.is_floating_point()
    if not tokens or batch.has_decoder or batch.arguments:
        return batch
    return replace(batch, keywords={**batch.keywords, _LABELS[0]: labels})


def _read_batch(given: Any, device: torch.device, place: str, name: str) -> Batch:
    moved = tree_map(lambda each: each.to(device) if isinstance(each, torch.Tensor) else each, given)
    if isinstance(moved, torch.Tensor):
        batch = Batch((moved,))
    elif isinstance(moved, Mapping):
        label = next((key for key in _LABELS if key in moved), None)
        keywords = {key: value for key, value in moved.items() if key not in _LABELS}
        batch = Batch((), keywords, None if label is None else moved[label])
    elif isinstance(moved, tuple | list) and len(moved) == 1:
        batch = Batch((moved[0],))
    elif isinstance(moved, tuple | list) and len(moved) > 1:
        batch = Batch(tuple(moved[:-1]), {}, moved[-1])
        if len(moved) == 2 and isinstance(moved[0], Mapping):
            batch = Batch((), moved[0], moved[1])
    else:
        raise NetworkError("not a batch", file=name, place=place, expected=_FORMS, found=type(given).__name__)
    wrong_label = batch.labels is not None and not isinstance(batch.labels, torch.Tensor)
    if not batch.tensors or wrong_label:
        found = [type(each).__name__ for each in (*batch.arguments, *batch.keywords.values(), batch.labels)]
        raise NetworkError("not a batch", file=name, place=place, expected=_FORMS, found=found)
    first = batch.tensors[0]
    if not first.numel():
        raise NetworkError(
            "a batch of nothing",
            file=name,
            place=place,
            expected="at least one sample",
            found=Words(f"shape {tuple(first.shape)}"),
            cure="Leave it out of the loader.",
        )
    return batch


def split_batch(batch: Batch, count: int) -> list[Batch]:
    """Cut a batch into about so many pieces: every tensor that has as many rows as the first one is cut."""
    rows = len(batch.tensors[0]) if batch.tensors[0].ndim else 0
    size = max(1, -(-rows // count))

    def piece(start: int) -> Batch:
        def cut(each: Any) -> Any:
            whole = not isinstance(each, torch.Tensor) or not each.ndim or len(each) != rows
            return each if whole else each[start : start + size]

        return Batch(*tree_map(cut, (batch.arguments, dict(batch.keywords), batch.labels)))

    return [piece(start) for start in range(0, rows, size)] if rows else [batch]


def output_tensor(result: Any, name: str) -> torch.Tensor:
    """Return the tensor that a network's result is compared by: its logits, or the first there is.

    A single number, such as a loss that a network returns beside them, is passed over.

    Raises:
        NetworkError: There is none.
    """
    for key in ("logits", "last_hidden_state"):
        value = result.get(key) if isinstance(result, Mapping) else getattr(result, key, None)
        if isinstance(value, torch.Tensor):
            return value
    for leaf in tree_leaves(result):
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and leaf.ndim:
            return leaf
    raise NetworkError(
        "no output",
        file=name,
        expected="a tensor of floats, a tuple or dictionary of them, or an object with logits",
        found=Words(type(result).__name__),
        cure="Wrap the model in one whose forward returns the tensor to compare.",
    )


def choose_task(batch: Batch, output: torch.Tensor, task: str | None, name: str) -> str:
    """Return the task, found by the labels and the form of the output where none is declared.

    Raises:
        NetworkError: The task declared is none.
    """
    if task is not None:
        if task not in TASKS:
            raise NetworkError(
                "unknown task", file=name, field="task", expected=f"one of {', '.join(TASKS)}", found=task
            )
        return task
    ids, labels = batch.token_ids, batch.labels
    if labels is not None and labels.is_floating_point():
        return "regression"
    rows = output.shape[:-1]
    if batch.has_decoder and labels is not None and len(rows) == 2 and labels.shape == rows:
        return "language"
    vocabulary = ids is not None and rows == ids.shape and output.shape[-1] > int(ids.max())
    if vocabulary and (labels is None or labels.shape == rows):
        return "language"
    return "embedding" if labels is None else "classification"


def make_targets(batch: Batch, output: torch.Tensor, task: str, name: str) -> Targets:
    """Return the right answers by row of the output; a language model's next tokens if none are given.

    Labels of a decoder beside an encoder are the next tokens already; those of a decoder alone may be its
    inputs.

    Args:
        batch: The batch.
        output: Its output, classes last.
        task: What it is compared by.
        name: The network, for errors.

    Raises:
        NetworkError: The labels do not fit the output, or it has no score of each class.
    """
    rows = output.shape[:-1]
    labels, ids, mask = batch.labels, batch.token_ids, batch.mask
    if batch.has_decoder and mask is None and labels is not None and _says_some(labels):
        mask = labels >= 0
    counted = None
    if mask is not None and mask.shape == rows and len(rows) == 2:
        counted = mask.bool().cpu().numpy().reshape(-1)
    if task == "embedding":
        return Targets(None, counted)
    if task == "regression":
        wrong = labels is not None and labels.numel() != output.numel()
        if wrong:
            assert labels is not None
            raise _misfit(labels, tuple(output.shape), name)
        return Targets(None if labels is None else labels.cpu().numpy().astype(np.float64), None)
    if task in LABELLED:
        # One sample without an axis of samples has an axis of classes, and one label.
        flat = labels is not None and output.ndim == 1 and labels.numel() == len(output)
        check_scores(output.shape, flat, name)
    repeated = labels is None or (not batch.has_decoder and ids is not None and _repeats(labels, ids))
    if task == "language" and ids is not None and repeated:
        labels = ids if labels is None else labels
        if counted is not None and mask is not None:
            # What follows the last real token is padding, which nobody should predict.
            labels = torch.where(mask.to(labels.device).bool(), labels, -100)
        labels = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], -100)], dim=1)
    if labels is None:
        return Targets(None, counted)
    if labels.shape != rows or labels.is_floating_point() or int(labels.max()) >= output.shape[-1]:
        raise _misfit(labels, tuple(rows), name)
    known = labels.cpu().numpy().astype(np.int64).reshape(-1)
    if counted is not None:
        known[~counted] = -100
    return Targets(known, counted)


def _says_some(labels: torch.Tensor) -> bool:
    """Whether labels are classes, and one of them at least is known."""
    return not labels.is_floating_point() and bool((labels >= 0).any())


def _repeats(labels: torch.Tensor, ids: torch.Tensor) -> bool:
    """Whether labels are the inputs themselves, to be shifted by the one who reads them."""
    if labels.shape != ids.shape:
        return False
    return bool(((labels == ids) | (labels < 0)).all())


def _misfit(labels: torch.Tensor, shape: tuple[int, ...], name: str) -> NetworkError:
    words = f"{LABELLED[0]} labels of shape {shape} below the number of classes, or outputs of that shape"
    return NetworkError(
        "labels do not fit the outputs",
        file=name,
        field="data",
        expected=words,
        found=f"{tuple(labels.shape)} {labels.dtype}",
    )


def hash_tensors(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Return the SHA-256 of tensors with their names, types and shapes, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
