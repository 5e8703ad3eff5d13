"""Architecture families: how a network of each kind is laid out, layer by layer.

A family draws its sizes from a generator and plans its layers: type, number of weights,
early or late in the model. What the layers are like is drawn in `evolve.synthetic`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from numpy.random import Generator


class PlannedLayer(NamedTuple):
    """A layer before its draws: early and late layers have larger gradients."""

    layer_type: str
    num_params: int
    early: bool = False
    late: bool = False


Plan = list[PlannedLayer]
Sizes = tuple[str, int]  # a layer type and a number of weights


def plan_layers(first: Sequence[Sizes], blocks: Sequence[Sequence[Sizes]], last: Sequence[Sizes]) -> Plan:
    """Flag as early the first layers and quarter of the blocks, as late what is after three quarters."""
    quarter = len(blocks) / 4
    return [
        *(PlannedLayer(*layer, early=True) for layer in first),
        *(
            PlannedLayer(*layer, early=index < quarter, late=index > 3 * quarter)
            for index, block in enumerate(blocks)
            for layer in block
        ),
        *(PlannedLayer(*layer, late=True) for layer in last),
    ]


def _pick(generator: Generator, *options: int) -> int:
    return options[generator.integers(len(options))]


def _block(hidden: int, feed_forward: int) -> list[Sizes]:
    norm = ("LayerNorm", 2 * hidden)
    return [("Attention", 4 * hidden**2), norm, ("Linear", 2 * hidden * feed_forward), norm]


def plan_transformer(blocks: int, hidden: int, feed_forward: int, vocabulary: int) -> Plan:
    """Plan a transformer: embedding, blocks of attention and feed-forward, each with its norm, classifier."""
    words = vocabulary * hidden
    last = [("LayerNorm", 2 * hidden), ("Classifier", words)]
    return plan_layers([("Embedding", words)], [_block(hidden, feed_forward)] * blocks, last)


def _decoder(generator: Generator) -> Plan:
    hidden = _pick(generator, 512, 768, 1024, 1600, 2048, 2560, 4096, 5120, 8192)
    vocabulary = _pick(generator, 10000, 32000, 50257, 100352, 151936, 256000)
    return plan_transformer(
        _pick(generator, *range(6, 97)), hidden, _pick(generator, 2, 3, 4) * hidden, vocabulary
    )


def _encoder(generator: Generator) -> Plan:
    hidden = 64 * _pick(generator, *range(4, 33))
    vocabulary = _pick(generator, 21128, 30522, 50265, 128100, 250002)
    first = [("Embedding", vocabulary * hidden), ("Embedding", 512 * hidden), ("LayerNorm", 2 * hidden)]
    last = [("Linear", hidden**2), ("Classifier", hidden * _pick(generator, 2, 5, 20, 150))]
    return plan_layers(first, [_block(hidden, 4 * hidden)] * _pick(generator, *range(6, 97)), last)


def _grouped_query(generator: Generator) -> Plan:
    hidden = 256 * _pick(generator, *range(4, 33))
    words = hidden * _pick(generator, 32000, 49152, 128256, 151936)
    # Query and output, then the keys and values that 4 or 8 heads share; gate and up, then down.
    norm, wide = ("LayerNorm", hidden), hidden * 256 * round(hidden / 256 * generator.uniform(2.5, 4))
    shared = ("Attention", 2 * hidden**2 // _pick(generator, 4, 8))
    block = [("Attention", 2 * hidden**2), shared, norm, ("Linear", 2 * wide), ("Linear", wide), norm]
    blocks = _pick(generator, *range(6, 81))
    return plan_layers([("Embedding", words)], [block] * blocks, [norm, ("Classifier", words)])


def _mixture_of_experts(generator: Generator) -> Plan:
    hidden = 512 * _pick(generator, *range(2, 13))
    words = hidden * _pick(generator, 32000, 50304, 102400, 151936)
    experts = _pick(generator, 4, 8, 16, 64)
    norm, router = ("LayerNorm", hidden), ("Linear", hidden * experts)
    # Many experts are small ones.
    expert = 3 * hidden * (hidden * 3 if experts <= 8 else hidden // 2)
    block = [("Attention", 4 * hidden**2), norm, router, ("Linear", experts * expert), norm]
    blocks = _pick(generator, *range(8, 49))
    return plan_layers([("Embedding", words)], [block] * blocks, [norm, ("Classifier", words)])


def _resnet(generator: Generator) -> Plan:
    width, deep = _pick(generator, 32, 48, 64, 96, 128), _pick(generator, 0, 1)
    blocks, before = [], width
    for stage in range(4):
        narrow = width * 2**stage
        after = 4 * narrow if deep else narrow
        for _ in range(_pick(generator, 2, 3, 4, 6, *([12, 23] if stage == 2 else []))):
            square = ("Conv", 9 * narrow**2)
            thin = [("Conv", before * narrow), square, ("Conv", narrow * after)]
            block = thin if deep else [("Conv", 9 * before * narrow), square]
            # Where the width changes, a projection carries the shortcut.
            blocks.append(block if before == after else [*block, ("Conv", before * after)])
            before = after
    return plan_layers(
        [("Conv", 147 * width)], blocks, [("Classifier", before * _pick(generator, 10, 100, 1000))]
    )


def _mobilenet(generator: Generator) -> Plan:
    scale = generator.uniform(0.5, 1.75)
    channels = [8 * max(1, round(scale * each / 8)) for each in (32, 16, 24, 32, 64, 96, 160, 320)]
    kernel, blocks, before = _pick(generator, 9, 25), [], channels[0]
    for after in channels[1:]:
        for _ in range(_pick(generator, 1, 2, 3, 4)):
            wide = before * _pick(generator, 3, 4, 6)
            # Expand, one small filter a channel, project.
            blocks.append([("Conv", before * wide), ("Conv", kernel * wide), ("Conv", wide * after)])
            before = after
    last = [("Conv", before * 1280), ("Classifier", 1280 * _pick(generator, 10, 100, 1000))]
    return plan_layers([("Conv", 27 * channels[0])], blocks, last)


def _vit(generator: Generator) -> Plan:
    hidden, side = 64 * _pick(generator, *range(3, 23)), _pick(generator, 8, 14, 16, 32)
    first = [("Conv", 3 * side**2 * hidden), ("Embedding", ((224 // side) ** 2 + 1) * hidden)]
    last = [("LayerNorm", 2 * hidden), ("Classifier", hidden * _pick(generator, 10, 100, 1000, 21843))]
    return plan_layers(first, [_block(hidden, 4 * hidden)] * _pick(generator, *range(6, 49)), last)


def _convnext(generator: Generator) -> Plan:
    width, hybrid = 16 * _pick(generator, *range(3, 17)), _pick(generator, 0, 1, 2)
    blocks: list[list[Sizes]] = []
    for stage in range(4):
        hidden = width * 2**stage
        norm, mlp = ("LayerNorm", 2 * hidden), ("Linear", 4 * hidden**2)
        # A hybrid mixes by attention in its last stages, elsewhere one 7×7 filter a channel does.
        mixer = ("Attention", 4 * hidden**2) if stage >= 4 - hybrid else ("Conv", 49 * hidden)
        if stage:
            blocks.append([("LayerNorm", hidden), ("Conv", 2 * hidden**2)])
        blocks += [[mixer, norm, mlp, mlp]] * _pick(generator, 2, 3, 4, *([9, 27] if stage == 2 else []))
    last = [("LayerNorm", 16 * width), ("Classifier", 8 * width * _pick(generator, 100, 1000))]
    return plan_layers([("Conv", 48 * width), ("LayerNorm", 2 * width)], blocks, last)


def _unet(generator: Generator) -> Plan:
    width, levels = 32 * _pick(generator, *range(1, 11)), _pick(generator, 3, 4, 5)
    down: list[list[Sizes]] = []
    up: list[list[Sizes]] = []
    for level in range(levels):
        hidden, below = width * 2**level, width * 2 ** max(level - 1, 0)
        # Attention is affordable only where the picture is small.
        mixer = [("Attention", 4 * hidden**2)] if level >= levels - 2 else []
        down.append([("Conv", 9 * below * hidden), ("Conv", 9 * hidden**2), *mixer])
        # The way up reads the level below and the shortcut.
        up.insert(0, [("Conv", 18 * hidden**2), ("Conv", 9 * hidden * below), *mixer])
    time = ("Linear", 4 * width**2)
    return plan_layers(
        [("Conv", 27 * width), time, time], [*down, *up], [("LayerNorm", 2 * width), ("Conv", 27 * width)]
    )


def plan_cnn(channels: Sequence[int], blocks: int, classes: int) -> Plan:
    """Plan the published CNN: stages of blocks of two 3×3 convolutions.

    The published draws prove only that the classifier is late; early and late stages are
    flagged as blocks of transformers are.
    """
    stages = [[("Conv", 9 * width**2)] * (2 * blocks) for width in channels]
    last = [("Linear", channels[-1] * classes), ("Classifier", classes)]
    return plan_layers([("Conv", channels[0] * 3 * 49)], stages, last)


def _published_transformer(generator: Generator) -> Plan:
    return plan_transformer(int(generator.integers(6, 49)), 4096, 11008, 32000)


def _published_cnn(generator: Generator) -> Plan:
    return plan_cnn((64, 128, 256, 512), _pick(generator, 1, 2, 3, 4), 1000)


PUBLISHED_FAMILIES = ("transformer", "cnn")
#: A plan of layers by family; the first two have the widths of the published models.
PLANS: Mapping[str, Callable[[Generator], Plan]] = {
    "transformer": _published_transformer,
    "cnn": _published_cnn,
    "decoder": _decoder,
    "encoder": _encoder,
    "resnet": _resnet,
    "vit": _vit,
    "grouped-query": _grouped_query,
    "mixture-of-experts": _mixture_of_experts,
    "mobilenet": _mobilenet,
    "convnext": _convnext,
    "unet": _unet,
}
