"""The data of an ONNX network: what its inputs take, and the right answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from evolve.errors import NetworkError
from evolve.fields import Words
from evolve.networks.metrics import LABELLED, TASKS, check_scores
from evolve.networks.network import OutputArray, Targets

#: What the array of right answers may be called.
LABELS = ("labels", "label", "targets", "target", "y")
#: What the inputs of a decoder begin with, beside those of its encoder.
_DECODER = "decoder_"


def fit_data(
    graph: onnx.GraphProto, data: Mapping[str, NDArray[Any]], path: Path
) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
    """Return the arrays by the graph's inputs, none of them an initializer, in their types, and the labels.

    Raises:
        NetworkError: An array is missing, or they differ in the number of samples.
    """
    wanted = {each.name: each for each in graph.input}
    label = next((name for name in LABELS if name in data and name not in wanted), None)
    others = [name for name in data if name != label]
    given = dict(data)
    if len(wanted) == 1 and len(others) == 1:
        given = {next(iter(wanted)): data[others[0]]}
    missing = [name for name in wanted if name not in given]
    if missing:
        raise NetworkError(
            "arrays missing in the data",
            file=path,
            field="data",
            expected=f"an array for each input: {', '.join(wanted)}; and labels, if there are any",
            found=sorted(data),
            cure=f"Save them with numpy.savez(..., {', '.join(f'{name}=…' for name in missing)}).",
        )
    inputs = {}
    for name, info in wanted.items():
        kind = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        inputs[name] = np.ascontiguousarray(given[name].astype(kind))
    labels = None if label is None else data[label]
    lengths = {name: len(array) if array.ndim else 0 for name, array in inputs.items()}
    if labels is not None:
        lengths[str(label)] = len(labels)
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        words = "the same number of samples in each array, at least one"
        raise NetworkError("arrays do not fit", file=path, field="data", expected=words, found=lengths)
    return inputs, labels


def choose_batch_size(graph: onnx.GraphProto, samples: int, wanted: int, path: Path) -> int:
    """Return the samples of a batch: the graph's own number if it is fixed.

    Raises:
        NetworkError: The samples do not divide into batches of that number.
    """
    for each in graph.input:
        dims = each.type.tensor_type.shape.dim
        if len(dims) and dims[0].dim_value:
            fixed = int(dims[0].dim_value)
            if samples % fixed:
                words = f"a multiple of {fixed} samples, the graph's batch size"
                raise NetworkError(
                    "arrays do not fit", file=path, field="data", expected=words, found=samples
                )
            return fixed
    return wanted


def choose_task(
    batch: Mapping[str, NDArray[Any]],
    output: OutputArray,
    labels: NDArray[Any] | None,
    task: str | None,
    path: Path,
) -> str:
    """Return the task, found by the labels and the form of the output where none is declared.

    Args:
        batch: The first arrays, by input.
        output: What the network makes of them.
        labels: The right answers of all samples, if there are any.
        task: The task declared.
        path: The model, for errors.

    Raises:
        NetworkError: There is no such task, or the labels or the output do not fit it.
    """
    if task is not None and task not in TASKS:
        raise NetworkError(
            "unknown task", file=path, field="task", expected=f"one of {', '.join(TASKS)}", found=task
        )
    if task is None and labels is None:
        return "language" if _scores_tokens(token_ids(batch), output) else "embedding"
    if task is None:
        assert labels is not None
        if not np.issubdtype(labels.dtype, np.integer):
            return "regression"
        task = "language" if output.ndim == 3 else "classification"
    if task in LABELLED:
        check_scores(output.shape, output.ndim < 2, path)
        if labels is not None:
            _check_classes(output, labels, path)
    return task


def token_ids(batch: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return the array of a batch that has the tokens, if it is a language model's: a decoder's own."""
    names = (f"{_DECODER}input_ids", f"{_DECODER}inputs_embeds") if _has_decoder(batch) else ("input_ids",)
    return next((batch[name] for name in names if name in batch), next(iter(batch.values())))


def _has_decoder(batch: Mapping[str, NDArray[Any]]) -> bool:
    """Whether the outputs are a decoder's, whose rows are not those of the encoder's inputs."""
    return any(name.startswith(_DECODER) for name in batch)


def _scores_tokens(ids: NDArray[Any], output: OutputArray) -> bool:
    """Whether an output has a score of each token of a vocabulary for each of the tokens."""
    whole = np.issubdtype(ids.dtype, np.integer) and ids.shape == output.shape[:-1]
    return bool(whole and ids.ndim == 2 and output.shape[-1] > ids.max())


def _check_classes(output: OutputArray, labels: NDArray[Any], path: Path) -> None:
    classes = output.shape[-1]
    problem, words = "labels do not fit the outputs", f"whole numbers below {classes}"
    # The first batch may be shorter than all the labels, not their other axes.
    if labels.shape[1:] != output.shape[1:-1] or not np.issubdtype(labels.dtype, np.integer):
        words += f" of shape {('N', *output.shape[1:-1])}"
        found = Words(f"{labels.dtype} of shape {labels.shape}")
        raise NetworkError(problem, file=path, field="data", expected=words, found=found)
    beyond = np.argwhere(labels >= classes)
    if len(beyond):
        place = tuple(map(int, beyond[0]))
        raise NetworkError(
            problem,
            file=path,
            field="data",
            expected=f"{words}, the number of classes of the output",
            found=Words(f"label {labels[place]} of sample {place[0]}"),
            cure="Number the classes from 0, as the outputs do; a negative label stands for none.",
        )


def make_targets(
    batches: Sequence[Mapping[str, NDArray[Any]]], axes: int, labels: NDArray[Any] | None, task: str
) -> list[Targets]:
    """Return the right answers of each batch by row of the output.

    Args:
        batches: The arrays of each batch, by input.
        axes: Number of axes of the output.
        labels: The right answers of all samples, if there are any; those of a language model may be the
            tokens themselves, or left out. Of a decoder beside an encoder they are the next tokens already.
        task: What the outputs are compared by.
    """
    made = []
    start = 0
    for batch in batches:
        ids = token_ids(batch)
        part = None if labels is None else labels[start : start + len(ids)]
        start += len(ids)
        decoder = _has_decoder(batch)
        mask = batch.get(f"{_DECODER}attention_mask" if decoder else "attention_mask")
        if decoder and mask is None and part is not None and (part >= 0).any():
            mask = part >= 0
        counted = None
        if mask is not None and axes == 3 and mask.shape == ids.shape[:2]:
            counted = mask.astype(bool).reshape(-1)
        if task == "language" and (part is None or (not decoder and _repeats(part, ids))):
            following = (ids if part is None else part)[:, 1:].astype(np.int64)
            if counted is not None and mask is not None:
                # What follows the last real token is padding, which nobody should predict.
                following = np.where(mask[:, 1:] != 0, following, -100)
            part = np.concatenate([following, np.full((len(ids), 1), -100)], axis=1)
        if part is not None and task in LABELLED:
            part = part.astype(np.int64).reshape(-1)
            part = part if counted is None else np.where(counted, part, -100)
        made.append(Targets(None if task == "embedding" else part, counted))
    return made


def _repeats(labels: NDArray[Any], ids: NDArray[Any]) -> bool:
    """Whether labels are the inputs themselves, to be shifted by the one who reads them."""
    return labels.shape == ids.shape and bool(((labels == ids) | (labels < 0)).all())
