"""Synthetic models: architecture families turned into profiles by seeded draws.

A family plans its layers (type, number of weights, early or late in the model); the
draws are the same for all of them and are those of the published problem. Shapes are
written with L, the number of layers, and K, the number of formats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, SeedSequence, default_rng

from evolve.errors import ProfileError
from evolve.formats import PrecisionFormat, get_formats
from evolve.profiles import LAYER_TYPES, FloatArray, ModelProfile

Formats = Sequence[PrecisionFormat]
PUBLISHED_FORMATS = get_formats(("INT2", "INT4", "INT8", "FP16", "FP32"))
_PUBLISHED_BITS = np.array([2.0, 4.0, 8.0, 16.0])


class LayerKind(NamedTuple):
    """What the draws of one layer type are made from; the pairs bound uniform draws.

    Attributes:
        base: Sensitivity in INT2, INT4, INT8 and FP16 before the gradient scales it;
            in FP32, and with as many bits as that, it is 0.
        gradient: Gradient sensitivity away from the ends of the model.
        mean: Mean of the weights.
        std: Standard deviation of the weights.
        extent: Extent of the weights.
        activation: Extent of the activations.
    """

    base: tuple[float, float, float, float]
    gradient: tuple[float, float]
    mean: float = 0.0
    std: tuple[float, float] = (0.02, 0.03)
    extent: tuple[float, float] = (0.10, 0.15)
    activation: tuple[float, float] = (2.0, 5.0)


KINDS: Mapping[str, LayerKind] = {
    "Embedding": LayerKind((0.40, 0.15, 0.03, 0.001), (0.60, 0.80), 0.0, (0.02, 0.02), (0.10, 0.10)),
    "Conv": LayerKind((0.18, 0.05, 0.008, 0.0001), (0.20, 0.45)),
    "Linear": LayerKind((0.20, 0.06, 0.01, 0.0002), (0.20, 0.50)),
    "Attention": LayerKind((0.25, 0.08, 0.015, 0.0005), (0.40, 0.70)),
    "LayerNorm": LayerKind(
        (0.50, 0.20, 0.05, 0.001), (0.80, 0.95), 1.0, (0.01, 0.01), (0.05, 0.05), (1.0, 1.5)
    ),
    "Classifier": LayerKind(
        (0.35, 0.12, 0.02, 0.001), (0.70, 0.90), 0.0, (0.01, 0.01), (0.05, 0.05), (10.0, 15.0)
    ),
}
# The gradient is larger near the ends of a model, and never quite 1.
EARLY_FACTOR, LATE_FACTOR, MOST_GRADIENT = 1.2, 1.15, 0.99
# A value of a curve is its base times 0.5 + 0.5 · gradient, give or take a tenth of the base.
CURVE_NOISE, MOST_SENSITIVITY = 0.1, 0.99


class PlannedLayer(NamedTuple):
    """A layer before its draws: early and late layers have larger gradients."""

    layer_type: str
    num_params: int
    early: bool = False
    late: bool = False


Plan = list[PlannedLayer]
Sizes = tuple[str, int]  # a layer type and a number of weights


def draw_profile(
    generator: Generator, plan: Sequence[PlannedLayer], name: str, formats: Formats = PUBLISHED_FORMATS
) -> ModelProfile:
    """Draw the signals and curves of a planned model.

    Args:
        generator: The only source of randomness.
        plan: The model's L layers in order.
        name: What to call the profile.
        formats: K formats by non-decreasing bits; see ``base_curves`` for unpublished ones.

    Raises:
        ProfileError: The plan has no layers or a size that is not positive.
    """
    kinds = [KINDS[layer.layer_type] for layer in plan]
    factor = [EARLY_FACTOR if each.early else LATE_FACTOR if each.late else 1.0 for each in plan]
    gradient = np.minimum(_uniform(generator, [kind.gradient for kind in kinds]) * factor, MOST_GRADIENT)
    std = _uniform(generator, [kind.std for kind in kinds])
    extent = _uniform(generator, [kind.extent for kind in kinds])
    activation = _uniform(generator, [kind.activation for kind in kinds])
    base = base_curves(formats)[[LAYER_TYPES.index(layer.layer_type) for layer in plan]]
    # Drawn last, so that the other signals do not depend on the formats.
    noise = generator.uniform(-CURVE_NOISE, CURVE_NOISE, base.shape)
    curves = np.clip(base * (0.5 + 0.5 * gradient[:, None] + noise), 0.0, MOST_SENSITIVITY)
    num_params = np.array([layer.num_params for layer in plan], dtype=np.int64)
    return ModelProfile(
        name=name,
        formats=tuple(formats),
        layer_type=tuple(layer.layer_type for layer in plan),
        layer_index=np.arange(len(plan)),
        num_params=num_params,
        weight_mean=np.array([kind.mean for kind in kinds]),
        weight_std=std,
        weight_range=extent,
        activation_range=activation,
        gradient_sensitivity=gradient,
        sensitivity=np.minimum.accumulate(curves, axis=1),
        description=f"{len(plan)} layers, {num_params.sum():,} weights",
        source="synthetic",
    )


def base_curves(formats: Formats) -> FloatArray:
    """Return the base sensitivity of each layer type in each format, (6, K).

    Between the published numbers of bits the logarithm of the base is linear in the
    bits, and outside it goes on with the nearest slope; from 32 bits on the base is 0.
    """
    bits = np.array([each.bits for each in formats], dtype=np.float64)
    bases = np.array([KINDS[name].base for name in LAYER_TYPES])
    slopes = np.diff(np.log(bases), axis=1) / np.diff(_PUBLISHED_BITS)
    slopes = np.hstack([slopes, slopes[:, -1:]])
    # Counted from the published format below, so that the published bases come out exactly.
    below = np.maximum(np.searchsorted(_PUBLISHED_BITS, bits, side="right") - 1, 0)
    curves = bases[:, below] * np.exp(slopes[:, below] * (bits - _PUBLISHED_BITS[below]))
    return np.where(bits >= 32, 0.0, curves)


def _uniform(generator: Generator, bounds: Sequence[tuple[float, float]]) -> FloatArray:
    low, high = np.array(bounds, dtype=np.float64).reshape(-1, 2).T
    return generator.uniform(low, high)


def transformer(
    generator: Generator,
    blocks: int = 32,
    *,
    name: str = "transformer",
    hidden: int = 4096,
    feed_forward: int = 11008,
    vocabulary: int = 32000,
    formats: Formats = PUBLISHED_FORMATS,
) -> ModelProfile:
    """Draw a transformer like the published ones of 32 and 24 blocks: L = 4 · blocks + 3.

    Raises:
        ProfileError: A size is not positive.
    """
    plan = _transformer(blocks, hidden, feed_forward, vocabulary)
    return draw_profile(generator, plan, name, formats)


def cnn(
    generator: Generator,
    channels: Sequence[int] = (64, 128, 256, 512),
    *,
    blocks: int = 3,
    classes: int = 1000,
    name: str = "cnn",
    formats: Formats = PUBLISHED_FORMATS,
) -> ModelProfile:
    """Draw a network like the published CNN: L = 2 · blocks · stages + 3.

    Each stage has blocks of two 3×3 convolutions. The published draws prove only that
    the classifier is late; early and late stages are flagged as blocks of transformers are.

    Raises:
        ProfileError: A size is not positive.
    """
    stages = [[("Conv", 9 * width**2)] * (2 * blocks) for width in channels]
    last = [("Linear", channels[-1] * classes), ("Classifier", classes)]
    return draw_profile(generator, _plan([("Conv", channels[0] * 3 * 49)], stages, last), name, formats)


def _plan(first: Sequence[Sizes], blocks: Sequence[Sequence[Sizes]], last: Sequence[Sizes]) -> Plan:
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


def _transformer(blocks: int, hidden: int, feed_forward: int, vocabulary: int) -> Plan:
    words = vocabulary * hidden
    last = [("LayerNorm", 2 * hidden), ("Classifier", words)]
    return _plan([("Embedding", words)], [_block(hidden, feed_forward)] * blocks, last)


def _decoder(generator: Generator) -> Plan:
    hidden = _pick(generator, 512, 768, 1024, 1600, 2048, 2560, 4096, 5120, 8192)
    vocabulary = _pick(generator, 10000, 32000, 50257, 100352, 151936, 256000)
    return _transformer(
        _pick(generator, *range(6, 97)), hidden, _pick(generator, 2, 3, 4) * hidden, vocabulary
    )


def _encoder(generator: Generator) -> Plan:
    hidden = 64 * _pick(generator, *range(4, 33))
    vocabulary = _pick(generator, 21128, 30522, 50265, 128100, 250002)
    first = [("Embedding", vocabulary * hidden), ("Embedding", 512 * hidden), ("LayerNorm", 2 * hidden)]
    last = [("Linear", hidden**2), ("Classifier", hidden * _pick(generator, 2, 5, 20, 150))]
    return _plan(first, [_block(hidden, 4 * hidden)] * _pick(generator, *range(6, 97)), last)


def _grouped_query(generator: Generator) -> Plan:
    hidden = 256 * _pick(generator, *range(4, 33))
    words = hidden * _pick(generator, 32000, 49152, 128256, 151936)
    # Query and output, then the keys and values that 4 or 8 heads share; gate and up, then down.
    norm, wide = ("LayerNorm", hidden), hidden * 256 * round(hidden / 256 * generator.uniform(2.5, 4))
    shared = ("Attention", 2 * hidden**2 // _pick(generator, 4, 8))
    block = [("Attention", 2 * hidden**2), shared, norm, ("Linear", 2 * wide), ("Linear", wide), norm]
    blocks = _pick(generator, *range(6, 81))
    return _plan([("Embedding", words)], [block] * blocks, [norm, ("Classifier", words)])


def _mixture_of_experts(generator: Generator) -> Plan:
    hidden = 512 * _pick(generator, *range(2, 13))
    words = hidden * _pick(generator, 32000, 50304, 102400, 151936)
    experts = _pick(generator, 4, 8, 16, 64)
    norm, router = ("LayerNorm", hidden), ("Linear", hidden * experts)
    # Many experts are small ones.
    expert = 3 * hidden * (hidden * 3 if experts <= 8 else hidden // 2)
    block = [("Attention", 4 * hidden**2), norm, router, ("Linear", experts * expert), norm]
    blocks = _pick(generator, *range(8, 49))
    return _plan([("Embedding", words)], [block] * blocks, [norm, ("Classifier", words)])


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
    return _plan([("Conv", 147 * width)], blocks, [("Classifier", before * _pick(generator, 10, 100, 1000))])


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
    return _plan([("Conv", 27 * channels[0])], blocks, last)


def _vit(generator: Generator) -> Plan:
    hidden, side = 64 * _pick(generator, *range(3, 23)), _pick(generator, 8, 14, 16, 32)
    first = [("Conv", 3 * side**2 * hidden), ("Embedding", ((224 // side) ** 2 + 1) * hidden)]
    last = [("LayerNorm", 2 * hidden), ("Classifier", hidden * _pick(generator, 10, 100, 1000, 21843))]
    return _plan(first, [_block(hidden, 4 * hidden)] * _pick(generator, *range(6, 49)), last)


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
    return _plan([("Conv", 48 * width), ("LayerNorm", 2 * width)], blocks, last)


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
    return _plan(
        [("Conv", 27 * width), time, time], [*down, *up], [("LayerNorm", 2 * width), ("Conv", 27 * width)]
    )


_PLANS: Mapping[str, Callable[[Generator], Plan]] = {
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


def draw_model(
    family: str, generator: Generator, name: str, formats: Formats = PUBLISHED_FORMATS
) -> ModelProfile:
    """Draw a model of a family, its sizes too.

    Raises:
        ProfileError: There is no such family.
    """
    if family not in _PLANS:
        raise ProfileError(
            "unknown family", field="family", expected=f"one of {', '.join(_PLANS)}", found=family
        )
    return draw_profile(generator, _PLANS[family](generator), name, formats)


FAMILIES: Mapping[str, Callable[[Generator, str], ModelProfile]] = {
    family: partial(draw_model, family) for family in _PLANS
}


def generate(
    count: int,
    seed: int,
    families: Sequence[str] | None = None,
    formats: Formats = PUBLISHED_FORMATS,
    start: int = 0,
) -> tuple[ModelProfile, ...]:
    """Generate models of the families in turn; model i depends on the seed and i, never on count.

    Args:
        count: How many models.
        seed: A whole number, at least 0.
        families: Names in ``FAMILIES``; all of them by default.
        formats: K formats by non-decreasing bits.
        start: The first i.

    Raises:
        ProfileError: A family is unknown, or there is none.
    """
    chosen = tuple(FAMILIES) if families is None else tuple(families)
    if not chosen:
        raise ProfileError("no family", field="families", expected=f"some of {', '.join(FAMILIES)}")
    models = []
    for i in range(start, start + count):
        family = chosen[i % len(chosen)]
        # What SeedSequence(seed).spawn gives as its child i.
        generator = default_rng(SeedSequence(seed, spawn_key=(i,)))
        models.append(draw_model(family, generator, f"{family}-{i:04d}", formats))
    return tuple(models)
