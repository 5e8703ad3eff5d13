"""What an allocation is worth: compression, retained accuracy and the fitness made of both.

Shapes, here and wherever scores are made:

- P: allocations in a population
- L: layers of one model
- K: number formats
- M: models of a stack, side by side as segments of one choice matrix
- N: layers of all models of a stack together

`score_loop` is the definition, in plain Python. `score` and `ScoreTable` compute the same much
faster: in log space, several layers packed into one code, both sums in one look-up. Table entries
are rounded so that their sums are exact: an allocation has the same score, to the last bit, alone,
in any population and (where more than a millionth of the accuracy is retained) in any stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

THRESHOLD = 0.95
"""Accuracy retention below which the fitness falls off the cliff."""

ROUNDING = 1e-12
"""Relative distance below the threshold that still counts as reaching it.

A product over layers is known up to rounding only. Without this margin an allocation exactly on the
threshold would be above the cliff or below it depending on how its product is computed.
"""

_REFERENCE_BITS = 32.0
_BELOW_THRESHOLD = 0.1
_WORD = 8  # layers in one 64-bit word of choices
_TABLE_BYTES = 1 << 21  # a larger table leaves the cache: packing more layers then costs time
_CHUNK_CHOICES = 1 << 18  # choices scored at a time, so that the buffers stay in the cache
_LOG_UNIT = 2.0**-49  # log retentions are multiples of it: sums down to -16 are exact


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of a population.

    Each array has shape (P,) for one model and (P, M) for a stack of M models.

    Attributes:
        compression_ratio: Bits at 32 bits a weight over the bits allocated.
        accuracy_retention: Product of ``1 - sensitivity`` over the layers.
        avg_bits: Allocated bits per weight.
        fitness: See `cliff_fitness`.
    """

    compression_ratio: FloatArray
    accuracy_retention: FloatArray
    avg_bits: FloatArray
    fitness: FloatArray


def cliff_fitness(
    compression_ratio: ArrayLike, accuracy_retention: ArrayLike, threshold: float = THRESHOLD
) -> FloatArray:
    """Return the fitness: compression, rewarded for accuracy above a threshold, with a cliff below it.

    With τ the threshold, ``compression_ratio * (1 + (accuracy_retention - τ) / (1 - τ))`` where
    the retention reaches τ, and ``0.1 * accuracy_retention`` elsewhere. A retention counts as
    reaching τ from ``τ * (1 - ROUNDING)`` on.

    Args:
        compression_ratio: Array of any shape.
        accuracy_retention: Array of the same shape, in [0, 1].
        threshold: τ, in [0, 1).

    Raises:
        ValueError: The threshold is outside [0, 1).
    """
    _require(0 <= threshold < 1, "threshold", "a number in [0, 1)", threshold)
    compression = np.asarray(compression_ratio, dtype=np.float64)
    retention = np.asarray(accuracy_retention, dtype=np.float64)
    above = compression * (1 + (retention - threshold) / (1 - threshold))
    return np.where(retention < threshold * (1 - ROUNDING), _BELOW_THRESHOLD * retention, above)


def score_loop(
    choices: ArrayLike,
    num_params: ArrayLike,
    bits: ArrayLike,
    sensitivity: ArrayLike,
    threshold: float = THRESHOLD,
) -> Scores:
    """Return the scores of a population by plain nested loops: the readable definition of `score`.

    Arguments, result and errors are those of `score`.
    """
    params, widths, losses = check_tables(num_params, bits, sensitivity)
    population = _check_choices(choices, *losses.shape)
    widths = np.broadcast_to(widths, losses.shape)
    total_params = sum(params)
    compression_ratio, accuracy_retention, avg_bits = np.empty((3, len(population)))
    for row, allocation in enumerate(population):
        total_bits = 0.0
        retention = 1.0
        for layer, choice in enumerate(allocation):
            total_bits += params[layer] * widths[layer, choice]
            retention *= 1 - losses[layer, choice]
        compression_ratio[row] = _REFERENCE_BITS * total_params / total_bits
        accuracy_retention[row] = retention
        avg_bits[row] = total_bits / total_params
    fitness = cliff_fitness(compression_ratio, accuracy_retention, threshold)
    return Scores(compression_ratio, accuracy_retention, avg_bits, fitness)


