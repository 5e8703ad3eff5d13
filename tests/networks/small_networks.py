"""Small real networks that several test files share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.set_num_threads(1)

Built = tuple[nn.Module, list[Any]]


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)


@cache
def trained_mlp() -> Built:
    torch.manual_seed(0)
    images, labels = digits()
    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[:1400]), labels[:1400]).backward()
        optimizer.step()
    return model, [(images[at : at + 200], labels[at : at + 200]) for at in (1400, 1600)]


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            each(x).unflatten(-1, (2, -1)).transpose(1, 2) for each in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class GatedMLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.down_proj = nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, width: int, in_place: bool) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width)
        self.norm2, self.mlp = nn.LayerNorm(width), GatedMLP(width)
        self.in_place = in_place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.in_place:
            x += self.attn(self.norm1(x))
        else:
            x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class LanguageModel(nn.Module):
    def __init__(
        self, blocks: int = 2, width: int = 16, in_place: bool = False, shared: bool = False
    ) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(20, width), nn.Embedding(12, width)
        self.blocks = nn.ModuleList(Block(width, in_place) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 20, bias=False)
        if shared:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Residual(nn.Module):
    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, wider, 3, 2, 1, bias=False), nn.BatchNorm2d(wider)
        self.conv2, self.bn2 = nn.Conv2d(wider, wider, 3, 1, 1, bias=False), nn.BatchNorm2d(wider)
        self.shortcut = nn.Sequential(nn.Conv2d(channels, wider, 1, 2, bias=False), nn.BatchNorm2d(wider))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.shortcut(x)
        return self.relu(y)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn, self.head = kind(8, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Buffered(nn.Module):
    """Writes parts of a buffer through views, and reads them again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        buffer = torch.zeros(len(x), 16)
        left = buffer[:, :8]
        left += self.first(x)
        buffer[:, 8:] = self.second(x).relu_()
        copy = x.clone()
        copy += left
        return self.head(buffer) + copy[:, :4]


class Deciding(nn.Module):
    """Python looks at what a weight made: parts of it cannot be run by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.head(y.relu() if y.sum() > 0 else -y)


class Escaping(nn.Module):
    """Values leave torch for numpy and come back."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.head(y + torch.from_numpy(y.detach().numpy() * 2))


def tokens(*sizes: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 20, (size, 10), generator=generator) for size in sizes]


def pairs(*shape: int, classes: int = 10) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [(torch.randn(*shape, generator=generator), torch.randint(0, classes, shape[:1]))]


def residual_network() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        Residual(8, 16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    for norm in (each for each in model.modules() if isinstance(each, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    return model


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 5))


#: Each kind of network that torch users write, untrained.
KINDS: dict[str, Callable[[], Built]] = {
    "language model": lambda: (LanguageModel(), tokens(4, 4, 2)),
    "in place": lambda: (LanguageModel(in_place=True), tokens(4)),
    "shared weights": lambda: (LanguageModel(shared=True), tokens(4)),
    "residual": lambda: (residual_network(), pairs(5, 1, 8, 8)),
    "encoder": lambda: (encoder(), [(torch.randn(3, 6, 16), torch.randint(0, 5, (3, 6)))]),
    "lstm": lambda: (Recurrent(nn.LSTM), pairs(5, 6, 8)),
    "gru": lambda: (Recurrent(nn.GRU), pairs(5, 6, 8)),
    "buffer": lambda: (Buffered(), pairs(5, 8, classes=4)),
    "escaping": lambda: (Escaping(), pairs(5, 8, classes=4)),
    "deciding": lambda: (Deciding(), pairs(5, 8, classes=4)),
}


def build(kind: str) -> Built:
    torch.manual_seed(0)
    return KINDS[kind]()
