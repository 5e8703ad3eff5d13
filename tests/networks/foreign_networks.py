"""Networks as other people write them: none of their forms is in the zoo.

Each function returns the network, batches to calibrate on, and held-out batches, all the same every time.
"""

from __future__ import annotations

import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

Loaders = tuple[nn.Module, list[Any], list[Any]]


class BasicBlock(nn.Module):
    """A block of ResNet-18."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer)
        self.conv2, self.bn2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False), nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inner != outer:
            self.downsample = nn.Sequential(
                nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """Eighteen layers as in ResNet-18, a sixteenth as wide."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        widths = (8, 8, 12, 16, 24)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(BasicBlock(inner, outer, 1 + (at in (1, 2))), BasicBlock(outer, outer, 1))
                for at, (inner, outer) in enumerate(pairwise(widths))
            )
        )
        self.fc = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


class GroupedAttention(nn.Module):
    """Rotary positions, four query heads on two key heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(width, width // 2, bias=False) for _ in range(2))
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            each(x).unflatten(-1, (heads, -1)).transpose(1, 2)
            for each, heads in ((self.q_proj, 4), (self.k_proj, 2), (self.v_proj, 2))
        )
        query, key = _rotated(query), _rotated(key)
        key, value = key.repeat_interleave(2, 1), value.repeat_interleave(2, 1)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


def _rotated(x: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2])[:, None] * 100.0 ** -(torch.arange(half) / half)
    left, right = x[..., :half], x[..., half:]
    return torch.cat(
        [left * angles.cos() - right * angles.sin(), right * angles.cos() + left * angles.sin()], -1
    )


class Decoder(nn.Module):
    """A block of LLaMA."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input_layernorm, self.self_attn = RMSNorm(width), GroupedAttention(width)
        self.post_attention_layernorm = RMSNorm(width)
        self.gate_proj, self.up_proj = (nn.Linear(width, 3 * width, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(3 * width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        h = self.post_attention_layernorm(x)
        return x + self.down_proj(nn.functional.silu(self.gate_proj(h)) * self.up_proj(h))


class Llama(nn.Module):
    """Tied embeddings; takes and returns what libraries of language models do."""

    def __init__(self, words: int = 64, width: int = 32) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(words, width)
        self.layers = nn.ModuleList(Decoder(width) for _ in range(3))
        self.norm, self.lm_head = RMSNorm(width), nn.Linear(width, words, bias=False)
        self.lm_head.weight = self.embed_tokens.weight

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, Any]:
        del attention_mask  # causal attention sees no padding that comes after
        x = self.embed_tokens(input_ids)
        for layer in self.layers:
            x = layer(x)
        return {"logits": self.lm_head(self.norm(x)), "cache": None}


class SentenceEncoder(nn.Module):
    """BERT with the mean of its tokens as the sentence's embedding."""

    def __init__(self, words: int = 64, width: int = 32) -> None:
        super().__init__()
        self.word_embeddings, self.position_embeddings = nn.Embedding(words, width), nn.Embedding(24, width)
        self.norm = nn.LayerNorm(width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        positions = self.position_embeddings(torch.arange(input_ids.shape[1]))
        x = self.norm(self.word_embeddings(input_ids) + positions)
        x = self.encoder(x, src_key_padding_mask=attention_mask == 0)
        kept = attention_mask.unsqueeze(-1).to(x.dtype)
        return nn.functional.normalize((x * kept).sum(1) / kept.sum(1), dim=-1)


def _trained(model: nn.Module, steps: int, loss: Any) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 4e-3)
    for step in range(steps):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
    model.eval()


def resnet() -> Loaders:
    """Digits."""
    torch.manual_seed(0)
    pixels, classes = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    labels = torch.tensor(classes)
    model = ResNet()

    def loss(step: int) -> torch.Tensor:
        part = torch.arange(step * 64, step * 64 + 64) % 1200
        return nn.functional.cross_entropy(model(images[part]), labels[part])

    _trained(model, 60, loss)
    parts = [(images[at : at + 100], labels[at : at + 100]) for at in range(1200, 1700, 100)]
    return model, parts[:2], parts[2:]


def _text(rows: int, length: int) -> torch.Tensor:
    """Return (rows, length) letters of a file that Python ships, as whole numbers below 64."""
    letters = torch.tensor([each % 64 for each in Path(textwrap.__file__).read_bytes()])
    starts = torch.arange(rows) * 61 % (len(letters) - length)
    return letters[starts[:, None] + torch.arange(length)]


def llama() -> Loaders:
    """The next letter."""
    torch.manual_seed(0)
    model, ids = Llama(), _text(260, 24)

    def loss(step: int) -> torch.Tensor:
        part = ids[torch.arange(step * 32, step * 32 + 32) % 200]
        logits = model(part, torch.ones_like(part))["logits"][:, :-1]
        return nn.functional.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten())

    _trained(model, 60, loss)
    batches = [
        {"input_ids": part, "attention_mask": torch.ones_like(part), "labels": part}
        for part in ids[200:].split(15)
    ]
    return model, batches[:2], batches[2:]


def sentence_encoder() -> Loaders:
    """Halves of a sentence shall be nearer each other than those of others; sentences differ in length."""
    torch.manual_seed(0)
    model, ids = SentenceEncoder(), _text(260, 24)

    def half(part: torch.Tensor) -> torch.Tensor:
        return model(part, torch.ones_like(part))

    def loss(step: int) -> torch.Tensor:
        part = ids[torch.arange(step * 32, step * 32 + 32) % 200]
        return nn.functional.cross_entropy(half(part[:, :12]) @ half(part[:, 12:]).T * 10, torch.arange(32))

    _trained(model, 40, loss)
    lengths = 8 + torch.arange(60) % 17
    mask = (torch.arange(24) < lengths[:, None]).long()
    batches = [
        {"input_ids": part * kept, "attention_mask": kept}
        for part, kept in zip(ids[200:].split(15), mask.split(15), strict=True)
    ]
    return model, batches[:2], batches[2:]
