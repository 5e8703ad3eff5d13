"""Data that needs no download: tables and images of scikit-learn, and the text of Python's own help.

Every source is split once and for all, by its own fixed seed: most for training, a part for
calibration, which profiles are measured on, and a part held out, which allocations are measured on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

#: Shares of a source that train and that calibrate; what is left is held out.
TRAINING, CALIBRATION = 0.6, 0.15
#: Characters that a language model reads at a time.
CONTEXT = 64
_CALIBRATION_SEQUENCES, _HELD_OUT_SEQUENCES = 24, 40
_PAIRS = 3000


@dataclass(frozen=True, eq=False)
class Split:
    """Inputs and right answers of a part of the data.

    Attributes:
        inputs: (N, …); token numbers of a language model, (N, `CONTEXT`).
        labels: Right class of each sample, (N,); of a text the tokens themselves.
    """

    inputs: torch.Tensor
    labels: torch.Tensor

    def batches(self, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the samples in batches, the last one smaller."""
        starts = range(0, len(self.inputs), size)
        return [(self.inputs[at : at + size], self.labels[at : at + size]) for at in starts]


@dataclass(frozen=True, eq=False)
class Source:
    """A data set in its three parts.

    Attributes:
        task: What outputs are compared by.
        classes: Number of classes, or of characters.
        training: What networks learn; the one long sequence of a text is cut at random, (1, T).
        calibration: What profiles are measured on.
        held_out: What allocations are measured on.
    """

    task: str
    classes: int
    training: Split
    calibration: Split
    held_out: Split


def _split(inputs: NDArray[np.float32], labels: NDArray[np.int64], standard: bool = False) -> Source:
    order = np.random.default_rng(0).permutation(len(inputs))
    first, second = int(TRAINING * len(order)), int((TRAINING + CALIBRATION) * len(order))
    if standard:
        training = inputs[order[:first]]
        inputs = (inputs - training.mean(axis=0)) / training.std(axis=0)
    parts = [
        Split(torch.tensor(inputs[part], dtype=torch.float32), torch.tensor(labels[part], dtype=torch.int64))
        for part in (order[:first], order[first:second], order[second:])
    ]
    return Source("classification", int(labels.max()) + 1, *parts)


@cache
def digits() -> Source:
    """Handwritten digits of 8 × 8 pixels from 0 to 1, (N, 1, 8, 8)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return _split((images / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels)


@cache
def pairs() -> Source:
    """Two digits side by side, the larger of which is asked for: (N, 1, 8, 16).

    No digit is in pairs of two parts.
    """
    rng = np.random.default_rng(1)

    def paired(part: Split, number: int) -> Split:
        left, right = torch.from_numpy(rng.integers(0, len(part.inputs), (2, number)))
        images = torch.cat([part.inputs[left], part.inputs[right]], dim=3)
        return Split(images, torch.maximum(part.labels[left], part.labels[right]))

    source = digits()
    held_out = int(_PAIRS * (1 - TRAINING - CALIBRATION) / 2)
    return Source(
        "classification",
        10,
        paired(source.training, _PAIRS),
        paired(source.calibration, int(_PAIRS * CALIBRATION / 2)),
        paired(source.held_out, held_out),
    )


@cache
def cancer() -> Source:
    """Measurements of cell nuclei, standardized, (N, 30), two classes."""
    from sklearn.datasets import load_breast_cancer

    inputs, labels = load_breast_cancer(return_X_y=True)
    return _split(inputs, labels, standard=True)


@cache
def wine() -> Source:
    """Chemical analyses of wines, standardized, (N, 13), three classes."""
    from sklearn.datasets import load_wine

    inputs, labels = load_wine(return_X_y=True)
    return _split(inputs, labels, standard=True)


@cache
def text() -> Source:
    """Python's help on its own language, a character a token; the text differs between versions of Python."""
    words = help_text()
    alphabet = sorted(set(words))
    numbers = {character: at for at, character in enumerate(alphabet)}
    tokens = np.array([numbers[character] for character in words])
    # Twentieths of the text, so that every part has pages from everywhere.
    pieces = np.array_split(tokens, 20)
    learned = [each for at, each in enumerate(pieces) if at % 10 not in (3, 7)]
    training = torch.from_numpy(np.concatenate(learned))

    def sequences(places: tuple[int, ...], number: int) -> Split:
        held = np.concatenate([pieces[at] for at in places])
        starts = np.linspace(0, len(held) - CONTEXT, number).astype(int)
        cut = torch.from_numpy(np.stack([held[at : at + CONTEXT] for at in starts]))
        return Split(cut, cut)

    calibration, held_out = (
        sequences(places, number)
        for places, number in (((7, 17), _CALIBRATION_SEQUENCES), ((3, 13), _HELD_OUT_SEQUENCES))
    )
    return Source("language", len(alphabet), Split(training[None], training[None]), calibration, held_out)


@cache
def help_text() -> str:
    """Return all topics of Python's help, in the order of their names."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def help_text_hash() -> str:
    """Return the SHA-256 of the text: networks that learned from another one are others."""
    return hashlib.sha256(help_text().encode()).hexdigest()


SOURCES: dict[str, Callable[[], Source]] = {
    "digits": digits,
    "pairs": pairs,
    "cancer": cancer,
    "wine": wine,
    "text": text,
}
