"""The families of the zoo: each function makes an untrained network of some size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from zoo.data import CONTEXT
from zoo.layers import (
    ChannelNorm,
    MixerBlock,
    Pool,
    ResidualBlock,
    SeparableBlock,
    TransformerBlock,
)


def mlp(inputs: int, classes: int, widths: Sequence[int]) -> nn.Module:
    """Linear layers with ReLU."""
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in zip((inputs, *widths), widths, strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


def convolutional(classes: int, channels: Sequence[int], norm: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
    """Convolutions of 3 × 3 with a norm and ReLU; every second one halves the image."""
    layers: list[nn.Module] = []
    for at, (before, after) in enumerate(zip((1, *channels), channels, strict=False)):
        stride = 2 if at % 2 else 1
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), norm(after), nn.ReLU()]
    return nn.Sequential(*layers, Pool(), nn.Linear(channels[-1], classes))


def convolutional_layer_norm(classes: int, channels: Sequence[int]) -> nn.Module:
    """The same with LayerNorm over the channels."""
    return convolutional(classes, channels, ChannelNorm)


def depthwise(classes: int, channels: Sequence[int]) -> nn.Module:
    """A convolution, then blocks of depthwise and pointwise ones."""
    stem = [nn.Conv2d(1, channels[0], 3, 1, 1, bias=False), nn.BatchNorm2d(channels[0]), nn.ReLU()]
    blocks = [
        SeparableBlock(before, after, 2 if at % 2 else 1)
        for at, (before, after) in enumerate(pairwise(channels))
    ]
    return nn.Sequential(*stem, *blocks, Pool(), nn.Linear(channels[-1], classes))


def residual(classes: int, channels: Sequence[int]) -> nn.Module:
    """A convolution, then residual blocks; each change of channels halves the image."""
    stem = [nn.Conv2d(1, channels[0], 3, 1, 1, bias=False), nn.BatchNorm2d(channels[0]), nn.ReLU()]
    blocks = [
        ResidualBlock(before, after, 1 if before == after else 2)
        for before, after in zip((channels[0], *channels), channels, strict=False)
    ]
    return nn.Sequential(*stem, *blocks, Pool(), nn.Linear(channels[-1], classes))


class VisionTransformer(nn.Module):
    """Patches of 2 × 2 pixels, positions, transformer blocks, the mean of all tokens."""

    def __init__(self, classes: int, patches: int, blocks: int, width: int) -> None:
        super().__init__()
        self.patches, self.positions = nn.Conv2d(1, width, 2, 2), nn.Embedding(patches, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, 4, 2, False) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, 1, H, W) to (N, V)."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.positions(torch.arange(x.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))


class Mixer(nn.Module):
    """Patches of 2 × 2 pixels, mixer blocks, the mean of all patches."""

    def __init__(self, classes: int, patches: int, blocks: int, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.blocks = nn.Sequential(*(MixerBlock(patches, width) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, 1, H, W) to (N, V)."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(dim=1))


class RecurrentRows(nn.Module):
    """Reads an image row by row and answers after the last."""

    def __init__(self, classes: int, kind: type[nn.RNNBase], pixels: int, width: int, layers: int) -> None:
        super().__init__()
        self.rnn = kind(pixels, width, layers, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, 1, H, W) to (N, V)."""
        return self.head(self.rnn(x.flatten(1, 2))[0][:, -1])


class RecurrentLanguageModel(nn.Module):
    """Embeds characters, reads them in order and predicts each next one."""

    def __init__(self, characters: int, kind: type[nn.RNNBase], width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.rnn = kind(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, characters)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map (N, T) to (N, T, V)."""
        return self.head(self.rnn(self.embedding(tokens))[0])


class LanguageModel(nn.Module):
    """A character GPT: embeddings of characters and positions, causal blocks, a head of its own."""

    def __init__(self, characters: int, blocks: int, width: int, ratio: int = 4) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(characters, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, 4, ratio, True) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters, bias=False)
        for each in (self.embedding, self.positions):
            nn.init.normal_(each.weight, std=1 / math.sqrt(width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map (N, T) to (N, T, V)."""
        x = self.embedding(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
