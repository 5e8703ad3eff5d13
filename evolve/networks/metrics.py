"""How far the outputs of a changed network are from those of the unchanged one, and from the truth.

Each task declares its divergence, all zero for equal outputs and quadratic in small changes:

- ``classification``, ``language``: Kullback-Leibler divergence of the predicted distributions.
- ``embedding``: one minus the cosine.
- ``regression``: half the squared change over the variance of the unchanged outputs, which is the
  Kullback-Leibler divergence of Gaussians of that variance. Each output has a variance of its own, unless
  batches differ in their number, as with images of several sizes: then all share one.

A row of changed outputs that holds an infinite number or none at all is broken: it is as far away as a row
can be, and wrong.

Shapes: R rows (samples, or tokens of a language model), V classes or dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolve.errors import NetworkError
from evolve.fields import Words
from evolve.networks.network import OutputArray, Targets

FloatArray = NDArray[np.float64]

TASKS = ("classification", "language", "embedding", "regression")
LABELLED = ("classification", "language")
#: What the divergence of each task is.
DIVERGENCES = {
    "classification": "KL divergence",
    "language": "KL divergence",
    "embedding": "1 − cosine",
    "regression": "half the squared error over the variance",
}

#: The divergence of a broken row, and the most that any row has. So large that one among millions keeps
#: the mean above all that a profile can hold (37), and finite, so that means can be taken and written.
WORST = 1e9

#: Predictions of the unchanged network are kept where all have so many numbers at most.
_KEPT = 1 << 20
#: Numbers that are worked on at a time: bounds the memory of a large vocabulary.
_CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class Rows:
    """What each row shows; NaN where it has no label, and rows that do not count left out, (R,).

    Attributes:
        divergence: Of the outputs from the reference.
        loss: Cross entropy, or squared error.
        hit: 1 where the class of the highest output is right, else 0.
        broken: 1 where an output is infinite or no number, else 0.
    """

    divergence: FloatArray
    loss: FloatArray
    hit: FloatArray
    broken: FloatArray


@dataclass(frozen=True)
class Measurement:
    """The means over all rows, those of broken rows among them.

    Attributes:
        divergence: Mean divergence from the unchanged outputs, at least 0.
        loss: Mean loss, None without labels.
        accuracy: Share of right rows, None unless the labels are classes.
        perplexity: exp(loss) of a language model, None for other tasks.
        broken: Number of rows with an output that is infinite or no number.
    """

    divergence: float
    loss: float | None = None
    accuracy: float | None = None
    perplexity: float | None = None
    broken: int = 0


class Reference:
    """The unchanged outputs, and the truth, that changed outputs are compared with.

    Args:
        task: One of `TASKS`.
        outputs: Unchanged outputs of each batch, (R, V) or with more axes in front.
        targets: What they should be.
    """

    def __init__(self, task: str, outputs: Sequence[OutputArray], targets: Sequence[Targets]) -> None:
        self.task = task
        self.outputs = [_as_rows(each, task) for each in outputs]
        self.targets = list(targets)
        self._variance = _variance(self.outputs) if task == "regression" else None
        self._keeps = sum(each.size for each in self.outputs) <= _KEPT
        self._predictions: dict[tuple[int, int], tuple[FloatArray, FloatArray]] = {}
        self.unchanged = self.compare(outputs)

    def compare(self, outputs: Iterable[OutputArray]) -> Measurement:
        """Return the means over all rows of outputs, a batch after the other."""
        rows = [self.rows(batch, each) for batch, each in enumerate(outputs)]
        return self.summarise(rows)

    def summarise(self, rows: Sequence[Rows]) -> Measurement:
        """Return the means over rows."""
        divergence = np.concatenate([each.divergence for each in rows])
        loss = _mean([each.loss for each in rows])
        accuracy = _mean([each.hit for each in rows])
        perplexity = float(np.exp(min(loss, 700))) if loss is not None and self.task == "language" else None
        # Nobody may lose a broken row on the way: unlike loss and hit, a divergence is always known.
        mean = float(divergence.mean()) if len(divergence) else 0.0
        broken = int(sum(each.broken.sum() for each in rows))
        return Measurement(max(mean, 0.0), loss, accuracy, perplexity, broken)

    def rows(self, batch: int, outputs: OutputArray) -> Rows:
        """Return what each row of a batch's outputs shows."""
        reference, targets = self.outputs[batch], self.targets[batch]
        changed = _as_rows(outputs, self.task)
        counted = np.ones(len(reference), bool) if targets.counted is None else targets.counted
        size = max(1, _CHUNK // max(1, reference.shape[1]))
        parts = []
        for start in range(0, len(reference), size):
            chunk = slice(start, start + size)
            labels = None if targets.labels is None else targets.labels[chunk]
            parts.append(self._rows(batch, chunk, changed[chunk], labels))
        joined = np.concatenate(parts, axis=1)[:, counted]
        return Rows(*joined)

    def _predicted(self, batch: int, chunk: slice) -> tuple[FloatArray, FloatArray]:
        """Return log probabilities and probabilities of some unchanged rows, (R, V) both."""
        found = self._predictions.get((batch, chunk.start))
        if found is None:
            log = _log_softmax(self.outputs[batch][chunk].astype(np.float64))
            found = log, np.exp(log)
            if self._keeps:
                self._predictions[batch, chunk.start] = found
        return found

    def _rows(
        self, batch: int, chunk: slice, changed: OutputArray, labels: NDArray[np.int64] | None
    ) -> FloatArray:
        """Return divergence, loss, hit and whether it is broken of each row, (4, R)."""
        new = changed.astype(np.float64)
        # Sums of floats of 32 bits stay finite, and tell as much as each of them.
        with np.errstate(invalid="ignore"):
            broken = ~np.isfinite(new.sum(axis=1))
        if broken.any():
            new[broken] = 0
        result = np.full((4, len(new)), np.nan)
        old = self.outputs[batch][chunk]
        if self.task in LABELLED:
            log, probabilities = self._predicted(batch, chunk)
            new = _log_softmax(new)
            result[0] = (probabilities * (log - new)).sum(axis=1)
            if labels is not None:
                known = np.flatnonzero(labels >= 0)
                result[1, known] = -new[known, labels[known]]
                result[2, known] = new[known].argmax(axis=1) == labels[known]
        elif self.task == "embedding":
            old = old.astype(np.float64)
            scale = np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)
            # Of an embedding that is zero there is no direction to keep.
            cosine = (old * new).sum(axis=1) / np.where(scale > 0, scale, 1)
            # Rounding may take the cosine of equal directions a little beyond 1.
            result[0] = np.where(scale > 0, np.maximum(1 - cosine, 0), (old != new).any(axis=1))
        else:
            assert self._variance is not None
            result[0] = 0.5 * ((new - old) ** 2 / self._variance).sum(axis=1)
            if labels is not None:
                result[1] = ((new - labels.reshape(new.shape)) ** 2).mean(axis=1)
        result[0] = np.minimum(result[0], WORST)
        result[0, broken] = WORST
        # Where there is a label: elsewhere both stay unknown.
        result[1, broken & ~np.isnan(result[1])] = WORST
        result[2, broken & ~np.isnan(result[2])] = 0
        result[3] = broken
        return result

    def divergence_of_one_answer(self) -> float:
        """Return the divergence of outputs that are the same in every row: the least that any such have."""
        # Where batches differ in the number of outputs, all outputs have the same answer.
        shared = len({each.shape[1] for each in self.outputs}) > 1
        joined = np.zeros(1 if shared else self.outputs[0].shape[1])
        for outputs, targets in zip(self.outputs, self.targets, strict=True):
            counted = np.ones(len(outputs), bool) if targets.counted is None else targets.counted
            size = max(1, _CHUNK // max(1, outputs.shape[1]))
            for start in range(0, len(outputs), size):
                rows = outputs[start : start + size][counted[start : start + size]].astype(np.float64)
                if self.task in LABELLED:
                    rows = np.exp(_log_softmax(rows))
                elif self.task == "embedding":
                    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
                joined += rows.sum() if shared else rows.sum(axis=0)
        mean = joined / max(1, sum(each.size for each in self.outputs) if shared else self.num_rows)
        # Least probabilities have a logarithm too; softmax makes shares of them again.
        answer = np.log(np.maximum(mean, 1e-300)) if self.task in LABELLED else mean
        same = [np.broadcast_to(answer.astype(np.float32), each.shape) for each in self.outputs]
        return self.compare(same).divergence

    def curvature_sample(self, batch: int, outputs: OutputArray, rng: np.random.Generator) -> OutputArray:
        """Return a random direction of the outputs whose covariance is the divergence's curvature.

        Back-propagated, it gives gradients whose mean square is the Fisher information.

        Args:
            batch: Which batch.
            outputs: Its unchanged outputs.
            rng: Draws a class of the predicted distribution, or Gaussian noise, for each row.

        Returns:
            An array like ``outputs``; rows that do not count are 0.
        """
        rows = _as_rows(outputs, self.task).astype(np.float64)
        counted = self.targets[batch].counted
        if self.task in LABELLED:
            direction = -np.exp(_log_softmax(rows))
            steps = np.cumsum(-direction, axis=1)
            drawn = (rng.random((len(rows), 1)) * steps[:, -1:] > steps).sum(axis=1)
            direction[np.arange(len(rows)), np.minimum(drawn, rows.shape[1] - 1)] += 1
        elif self.task == "embedding":
            length = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
            noise, unit = rng.standard_normal(rows.shape), rows / length
            direction = (noise - unit * (unit * noise).sum(axis=1, keepdims=True)) / length
        else:
            assert self._variance is not None
            direction = rng.standard_normal(rows.shape) / np.sqrt(self._variance)
        if counted is not None:
            direction[~counted] = 0
        return direction.reshape(outputs.shape).astype(np.float32)

    @property
    def num_rows(self) -> int:
        """Number of rows that count."""
        return sum(
            len(outputs) if targets.counted is None else int(targets.counted.sum())
            for outputs, targets in zip(self.outputs, self.targets, strict=True)
        )


def check_scores(shape: Sequence[int], flat: bool, name: object) -> None:
    """Refuse outputs with one score a sample: among classes, it would make every prediction the same.

    Args:
        shape: The shape of the outputs.
        flat: Whether they lack an axis of classes.
        name: The network, for the error.

    Raises:
        NetworkError: They have one score a sample.
    """
    if not flat and shape[-1] != 1:
        return
    join = "stack" if flat else "cat"
    raise NetworkError(
        "one output for all classes",
        file=name,
        field="outputs",
        expected="a score of each class along the last axis",
        found=Words(f"shape {tuple(shape)}"),
        cure="Of a classifier of two classes with one logit x, before any sigmoid, let the model return "
        f"torch.{join}([torch.zeros_like(x), x], -1), which predicts the same; "
        "or give --task regression, which compares x itself.",
    )


def _as_rows(outputs: OutputArray, task: str) -> OutputArray:
    if task == "regression":
        return outputs.reshape(len(outputs), -1)
    return outputs.reshape(-1, outputs.shape[-1])


def _log_softmax(rows: FloatArray) -> FloatArray:
    shifted: FloatArray = rows - rows.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _variance(outputs: Sequence[OutputArray]) -> FloatArray:
    """Return the variance of each output over the rows; one of all where rows differ in length."""
    if len({each.shape[1] for each in outputs}) > 1:
        outputs = [each.reshape(-1, 1) for each in outputs]
    joined = np.concatenate(outputs).astype(np.float64)
    variance: FloatArray = joined.var(axis=0)
    return np.where(variance > 0, variance, 1.0)


def _mean(parts: Sequence[FloatArray]) -> float | None:
    joined = np.concatenate(parts)
    known = joined[~np.isnan(joined)]
    return float(known.mean()) if len(known) else None