def score(
    choices: ArrayLike,
    num_params: ArrayLike,
    bits: ArrayLike,
    sensitivity: ArrayLike,
    threshold: float = THRESHOLD,
) -> Scores:
    """Return the scores of a population on one model.

    To score several populations on the same model, `prepare` its table once.

    Args:
        choices: Format indices, (P, L) or (L,) for a population of one; uint8 is fastest.
        num_params: Weights per layer, (L,).
        bits: Bits per weight of each format, (K,), or of each layer in each format, (L, K).
        sensitivity: Loss of accuracy of each layer in each format, (L, K), in [0, 1].
        threshold: Retention at the cliff, in [0, 1).

    Returns:
        Scores of shape (P,), within 1e-12 relative of `score_loop`.

    Raises:
        ValueError: A shape or a value is wrong.
    """
    return prepare(num_params, bits, sensitivity).score(choices, threshold)


def prepare(
    num_params: ArrayLike, bits: ArrayLike, sensitivity: ArrayLike, offsets: ArrayLike | None = None
) -> ScoreTable:
    """Return the table that scores populations on one model, or on a stack of models.

    Args:
        num_params: Weights per layer, (L,); of a stack (N,).
        bits: Bits per weight of each format, (K,), or of each layer in each format, (L, K) or (N, K).
        sensitivity: Loss of accuracy of each layer in each format, (L, K) or (N, K), in [0, 1].
        offsets: Of a stack, where each model's layers begin, then N: (M + 1,), strictly increasing.

    Raises:
        ValueError: A shape or a value is wrong.
    """
    params, widths, losses = check_tables(num_params, bits, sensitivity)
    bounds = _check_offsets(offsets, len(params))
    sizes = np.diff(bounds)
    padded = np.concatenate([[0], np.cumsum(-(-sizes // _WORD) * _WORD)])
    total_params = np.add.reduceat(params, bounds[:-1])
    _require(bool(total_params.all()), "num_params", "at least one weight in each model", total_params)

    layers = np.zeros((padded[-1], losses.shape[1]), dtype=np.complex128)
    rows = np.arange(len(params)) + np.repeat(padded[:-1] - bounds[:-1], sizes)
    layers[rows] = layer_totals(params, widths, losses, bounds)
    group_size = _choose_group_size(*layers.shape)
    groups = layers.reshape(-1, group_size, layers.shape[1])
    packed = groups[:, 0]
    for member in range(1, group_size):
        packed = (groups[:, member, :, None] + packed[:, None, :]).reshape(len(groups), -1)
    return ScoreTable(
        num_formats=losses.shape[1],
        offsets=bounds,
        stacked=offsets is not None,
        total_params=total_params,
        group_size=group_size,
        padded_offsets=padded,
        sums=packed.ravel(),
        first_sums=np.arange(0, packed.size, packed.shape[1], dtype=np.uint32),
    )


def layer_totals(
    params: FloatArray, widths: FloatArray, losses: FloatArray, bounds: NDArray[np.int64]
) -> NDArray[np.complex128]:
    """Return what each layer of a stack has in each format, (N, K): bits + i · log retention.

    They are rounded so that sums over the layers of a model are exact.

    Args:
        params: Weights per layer, (N,).
        widths: Bits per weight of each format, (K,), or of each layer in each format, (N, K).
        losses: Loss of accuracy of each layer in each format, (N, K).
        bounds: Where each model's layers begin, then N: (M + 1,).
    """
    # Multiples of the spacing of floats at the largest sum add up exactly.
    widths = np.broadcast_to(widths, losses.shape)
    widest = np.maximum.reduceat(widths.max(axis=1), bounds[:-1])
    total_params = np.add.reduceat(params, bounds[:-1])
    unit = np.repeat(np.spacing(total_params * widest), np.diff(bounds))[:, None]
    totals = np.empty(losses.shape, dtype=np.complex128)
    totals.real = np.rint(params[:, None] * widths / unit) * unit
    with np.errstate(divide="ignore"):  # a sensitivity of 1 retains nothing: log 0 = -inf
        totals.imag = np.rint(np.log1p(-losses) / _LOG_UNIT) * _LOG_UNIT
    return totals


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """All that scoring needs of a model or a stack of models; made by `prepare`.

    A group's choices, read as digits in base K, are one code. For each group and code the table has
    one complex number: bits of these layers + i · their log retention. The layers of each model are
    padded to whole 64-bit words, by layers of no bits and no loss.

    Attributes:
        num_formats: K.
        offsets: Where each model's layers begin in the choices, (M + 1,).
        stacked: Whether scores have an axis for the models.
        total_params: Weights of each model, (M,).
        group_size: Consecutive layers in one code: 1, 2, 4 or 8.
        padded_offsets: Where each model's layers begin once padded, (M + 1,).
        sums: Bits and log retention of each group and code, flat.
        first_sums: Where each group's entries begin in ``sums``.
        workspaces: Memory kept from call to call, at most one piece; each call takes it or makes its
            own, so that threads can share a table. Fresh pages would cost more than the scores.
    """

    num_formats: int
    offsets: NDArray[np.int64]
    stacked: bool
    total_params: FloatArray
    group_size: int
    padded_offsets: NDArray[np.int64]
    sums: NDArray[np.complex128]
    first_sums: NDArray[np.uint32]
    workspaces: list[NDArray[np.uint64]] = field(default_factory=list, repr=False)

    def score(self, choices: ArrayLike, threshold: float = THRESHOLD) -> Scores:
        """Return the scores of a population.

        Args:
            choices: Format indices, (P, L), of a stack (P, N); without the P a population of one.
            threshold: Retention at the cliff, in [0, 1).

        Returns:
            Scores of shape (P,), of a stack (P, M).

        Raises:
            ValueError: A shape is wrong or an index does not name a format.
        """
        population = _check_choices(choices, int(self.offsets[-1]), self.num_formats)
        shape = (len(population), len(self.total_params))
        reference_bits = _REFERENCE_BITS * self.total_params
        scores = Scores(*np.empty((len(fields(Scores)), *shape)))
        for rows, totals in self._totals(population):
            compression = np.divide(reference_bits, totals.real, out=scores.compression_ratio[rows])
            retention = np.exp(totals.imag, out=scores.accuracy_retention[rows])
            np.divide(totals.real, self.total_params, out=scores.avg_bits[rows])
            scores.fitness[rows] = cliff_fitness(compression, retention, threshold)
        if self.stacked:
            return scores
        return Scores(*(getattr(scores, each.name)[:, 0] for each in fields(Scores)))

    def totals(self, choices: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return bits per weight and loss, the negative logarithm of the retention, of a population.

        Arguments, shapes and errors are those of `score`.
        """
        population = _check_choices(choices, int(self.offsets[-1]), self.num_formats)
        bits, losses = np.empty((2, len(population), len(self.total_params)))
        for rows, totals in self._totals(population):
            np.divide(totals.real, self.total_params, out=bits[rows])
            np.negative(totals.imag, out=losses[rows])
        return (bits, losses) if self.stacked else (bits[:, 0], losses[:, 0])

    def _totals(self, population: NDArray[Any]) -> Iterator[tuple[slice, NDArray[np.complex128]]]:
        """Yield rows of the population with their bits and log retention, (rows, M) complex."""
        num_words, num_groups = int(self.padded_offsets[-1]) // _WORD, len(self.first_sums)
        chunks = -(-len(population) // max(1, _CHUNK_CHOICES // (_WORD * num_words)))
        size = max(1, -(-len(population) // max(1, chunks)))
        length = size * (3 * num_groups + num_words)
        try:
            workspace = self.workspaces.pop()
        except IndexError:
            workspace = np.empty(length, dtype="<u8")
        if len(workspace) < length:
            workspace = np.empty(length, dtype="<u8")
        block = workspace[:length].reshape(-1, size)
        values = block[: 2 * num_groups].reshape(-1).view(np.complex128).reshape(size, num_groups)
        codes, scratch = block[: 2 * num_words].reshape(2, size, num_words)  # read before values are written
        index = block[2 * num_groups : 3 * num_groups].reshape(size, num_groups).view(np.int64)
        words = block[3 * num_groups :].reshape(size, num_words)
        words[:] = 0
        padded = words.view(np.uint8)
        segments = list(zip(self.offsets[:-1], self.offsets[1:], self.padded_offsets, strict=False))
        first_groups = self.padded_offsets[:-1] // self.group_size
        for start in range(0, len(population), size):
            chunk = population[start : start + size]
            rows = len(chunk)
            for begin, end, target in segments:
                padded[:rows, target : target + end - begin] = chunk[:, begin:end]
            packed = _pack(words[:rows], codes[:rows], scratch[:rows], self.num_formats, self.group_size)
            np.add(packed.view(f"<u{self.group_size}"), self.first_sums, out=index[:rows])
            # The codes are in range; any mode but "raise" lets `take` write to `values` directly.
            self.sums.take(index[:rows], out=values[:rows], mode="clip")
            yield slice(start, start + rows), np.add.reduceat(values[:rows], first_groups, axis=1)
        self.workspaces[:] = [workspace]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "workspaces": []}


def _pack(
    words: NDArray[np.uint64],
    codes: NDArray[np.uint64],
    scratch: NDArray[np.uint64],
    num_formats: int,
    group_size: int,
) -> NDArray[np.uint64]:
    """Join neighbouring choices into codes in base K, all lanes of a 64-bit word at once.

    Each round joins pairs of w-bit lanes: the digits low + 2^w·high become low + base·high.
    """
    lane, base = 8, num_formats
    while lane < 8 * group_size:
        low_lanes = sum(((1 << lane) - 1) << shift for shift in range(0, 64, 2 * lane))
        np.right_shift(words, np.uint64(lane), out=scratch)
        np.bitwise_and(scratch, np.uint64(low_lanes), out=scratch)
        np.multiply(scratch, np.uint64((1 << lane) - base), out=scratch)
        words = np.subtract(words, scratch, out=codes)
        lane, base = 2 * lane, base * base
    return words


def _choose_group_size(num_layers: int, num_formats: int) -> int:
    """Return the most layers per code whose table still fits the cache."""
    entry = np.dtype(np.complex128).itemsize
    for size in (8, 4, 2):
        if num_layers // size * num_formats**size * entry <= _TABLE_BYTES:
            return size
    return 1


def check_tables(
    num_params: ArrayLike, bits: ArrayLike, sensitivity: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the tables of a model as float64 arrays of shapes (L,), (K,) or (L, K), and (L, K).

    Raises:
        ValueError: A shape or a value is wrong.
    """
    params = np.asarray(num_params, dtype=np.float64)
    widths = np.asarray(bits, dtype=np.float64)
    losses = np.asarray(sensitivity, dtype=np.float64)
    _require(params.ndim == 1 and params.size > 0, "num_params", "shape (L,) with L ≥ 1", params.shape)
    L, K = len(params), widths.shape[-1] if widths.ndim else 0
    fits = 1 <= K <= 256 and widths.shape in ((K,), (L, K))
    either = "" if widths.ndim < 2 else f", or (L, K) with L = {L}"
    _require(fits, "bits", f"shape (K,), K from 1 to 256{either}", widths.shape)
    _require(losses.shape == (L, K), "sensitivity", f"shape (L, K) = {(L, K)}", losses.shape)
    for name, array, valid, expected in (
        ("num_params", params, np.isfinite(params) & (params >= 0), "finite numbers ≥ 0"),
        ("bits", widths, np.isfinite(widths) & (widths > 0), "finite numbers > 0"),
        ("sensitivity", losses, (losses >= 0) & (losses <= 1), "numbers in [0, 1]"),
    ):
        _require(bool(valid.all()), name, expected, array[~valid][:1])
    return params, widths, losses


def _check_offsets(offsets: ArrayLike | None, num_layers: int) -> NDArray[np.int64]:
    """Return the offsets of the segments; one segment when there are none."""
    bounds = np.array([0, num_layers]) if offsets is None else np.asarray(offsets)
    fits = bounds.ndim == 1 and bounds.size > 1 and bounds.dtype.kind in "iu"
    fits = fits and bounds[0] == 0 and bounds[-1] == num_layers and bool((bounds[1:] > bounds[:-1]).all())
    _require(fits, "offsets", f"integers (M + 1,) that increase from 0 to N = {num_layers}", offsets)
    return bounds.astype(np.int64)


def _check_choices(choices: ArrayLike, num_layers: int, num_formats: int) -> NDArray[Any]:
    """Return the choices as an integer matrix of known formats, (P, L)."""
    population = np.atleast_2d(np.asarray(choices))
    fits = population.ndim == 2 and population.shape[1] == num_layers
    _require(fits, "choices", f"shape (P, L) with L = {num_layers}", np.shape(choices))
    _require(population.dtype.kind in "iu", "choices", "integers", population.dtype)
    for extreme in (population.min(initial=0), population.max(initial=0)):
        _require(0 <= extreme < num_formats, "choices", f"format indices 0 to {num_formats - 1}", extreme)
    return population


def _require(valid: bool, name: str, expected: str, found: object) -> None:
    """Raise a ValueError that says what an argument should have been, unless it is valid."""
    if not valid:
        raise ValueError(f"{name}: expected {expected}, found {found}")
