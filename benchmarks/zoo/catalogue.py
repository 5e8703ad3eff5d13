"""Every network of the zoo: its family, data, size and seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from zoo import architectures as build
from zoo.data import SOURCES

#: Families by split: what a rule is tested on has other parts than what it was found on.
FAMILIES = {
    "train": ("mlp", "cnn", "vit", "recurrent"),
    "valid": ("resnet", "mixer"),
    "test": ("cnn-layernorm", "depthwise", "gpt"),
}
#: The networks that also ship as ONNX files.
SHIPPED = (
    "mlp-digits-48x48-s0",
    "cnn-digits-16x24x24-s0",
    "lstm-digits-1x32-s0",
    "vit-digits-2x32-s0",
    "depthwise-digits-16x24x32x32-s0",
    "gpt-text-2x32-s0",
)


@dataclass(frozen=True)
class Entry:
    """One network to train.

    Attributes:
        name: Its own: architecture, data, size and seed.
        family: What the split goes by.
        data: One of `zoo.data.SOURCES`.
        make: Makes it, untrained, with random weights.
        seed: Of its weights and the order of its data.
        steps: Updates of its weights.
        rate: The highest learning rate.
    """

    name: str
    family: str
    data: str
    make: Callable[[], nn.Module]
    seed: int
    steps: int
    rate: float

    @property
    def split(self) -> str:
        """``train``, ``valid`` or ``test``."""
        return next(split for split, families in FAMILIES.items() if self.family in families)


def catalogue(seed: int = 0) -> list[Entry]:
    """Return all networks, the quick ones first.

    Args:
        seed: Is added to the seed of each; another one makes other networks of the same names.
    """
    entries = [*_perceptrons(), *_convolutional(), *_patches(), *_recurrent(), *_language()]
    entries = [replace(each, seed=each.seed + seed) for each in entries]
    return sorted(entries, key=lambda each: each.data == "text")


def find_entry(name: str) -> Entry:
    """Return a network of the zoo by its name."""
    return next(each for each in catalogue() if each.name == name)


def _perceptrons() -> Iterator[Entry]:
    for data, inputs, classes, widths, seed in (
        ("digits", 64, 10, (48, 48), 0),
        ("digits", 64, 10, (48, 48), 1),
        ("digits", 64, 10, (96, 64, 48, 32), 0),
        ("pairs", 128, 10, (128, 96, 64), 0),
        ("cancer", 30, 2, (48, 48, 48), 0),
        ("wine", 13, 3, (32, 32), 0),
    ):
        make = partial(build.mlp, inputs, classes, widths)
        steps = 1500 if data == "pairs" else 400
        yield Entry(f"mlp-{data}-{_sizes(widths)}-s{seed}", "mlp", data, make, seed, steps, 3e-3)


def _convolutional() -> Iterator[Entry]:
    for family, function, sizes in (
        ("cnn", build.convolutional, ((16, 24, 24), (16, 32, 32, 48), (24, 24, 32, 32, 48, 48))),
        ("cnn-layernorm", build.convolutional_layer_norm, ((16, 32, 32), (16, 32, 32, 48))),
        ("depthwise", build.depthwise, ((16, 24, 32, 32), (24, 32, 48, 48, 64))),
        ("resnet", build.residual, ((16, 16, 32), (16, 16, 24, 24, 32, 32))),
    ):
        for channels, data, seed in (
            (sizes[0], "digits", 0),
            (sizes[1], "digits", 0),
            (sizes[1], "digits", 1),
            (sizes[-1], "pairs", 0),
        ):
            make = partial(function, 10, channels)
            steps = 800 if data == "pairs" else 300
            yield Entry(f"{family}-{data}-{_sizes(channels)}-s{seed}", family, data, make, seed, steps, 5e-3)


def _patches() -> Iterator[Entry]:
    for family, function in (("vit", build.VisionTransformer), ("mixer", build.Mixer)):
        for blocks, width, data, seed in (
            (2, 32, "digits", 0),
            (2, 32, "digits", 1),
            (4, 32, "digits", 0),
            (3, 32, "pairs", 0),
        ):
            patches, steps = (32, 1200) if data == "pairs" else (16, 500)
            make = partial(function, 10, patches, blocks, width)
            yield Entry(f"{family}-{data}-{blocks}x{width}-s{seed}", family, data, make, seed, steps, 3e-3)


def _recurrent() -> Iterator[Entry]:
    for word, kind, layers, width, seed in (
        ("lstm", nn.LSTM, 1, 32, 0),
        ("lstm", nn.LSTM, 2, 32, 1),
        ("gru", nn.GRU, 2, 48, 0),
    ):
        make = partial(build.RecurrentRows, 10, kind, 8, width, layers)
        yield Entry(f"{word}-digits-{layers}x{width}-s{seed}", "recurrent", "digits", make, seed, 500, 5e-3)
    for word, kind, layers, width in (("lstm", nn.LSTM, 1, 64), ("gru", nn.GRU, 2, 48)):
        make = partial(_with_alphabet, build.RecurrentLanguageModel, kind, width, layers)
        yield Entry(f"{word}-text-{layers}x{width}-s0", "recurrent", "text", make, 0, 1000, 5e-3)


def _language() -> Iterator[Entry]:
    for blocks, width, ratio, seed in (
        (2, 32, 2, 0),
        (2, 48, 4, 0),
        (2, 64, 4, 0),
        (2, 64, 4, 1),
        (3, 48, 4, 0),
    ):
        make = partial(_with_alphabet, build.LanguageModel, blocks, width, ratio)
        yield Entry(f"gpt-text-{blocks}x{width}-s{seed}", "gpt", "text", make, seed, 1500, 3e-3)


def _with_alphabet(function: Callable[..., nn.Module], *sizes: object) -> nn.Module:
    return function(SOURCES["text"]().classes, *sizes)


def _sizes(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))
