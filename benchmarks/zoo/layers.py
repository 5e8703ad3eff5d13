"""Parts that several architectures share.

Shapes: N samples, C channels, H × W pixels, T tokens or patches, D width.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of images, (N, C, H, W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize each pixel's channels."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Attention(nn.Module):
    """Self-attention with matrices of their own for queries, keys and values."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, T, D) to the same."""
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class Perceptron(nn.Module):
    """The two linear layers of a block, GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (…, D) to the same."""
        return self.fc2(functional.gelu(self.fc1(x)))


class TransformerBlock(nn.Module):
    """Attention and a perceptron, each after a LayerNorm and with a residual addition."""

    def __init__(self, width: int, heads: int, ratio: int, causal: bool) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads, causal)
        self.norm2, self.mlp = nn.LayerNorm(width), Perceptron(width, ratio * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, T, D) to the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class MixerBlock(nn.Module):
    """A perceptron over the patches and one over the channels (Tolstikhin 2021)."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.norm1, self.tokens = nn.LayerNorm(width), Perceptron(patches, 2 * patches)
        self.norm2, self.channels = nn.LayerNorm(width), Perceptron(width, 2 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, T, D) to the same."""
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, as in ResNet-18 (He 2016)."""

    def __init__(self, channels: int, wider: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, wider, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(wider, wider, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(wider), nn.BatchNorm2d(wider)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or wider != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, wider, 1, stride, bias=False), nn.BatchNorm2d(wider)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to the wider channels."""
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class SeparableBlock(nn.Module):
    """A convolution channel by channel, then one over the channels (Howard 2017)."""

    def __init__(self, channels: int, wider: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, wider, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(wider)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to the wider channels."""
        y = functional.relu(self.bn1(self.depthwise(x)))
        return functional.relu(self.bn2(self.pointwise(y)))


class Pool(nn.Module):
    """The mean over all pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, C)."""
        return x.mean(dim=(2, 3))
