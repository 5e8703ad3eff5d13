"""Trains a network of the zoo: same seed, same bits, on the same machine and versions."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from zoo.catalogue import Entry
from zoo.data import CONTEXT, SOURCES, Source

_BATCH, _TEXT_BATCH = 64, 16
_WEIGHT_DECAY = 1e-3

#: The weights that the profiles of ``datasets/measured`` belong to.
WEIGHTS = Path(__file__).resolve().parent / "weights"

#: Told of steps done and of all.
Progress = Callable[[int, int], None]


def trained(entry: Entry, folder: Path = WEIGHTS, progress: Progress | None = None) -> nn.Module:
    """Return a network with its weights from a folder; it is trained, and kept there, if it is not."""
    path = folder / f"{entry.name}.npz"
    if path.exists():
        model = entry.make()
        with np.load(path) as arrays:
            model.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
        return model.eval()
    model = train(entry, progress)
    folder.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    with aside.open("wb") as file:
        np.savez_compressed(file, **{name: each.numpy() for name, each in model.state_dict().items()})
    aside.replace(path)
    return model


def train(entry: Entry, progress: Progress | None = None) -> nn.Module:
    """Return a new network, trained."""
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(entry.seed)
    source = SOURCES[entry.data]()
    model = entry.make().train()
    generator = torch.Generator().manual_seed(entry.seed)
    optimizer = torch.optim.AdamW(model.parameters(), entry.rate, weight_decay=_WEIGHT_DECAY)
    for step in range(entry.steps):
        if progress is not None:
            progress(step, entry.steps)
        for group in optimizer.param_groups:
            group["lr"] = entry.rate * _schedule(step / entry.steps)
        loss = _loss(model, source, generator)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def _loss(model: nn.Module, source: Source, generator: torch.Generator) -> torch.Tensor:
    inputs, labels = source.training.inputs, source.training.labels
    if source.task == "language":
        starts = torch.randint(0, inputs.shape[1] - CONTEXT, (_TEXT_BATCH,), generator=generator)
        windows = torch.stack([inputs[0, at : at + CONTEXT + 1] for at in starts.tolist()])
        return functional.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
    chosen = torch.randint(0, len(inputs), (_BATCH,), generator=generator)
    return functional.cross_entropy(model(inputs[chosen]), labels[chosen])


def _schedule(done: float) -> float:
    """Rise over the first twentieth, then fall as half a cosine to a twentieth."""
    return min(1.0, 20 * done + 0.05) * (0.525 + 0.475 * math.cos(math.pi * done))
